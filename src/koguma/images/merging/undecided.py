"""Takes out of a merged tree what its sides disagreed on, so that it can be the base of another merge.

With neither side's version in the base, a later merge asks again instead of taking one of them for the common past.
"""

from __future__ import annotations

from koguma.images.draft import Folder
from koguma.images.merging.conflicts import Conflict, Problem
from koguma.images.trees import DIRECTORY

_OF_ATTRIBUTES = (Problem.MODE, Problem.OWNER, Problem.XATTRS)
_NOBODYS_MODE = 0o7000
_NOBODYS_ID = 2**32 - 2


def withhold(draft: Folder, conflict: Conflict) -> None:
    """Remove the path of a conflict; a directory that both sides have gets attributes that nobody gave it instead."""
    folder: Folder | None = draft
    *above, name = conflict.path.split(b"/")
    for part in above:
        folder = folder.folder(part) if folder is not None else None
    if folder is None:
        return
    there = folder.get(name) if name else folder.entry
    if there is not None and there.kind == DIRECTORY and conflict.problem in _OF_ATTRIBUTES:
        directory = folder.folder(name) if name else folder
        if directory is not None:
            directory.entry = directory.entry._replace(mode=_NOBODYS_MODE, uid=_NOBODYS_ID, gid=_NOBODYS_ID, xattrs=())
    elif name:
        folder.remove(name)
