"""Durable files, and directories that are removed whole or not at all."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from koguma.images.errors import StorageError
from koguma.images.files import mounts_below, remove_tree


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
        assert mounts_below(tree) == [str(point)]
        with pytest.raises(StorageError, match="must hold no mount"):
            remove_tree(tree)
        assert (precious / "file").exists()
    finally:
        subprocess.run(["umount", point], check=True)
    remove_tree(tree)
    assert not tree.exists()


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "never there")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
