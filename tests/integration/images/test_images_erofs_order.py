"""An erofs does not depend on the order in which a file system lists attributes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from koguma.images.erofsorder import sort_attributes
from koguma.images.errors import ToolError
from tests.property.images.test_images_formats_round_trip import witness

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts and trusted attributes need root"),
    pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="erofs-utils are not installed"),
]


def _image(tree: Path, image: Path) -> bytes:
    uuid = "-U00000000-0000-0000-0000-000000000001"
    command = ["mkfs.erofs", "-zlz4", "-T946684800", uuid, "--quiet", str(image), str(tree)]
    subprocess.run(command, check=True, capture_output=True)
    return image.read_bytes()


def test_attributes_set_in_any_order_give_the_same_image(tmp_path: Path) -> None:
    """Some are the same for all files and stand in the shared area, others in the inode; many files, so that
    directories have blocks of their own and a rest behind their inode."""
    attributes = [("user.a", b"1"), ("trusted.b", b"22"), ("security.selinux", b"x_u:o:t\0"), ("user.long", b"x" * 300)]
    images = []
    for number, step in enumerate((1, -1)):
        tree = tmp_path / f"tree{number}"
        for folder in ("", "d", "d/e"):
            (tree / folder).mkdir()
            for name in range(700 if folder == "d" else 3):
                file = tree / folder / f"{name}-{'n' * 20}"
                file.write_text(folder)
                own = [(f"user.own{name}", b"o" * name), (f"user.other{name}", b"")]
                for key, value in [*attributes[: name % 5], *own][::step]:
                    os.setxattr(file, key, value)
            for key, value in attributes[::step]:
                os.setxattr(tree / folder, key, value)
        (tree / "link").hardlink_to(tree / "d" / f"1-{'n' * 20}")
        images.append(tmp_path / f"image{number}")
        _image(tree, images[-1])
    assert images[0].read_bytes() != images[1].read_bytes()

    for image in images:
        sort_attributes(image)

    assert images[0].read_bytes() == images[1].read_bytes()
    subprocess.run(["fsck.erofs", str(images[0])], check=True, capture_output=True)
    (tmp_path / "mnt").mkdir()
    subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro", str(images[0]), str(tmp_path / "mnt")], check=True)
    try:
        mounted = witness(os.fsencode(tmp_path / "mnt"), times=False)
    finally:
        subprocess.run(["umount", str(tmp_path / "mnt")], check=True)
    assert mounted == witness(os.fsencode(tmp_path / "tree0"), times=False)


def test_an_image_with_sorted_attributes_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_text("x")
    os.setxattr(tmp_path / "tree" / "a", "user.one", b"1")
    before = _image(tmp_path / "tree", tmp_path / "image")

    sort_attributes(tmp_path / "image")

    assert (tmp_path / "image").read_bytes() == before  # its checksum was computed anew, as mkfs.erofs does


def test_what_is_no_erofs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(8192))

    with pytest.raises(ToolError, match="erofs image"):
        sort_attributes(tmp_path / "image")
