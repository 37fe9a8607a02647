"""Finds what is missing: from commits that are wanted to the objects that a destination does not have.

Pure but for the lookups it is given, so that fetching, pushing and the check before a ref moves are one algorithm:

1. Commits are read from the wanted tips back to commits that are **complete**: all they refer to is known to be there,
   because a ref led to them before.
2. The tree of every new commit is compared with that of a base: its parent's. What both have at the same place is
   complete and skipped with all that is below; so the cost follows the change, not the image's size.
3. Whatever else is reached is asked for one by one. That an object is there says nothing of what it refers to: a
   transfer that was cut short leaves such objects.

Objects are brought in layers, all directories of one depth at once, because the other side may be far away; of what is
there then, one at a time is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from koguma.images.commits import Commit, decode_commit
from koguma.images.errors import CorruptError, ImageError
from koguma.images.objects import COMMIT, TREE
from koguma.images.transfer.errors import HostileRemoteError
from koguma.images.transfer.limits import COMMITS_MAX, ENTRIES_MAX
from koguma.images.trees import DEPTH_MAX, DIRECTORY, FILE, Entry, decode, read_root


class ReadMany(Protocol):
    """Reads commits or trees, wherever they come from."""

    def __call__(self, ids: Iterable[bytes], kind: int) -> Iterator[tuple[bytes, bytes]]:
        """Each id with its content, which is read when it is asked for. Raises when one cannot be had, and CorruptError
        when it is larger than any of its kind.
        """


@dataclass(slots=True)
class Plan:
    """What a destination lacks."""

    commits: dict[str, Commit] = field(default_factory=dict)
    """New commits, those nearest the tips first; without their texts, which may be megabytes."""
    boundary: set[str] = field(default_factory=set)
    """Of these, the ones whose parents are left out on purpose."""
    parts: dict[bytes, None] = field(default_factory=dict)
    """Commits, root objects and trees that are missing, in the order they were met."""
    files: dict[bytes, int] = field(default_factory=dict)
    """Contents that are missing, with the size their trees say."""
    present: dict[bytes, int | None] = field(default_factory=dict)
    """Objects that are needed and there already, though no ref is known to lead to them: gc may still take them. Of
    contents with the size their trees say."""

    def require_sizes(self, size_of: Callable[[bytes], int]) -> None:
        """HostileRemoteError when a content that is there has not the bytes that its trees say.

        Readers count on it: they take room by what a tree says, and hold what it says is small.
        """
        for object_id, said in self.present.items():
            if said is not None and (size := size_of(object_id)) != said:
                raise HostileRemoteError(
                    f"a file must have the {said} bytes its tree says, got {size} ({object_id.hex()})"
                )


class Walk:
    """One search. `has` says whether the destination has an object; `complete` whether it has all of a commit."""

    def __init__(self, read: ReadMany, has: Callable[[bytes], bool], complete: Callable[[str], bool]) -> None:
        self._read = read
        self._has = has
        self._complete = complete
        self._seen: set[bytes] = set()
        """Trees. A file may have the bytes of one: that it is noted says nothing of what the tree refers to."""
        self._entries = 0
        self.plan = Plan()

    def run(
        self,
        tips: Iterable[str],
        *,
        depth: int | None = None,
        shallow: Iterable[str] = (),
        bases: Iterable[str] = (),
    ) -> Plan:
        """Plan for these commits and their ancestors, at most `depth` of each line.

        `shallow` commits have no parents to look for. `bases` are complete commits to compare with where a new
        commit's parents are not at hand.
        """
        self._commits(tips, depth, frozenset(shallow))
        fallback = next(iter(bases), None)
        for commit in reversed(self.plan.commits.values()):
            parent = next((item for item in commit.parents if item in self.plan.commits or self._complete(item)), None)
            self._tree(commit, parent or fallback)
        return self.plan

    def _commits(self, tips: Iterable[str], depth: int | None, shallow: frozenset[str]) -> None:
        layer = list(dict.fromkeys(tip for tip in tips if not self._complete(tip)))
        level = 1
        while layer:
            below: dict[str, None] = {}
            for object_id, content in self._read([bytes.fromhex(item) for item in layer], COMMIT):
                commit_id = object_id.hex()
                commit = _bare(decode_commit(content, commit_id))
                self.plan.commits[commit_id] = commit
                self._miss(object_id)
                if not commit.parents:
                    continue
                if commit_id in shallow or (depth is not None and level >= depth):
                    if not all(self._complete(item) for item in commit.parents):
                        self.plan.boundary.add(commit_id)
                    continue
                below.update(
                    (item, None)
                    for item in commit.parents
                    if item not in self.plan.commits and not self._complete(item)
                )
            if len(self.plan.commits) > COMMITS_MAX:
                raise HostileRemoteError(f"a history has at most {COMMITS_MAX} commits, got more")
            layer = list(below)
            level += 1

    def _tree(self, commit: Commit, base: str | None) -> None:
        """Compare the trees of a commit and of its base, layer by layer."""
        root_id = bytes.fromhex(commit.tree)
        base_root = self._root_of(base) if base else None
        if base_root and base_root[0] == root_id:
            return
        root = self._root(root_id)
        self._miss(root_id)
        layer: dict[bytes, bytes | None] = {root.digest: base_root[1].digest if base_root else None}
        depth = 0
        while fresh := {tree: old for tree, old in layer.items() if tree != old and tree not in self._seen}:
            if depth > DEPTH_MAX:
                raise HostileRemoteError(
                    f"directories lie at most {DEPTH_MAX} below each other (commit {commit.id[:12]})"
                )
            depth += 1
            self._seen.update(fresh)
            layer = {}
            for tree, content in self._read(fresh, TREE):
                self._miss(tree)
                before = fresh[tree]
                layer.update(self._entries_of(content, self._one(before, TREE) if before else None))

    def _entries_of(self, content: bytes, before: bytes | None) -> dict[bytes, bytes | None]:
        """Note the files of a directory; returns its directories, each with the base's of the same name."""
        entries = decode(content)
        self._entries += len(entries)
        if self._entries > ENTRIES_MAX:
            raise HostileRemoteError(f"trees have at most {ENTRIES_MAX} entries, got more")
        known = {entry.name: entry for entry in decode(before)} if before else {}
        below = {}
        for entry in entries:
            same = known.get(entry.name)
            if same is not None and (same.kind, same.digest, same.size) == (entry.kind, entry.digest, entry.size):
                continue
            if entry.kind == DIRECTORY:
                below[entry.digest] = same.digest if same is not None and same.kind == DIRECTORY else None
            elif entry.kind == FILE and entry.size:
                self._file(entry)
        return below

    def _file(self, entry: Entry) -> None:
        noted = self.plan.files.get(entry.digest) or self.plan.present.get(entry.digest)
        if noted is not None and noted != entry.size:
            raise HostileRemoteError(f"one content has one size, got {noted} and {entry.size} ({entry.digest.hex()})")
        if noted is None and self._has(entry.digest):
            self.plan.present[entry.digest] = entry.size
        elif noted is None and entry.digest not in self.plan.parts:
            self.plan.files[entry.digest] = entry.size

    def _miss(self, object_id: bytes) -> None:
        said = self.plan.files.pop(object_id, None)
        if self._has(object_id):
            self.plan.present.setdefault(object_id, said)
        else:
            self.plan.parts[object_id] = None

    def _root(self, root_id: bytes) -> Entry:
        return read_root(lambda item: self._one(item, TREE), root_id)

    def _one(self, object_id: bytes, kind: int) -> bytes:
        return next(content for _, content in self._read([object_id], kind))

    def _root_of(self, commit_id: str) -> tuple[bytes, Entry] | None:
        """The root object of a base commit; None where the base itself is damaged, which makes the walk a full one."""
        commit = self.plan.commits.get(commit_id)
        try:
            if commit is None:
                commit = decode_commit(self._one(bytes.fromhex(commit_id), COMMIT), commit_id)
            tree = bytes.fromhex(commit.tree)
            return tree, self._root(tree)
        except (CorruptError, HostileRemoteError):
            raise
        except ImageError:
            return None


def _bare(commit: Commit) -> Commit:
    """What a walk follows of a commit: a remote may send megabytes of text, or of one parent, in a few bytes."""
    return commit._replace(parents=tuple(dict.fromkeys(commit.parents)), author="", message="", notes={})


def one_by_one(read: Callable[[bytes, int], bytes]) -> ReadMany:
    """Reads many objects with a function that reads one of a kind."""
    return lambda ids, kind: ((object_id, read(object_id, kind)) for object_id in ids)
