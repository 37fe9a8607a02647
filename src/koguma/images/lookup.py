"""`REVISION:PATH`: a file or directory of a commit, found as a program in that root would find it."""

from __future__ import annotations

import os
from difflib import get_close_matches

from koguma.images.commits import Commit
from koguma.images.errors import RevisionError
from koguma.images.repository import Repository
from koguma.images.trees import DIRECTORY, FILE, KIND_NAMES, SYMLINK, Entry, Read, decode, lookup, resolve


def find_path(repository: Repository, commit: Commit, path: str) -> tuple[bytes, Entry]:
    """Path and entry of a file or directory, links followed within the tree. Raises RevisionError."""
    read, root = repository.objects.read, repository.root(commit)
    wanted = os.fsencode(path)
    found = resolve(read, root, wanted)
    if found is None:
        raise RevisionError(f"there is no /{path.strip('/')} in {commit.short_id}{_hint(read, root, wanted)}")
    if found[1].kind not in (FILE, DIRECTORY):
        raise RevisionError(
            f"a file or a directory can be shown, /{path.strip('/')} is a {KIND_NAMES[found[1].kind]}"
            f" (commit {commit.short_id})"
        )
    return found


def list_directory(read: Read, entry: Entry) -> list[Entry]:
    """The entries of a directory, in order of their names."""
    return decode(read(entry.digest))


def _hint(read: Read, root: Entry, wanted: bytes) -> str:
    """What may have been meant: a link that leads nowhere, or a name like it in the same directory."""
    there = lookup(read, root, wanted)
    if there is not None and there.kind == SYMLINK:
        return f"; it is a link to {os.fsdecode(there.target)!r}, which is not there"
    folder, _, name = wanted.strip(b"/").rpartition(b"/")
    above = resolve(read, root, folder)
    if above is None or above[1].kind != DIRECTORY:
        return ""
    names = [os.fsdecode(entry.name) for entry in decode(read(above[1].digest))]
    near = get_close_matches(os.fsdecode(name), names, 1)
    return f"; did you mean {os.fsdecode(folder + b'/' if folder else b'')}{near[0]}?" if near else ""
