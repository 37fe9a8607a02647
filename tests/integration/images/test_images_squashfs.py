"""Squashfs images at their limits, read by the kernel and by unsquashfs, which know nothing of us."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from koguma.images.repository import Repository
from koguma.images.squashfs.layout import BLOCK_BYTES
from tests.property.images.test_images_round_trip import Gardener, differences

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and mounts need root")]


@contextmanager
def _mounted(image: Path, place: Path) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "squashfs", "-o", "loop,ro", str(image), str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _exported(tmp_path: Path, tree: Path) -> Path:
    """The image of a tree, with the times of its files."""
    repository = Repository.init(tmp_path / "repository")
    repository.commit_tree(tree, "main", "m", keep_times=True)
    repository.export("main", "squashfs", tmp_path / "image")
    return tmp_path / "image"


def test_unsquashfs_unpacks_the_tree(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for seed in range(6):
        place = tmp_path / "tree" / str(seed)
        place.mkdir()
        Gardener(seed).grow(os.fsencode(place))
    image = _exported(tmp_path, tmp_path / "tree")

    subprocess.run(["unsquashfs", "-no-progress", "-quiet", "-dest", str(tmp_path / "out"), str(image)], check=True)

    assert differences(tmp_path / "tree", tmp_path / "out", "--no-times") == ""


def test_directories_of_any_size_are_listed_and_searched(tmp_path: Path) -> None:
    """Of more names than one header, one block of metadata or 16 bits of size have; files and directories mixed."""
    tree = tmp_path / "tree"
    names = {1: 3, 2: 255, 3: 256, 4: 257, 5: 5000}
    for folder, count in names.items():
        for number in range(count):
            path = tree / str(folder) / f"{number:05}{'-long' * (number % 20)}"
            if number % 11:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"%d" % number)
            else:
                path.mkdir(parents=True)
    (tree / "empty").mkdir()

    with _mounted(_exported(tmp_path, tree), tmp_path / "mnt") as place:
        assert differences(tree, place) == ""
        for folder in names:
            paths = [path for path in (tree / str(folder)).iterdir() if path.is_file()]
            random.Random(folder).shuffle(paths)
            for path in paths[:500]:
                assert (place / path.relative_to(tree)).read_bytes() == path.read_bytes()
            assert not (place / str(folder) / "no such name").exists()
        assert list((place / "empty").iterdir()) == []
        assert (place / "5").stat().st_nlink == (tree / "5").stat().st_nlink


def test_files_of_every_size_around_a_block_and_with_holes(tmp_path: Path) -> None:
    tree, source = tmp_path / "tree", random.Random(1)
    tree.mkdir()
    for blocks in (0, 1, 2, 8, 9, 65):
        for extra in (-1, 0, 1):
            if (size := blocks * BLOCK_BYTES + extra) >= 0:
                (tree / f"random{size}").write_bytes(source.randbytes(size))
                (tree / f"zeros{size}").write_bytes(bytes(size))
                (tree / f"text{size}").write_bytes((b"%d\n" % size * (size // 2 + 1))[:size])
    with (tree / "holes").open("wb") as file:
        for place in (3, 40, 100):
            file.seek(place * BLOCK_BYTES - 7)
            file.write(source.randbytes(20_000))
        file.truncate(5 << 30)

    with _mounted(_exported(tmp_path, tree), tmp_path / "mnt") as place:
        assert differences(tree, place) == ""
        assert (place / "holes").stat().st_blocks < 10_000
    assert (tmp_path / "image").stat().st_size < 40 << 20


def test_owners_times_attributes_and_links_at_their_limits(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    deep = tree
    for _ in range(200):
        deep /= "d"
        deep.mkdir()
    for number in range(700):
        path = tree / f"file{number}"
        path.write_bytes(b"%d" % (number % 300))
        os.chown(path, number, 4_294_967_294 - number)
        os.utime(path, ns=(0, number * 6_000_000 * 10**9))
        os.setxattr(path, "trusted.number", b"%d" % (number % 50) * 40)
        os.setxattr(path, "user.empty", b"")
    os.setxattr(tree, "trusted.root", b"yes")
    os.setxattr(tree / "file1", "security.large", os.urandom(3500))
    for number in range(300):
        os.link(tree / "file7", deep / f"link{number}")
    (tree / "long").symlink_to("x" * 4095)
    os.mknod(tree / "device", 0o20600, os.makedev(4095, 1_048_575))
    os.chown(tree, 12, 34)
    tree.chmod(0o1710)

    with _mounted(_exported(tmp_path, tree), tmp_path / "mnt") as place:
        assert differences(tree, place) == ""
        assert (place / "file7").stat().st_nlink == 301
        assert os.getxattr(place, "trusted.root") == b"yes"
        assert (place / "device").stat().st_rdev == os.makedev(4095, 1_048_575)


def test_an_export_that_is_killed_leaves_nothing_under_its_name(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "large").write_bytes(random.Random(1).randbytes(30 << 20))
    repository = Repository.init(tmp_path / "repository")
    repository.commit_tree(tree, "main", "m")
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "koguma", "image", "--repo", str(repository.path), "export", "main"]
    process = subprocess.Popen([*command, "-o", str(out / "image")])
    while process.poll() is None and not any(path.stat().st_size for path in out.iterdir()):
        time.sleep(0.001)
    process.kill()
    process.wait()

    assert [path.name for path in out.iterdir()] == [f".image.{process.pid}.tmp"]
    subprocess.run([*command, "-o", str(out / "image")], check=True)
    with _mounted(out / "image", tmp_path / "mnt") as place:
        assert (place / "large").read_bytes() == (tree / "large").read_bytes()
