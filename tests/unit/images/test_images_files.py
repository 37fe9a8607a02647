"""Durable files, and directories that are removed whole or not at all."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest

from koguma.images.errors import StorageError
from koguma.images.files import remove_tree
from koguma.images.mounts import mounts_below
from tests.unit.images.making import make_repository


@pytest.mark.root
def test_a_directory_with_a_mount_in_it_is_not_removed(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    tree, precious = tmp_path / "tree", tmp_path / "precious"
    point = tree / "with a blank"
    point.mkdir(parents=True)
    precious.mkdir()
    (precious / "file").touch()
    subprocess.run(["mount", "--bind", precious, point], check=True)
    try:
        assert mounts_below(tree) == [os.fsencode(point)]
        with pytest.raises(StorageError, match="must hold no mount"):
            remove_tree(tree)
        assert (precious / "file").exists()
    finally:
        subprocess.run(["umount", point], check=True)
    remove_tree(tree)
    assert not tree.exists()


def test_a_directory_is_removed_however_deep_it_is(tmp_path: Path) -> None:
    place = _deep(tmp_path / "tree", 400)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        remove_tree(place)
    finally:
        sys.setrecursionlimit(before)

    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_committed_however_deep_it_is(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "repository")
    place = _deep(tmp_path / "tree", 1400)
    try:
        assert repository.commit_tree(place, "main", "m").created
    finally:
        remove_tree(place)


def _deep(place: Path, depth: int) -> Path:
    place.mkdir()
    with chdir(place):
        for _ in range(depth):
            Path("d").mkdir()
            os.chdir("d")
        Path("file").touch()
        Path("link").symlink_to(place)
    return place


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "never there")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
