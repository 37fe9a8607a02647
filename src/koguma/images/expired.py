"""expired.json: which artifacts lost their label, and which commits lost theirs for want of space. FORMAT.md draws it;
what belongs in it `labels` decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from koguma.images.commits import is_id
from koguma.images.files import write_atomically


class Expired(NamedTuple):
    since: int
    """When it was first seen without a label, in seconds since 1970."""
    evicted_at_mib: int | None = None
    """The budget it went for; None: it did not go for want of space."""


def read_expired(repository: Path) -> dict[str, Expired]:
    """What is noted, by commit. A file that is damaged notes nothing: what it told begins anew."""
    try:
        document = json.loads(_path(repository).read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    if not isinstance(document, dict) or not all(is_id(key) and _is_whole(item) for key, item in document.items()):
        return {}
    return {commit: _decoded(item) for commit, item in document.items()}


def write_expired(repository: Path, expired: Mapping[str, Expired]) -> None:
    document = {commit: _encoded(item) for commit, item in expired.items()}
    write_atomically(_path(repository), json.dumps(document, indent=1).encode() + b"\n")


def _path(repository: Path) -> Path:
    return repository / "boot" / "expired.json"


def _encoded(item: Expired) -> dict[str, Any]:
    if item.evicted_at_mib is None:
        return {"since": item.since, "evicted": False}
    return {"since": item.since, "evicted": True, "budget_mib": item.evicted_at_mib}


def _decoded(item: dict[str, Any]) -> Expired:
    # Notes made before there was a budget in them: any budget may be a larger one.
    return Expired(item["since"], item.get("budget_mib", 0) if item["evicted"] else None)


def _is_whole(item: object) -> bool:
    return (
        isinstance(item, dict)
        and type(item.get("since")) is int
        and type(item.get("evicted")) is bool
        and type(item.get("budget_mib", 0)) is int
    )
