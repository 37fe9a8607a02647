"""What damage affects: which commits, refs and paths need objects that are missing or cannot be read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from koguma.images.commits import Commit
from koguma.images.errors import ImageError
from koguma.images.labelfile import Label, read_labels
from koguma.images.repository import Repository
from koguma.images.trees import DIRECTORY, FILE, Entry, decode, read_root

_PATHS_MAX = 20
"""Per object; a file that lies in many places is named in that many."""


@dataclass(slots=True)
class Affected:
    """Where an object is needed."""

    commits: list[str] = field(default_factory=list)
    refs: list[str] = field(default_factory=list)
    """`branch main`, `tag v1`: those whose history needs it."""
    labels: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    """With bytes that are not UTF-8 as `\\xNN`; "commit" and "root" for objects that have no path."""

    def __str__(self) -> str:
        places = ", ".join(self.paths[:3]) + (" …" if len(self.paths) > 3 else "")
        commits = ", ".join(commit[:12] for commit in self.commits[:3]) + (" …" if len(self.commits) > 3 else "")
        named = f" of {', '.join(self.refs[:3])}" if self.refs else ""
        labels = f"; labels {', '.join(self.labels[:5])}" if self.labels else ""
        return f"{places} in commit {commits}{named}{labels}" if self.commits else "nothing that a ref reaches"


def find_affected(
    repository: Repository, refs: Mapping[str, bytes], wanted: Collection[bytes]
) -> dict[bytes, Affected]:
    """Look for these objects from every ref; an object that nothing needs is not among the answers."""
    search = _Search(repository, frozenset(wanted))
    for place, commit in refs.items():
        search.look(place, commit)
    labels = {label.commit: label.name for label in _labels(repository) if label.kind != "commit"}
    for found in search.found.values():
        found.labels = [labels[commit] for commit in found.commits if commit in labels]
    return search.found


class _Search:
    def __init__(self, repository: Repository, wanted: frozenset[bytes]) -> None:
        self._repository = repository
        self._wanted = wanted
        self._in_tree: dict[bytes, dict[bytes, list[bytes]]] = {}
        self._of_commit: dict[bytes, tuple[dict[bytes, list[bytes]], tuple[bytes, ...]]] = {}
        self.found: dict[bytes, Affected] = {}

    def look(self, place: str, start: bytes) -> None:
        waiting, seen = [start], set[bytes]()
        while waiting:
            commit = waiting.pop()
            if commit in seen:
                continue
            seen.add(commit)
            if commit not in self._of_commit:
                self._of_commit[commit] = self._in_commit(commit)
            paths, parents = self._of_commit[commit]
            for object_id, where in paths.items():
                self._note(object_id, place, commit.hex(), where)
            waiting += parents

    def _note(self, object_id: bytes, place: str, commit: str, where: list[bytes]) -> None:
        found = self.found.setdefault(object_id, Affected())
        if commit not in found.commits:
            found.commits.append(commit)
        if place not in found.refs:
            found.refs.append(place)
        for path in where:
            text = path.decode(errors="backslashreplace")
            if text not in found.paths and len(found.paths) < _PATHS_MAX:
                found.paths.append(text)

    def _in_commit(self, commit_id: bytes) -> tuple[dict[bytes, list[bytes]], tuple[bytes, ...]]:
        """Paths of the wanted objects in a commit, and its parents."""
        try:
            commit: Commit = self._repository.commit(commit_id.hex())
        except ImageError:
            return ({commit_id: [b"commit"]} if commit_id in self._wanted else {}), ()
        parents = tuple(bytes.fromhex(parent) for parent in commit.parents)
        found = {commit_id: [b"commit"]} if commit_id in self._wanted else {}
        root_id = bytes.fromhex(commit.tree)
        if root_id in self._wanted:
            found[root_id] = [b"root"]
        try:
            root = read_root(self._repository.objects.read_part, root_id)
        except ImageError:
            return found, parents
        for object_id, paths in self._in(root.digest).items():
            found[object_id] = [b"/" + path for path in paths]
        return found, parents

    def _in(self, tree: bytes) -> dict[bytes, list[bytes]]:
        """Paths of the wanted objects below a tree, relative to it; every tree is looked into once."""
        if tree in self._in_tree:
            return self._in_tree[tree]
        waiting = [(tree, self._entries(tree))]
        while waiting:
            at, entries = waiting[-1]
            below = {entry.digest for entry in entries if entry.kind == DIRECTORY} - self._in_tree.keys()
            if below:
                waiting += [(each, self._entries(each)) for each in below]
            else:
                self._in_tree[at] = self._directly_in(at, entries)
                waiting.pop()
        return self._in_tree[tree]

    def _entries(self, tree: bytes) -> list[Entry]:
        try:
            return decode(self._repository.objects.read_part(tree))
        except ImageError:
            return []

    def _directly_in(self, tree: bytes, entries: list[Entry]) -> dict[bytes, list[bytes]]:
        """As `_in`, when all directories in the tree were looked into."""
        found: dict[bytes, list[bytes]] = {tree: [b""]} if tree in self._wanted else {}
        for entry in entries:
            if entry.kind == FILE and entry.digest in self._wanted:
                found.setdefault(entry.digest, []).append(entry.name)
            elif entry.kind == DIRECTORY:
                for object_id, paths in self._in_tree[entry.digest].items():
                    below = [entry.name + b"/" + path if path else entry.name for path in paths]
                    found.setdefault(object_id, []).extend(below[:_PATHS_MAX])
        return found


def _labels(repository: Repository) -> list[Label]:
    try:
        return read_labels(repository.path)
    except ImageError:
        return []
