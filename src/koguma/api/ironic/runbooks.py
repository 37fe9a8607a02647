"""Runbooks: which traits a runbook is for; everything else of them is plain."""

from __future__ import annotations

from koguma.api.ironic import checks
from koguma.api.ironic.http import NO_CONTENT, Request, Response
from koguma.api.ironic.plain import RUNBOOKS
from koguma.db.models import RunbookRow


def show_traits(request: Request, reference: str) -> Response:
    request.at_least(112)
    return Response(document={"traits": _row(reference).traits})


def put_traits(request: Request, reference: str) -> Response:
    request.at_least(112)
    traits = checks.traits("traits", request.document().get("traits"))
    return _store(_row(reference), list(dict.fromkeys(traits)))


def put_trait(request: Request, reference: str, trait: str) -> Response:
    request.at_least(112)
    row = _row(reference)
    return _store(row, list(dict.fromkeys([*row.traits, checks.trait("trait", trait)])))


def delete_traits(request: Request, reference: str) -> Response:
    request.at_least(112)
    return _store(_row(reference), [])


def delete_trait(request: Request, reference: str, trait: str) -> Response:
    """Harmless when the runbook does not have it."""
    request.at_least(112)
    row = _row(reference)
    return _store(row, [item for item in row.traits if item != trait])


def _row(reference: str) -> RunbookRow:
    return RunbookRow.objects.get(pk=RUNBOOKS.find(reference)["id"])


def _store(row: RunbookRow, traits: list[str]) -> Response:
    row.traits = traits
    row.save(update_fields=["traits"])
    return NO_CONTENT
