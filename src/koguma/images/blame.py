"""Which commit last changed each line of a text file, or each entry of a directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from koguma.images.commits import Commit
from koguma.images.errors import RevisionError
from koguma.images.history import CommitOf, in_order
from koguma.images.textdiff import Run, is_binary, matching_runs, split_lines
from koguma.images.trees import DIRECTORY, FILE, Entry, Read, decode, lookup

RootOf = Callable[[Commit], Entry]


@dataclass(frozen=True, slots=True)
class BlamedLine:
    """One line of a file; `number` counts from 1, `original` is its number in the commit that brought it."""

    commit: Commit
    number: int
    original: int
    content: bytes


@dataclass(frozen=True, slots=True)
class BlamedEntry:
    """One path: the commit that last changed anything about it (or, for a directory, in it)."""

    commit: Commit
    path: bytes
    entry: Entry


def blame_lines(commit_of: CommitOf, read: Read, root_of: RootOf, start: str, path: bytes) -> list[BlamedLine] | None:
    """The lines of a text file with their commits; None when the path is no text file. Raises RevisionError.

    1. A commit is asked for the lines that those made of it could not account for.
    2. What a parent has too, in the same order, is the parent's to answer; the first parent is asked first.
    3. What no parent has, the commit brought.
    """
    content = _text(read, _entry(commit_of, read, root_of, start, path))
    if content is None:
        return None
    lines = split_lines(content)
    asked: dict[str, dict[int, int]] = {start: {number: number for number in range(len(lines))}}
    found: dict[int, BlamedLine] = {}
    for commit in in_order(commit_of, [start]):
        left = asked.pop(commit.id, None)
        if not left:
            if not asked:
                break
            continue
        mine = _text(read, lookup(read, root_of(commit), path))
        own = split_lines(mine or b"")
        for parent in commit.parents:
            theirs = _text(read, lookup(read, root_of(commit_of(parent)), path))
            if theirs is None or not left:
                continue
            passed = asked.setdefault(parent, {})
            same = {run.new + step: run.old + step for run in _runs(theirs, mine, own) for step in range(run.length)}
            passed |= {number: same[here] for number, here in left.items() if here in same}
            left = {number: here for number, here in left.items() if here not in same}
        for number, here in left.items():
            found[number] = BlamedLine(commit, number + 1, here + 1, lines[number])
    return [found[number] for number in range(len(lines))]


def _runs(theirs: bytes, mine: bytes | None, own: list[bytes]) -> list[Run]:
    return [Run(0, 0, len(own))] if theirs == mine else matching_runs(split_lines(theirs), own)


def blame_entries(commit_of: CommitOf, read: Read, root_of: RootOf, start: str, path: bytes) -> list[BlamedEntry]:
    """The entries of a directory, or the path itself when it is none, with the commits that last changed them."""
    top = _entry(commit_of, read, root_of, start, path)
    whole = top.kind == DIRECTORY

    def entries(commit: Commit) -> dict[bytes, Entry]:
        here = lookup(read, root_of(commit), path)
        if here is None or (whole and here.kind != DIRECTORY):
            return {}
        return {item.name: item for item in decode(read(here.digest))} if whole else {here.name: here}

    names = entries(commit_of(start))
    asked: dict[str, set[bytes]] = {start: set(names)}
    found: dict[bytes, Commit] = {}
    for commit in in_order(commit_of, [start]):
        left = asked.pop(commit.id, None)
        if not left:
            if not asked:
                break
            continue
        own = entries(commit)
        for parent in commit.parents:
            theirs = entries(commit_of(parent))
            same = {name for name in left if theirs.get(name) == own[name]}
            if same:
                asked.setdefault(parent, set()).update(same)
            left -= same
        found |= dict.fromkeys(left, commit)
    below = path + b"/" if path else b""
    return [BlamedEntry(found[name], below + name if whole else path, names[name]) for name in sorted(names)]


def _entry(commit_of: CommitOf, read: Read, root_of: RootOf, start: str, path: bytes) -> Entry:
    found = lookup(read, root_of(commit_of(start)), path)
    if found is None:
        raise RevisionError(
            f"a path must be in the commit, there is no /{path.decode(errors='backslashreplace')} in {start[:12]};"
            f" commits that had it are listed by: koguma image log -- PATH"
        )
    return found


def _text(read: Read, entry: Entry | None) -> bytes | None:
    if entry is None or entry.kind != FILE:
        return None
    content = read(entry.digest) if entry.size else b""
    return None if is_binary(content) else content
