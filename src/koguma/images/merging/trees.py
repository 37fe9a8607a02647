"""Merges two root file systems that came from a third one, path by path.

Steps of `merge_trees`:
1. walk the three trees together; directories that a side did not change are not opened;
2. who did not change a path follows who did; what both changed is merged by aspect (`entries`), a file's content by
   its rule (`rules`), by lines (`text`), or it is a conflict;
3. let what hangs together over paths follow: hard links, the links of update-alternatives;
4. look whether every installed package still has what it needs.

In a conflict the result keeps ours, but for a path that one side removed and the other changed: it keeps the changed
one. Nothing that a side did is dropped without a conflict or a note.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeVar

from koguma.images.debian import STATUS
from koguma.images.draft import Folder
from koguma.images.merging import alternatives
from koguma.images.merging.conflicts import Conflict, Content, Disagreement, Note, Problem
from koguma.images.merging.depends import broken_dependencies
from koguma.images.merging.entries import attributes, merge_directories, merge_entries, same_file
from koguma.images.merging.links import merge_links, touches_links
from koguma.images.merging.rules import Rule, rule_for
from koguma.images.merging.text import is_text, merge_text
from koguma.images.merging.undecided import withhold
from koguma.images.objects import BLOB, ObjectWriter
from koguma.images.trees import DIRECTORY, FILE, KIND_NAMES, SYMLINK, Entry, Read, decode, lookup, room_for_depth

MERGED_MAX_BYTES = 256 * 1024 * 1024
"""Larger files are not read into memory to be merged; they conflict."""
T = TypeVar("T")
_IN_ALTERNATIVES = re.compile(re.escape(alternatives.DATABASE) + rb"/([^/]+)")


@dataclass(slots=True)
class Merged:
    """A merged tree."""

    draft: Folder
    conflicts: list[Conflict] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


@room_for_depth()
def merge_trees(
    read: Read,
    writer: ObjectWriter,
    base: Entry | None,
    ours: Entry,
    theirs: Entry,
    names: tuple[str, str] = ("ours", "theirs"),
    *,
    undecided: bool = False,
) -> Merged:
    """Merge the trees below three root directories; merged contents go to `writer`.

    `names` stand behind conflict markers. Without a base, whatever both have and is not equal is a conflict. With
    `undecided` the result has neither side's version of what they disagree on: it is to be the base of another merge.
    """
    merge = _Merge(read, writer, names, Merged(Folder(ours, read)), undecided=undecided)
    merge.run(base, ours, theirs)
    if undecided:
        for conflict in merge.merged.conflicts:
            withhold(merge.merged.draft, conflict)
    return merge.merged


class _Merge:
    def __init__(
        self, read: Read, writer: ObjectWriter, names: tuple[str, str], merged: Merged, *, undecided: bool
    ) -> None:
        self._read = read
        self._writer = writer
        self._names = names
        self._undecided = undecided
        self.merged = merged
        self._links = False
        self._alternatives: dict[bytes, tuple[bytes | None, bytes, bytes, bytes]] = {}
        """update-alternatives' files by name: those of base, ours, theirs and the merge."""
        self._status: tuple[bytes, bytes, bytes] | None = None
        """dpkg's status of ours, theirs and the merge, when it was merged."""

    def run(self, base: Entry | None, ours: Entry, theirs: Entry) -> None:
        draft = self.merged.draft
        self._attributes(b"", base, theirs, draft)
        self._directory(b"", base, draft, theirs)
        if self._links:
            self._add(merge_links(self._read, base, ours, theirs, draft))
        for name in self._alternatives:
            self._settle_alternative(name, base, ours, theirs)
        if self._status:
            self._add(broken_dependencies(*self._status))
        self.merged.conflicts.sort(key=lambda item: (item.path, item.subject))

    def _settle_alternative(self, name: bytes, *roots: Entry | None) -> None:
        """Let the links of a name follow its merged file."""
        *contents, merged = self._alternatives[name]
        sides = [
            None if root is None or content is None else alternatives.Side(content, self._target(root, name))
            for root, content in zip(roots, contents, strict=True)
        ]
        chosen, disagreements = alternatives.settle_choice(sides[0], _required(sides[1]), _required(sides[2]), merged)
        self._conflicts(alternatives.DATABASE + b"/" + name, disagreements)
        settled = alternatives.settle_links(self.merged.draft, name, merged, chosen)
        self.merged.conflicts = [item for item in self.merged.conflicts if item.path not in settled]

    def _target(self, root: Entry, name: bytes) -> bytes | None:
        entry = lookup(self._read, root, alternatives.link_of(name))
        return entry.target if entry is not None and entry.kind == SYMLINK else None

    def _add(self, conflicts: list[Conflict]) -> None:
        self.merged.conflicts += conflicts

    def _directory(self, path: bytes, base: Entry | None, folder: Folder, theirs: Entry | None) -> None:
        """Merge what is in a directory; a side that has none there counts as one with nothing in it."""
        if theirs is not None and folder.entry.digest == theirs.digest and theirs.digest:
            return
        before, right = self._children(base), self._children(theirs)
        for name in sorted({*before, *folder.names(), *right}):
            below = path + b"/" + name if path else name
            self._name(below, name, before.get(name), folder, right.get(name))

    def _children(self, entry: Entry | None) -> dict[bytes, Entry]:
        if entry is None or entry.kind != DIRECTORY:
            return {}
        return {child.name: child for child in decode(self._read(entry.digest))}

    def _name(self, path: bytes, name: bytes, base: Entry | None, folder: Folder, theirs: Entry | None) -> None:
        ours = folder.get(name)
        if theirs in (base, ours):
            return
        if ours == base:
            self._note_links(base, theirs)
            _set(folder, name, theirs)
        elif _kinds(ours, theirs) == {DIRECTORY} or (
            _kinds(ours, theirs) == {DIRECTORY, 0} and _kinds(base) == {DIRECTORY}
        ):
            self._both_directories(path, name, base, folder, theirs)
        else:
            self._note_links(base, ours)
            self._note_links(base, theirs)
            self._other(path, name, base, ours, theirs, folder)

    def _note_links(self, old: Entry | None, new: Entry | None) -> None:
        if not self._links and old != new:
            self._links = touches_links(self._read, old, new)

    def _both_directories(
        self, path: bytes, name: bytes, base: Entry | None, folder: Folder, theirs: Entry | None
    ) -> None:
        """Directories on both sides, or a directory that one side removed and in which the other changed something."""
        base = base if base and base.kind == DIRECTORY else None
        ours = folder.get(name)
        below = folder.folder(name) or folder.put_folder(_required(theirs))
        if ours is not None and theirs is not None:
            self._attributes(path, base, theirs, below)
            self._directory(path, base, below, theirs)
            return
        self._directory(path, base, below, theirs)
        kept = ours or _required(theirs)
        if below.children:
            return
        if base is not None and attributes(kept) == attributes(base):
            folder.remove(name)
        else:
            self._removed(path, ours)

    def _attributes(self, path: bytes, base: Entry | None, theirs: Entry, below: Folder) -> None:
        merged, disagreements = merge_directories(base, below.entry, theirs)
        below.entry = merged._replace(digest=below.entry.digest)
        self._conflicts(path, disagreements)

    def _other(
        self, path: bytes, name: bytes, base: Entry | None, ours: Entry | None, theirs: Entry | None, folder: Folder
    ) -> None:
        """A path that both sides changed and that is not a directory on both."""
        if ours is None or theirs is None:
            self._one_removed(path, name, base, ours, theirs, folder)
        elif same_file(ours, theirs):
            folder.put(ours)
        elif ours.kind != theirs.kind:
            self._conflicts(path, [Disagreement(Problem.TYPE, _made(ours), _made(theirs))])
        else:
            merged, disagreements = merge_entries(base, ours, theirs, lambda b, o, t: self._content(path, b, o, t))
            folder.put(merged)
            self._conflicts(path, disagreements)

    def _one_removed(
        self, path: bytes, name: bytes, base: Entry | None, ours: Entry | None, theirs: Entry | None, folder: Folder
    ) -> None:
        kept = ours or theirs
        if kept is not None and same_file(base, kept):  # only its links to other names changed
            folder.remove(name)
            return
        rule = rule_for(path)
        if rule and (rule.keep_ours or rule.backup):
            self._note(path, f"ours was kept: {rule.keep_ours or 'a copy of an older state'}")
            return
        if ours is None:
            _set(folder, name, theirs)
        if rule and rule.rebuild:
            self._stale(path, rule, *_told_of_removal(ours))
        else:
            self._removed(path, ours)

    def _removed(self, path: bytes, ours: Entry | None) -> None:
        self._conflicts(path, [Disagreement(Problem.REMOVED, *_told_of_removal(ours))])

    def _stale(self, path: bytes, rule: Rule, ours: str, theirs: str) -> None:
        self._add([Conflict(path, Problem.STALE, ours, theirs, command=rule.command(path))])

    def _content(self, path: bytes, base: Entry | None, ours: Entry, theirs: Entry) -> tuple[Entry, list[Disagreement]]:
        """The entry with the merged content of a file that both sides changed."""
        rule = rule_for(path)
        kept = [Disagreement(Problem.CONTENT, _changed(base), _changed(base))]
        if rule and rule.keep_ours:
            self._note(path, f"ours was kept: {rule.keep_ours}")
            return ours, []
        if rule and rule.rebuild:
            self._stale(path, rule, _changed(base), _changed(base))
            return ours, []
        if max(ours.size, theirs.size, base.size if base else 0) > MERGED_MAX_BYTES:
            return ours, kept
        contents = [None if entry is None else self._bytes(entry) for entry in (base, ours, theirs)]
        try:
            merged = self._merge_contents(path, contents[0], contents[1] or b"", contents[2] or b"")
        except ValueError as error:
            return ours, [Disagreement(Problem.CONTENT, f"{_changed(base)} ({error})", _changed(base))]
        if merged is None:
            return ours, kept
        if self._undecided and merged.agreed is not None:
            merged = Content(merged.agreed)
        if merged.note:
            self._note(path, merged.note)
        stored = self._writer.add(BLOB, merged.data)
        entry = ours._replace(size=len(merged.data), digest=stored, mtime_ns=_time_of(stored, ours, theirs))
        return entry, list(merged.disagreements)

    def _merge_contents(self, path: bytes, base: bytes | None, ours: bytes, theirs: bytes) -> Content | None:
        rule = rule_for(path)
        if rule and rule.merge:
            merged = rule.merge(base, ours, theirs)
            if rule.backup and merged.disagreements:
                return Content(merged.data, note="ours was kept where the sides differ: a copy of an older state")
            if path == STATUS:
                self._status = (ours, theirs, merged.data)
            if found := _IN_ALTERNATIVES.fullmatch(path):
                self._alternatives[found[1]] = (base, ours, theirs, merged.data)
            return merged
        if base is None and not (ours and theirs):
            return None  # that one side added an empty file is a decision, by lines it would be none
        if all(is_text(content) for content in (base or b"", ours, theirs)):
            return merge_text(base, ours, theirs, self._names)
        return None

    def _bytes(self, entry: Entry) -> bytes:
        return self._read(entry.digest) if entry.size else b""

    def _conflicts(self, path: bytes, disagreements: list[Disagreement]) -> None:
        self._add([Conflict(path, item.problem, item.ours, item.theirs, item.subject) for item in disagreements])

    def _note(self, path: bytes, text: str) -> None:
        self.merged.notes.append(Note(path, text))


def _time_of(merged: bytes, ours: Entry, theirs: Entry) -> int | None:
    """The time of a merged content. One that neither side had gets a time that neither had: what was compiled from a
    side's source, which names time and size of that, must not pass for compiled from this one."""
    same = [entry for entry in (ours, theirs) if entry.digest == merged]
    times = [entry.mtime_ns for entry in same or (ours, theirs) if entry.mtime_ns is not None]
    if same or not times:
        return max(times, default=None)
    return max(times) + 10**9


def _set(folder: Folder, name: bytes, entry: Entry | None) -> None:
    if entry is None:
        folder.remove(name)
    else:
        folder.put(entry)


def _kinds(*entries: Entry | None) -> set[int]:
    return {entry.kind if entry else 0 for entry in entries}


def _required(entry: T | None) -> T:
    assert entry is not None  # noqa: S101 - one of the sides has it, or there would be nothing to merge
    return entry


def _told_of_removal(ours: Entry | None) -> tuple[str, str]:
    return ("removed it", "changed it") if ours is None else ("changed it", "removed it")


def _changed(base: Entry | None) -> str:
    return "changed it" if base is not None and base.kind == FILE else "added it"


def _made(entry: Entry) -> str:
    return f"made it a {KIND_NAMES[entry.kind]}"
