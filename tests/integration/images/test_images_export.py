"""Exports with the real tools: the same bytes from different repositories, and everything a tree holds."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from koguma.images import export as export_module
from koguma.images.errors import ImageError
from koguma.images.export import attributes_lost
from koguma.images.repository import Repository
from tests.property.images.test_images_round_trip import Gardener, differences
from tests.unit.images.making import make_bootable_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and mounts need root")]
ACL = bytes.fromhex("0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000400ffffffff")


def _garden(path: Path) -> Path:
    path.mkdir()
    Gardener(7).grow(os.fsencode(path))
    return make_bootable_tree(path)


@pytest.mark.parametrize("image_format", ["squashfs", "erofs"])
def test_two_repositories_export_identical_bytes(tmp_path: Path, image_format: str) -> None:
    if image_format == "erofs" and shutil.which("mkfs.erofs") is None:
        pytest.skip("erofs-utils are not installed")
    tree = _garden(tmp_path / "tree")
    # The second repository lies on another file system, whose directories list their names in another order.
    (tmp_path / "other").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "koguma", str(tmp_path / "other")], check=True)
    try:
        for place in ("one", "other"):
            with Repository.init(tmp_path / place / "repository") as repository:
                repository.commit_tree(tree, "main", f"from {place}")
                repository.export("main", image_format, tmp_path / f"{place}.image")
        assert (tmp_path / "one.image").read_bytes() == (tmp_path / "other.image").read_bytes()
    finally:
        subprocess.run(["umount", str(tmp_path / "other")], check=True)


def test_an_erofs_holds_the_tree_with_its_acls(tmp_path: Path) -> None:
    if shutil.which("mkfs.erofs") is None:
        pytest.skip("erofs-utils are not installed")
    tree = _garden(tmp_path / "tree")
    os.setxattr(tree / "etc" / "motd", "system.posix_acl_access", ACL)
    repository = Repository.init(tmp_path / "repository")
    commit = repository.commit_tree(tree, "main", "m").commit
    repository.export("main", "erofs", tmp_path / "image")
    (tmp_path / "mnt").mkdir()

    subprocess.run(
        ["mount", "-t", "erofs", "-o", "loop,ro", str(tmp_path / "image"), str(tmp_path / "mnt")], check=True
    )
    try:
        assert differences(tree, tmp_path / "mnt", "--no-times") == ""
    finally:
        subprocess.run(["umount", str(tmp_path / "mnt")], check=True)
    assert attributes_lost(repository.objects, repository.root(commit)) == [b"etc/motd"]


def test_an_export_of_a_tree_whose_root_image_is_kept_is_that_image_unless_it_was_damaged(tmp_path: Path) -> None:
    repository = Repository.init(tmp_path / "repository")
    commit = repository.commit_tree(make_bootable_tree(tmp_path / "tree"), "main", "m").commit
    repository.export("main", "squashfs", tmp_path / "made")
    repository.update_labels()
    kept = repository.root_image(commit.tree)
    assert kept is not None
    good = (tmp_path / "made").read_bytes()

    def no_image(*_: object) -> None:
        raise AssertionError("a kept image need not be made")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(export_module, "write_image", no_image)
        repository.export("main", "squashfs", tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == good == kept.read_bytes()
    kept.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    repository.export("main", "squashfs", tmp_path / "anew")
    assert (tmp_path / "anew").read_bytes() == good


def test_an_export_overwrites_nothing(tmp_path: Path) -> None:
    repository = Repository.init(tmp_path / "repository")
    repository.commit_tree(make_bootable_tree(tmp_path / "tree"), "main", "m")
    (tmp_path / "image").write_text("precious")

    with pytest.raises(ImageError, match="may not overwrite"):
        repository.export("main", "squashfs", tmp_path / "image")
    with pytest.raises(ImageError, match="format is one of squashfs, erofs"):
        repository.export("main", "ext4", tmp_path / "other")
    assert (tmp_path / "image").read_text() == "precious"
