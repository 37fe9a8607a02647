"""update-alternatives' files (`var/lib/dpkg/alternatives/<name>`) merge by choice, and the links follow from them.

A file has a line auto or manual, the master link, two lines per slave (name, link) and an empty one; then per choice
its path, its priority and a line per slave, empty where the choice has none; an empty line ends it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from koguma.images.draft import Folder
from koguma.images.merging.conflicts import Content, Disagreement, Problem
from koguma.images.merging.keyed import differ, merge_tables, pick
from koguma.images.trees import SYMLINK, Entry

DATABASE = b"var/lib/dpkg/alternatives"
LINKS = b"etc/alternatives"
_AUTO = b"auto"
_LINKS_FOLLOWED_MAX = 40


@dataclass(frozen=True, slots=True)
class Choice:
    priority: int
    slaves: dict[bytes, bytes] = field(default_factory=dict)
    """Paths by the slave's name; slaves that the choice does not have are left out."""


@dataclass(frozen=True, slots=True)
class Alternatives:
    mode: bytes
    link: bytes
    slaves: dict[bytes, bytes]
    """Links by name."""
    choices: dict[bytes, Choice]
    """By path."""

    def targets(self, name: bytes, chosen: bytes | None = None) -> dict[bytes, bytes | None]:
        """Where each of its links in /etc/alternatives points when `chosen` is (None: what automatic mode chooses).

        None: the link is not there.
        """
        if chosen is None:
            chosen = max(self.choices, key=lambda path: self.choices[path].priority, default=None)
        slaves = self.choices[chosen].slaves if chosen is not None else {}
        return {name: chosen} | {slave: slaves.get(slave) for slave in self.slaves}


@dataclass(frozen=True, slots=True)
class Side:
    """What one of three trees says of a name: the file of update-alternatives, and where the name's link points."""

    content: bytes
    target: bytes | None

    @property
    def chosen(self) -> bytes | None:
        """What an administrator chose; None: nothing, or the name is in automatic mode."""
        return None if self.content.startswith(_AUTO + b"\n") else self.target

    def has(self, path: bytes) -> bool:
        return path in parse(self.content).choices


def merge_alternatives(base: bytes | None, ours: bytes, theirs: bytes) -> Content:
    """Merge one file of update-alternatives."""
    disagreements: list[Disagreement] = []

    def decide(path: bytes, _before: Choice | None, left: Choice | None, right: Choice | None) -> Choice | None:
        told = ["removed it" if side is None else f"gave it priority {side.priority}" for side in (left, right)]
        disagreements.append(Disagreement(Problem.RECORD, told[0], told[1], subject=_text(path)))
        return left or right

    before = parse(base) if base is not None else None
    left, right = parse(ours), parse(theirs)
    for what in ("mode", "link"):
        values = (getattr(before, what, None), getattr(left, what), getattr(right, what))
        if differ(*values):
            told = [f"set the {what} to {_text(value)}" for value in values[1:]]
            disagreements.append(Disagreement(Problem.RECORD, told[0], told[1], subject=what))
    merged = Alternatives(
        pick(before.mode, left.mode, right.mode) if before else left.mode,
        pick(before.link, left.link, right.link) if before else left.link,
        merge_tables(before.slaves if before else {}, left.slaves, right.slaves, lambda _name, _b, o, t: o or t, bytes),
        merge_tables(before.choices if before else {}, left.choices, right.choices, decide, bytes),
    )
    return Content(write(merged), tuple(disagreements))


def parse(content: bytes) -> Alternatives:
    """Raises ValueError for anything that update-alternatives does not write."""
    lines = iter(content.split(b"\n"))
    try:
        mode, link = next(lines), next(lines)
        slaves: dict[bytes, bytes] = {}
        while name := next(lines):
            slaves[name] = next(lines)
        choices: dict[bytes, Choice] = {}
        while path := next(lines):
            priority = int(next(lines))
            paths = {name: target for name in slaves if (target := next(lines))}
            choices[path] = Choice(priority, paths)
    except StopIteration:
        raise ValueError("it ends too early") from None
    if mode not in (_AUTO, b"manual") or any(lines):
        raise ValueError(f"it begins with auto or manual and ends with an empty line, got {mode[:40]!r}")
    return Alternatives(mode, link, slaves, choices)


def write(alternatives: Alternatives) -> bytes:
    lines = [alternatives.mode, alternatives.link]
    for name, link in alternatives.slaves.items():
        lines += [name, link]
    lines.append(b"")
    for path, choice in alternatives.choices.items():
        lines += [path, b"%d" % choice.priority, *(choice.slaves.get(name, b"") for name in alternatives.slaves)]
    return b"\n".join([*lines, b"", b""])


def link_of(name: bytes) -> bytes:
    """The path of a name's link."""
    return LINKS + b"/" + name


def settle_choice(
    base: Side | None, ours: Side, theirs: Side, merged: bytes
) -> tuple[bytes | None, list[Disagreement]]:
    """What the merged links lead to, None: what automatic mode chooses; and whether the sides disagree on that.

    An administrator's choice goes with the word manual: it counts also where it left the link as it was.
    """
    choices = [None if side is None else side.chosen for side in (base, ours, theirs)]
    found = parse(merged)
    chosen = pick(*choices)
    told: list[str] = []
    if differ(*choices):
        chosen = chosen or choices[2]
        told = ["left it to the priorities" if choice is None else f"chose {_text(choice)}" for choice in choices[1:]]
    elif chosen and chosen not in found.choices and any(side.has(chosen) for side in (ours, theirs)):
        told = [f"{'chose' if side.chosen == chosen else 'removed'} {_text(chosen)}" for side in (ours, theirs)]
    disagreements = [Disagreement(Problem.RECORD, told[0], told[1], subject="choice")] if told else []
    return chosen if found.mode != _AUTO else None, disagreements


def settle_links(draft: Folder, name: bytes, content: bytes, chosen: bytes | None) -> set[bytes]:
    """Let the links of one merged file follow it, as update-alternatives itself would; returns their paths.

    Nothing when what is `chosen` by hand is unknown or none of the choices: the links merge as any others.
    """
    merged = parse(content)
    if (chosen is None) != (merged.mode == _AUTO) or (chosen is not None and chosen not in merged.choices):
        return set()
    places = {name: merged.link} | merged.slaves
    settled = set()
    for link, wanted in merged.targets(name, chosen).items():
        # A slave whose file is left out of the image (a man page) gets no link.
        target = wanted if link == name or (wanted and _locate(draft, wanted)) else None
        settled.add(link_of(link))
        _set_link(draft, link_of(link), target)
        place = _locate_folder(draft, places[link])
        if place is None:
            continue
        folder, last = place
        there = folder.get(last)
        if there is None or (there.kind == SYMLINK and there.target == b"/" + link_of(link)):
            _put_link(folder, last, b"/" + link_of(link) if target else None)
    return settled


def _set_link(draft: Folder, path: bytes, target: bytes | None) -> None:
    place = _locate_folder(draft, path)
    if place is not None:
        _put_link(*place, target)


def _put_link(folder: Folder, name: bytes, target: bytes | None) -> None:
    there = folder.get(name)
    if target is None:
        if there is not None:
            folder.remove(name)
    elif there is None or there.kind != SYMLINK or there.target != target:
        folder.put(Entry(name, SYMLINK, 0o777, 0, 0, target=target))


def _locate(draft: Folder, path: bytes) -> Entry | None:
    place = _locate_folder(draft, path)
    return place[0].get(place[1]) if place else None


def _locate_folder(draft: Folder, path: bytes) -> tuple[Folder, bytes] | None:
    """The folder that a path's last name is in, links on the way followed inside the tree."""
    parts = [part for part in path.split(b"/") if part]
    above: list[Folder] = [draft]
    followed = 0
    while len(parts) > 1:
        part = parts.pop(0)
        if part == b"..":
            above = above[:-1] or [draft]
            continue
        entry = above[-1].get(part)
        if entry is not None and entry.kind == SYMLINK and followed < _LINKS_FOLLOWED_MAX:
            followed += 1
            above = [draft] if entry.target.startswith(b"/") else above
            parts = [piece for piece in entry.target.split(b"/") if piece not in (b"", b".")] + parts
        elif (below := above[-1].folder(part)) is not None:
            above = [*above, below]
        else:
            return None
    return (above[-1], parts[0]) if parts else None


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
