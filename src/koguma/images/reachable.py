"""What commits reach: their trees, the trees' files, their ancestors. For gc, fsck and du.

Owns the walk over objects by what they refer to, never by the kind they were stored as.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from koguma.images.commits import decode_commit
from koguma.images.errors import CorruptError, ObjectMissingError
from koguma.images.objects import BLOB, COMMIT, STREAM_MIN_BYTES, TREE, ObjectStore
from koguma.images.trees import DIRECTORY, FILE, TREE_MAGIC, decode, read_root

_COMMIT_START = b'{"author"'

Missing = Callable[[bytes, Exception], None]
"""Told an object that is needed and cannot be read, and why."""


@dataclass(slots=True)
class Reached:
    """What was found so far; a walk goes on from it.

    An object may be needed as a file here and as a tree there: a file may hold the very bytes of a tree. So that an
    object is needed does not say that all below it is.
    """

    ids: set[bytes] = field(default_factory=set)
    """All that is needed."""
    walked: set[bytes] = field(default_factory=set)
    """The commits, root objects and trees among them: what they refer to is in `ids`, too."""
    files: set[tuple[bytes, int]] = field(default_factory=set)
    """The contents of files among them, with the bytes a tree says each has."""


def mark(
    store: ObjectStore,
    commits: Iterable[bytes],
    reached: Reached,
    *,
    shallow: frozenset[bytes] = frozenset(),
    missing: Missing,
) -> None:
    """Add all that these commits reach and is not there yet. Parents of `shallow` commits are not followed."""
    waiting = [commit for commit in commits if commit not in reached.walked]
    while waiting:
        commit_id = waiting.pop()
        if commit_id in reached.walked:
            continue
        reached.ids.add(commit_id)
        try:
            commit = decode_commit(store.read_part(commit_id, COMMIT), commit_id.hex())
        except (CorruptError, ObjectMissingError) as error:
            missing(commit_id, error)
            continue
        reached.walked.add(commit_id)
        mark_root(store, bytes.fromhex(commit.tree), reached, missing)
        if commit_id not in shallow:
            waiting += [bytes.fromhex(parent) for parent in commit.parents]


def mark_any(
    store: ObjectStore,
    object_id: bytes,
    reached: Reached,
    shallow: frozenset[bytes],
    *,
    missing: Missing,
    looked_into_bytes: int = STREAM_MIN_BYTES,
) -> None:
    """Add an object of whatever kind and all it reaches; an id of nothing adds nothing.

    A commit or tree may be stored as a file: the first to store an object says its kind. So contents of at most
    `looked_into_bytes` are looked into, whatever they were stored as. `missing` is told of one that cannot be read.
    """
    if object_id in reached.walked:
        return
    try:
        found = store.describe(object_id)
    except ObjectMissingError:
        return
    reached.ids.add(object_id)
    if found.kind == BLOB and found.size > looked_into_bytes:
        return
    try:
        content = store.read_part(object_id, found.kind)
    except (CorruptError, ObjectMissingError) as error:
        if found.kind != BLOB:
            missing(object_id, error)
        return
    if content.startswith(TREE_MAGIC):
        mark_tree(store, object_id, reached, missing)  # a root object is a tree of one directory
    elif found.kind == COMMIT or content.startswith(_COMMIT_START):
        mark(store, [object_id], reached, shallow=shallow, missing=missing)


def not_whole(store: ObjectStore, ids: Iterable[bytes], shallow: frozenset[bytes]) -> set[bytes]:
    """Of these objects the trees and commits that refer to something that is not stored, or to one of their like."""
    referred = {item: below for item in ids if (below := _referred(store, item, shallow))}
    found: set[bytes] = set()
    while more := {
        item
        for item, below in referred.items()
        if item not in found and any(each in found or not store.contains(each) for each in below)
    }:
        found |= more
    return found


def _referred(store: ObjectStore, object_id: bytes, shallow: frozenset[bytes]) -> list[bytes]:
    """What an object that was stored as a tree or a commit refers to; nothing when it cannot be read."""
    try:
        kind = store.describe(object_id).kind
        if kind == TREE:
            entries = decode(store.read_part(object_id))
            return [item.digest for item in entries if item.kind == DIRECTORY or (item.kind == FILE and item.size)]
        if kind == COMMIT:
            commit = decode_commit(store.read_part(object_id, COMMIT), object_id.hex())
            parents = commit.parents if object_id not in shallow else ()
            return [bytes.fromhex(item) for item in (commit.tree, *parents)]
    except (CorruptError, ObjectMissingError):
        pass
    return []


def ignore(_object_id: bytes, _error: Exception) -> None:
    """For walks from names that may lead nowhere."""


def mark_root(store: ObjectStore, root_id: bytes, reached: Reached, missing: Missing) -> None:
    """Add a root object and all below it."""
    if root_id in reached.walked:
        return
    reached.ids.add(root_id)
    try:
        root = read_root(store.read_part, root_id)
    except (CorruptError, ObjectMissingError) as error:
        missing(root_id, error)
        return
    reached.walked.add(root_id)
    mark_tree(store, root.digest, reached, missing)


def mark_tree(store: ObjectStore, tree_id: bytes, reached: Reached, missing: Missing) -> None:
    """Add a directory's tree and all below it."""
    waiting = [tree_id]
    while waiting:
        tree = waiting.pop()
        if tree in reached.walked:
            continue
        reached.ids.add(tree)
        try:
            entries = decode(store.read_part(tree))
        except (CorruptError, ObjectMissingError) as error:
            missing(tree, error)
            continue
        reached.walked.add(tree)
        for entry in entries:
            if entry.kind == DIRECTORY:
                waiting.append(entry.digest)
            elif entry.kind == FILE and entry.size:
                reached.ids.add(entry.digest)
                reached.files.add((entry.digest, entry.size))
