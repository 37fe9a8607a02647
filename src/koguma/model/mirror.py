"""The mirror below a node's root, as the node counts its disks."""

from __future__ import annotations

from koguma.model.errors import InvalidValue
from koguma.model.names import shown

DISKS_MAX = 64


def mirror(document: object) -> dict[str, int]:
    """`disks` that it is made for, and how many are `working`. Raises InvalidValue."""
    match document:
        case {"disks": int(disks), "working": int(working)} if type(disks) is type(working) is int:
            if 0 <= working <= disks <= DISKS_MAX:
                return {"disks": disks, "working": working}
    raise InvalidValue(f"mirror must have disks, at most {DISKS_MAX}, and how many are working, got {shown(document)}")
