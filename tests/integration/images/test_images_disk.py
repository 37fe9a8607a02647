"""Disk images: the root is found among partitions, or the error lists them; nothing stays mounted."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from koguma.images.errors import TreeError
from koguma.images.importing import ImportOptions, import_source
from koguma.images.repository import Repository
from tests.unit.images.making import make_repository, make_tree

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
    pytest.mark.skipif(
        not all(shutil.which(tool) for tool in ("sfdisk", "mkfs.ext4", "blkid", "nsenter")), reason="tools are missing"
    ),
]
MEBIBYTE = 1024 * 1024
ROOT_TYPE = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
DATA_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repository")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = make_tree(tmp_path / "tree", {"etc/motd": "hello\n", "usr/bin/tool": "x" * 100_000})
    (tree / "bin").symlink_to("usr/bin")
    (tree / "usr/bin/tool").chmod(0o4755)
    os.mknod(tree / "sda", 0o060600, os.makedev(8, 0))
    os.chown(tree / "etc/motd", 1234, 5678)
    (tree / "hard").hardlink_to(tree / "usr/bin/tool")
    (tree / "lost+found").mkdir(mode=0o700)  # mkfs makes one, whatever it is given
    return tree


def _disk(path: Path, label: str, *partitions: tuple[str, Path | None]) -> Path:
    """A disk of partitions of 8 MiB: their type, and the tree of their file system."""
    with path.open("wb") as file:
        file.truncate((2 + 8 * len(partitions)) * MEBIBYTE)
    script = f"label: {label}\n" + "".join(f"size=8M, type={kind}\n" for kind, _ in partitions)
    subprocess.run(["sfdisk", "--quiet", str(path)], input=script, text=True, check=True, capture_output=True)
    for number, (_, tree) in enumerate(partitions):
        if tree:
            offset = (1 + 8 * number) * MEBIBYTE
            _file_system(path, tree, "-E", f"offset={offset}", size="7680k")
    return path


def _file_system(path: Path, tree: Path, *options: str, size: str = "8M") -> Path:
    command = ["mkfs.ext4", "-q", "-F", "-b", "1024", "-d", str(tree), *options, str(path), size]
    subprocess.run(command, check=True, capture_output=True)
    return path


def _mounts() -> str:
    return Path("/proc/self/mounts").read_text()


def _loops() -> str:
    return subprocess.run(["losetup", "--all"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_the_only_partition_that_looks_like_a_root_is_imported(
    repository: Repository, tmp_path: Path, tree: Path, label: str
) -> None:
    other = make_tree(tmp_path / "other", {"vmlinuz": "kernel"})
    kind = DATA_TYPE if label == "gpt" else "83"
    disk = _disk(tmp_path / "disk.img", label, (kind, other), (kind, tree), (kind, None))
    before = _mounts()

    imported = import_source(repository, str(disk), "disk", "m").commit

    assert imported.tree == repository.commit_tree(tree, "directory", "m").commit.tree
    assert imported.notes == {"disk.partition": "2", "disk.file-system": "ext4"}
    assert _mounts() == before
    assert str(disk) not in _loops()


def test_a_partition_whose_type_says_root_comes_first(repository: Repository, tmp_path: Path, tree: Path) -> None:
    disk = _disk(tmp_path / "disk.img", "gpt", (DATA_TYPE, tree), (ROOT_TYPE, make_tree(tmp_path / "o", {"a": "1"})))

    assert import_source(repository, str(disk), "disk", "m").commit.notes["disk.partition"] == "2"


def test_two_roots_are_listed_and_one_can_be_chosen(repository: Repository, tmp_path: Path, tree: Path) -> None:
    disk = _disk(tmp_path / "disk.img", "gpt", (DATA_TYPE, tree), (DATA_TYPE, tree), (DATA_TYPE, None))

    with pytest.raises(TreeError, match=r"2 of these do: 1 \(ext4, 8388608 bytes\), 2 .* 3 \(no file system.*--part"):
        import_source(repository, str(disk), "disk", "m")
    chosen = import_source(repository, str(disk), "disk", "m", options=ImportOptions(partition=1)).commit
    assert chosen.notes["disk.partition"] == "1"
    for number, rule in ((3, "mount"), (9, "no partition 9")):
        with pytest.raises(TreeError, match=rule):
            import_source(repository, str(disk), "disk", "m", options=ImportOptions(partition=number))
    assert str(disk) not in _loops()


def test_a_file_system_without_partitions_is_imported(repository: Repository, tmp_path: Path, tree: Path) -> None:
    disk = _file_system(tmp_path / "bare.img", tree)

    imported = import_source(repository, str(disk), "disk", "m").commit

    assert imported.tree == repository.commit_tree(tree, "directory", "m").commit.tree


def test_an_exported_root_image_is_imported_as_the_same_tree(
    repository: Repository, tmp_path: Path, tree: Path
) -> None:
    commit = repository.commit_tree(tree, "main", "m").commit
    repository.export("main", "squashfs", tmp_path / "root.squashfs")

    assert import_source(repository, str(tmp_path / "root.squashfs"), "again", "m").commit.tree == commit.tree


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_a_qcow2_image_is_imported_and_one_that_names_other_files_refused(
    repository: Repository, tmp_path: Path, tree: Path
) -> None:
    raw = _disk(tmp_path / "disk.img", "gpt", (DATA_TYPE, tree))
    whole, backed, split = (tmp_path / f"{name}.qcow2" for name in ("whole", "backed", "split"))

    def make(*arguments: str | Path) -> None:
        subprocess.run(["qemu-img", *arguments], check=True, capture_output=True)

    make("convert", "-f", "raw", "-O", "qcow2", raw, whole)
    make("create", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow", backed, "10M")
    make("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/data,data_file_raw=on", split, "10M")

    imported = import_source(repository, str(whole), "disk", "m").commit
    assert imported.tree == repository.commit_tree(tree, "directory", "m").commit.tree
    for image in (backed, split):
        with pytest.raises(TreeError, match="whole in one file"):
            import_source(repository, str(image), "disk", "m")
    assert list((repository.path / "tmp").iterdir()) == []


def test_an_empty_disk_and_a_damaged_one_are_refused(repository: Repository, tmp_path: Path, tree: Path) -> None:
    empty = _disk(tmp_path / "empty.img", "gpt", (DATA_TYPE, None))
    damaged = _file_system(tmp_path / "damaged.img", tree)
    data = bytearray(damaged.read_bytes())
    data[2048:40000] = os.urandom(40000 - 2048)
    damaged.write_bytes(data)
    cut = tmp_path / "cut.img"
    cut.write_bytes(_disk(tmp_path / "disk.img", "gpt", (DATA_TYPE, tree)).read_bytes()[: 4 * MEBIBYTE])

    for disk in (empty, damaged, cut):
        with pytest.raises(TreeError) as caught:
            import_source(repository, str(disk), "disk", "m")
        assert len(str(caught.value).splitlines()) == 1
    assert repository.refs.all() == []


def test_a_mount_in_a_directory_is_refused_or_an_empty_directory(
    repository: Repository, tmp_path: Path, tree: Path
) -> None:
    (tree / "proc").mkdir()
    plain = repository.commit_tree(tree, "plain", "m").commit
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "koguma", str(tree / "proc")], check=True)
    try:
        (tree / "proc" / "inside").write_text("x")
        with pytest.raises(TreeError, match="--one-file-system"):
            import_source(repository, str(tree), "main", "m")
        imported = import_source(repository, str(tree), "main", "m", options=ImportOptions(one_file_system=True))
        assert imported.commit.tree == plain.tree
    finally:
        subprocess.run(["umount", str(tree / "proc")], check=True)
    assert import_source(repository, str(tree), "main", "m").commit.tree == plain.tree
