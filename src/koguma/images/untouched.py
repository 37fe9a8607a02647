"""Gives a commit what nobody touched since it was laid out as it was there, with what a layer cannot say of it.

A layer has times of all files where a tree may have none, or the other way round; it hides ACLs of the tree below, and
a character device 0:0 is the mark of a removed name in it.
"""

from __future__ import annotations

import os
import stat

from koguma.images.draft import Folder
from koguma.images.inodes import entry_of
from koguma.images.trees import CHARACTER, DIRECTORY, NORMAL_MTIME_NS, Entry, Read, decode, room_for_depth


@room_for_depth()
def restore_untouched(read: Read, upper: bytes, draft: Folder, tree: Entry) -> None:
    """Change the draft, to which the upper layer was applied, where that is as it was laid out from `tree`."""
    entry = _restored(upper, os.lstat(upper), draft.entry, tree)
    if entry is not None:
        draft.entry = entry._replace(digest=draft.entry.digest)
    _restore_below(read, upper, draft, tree)


def _restore_below(read: Read, path: bytes, folder: Folder, tree: Entry) -> None:
    there = {entry.name: entry for entry in decode(read(tree.digest))}
    with os.scandir(path) as entries:
        found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries if entry.name in there]
    for name, status in found:
        laid_out, place = there[name], path + b"/" + name
        entry = _restored(place, status, folder.get(name), laid_out)
        below = folder.folder(name)
        if below is None:
            if entry is not None:
                folder.put(entry)
        elif laid_out.kind == DIRECTORY:
            _restore_below(read, place, below, laid_out)
            below.entry = entry._replace(digest=below.entry.digest) if entry else below.entry


def _restored(path: bytes, status: os.stat_result, applied: Entry | None, laid_out: Entry) -> Entry | None:
    """What was laid out at a path, with the link id it has now; None when it is something else by now."""
    mtime_ns = NORMAL_MTIME_NS if laid_out.mtime_ns is None else laid_out.mtime_ns
    if status.st_mtime_ns != mtime_ns or stat.S_IFMT(status.st_mode) == stat.S_IFSOCK:
        return None
    now = entry_of(path, laid_out.name, status, laid_out.mtime_ns)
    digest, link = (applied.digest, applied.link) if applied else (b"", b"")
    if now.kind == DIRECTORY:
        digest = laid_out.digest
    elif (now.kind == CHARACTER and now.device == (0, 0)) != (applied is None):
        return None
    same = now._replace(digest=digest) == laid_out._replace(link=b"")
    return laid_out._replace(link=link) if same else None
