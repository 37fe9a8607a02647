from __future__ import annotations

import os
from pathlib import Path

import pytest

from koguma.images.debian import compare_versions, stanzas
from koguma.images.repository import Repository
from tests.unit.images.making import DPKG_STATUS, make_tree


def test_a_diff_names_what_changed_of_each_path(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"same/x": "1", "content": "1", "mode": "1", "gone/a": "1", "kind": "1"})
    (tree / "link").symlink_to("old")
    repository.commit_tree(tree, "old", "m")
    (tree / "content").write_text("longer")
    (tree / "mode").chmod(0o600)
    (tree / "gone" / "a").unlink()
    (tree / "gone").rmdir()
    (tree / "kind").unlink()
    (tree / "kind").mkdir()
    (tree / "link").unlink()
    (tree / "link").symlink_to("new")
    make_tree(tree, {"added/a": "12"})
    os.setxattr(tree / "same" / "x", "user.note", b"v")
    repository.commit_tree(tree, "new", "m")

    diff = repository.diff("old", "new")

    assert [(file.path.decode(), file.change, file.kind, file.aspects) for file in diff.files] == [
        ("added", "added", "directory", ()),
        ("added/a", "added", "file", ()),
        ("content", "changed", "file", ("content",)),
        ("gone", "removed", "directory", ()),
        ("gone/a", "removed", "file", ()),
        ("kind", "removed", "file", ()),
        ("kind", "added", "directory", ()),
        ("link", "changed", "symlink", ("target",)),
        ("mode", "changed", "file", ("mode",)),
        ("same/x", "changed", "file", ("xattrs",)),
    ]
    assert {(file.path, file.old_size, file.new_size) for file in diff.files if file.path == b"content"} == {
        (b"content", 1, 6)
    }


def test_a_diff_names_packages_from_dpkgs_own_file(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"var/lib/dpkg/status": DPKG_STATUS.format(name="tree", version="2.1.0-1")})
    repository.commit_tree(tree, "old", "m")
    status = DPKG_STATUS.format(name="tree", version="2.1.0-1+b2") + "\n" + DPKG_STATUS.format(name="vim", version="9")
    make_tree(tree, {"var/lib/dpkg/status": status})
    repository.commit_tree(tree, "new", "m")

    def told(old: str, new: str) -> list[tuple[str, str, str | None, str | None]]:
        return [(p.name, p.change, p.old_version, p.new_version) for p in repository.diff(old, new).packages]

    assert told("old", "new") == [
        ("tree", "upgraded", "2.1.0-1", "2.1.0-1+b2"),
        ("vim", "installed", None, "9"),
    ]
    assert told("new", "old") == [
        ("tree", "downgraded", "2.1.0-1+b2", "2.1.0-1"),
        ("vim", "removed", "9", None),
    ]


def test_nothing_changed_between_a_commit_and_itself(repository: Repository, tmp_path: Path) -> None:
    repository.commit_tree(make_tree(tmp_path / "tree", {"a": "1"}), "main", "m")

    diff = repository.diff("main", "main")

    assert (diff.files, diff.packages) == ((), ())


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1.0", "1.1"), ("1.0~rc1", "1.0"), ("1.0", "1.0-1"), ("1.9", "1.10"), ("1.0", "1:0.1"), ("1.0a", "1.0+"),
        ("1.0~~", "1.0~"), ("6.1.0-9-amd64", "6.1.0-30-amd64"), ("1.0-1", "1.0-1+b1"), ("0", "0.0.1"),
    ],
)  # fmt: skip
def test_versions_are_ordered_as_dpkg_orders_them(left: str, right: str) -> None:
    assert compare_versions(left, right) < 0 < compare_versions(right, left)
    assert compare_versions(left, left) == 0


def test_stanzas_are_read_without_their_continuation_lines() -> None:
    assert list(stanzas("A: 1\nB: x\n more\n\n\nA: 2\n")) == [{"A": "1", "B": "x"}, {"A": "2"}]
