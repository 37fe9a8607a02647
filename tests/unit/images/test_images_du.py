from __future__ import annotations

import os
from pathlib import Path

from koguma.images.du import commit_costs, usage
from koguma.images.repository import Repository
from tests.unit.images.making import make_bootable_tree, make_tree


def test_bytes_of_refs_add_up_to_all_bytes(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": os.urandom(1000), "d/b": b"2" * 5000})
    repository.commit_tree(tree, "main", "first")
    repository.create_branch("other")
    make_tree(tree, {"c": os.urandom(3000)})
    repository.commit_tree(tree, "other", "second")
    repository.create_branch("gone")
    make_tree(tree, {"e": os.urandom(2000)})
    repository.commit_tree(tree, "gone", "third")
    repository.refs.set_head("main")
    repository.remove("gone")

    found = usage(repository)

    main, other = (next(ref for ref in found.refs if ref.name == name) for name in ("main", "other"))
    assert main.unique.objects == 0, "all of main is in other's history"
    assert 3000 < other.unique.raw_bytes < 4000
    assert main.total == found.shared
    assert 2000 < found.unreachable.stored_bytes < 3500
    assert found.all.objects == found.shared.objects + other.unique.objects + found.unreachable.objects
    sums = found.shared.stored_bytes + other.unique.stored_bytes + found.unreachable.stored_bytes
    assert found.all.stored_bytes == sums
    assert found.all.stored_bytes + 16 * found.packs == sum(
        file.stat().st_size for file in (repository.path / "packs").glob("*.pack")
    )
    assert main.total.raw_bytes > main.total.stored_bytes


def test_a_root_image_that_is_kept_and_booted_counts_once(repository: Repository, tmp_path: Path) -> None:
    tree = make_bootable_tree(tmp_path / "tree")
    make_tree(tree, {"opt/large": os.urandom(300_000)})
    commit = repository.commit_tree(tree, "main", "m").commit.id
    repository.update_labels()
    image = repository.path / "boot" / "artifacts" / commit / "root.squashfs"
    assert image.stat().st_nlink == 2

    areas = {area.name: area for area in usage(repository).areas}

    assert areas["boot"].size_bytes > 300_000
    assert areas["cache"].size_bytes < 100_000
    files = {path.lstat().st_ino for path in repository.path.rglob("*")}
    assert sum(area.inodes for area in areas.values()) < len(files)


def test_a_commit_costs_what_it_added_to_its_parent(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": os.urandom(100_000)})
    repository.commit_tree(tree, "main", "first")
    make_tree(tree, {"c": os.urandom(3000)})
    repository.commit_tree(tree, "main", "second")

    (second,) = commit_costs(repository, ["main~1..main"])
    (first,) = commit_costs(repository, ["main~1"])

    assert second.tree.raw_bytes > 103_000
    assert 3000 < second.added.raw_bytes < 4000
    assert first.added == first.tree
