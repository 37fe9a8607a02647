"""Text differences, and the patches made of them, against git's own idea of a patch."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koguma.images.patch import patch
from koguma.images.pathspec import PathSpec
from koguma.images.repository import Repository
from koguma.images.textdiff import matching_runs, split_lines, unified
from tests.unit.images.making import listing, make_tree

LINES = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"\n", b"unique 1\n", b"unique 2\n"]), max_size=30)


def applied(old: list[bytes], hunks: list[bytes]) -> list[bytes]:
    """The text a unified diff makes of `old`; its own lines are checked against it."""
    made: list[bytes] = []
    at = 0
    for line in b"".join(hunks).splitlines(keepends=True):
        if line.startswith(b"@@"):
            words = line.split()[1].lstrip(b"-").split(b",")
            start = int(words[0]) - (1 if len(words) == 1 or words[1] != b"0" else 0)
            made += old[at:start]
            at = start
        elif line[:1] == b"\\":
            continue
        else:
            if line[:1] != b"+":
                assert old[at] == line[1:]
                at += 1
            if line[:1] != b"-":
                made.append(line[1:])
    return made + old[at:]


@given(LINES, LINES)
def test_matching_lines_are_the_same_and_in_order(old: list[bytes], new: list[bytes]) -> None:
    old_at = new_at = 0
    for run in matching_runs(old, new):
        assert run.length > 0
        assert run.old >= old_at
        assert run.new >= new_at
        assert old[run.old : run.old + run.length] == new[run.new : run.new + run.length]
        old_at, new_at = run.old + run.length, run.new + run.length


@given(LINES, LINES, st.integers(0, 4))
def test_a_unified_diff_makes_the_new_text_of_the_old_one(old: list[bytes], new: list[bytes], context: int) -> None:
    assert applied(old, list(unified(old, new, context))) == new


def test_one_changed_line_among_many_is_one_line() -> None:
    old = [f"line {number}\n".encode() for number in range(100_000)]
    new = [*old[:50_000], b"changed\n", *old[50_001:]]

    assert [line for line in unified(old, new, 0) if line[:1] != b"@"] == [b"-line 50000\n", b"+changed\n"]


def test_lines_keep_their_bytes() -> None:
    assert split_lines(b"a\r\nb\x0cc\n\xffd") == [b"a\r\n", b"b\x0cc\n", b"\xffd"]
    assert split_lines(b"") == []


OLD: dict[str, str | bytes] = {
    "etc/motd": "one\ntwo\nthree\n",
    "etc/gone": "x\n",
    "etc/no-end": "a\nb",
    "etc/emptied": "x\n",
    "etc/od d\té": "1\n",
}
NEW: dict[str, str | bytes] = {
    "etc/motd": "one\n2\nthree\nfour\n",
    "etc/new": "n\n",
    "etc/no-end": "a\nB",
    "etc/emptied": "",
    "etc/od d\té": "2\n",
}


def made_patch(repository: Repository, paths: PathSpec | None = None) -> bytes:
    diff = repository.diff("old", "new", paths)
    return b"".join(patch(repository.objects.read, diff.files))


@pytest.fixture
def changed(repository: Repository, tmp_path: Path) -> Repository:
    repository.commit_tree(make_tree(tmp_path / "old", OLD), "old", "m")
    tree = make_tree(tmp_path / "new", NEW)
    (tree / "etc" / "motd").chmod(0o755)
    (tree / "etc" / "link").symlink_to("motd")
    repository.commit_tree(tree, "new", "m")
    return repository


def test_git_applies_a_patch_of_texts_links_and_modes(changed: Repository, tmp_path: Path) -> None:
    subprocess.run(
        ["git", "apply", "-p1"], input=made_patch(changed), cwd=tmp_path / "old", check=True,
        env={"PATH": "/usr/bin:/bin", "GIT_CEILING_DIRECTORIES": str(tmp_path)},
    )  # fmt: skip

    assert listing(tmp_path / "old") == listing(tmp_path / "new")


def test_a_patch_can_be_limited_to_paths(changed: Repository) -> None:
    text = made_patch(changed, PathSpec(["/etc/motd"]))

    assert text.count(b"diff --git") == 1
    assert b"+four\n" in text


def test_a_patch_says_of_binary_files_only_that_they_differ(repository: Repository, tmp_path: Path) -> None:
    repository.commit_tree(make_tree(tmp_path / "a", {"x": b"\0a"}), "old", "m")
    repository.commit_tree(make_tree(tmp_path / "b", {"x": b"\0b"}), "new", "m")

    assert made_patch(repository) == b"diff --git a/x b/x\nBinary files a/x and b/x differ\n"


@pytest.mark.root
def test_a_patch_tells_of_owners_and_attributes_beside_the_text(repository: Repository, tmp_path: Path) -> None:
    import os

    tree = make_tree(tmp_path / "a", {"x": "1\n"})
    repository.commit_tree(tree, "old", "m")
    os.chown(tree / "x", 5, 6)
    os.setxattr(tree / "x", "user.note", b"v")
    (tree / "x").chmod(0o600)
    repository.commit_tree(tree, "new", "m")

    assert made_patch(repository) == (
        b"# owner 0:0 -> 5:6 /x\n# mode 0644 -> 0600 /x\n# extended attributes user.note /x\n"
    )


@pytest.mark.parametrize(
    ("pattern", "covered", "not_covered"),
    [
        ("etc", [b"etc", b"etc/a/b"], [b"etcetera", b"usr/etc"]),
        ("/etc/ssh/", [b"etc/ssh", b"etc/ssh/x"], [b"etc"]),
        ("usr/lib/*.so", [b"usr/lib/a.so", b"usr/lib/x/b.so"], [b"usr/lib/a.so.1", b"lib/a.so"]),
        (".", [b"a", b"b/c"], []),
    ],
)
def test_a_path_covers_itself_and_everything_below(
    pattern: str, covered: list[bytes], not_covered: list[bytes]
) -> None:
    spec = PathSpec([pattern])

    assert all(spec.covers(path) for path in covered)
    assert not any(spec.covers(path) for path in not_covered)
    for path in covered:  # nobody who descends by `leads_to` misses what is covered
        parts = path.split(b"/")
        assert all(spec.leads_to(b"/".join(parts[:depth])) for depth in range(1, len(parts) + 1))
