"""The laws of three-way merges, on random trees with every kind of entry: in memory, without a disk or root."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koguma.images.draft import Folder, settle_links, store_root
from koguma.images.merging import Merged, Problem, merge_trees
from koguma.images.objects import BLOB, ObjectStore
from koguma.images.scratch import ScratchWriter
from koguma.images.trees import (
    CHARACTER,
    DIRECTORY,
    EMPTY_DIGEST,
    FIFO,
    FILE,
    SYMLINK,
    Entry,
    decode,
    link_id,
    read_root,
    walk,
)

many = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
LINES = (
    b"one\ntwo\nthree\nfour\nfive\nsix\n",
    b"ONE\ntwo\nthree\nfour\nfive\nsix\n",
    b"one\ntwo\nthree\nfour\nfive\nSIX\n",
    b"1\n",
)
CONTENTS = (*LINES, b"", b"\0binary", b"\0other binary")
NAMES = (b"a", b"b", b"c", b"etc", b"\xff")

names = st.sampled_from(NAMES)
modes = st.sampled_from([0o644, 0o755, 0o4755])
owners = st.sampled_from([(0, 0), (1, 0), (1000, 1000)])
xattrs = st.dictionaries(st.sampled_from([b"user.x", b"user.y"]), st.sampled_from([b"1", b"2"]), max_size=2)


@dataclass(frozen=True)
class Node:
    """What a path is; files that share a `link` that is not empty are one file."""

    kind: int
    mode: int
    owner: tuple[int, int]
    content: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    below: dict[bytes, Node] = field(default_factory=dict, hash=False)


@st.composite
def nodes(draw: st.DrawFn, depth: int = 2) -> Node:
    kind = draw(st.sampled_from([FILE, FILE, FILE, SYMLINK, FIFO, CHARACTER] + [DIRECTORY] * (4 if depth else 0)))
    below = draw(st.dictionaries(names, nodes(depth=depth - 1), max_size=4)) if kind == DIRECTORY else {}
    attributes = tuple(sorted(draw(xattrs).items())) if kind in (FILE, DIRECTORY) else ()
    return Node(kind, draw(modes), draw(owners), draw(st.sampled_from(CONTENTS)), attributes, below)


@st.composite
def changed(draw: st.DrawFn, tree: dict[bytes, Node], depth: int = 2) -> dict[bytes, Node]:
    """A tree made of another one by a few changes at random places."""
    result = dict(tree)
    for name in draw(st.sets(names, max_size=3)):
        node = result.get(name)
        action = draw(st.sampled_from(["below", "below", "content", "mode", "owner", "xattrs", "remove", "replace"]))
        if node is None or action == "replace":
            result[name] = draw(nodes(depth=depth))
        elif action == "remove":
            del result[name]
        elif action == "below" and node.kind == DIRECTORY and depth:
            below = draw(changed(node.below, depth - 1))
            result[name] = Node(node.kind, node.mode, node.owner, node.content, node.xattrs, below)
        else:
            result[name] = Node(
                node.kind,
                draw(modes) if action == "mode" else node.mode,
                draw(owners) if action == "owner" else node.owner,
                draw(st.sampled_from(CONTENTS)) if action == "content" else node.content,
                tuple(sorted(draw(xattrs).items()))
                if action == "xattrs" and node.kind in (FILE, DIRECTORY)
                else node.xattrs,
                node.below,
            )
    return result


files = st.builds(
    Node,
    st.just(FILE),
    modes,
    owners,
    st.sampled_from((*LINES[:3], b"\0binary")),
    xattrs.map(lambda found: tuple(sorted(found.items()))),
)


@st.composite
def touched(draw: st.DrawFn, file: Node) -> Node:
    """A file of which an aspect or two are another file's."""
    other = draw(files)
    aspects = draw(st.sets(st.sampled_from(["mode", "owner", "content", "xattrs"]), min_size=1, max_size=2))
    return replace(file, **{aspect: getattr(other, aspect) for aspect in aspects})


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[bytes, Node], dict[bytes, Node], dict[bytes, Node]]:
    """A tree and two made of it, with a file among them that all three have, each in its way."""
    base = draw(st.dictionaries(names, nodes(), max_size=4))
    trees = base, draw(changed(base)), draw(changed(base))
    if draw(st.booleans()):
        shared = draw(files)
        for tree in trees:
            tree[b"shared"] = shared if tree is base else draw(touched(shared))
    return trees


@st.composite
def file_histories(draw: st.DrawFn) -> tuple[dict[bytes, Node], dict[bytes, Node], dict[bytes, Node]]:
    """One file of which each side changed an aspect or two."""
    file = draw(files)
    return {b"f": file}, {b"f": draw(touched(file))}, {b"f": draw(touched(file))}


class Lab:
    """Trees in memory and merges of them."""

    def __init__(self, folder: Path) -> None:
        (folder / "packs").mkdir()
        self.objects = ScratchWriter(ObjectStore(folder / "packs", folder / "lock"))

    def plant(self, tree: dict[bytes, Node], links: list[set[bytes]] | None = None) -> Entry:
        """The stored tree; each set of paths in `links` is one file, as far as these are files."""
        top = Folder(Entry(b"", DIRECTORY, 0o755, 0, 0), None)
        self._fill(top, tree)
        affected = set()
        for number, group in enumerate(links or []):
            members = [(folder, entry) for path, folder, entry in top.walk() if path in group and entry.kind == FILE]
            for folder, entry in members:
                first = members[0][1]
                folder.put(first._replace(name=entry.name, link=b"group %02d" % number))
                affected.add(b"group %02d" % number)
        settle_links(top, affected)
        return self.root(store_root(top, self.objects))

    def _fill(self, folder: Folder, tree: dict[bytes, Node]) -> None:
        for name, node in tree.items():
            entry = Entry(name, node.kind, node.mode, *node.owner, xattrs=node.xattrs)
            if node.kind == DIRECTORY:
                self._fill(folder.put_folder(entry), node.below)
            elif node.kind == FILE:
                digest = self.objects.add(BLOB, node.content) if node.content else EMPTY_DIGEST
                folder.put(entry._replace(size=len(node.content), digest=digest))
            elif node.kind == SYMLINK:
                folder.put(entry._replace(target=node.content[:20] or b"x"))
            else:
                folder.put(entry._replace(device=(1, len(node.content)) if node.kind == CHARACTER else (0, 0)))

    def root(self, tree: bytes) -> Entry:
        return read_root(self.objects.read, tree)

    def merge(self, base: Entry | None, ours: Entry, theirs: Entry) -> tuple[Entry, Merged]:
        merged = merge_trees(self.objects.read, self.objects, base, ours, theirs)
        return self.root(store_root(merged.draft, self.objects)), merged

    def paths(self, root: Entry) -> dict[bytes, Entry]:
        return dict(walk(self.objects.read, root))


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(Path(tempfile.mkdtemp(dir=tmp_path_factory.getbasetemp())))


@many
@given(histories())
def test_a_merge_with_ones_own_ancestor_changes_nothing(lab: Lab, history: tuple[dict[bytes, Node], ...]) -> None:
    base, ours, _ = map(lab.plant, history)

    for sides in ((ours, base), (base, ours), (ours, ours)):
        result, merged = lab.merge(base, *sides)
        assert result == ours
        assert merged.conflicts == []


@many
@given(histories())
def test_changes_at_different_places_merge_without_a_conflict_whichever_side_is_ours(
    lab: Lab, history: tuple[dict[bytes, Node], ...]
) -> None:
    base, left, right = history
    joint, first, second = (
        {b"left": _directory(one), b"right": _directory(two)}
        for one, two in ((base, base), (left, base), (base, right))
    )
    both = lab.plant({b"left": _directory(left), b"right": _directory(right)})
    roots = [lab.plant(tree) for tree in (joint, first, second)]

    one_way, merged = lab.merge(roots[0], roots[1], roots[2])
    other_way, _ = lab.merge(roots[0], roots[2], roots[1])

    assert merged.conflicts == []
    assert one_way == other_way == both


def _directory(below: dict[bytes, Node]) -> Node:
    return Node(DIRECTORY, 0o755, (0, 0), below=below)


@many
@given(histories())
def test_swapping_the_sides_changes_nothing_but_what_conflicts(
    lab: Lab, history: tuple[dict[bytes, Node], ...]
) -> None:
    base, ours, theirs = map(lab.plant, history)

    one_way, merged = lab.merge(base, ours, theirs)
    other_way, swapped = lab.merge(base, theirs, ours)

    assert {(item.path, item.problem, item.ours, item.theirs) for item in merged.conflicts} == {
        (item.path, item.problem, item.theirs, item.ours) for item in swapped.conflicts
    }
    if not merged.conflicts:
        assert one_way == other_way


@many
@given(histories())
def test_a_merge_that_had_no_conflict_has_nothing_to_do_the_second_time(
    lab: Lab, history: tuple[dict[bytes, Node], ...]
) -> None:
    base, ours, theirs = map(lab.plant, history)
    once, merged = lab.merge(base, ours, theirs)
    if merged.conflicts:
        return

    assert lab.merge(base, once, theirs)[0] == once
    assert lab.merge(base, once, ours)[0] == once


@many
@given(st.one_of(histories(), file_histories(), file_histories()))
def test_no_change_of_a_side_is_lost_without_a_word(lab: Lab, history: tuple[dict[bytes, Node], ...]) -> None:
    """Every aspect of every path of the result is what a side made of it, or a content merge, or a conflict is told."""
    base, ours, theirs = map(lab.plant, history)
    result, merged = lab.merge(base, ours, theirs)
    before, left, right, after = (lab.paths(root) for root in (base, ours, theirs, result))
    told = {item.path for item in merged.conflicts if item.problem not in ASPECTS}
    told_aspects = {
        (item.path, aspect or item.subject) for item in merged.conflicts for aspect in ASPECTS.get(item.problem, ())
    }

    for path in before.keys() | left.keys() | right.keys():
        if any(path == place or path.startswith(place + b"/") or place.startswith(path + b"/") for place in told):
            continue
        b, o, t, result_entry = (side.get(path) for side in (before, left, right, after))
        if None in (o, t):
            assert result_entry in (o, t) or (result_entry and result_entry.kind == DIRECTORY), path
            assert b is None or result_entry is None or result_entry.kind == DIRECTORY, path
            continue
        for aspect in _aspects(b, o, t):
            if (path, aspect) in told_aspects:
                continue
            was, mine, yours = (_aspect(entry, aspect) for entry in (b, o, t))
            wanted = {mine} if yours == was else {yours} if mine == was else {mine} & {yours}
            got = _aspect(result_entry, aspect)
            if aspect == "digest" and not wanted:
                assert _is_text_merge(lab, b, o, t, result_entry)
            else:
                assert got in wanted, (path, aspect)


ASPECTS = {
    Problem.TEXT: ("digest",),
    Problem.CONTENT: ("digest",),
    Problem.MODE: ("mode",),
    Problem.OWNER: ("owner",),
    Problem.TARGET: ("target",),
    Problem.DEVICE: ("device",),
    Problem.XATTRS: ("",),
}
"""What a conflict says of a path; the subject of one on extended attributes is the attribute."""


def _aspects(*entries: Entry | None) -> tuple[str, ...]:
    kinds = {entry.kind for entry in entries if entry}
    own = ("kind", "mode", "owner", "user.x", "user.y", "target", "device")
    return own if kinds != {FILE} else (*own, "digest")


def _aspect(entry: Entry | None, aspect: str) -> object:
    if entry is None:
        return None
    if aspect.startswith("user."):
        return dict(entry.xattrs).get(aspect.encode())
    return (entry.uid, entry.gid) if aspect == "owner" else getattr(entry, aspect)


def _is_text_merge(lab: Lab, *entries: Entry | None) -> bool:
    """Whether each line of the last is what the three-way rule makes of that line of the others."""
    base, ours, theirs, result = (lab.objects.read(entry.digest).split(b"\n") if entry else [] for entry in entries)
    return len(base) == len(ours) == len(theirs) == len(result) and all(
        line == (t if o == b else o) and (b in (o, t) or o == t)
        for b, o, t, line in zip(base, ours, theirs, result, strict=True)
    )


paths = st.sets(st.sampled_from([b"a", b"b", b"c", b"etc/a", b"etc/b", b"a/b", b"\xff"]), min_size=2, max_size=4)


@many
@given(histories(), st.lists(paths, max_size=2), st.lists(paths, max_size=2), st.lists(paths, max_size=2))
def test_hard_links_of_a_merged_tree_are_whole(
    lab: Lab,
    history: tuple[dict[bytes, Node], ...],
    before: list[set[bytes]],
    left: list[set[bytes]],
    right: list[set[bytes]],
) -> None:
    """Names with one link id have one content, and the id is the one their paths ask for."""
    base, ours, theirs = (lab.plant(tree, links) for tree, links in zip(history, (before, left, right), strict=True))

    result, merged = lab.merge(base, ours, theirs)

    groups: dict[bytes, dict[bytes, Entry]] = defaultdict(dict)
    for path, entry in lab.paths(result).items():
        if entry.link:
            groups[entry.link][path] = entry
    for link, members in groups.items():
        assert len(members) > 1
        assert link == link_id(members)
        assert len({entry._replace(name=b"") for entry in members.values()}) == 1
    if not merged.conflicts:
        assert lab.merge(base, theirs, ours)[0] == result


def test_a_name_linked_by_one_side_to_a_file_that_the_other_changed_has_the_change(lab: Lab) -> None:
    file = lambda content: Node(FILE, 0o644, (0, 0), content)  # noqa: E731 - three of them in a row
    base = lab.plant({b"b": file(LINES[0]), b"c": file(LINES[0])}, [{b"b", b"c"}])
    ours = lab.plant({b"b": file(LINES[1]), b"c": file(LINES[1])}, [{b"b", b"c"}])
    theirs = lab.plant({b"a": file(LINES[0]), b"b": file(LINES[0]), b"c": file(LINES[0])}, [{b"a", b"b", b"c"}])

    result, merged = lab.merge(base, ours, theirs)

    assert merged.conflicts == []
    assert {(entry.digest, entry.link) for entry in decode(lab.objects.read(result.digest))} == {
        (sha256(LINES[1]).digest(), link_id([b"a"]))
    }


def test_names_that_one_side_took_apart_stay_apart_when_the_other_adds_a_third(lab: Lab) -> None:
    file = Node(FILE, 0o644, (0, 0), LINES[0])
    changed_file = Node(FILE, 0o644, (0, 0), LINES[1])
    base = lab.plant({b"a": file, b"b": file}, [{b"a", b"b"}])
    ours = lab.plant({b"a": file, b"b": changed_file})
    theirs = lab.plant({b"a": file, b"b": file, b"c": file}, [{b"a", b"b", b"c"}])

    result, merged = lab.merge(base, ours, theirs)

    assert merged.conflicts == []
    found = {entry.name: (entry.digest, entry.link) for entry in decode(lab.objects.read(result.digest))}
    assert found[b"a"] == found[b"c"] == (sha256(LINES[0]).digest(), link_id([b"a"]))
    assert found[b"b"] == (sha256(LINES[1]).digest(), b"")
