"""What happens to systemd's units from one tree to another, by the files and links in its directories."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from koguma.images.diff import FileChange
from koguma.images.trees import SYMLINK, Entry

_FOLDERS = (
    b"etc/systemd/system/",
    b"usr/lib/systemd/system/",
    b"lib/systemd/system/",
    b"usr/local/lib/systemd/system/",
)
_KINDS = (b".service", b".timer", b".socket", b".mount", b".path", b".target", b".automount", b".swap")


class UnitChange(NamedTuple):
    """What happens to one systemd unit: added, removed, changed, enabled, disabled, masked or unmasked."""

    unit: str
    change: str


def unit_changes(files: Iterable[FileChange]) -> tuple[UnitChange, ...]:
    """Changes of systemd's units, of their overrides (`x.service.d/*.conf`) and of what boots start (`*.wants`)."""
    found: dict[tuple[str, str], UnitChange] = {}
    for item in files:
        told = unit_change(item)
        if told:
            found.setdefault((told.unit, told.change), told)
    # A unit that is gone is not also disabled, and a new one that starts is told as both.
    removed = {unit for unit, change in found if change == "removed"}
    kept = [told for told in found.values() if not (told.unit in removed and told.change == "disabled")]
    return tuple(sorted(kept, key=lambda told: (told.unit, told.change)))


def unit_change(item: FileChange) -> UnitChange | None:
    """What a change means for a unit; None if nothing."""
    if not item.path.startswith(_FOLDERS) or item.kind == "directory":
        return None
    folder = next(each for each in _FOLDERS if item.path.startswith(each))
    parent, _, name = item.path.removeprefix(folder).rpartition(b"/")
    if parent.endswith(b".d"):
        return UnitChange(_text(parent[:-2]), "changed")
    if not name.endswith(_KINDS):
        return None
    if parent.endswith((b".wants", b".requires", b".upholds")):
        started = {"added": "enabled", "removed": "disabled"}
        return UnitChange(_text(name), started[item.change]) if item.change in started else None
    return None if parent else UnitChange(_text(name), _change_of_itself(item))


def _change_of_itself(item: FileChange) -> str:
    """What a unit's own file or link says: a link to /dev/null masks it, another one in /etc is an alias."""
    if _is_mask(item.old) != _is_mask(item.new):
        return "masked" if _is_mask(item.new) else "unmasked"
    if item.path.startswith(b"etc/") and _is_alias(item):
        return {"added": "enabled", "removed": "disabled"}.get(item.change, item.change)
    return item.change


def _is_mask(entry: Entry | None) -> bool:
    return entry is not None and entry.kind == SYMLINK and entry.target == b"/dev/null"


def _is_alias(item: FileChange) -> bool:
    """Whether this is a link in /etc to a unit elsewhere: `systemctl enable` makes those for aliases."""
    return all(entry is None or entry.kind == SYMLINK for entry in (item.old, item.new))


def _text(name: bytes) -> str:
    return name.decode("utf-8", errors="backslashreplace")
