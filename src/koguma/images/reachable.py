"""What commits reach: their trees, the trees' files, their ancestors. For gc, fsck and du.

Owns the walk over objects by what they refer to, never by the kind they were stored as.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from koguma.images.commits import decode_commit
from koguma.images.errors import CorruptError, ObjectMissingError
from koguma.images.objects import COMMIT, TREE, ObjectStore
from koguma.images.trees import DIRECTORY, FILE, decode, read_root

Missing = Callable[[bytes, Exception], None]
"""Told an object that is needed and cannot be read, and why."""


def mark(
    store: ObjectStore,
    commits: Iterable[bytes],
    seen: set[bytes],
    *,
    shallow: frozenset[bytes] = frozenset(),
    missing: Missing,
) -> None:
    """Add to `seen` all that these commits reach and is not in it yet. Parents of `shallow` commits may be absent."""
    waiting = [commit for commit in commits if commit not in seen]
    while waiting:
        commit_id = waiting.pop()
        if commit_id in seen:
            continue
        seen.add(commit_id)
        try:
            commit = decode_commit(store.read(commit_id), commit_id.hex())
        except (CorruptError, ObjectMissingError) as error:
            missing(commit_id, error)
            continue
        mark_root(store, bytes.fromhex(commit.tree), seen, missing)
        parents = [bytes.fromhex(parent) for parent in commit.parents]
        waiting += parents if commit_id not in shallow else [parent for parent in parents if store.readable(parent)]


def mark_any(store: ObjectStore, object_id: bytes, seen: set[bytes], shallow: frozenset[bytes]) -> None:
    """Add an object of whatever kind and all it reaches, as far as it is there; an id of nothing adds nothing."""
    if object_id in seen or not store.readable(object_id):
        return
    found = store.describe(object_id)
    if found.kind == COMMIT:
        mark(store, [object_id], seen, shallow=shallow, missing=ignore)
    elif found.kind == TREE:
        mark_tree(store, object_id, seen, ignore)  # a root object is a tree of one directory
    else:
        seen.add(object_id)


def ignore(_object_id: bytes, _error: Exception) -> None:
    """For walks from names that may lead nowhere."""


def mark_root(store: ObjectStore, root_id: bytes, seen: set[bytes], missing: Missing) -> None:
    """Add a root object and all below it."""
    if root_id in seen:
        return
    seen.add(root_id)
    try:
        root = read_root(store.read, root_id)
    except (CorruptError, ObjectMissingError) as error:
        missing(root_id, error)
    else:
        mark_tree(store, root.digest, seen, missing)


def mark_tree(store: ObjectStore, tree_id: bytes, seen: set[bytes], missing: Missing) -> None:
    """Add a directory's tree and all below it."""
    waiting = [tree_id]
    while waiting:
        tree = waiting.pop()
        if tree in seen:
            continue
        seen.add(tree)
        try:
            entries = decode(store.read(tree))
        except (CorruptError, ObjectMissingError) as error:
            missing(tree, error)
            continue
        for entry in entries:
            if entry.kind == DIRECTORY:
                waiting.append(entry.digest)
            elif entry.kind == FILE and entry.size:
                seen.add(entry.digest)
