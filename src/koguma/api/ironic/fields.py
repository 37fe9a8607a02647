"""Fields: under which name, since which microversion and in which form a column is shown and taken."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from koguma.api.ironic.checks import Check
from koguma.api.ironic.http import Request, bad, not_acceptable


@dataclass(frozen=True)
class Field:
    """`check` is None for what only Koguma changes. `column` is the ORM's path of the value; a field without one is
    made by its resource.
    """

    name: str
    check: Check | None = None
    column: str | None = ""
    since: int = 1
    creates: bool = True
    patches: bool = True
    sorts: bool = True
    shown: Callable[[Any], Any] | None = None

    @property
    def path(self) -> str | None:
        return self.name if self.column == "" else self.column


def plain(value: Any) -> Any:
    """A column's value as JSON has it."""
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


class Selection:
    """Which fields of a resource one request gets to see."""

    def __init__(self, fields: Mapping[str, Field], request: Request, chosen: Collection[str] | None) -> None:
        """Raises Refused for a field that does not exist, or not in this microversion."""
        visible = [field for field in fields.values() if request.minor >= field.since]
        if chosen is not None:
            for name in chosen:
                if name not in fields and name != "links":
                    bad(f'Field(s) "{name}" are not valid')
                if name in fields and request.minor < fields[name].since:
                    not_acceptable()
            visible = [field for field in visible if field.name in chosen]
        self.names = [field.name for field in visible]
        self._plan = [(field.name, field.path, field.shown or plain) for field in visible if field.path is not None]

    def columns(self) -> list[str]:
        return [path for _, path, _ in self._plan if path is not None]

    def document(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {name: shown(row[path]) for name, path, shown in self._plan if path is not None}

    def __contains__(self, name: str) -> bool:
        return name in self.names


def by_name(fields: Sequence[Field]) -> dict[str, Field]:
    return {field.name: field for field in fields}


def chosen_fields(
    request: Request, brief: Collection[str] | None, *, detail: bool = False, detail_since: int = 43
) -> Collection[str] | None:
    """The fields the request asks for; `brief` when it says nothing; None for all."""
    text = request.query.get("fields")
    wants_detail = detail or bool(request.flag("detail"))
    if "detail" in request.query and request.minor < detail_since:
        bad(f"detail needs API version 1.{detail_since} or newer")
    if text is None:
        return None if wants_detail else brief
    if request.minor < 8:
        not_acceptable()
    if wants_detail:
        bad("Can't fetch a subset of fields with 'detail' set")
    return [name.strip() for name in text.split(",") if name.strip()]
