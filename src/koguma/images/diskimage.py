"""A disk image's root: found among its partitions, mounted read-only, committed as the directory it is then.

partx and blkid read partition tables and file systems. Mounts live in a mount namespace of a child process that ends
with us, so nothing stays mounted, however we end. Needs root.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from koguma.images import qcow2
from koguma.images.errors import ToolError, TreeError
from koguma.images.importing.options import ImportOptions
from koguma.images.importing.streams import PLAIN, compression_of
from koguma.images.importing.tarreader import begins_tar
from koguma.images.repository import Committed, Repository
from koguma.images.tools import run_tool

_MBR_SIGNATURE = b"\x55\xaa"
_SECTOR = 512
_PROBE_BYTES = 128 * 1024
_ROOT_TYPES = ("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "B921B045-1DF0-41C3-AF44-4C6F280D3FAE")
"""GPT's types for a root of x86-64 and of arm64."""
_CONTAINERS = ("0x5", "0xf", "0x85")
"""MBR's extended partitions, which hold others."""
_NO_ROOT_TYPES = ("vfat", "swap", "iso9660")
_UNREADABLE = {"crypto_LUKS": "it is encrypted", "LVM2_member": "it belongs to a volume group",
               "linux_raid_member": "it belongs to an array"}  # fmt: skip
_MOUNT_OPTIONS = {"ext2": "", "ext3": ",noload", "ext4": ",noload", "xfs": ",norecovery,nouuid"}
_HEADS = ((0, b"XFSB"), (0x10040, b"_BHRfS_M"), (0, b"hsqs"), (1024, b"\xe2\xe1\xf5\xe0"))
"""Where XFS, btrfs, squashfs and erofs say what they are."""
_EXT_OLD, _EXT_DYNAMIC = bytes(4), b"\1\0\0\0"


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of a disk, or all of it when it has no partition table."""

    number: int
    """0: the whole disk."""
    offset_bytes: int
    size_bytes: int
    type: str
    file_system: str
    """As blkid names it; empty when it knows none."""

    def __str__(self) -> str:
        return f"{self.number} ({self.file_system or 'no file system'}, {self.size_bytes} bytes)"


def is_disk_image(file: IO[bytes]) -> bool:
    """Whether a file begins as a disk does: qcow2, partition table, file system. The file is at its start again."""
    if not file.seekable():
        return False
    start = file.read(_PROBE_BYTES)
    file.seek(0)
    if compression_of(start) != PLAIN or begins_tar(start):
        return False
    if start.startswith(qcow2.MAGIC) or any(start[at : at + len(head)] == head for at, head in _HEADS):
        return True
    return start[510:512] == _MBR_SIGNATURE or _is_ext(start)


def _is_ext(start: bytes) -> bool:
    """By more than the two bytes of its magic: the sizes of its blocks, up to 64 KiB, and its revision."""
    magic, block_log, revision = start[0x438:0x43A], start[0x418:0x41C], start[0x44C:0x450]
    return magic == b"\x53\xef" and int.from_bytes(block_log, "little") <= 6 and revision in (_EXT_OLD, _EXT_DYNAMIC)


def import_disk(
    repository: Repository,
    path: Path,
    branch: str,
    message: str,
    options: ImportOptions,
    author: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Committed:
    """Commit the root file system of a disk image. Raises TreeError when there is none, or not just one."""
    if os.geteuid() != 0:
        raise TreeError(f"a disk image is mounted to be imported, which needs root ({path})")
    with _raw(path, options, repository.path / "tmp") as raw, _namespace(raw) as namespace:
        partitions = find_partitions(raw)
        chosen = _choose(partitions, options.partition, namespace, path)
        tree = namespace.mount(chosen)
        return repository.commit_tree(
            tree,
            branch,
            message,
            author=author,
            notes={"disk.partition": str(chosen.number), "disk.file-system": chosen.file_system},
            keep_times=options.keep_times,
            remember=False,
            progress=progress,
        )


def find_partitions(raw: Path) -> list[Partition]:
    """The partitions of a raw image in their order; the whole disk when it has no partition table."""
    probed = _blkid(raw, 0, 0)
    if "PTTYPE" not in probed or "TYPE" in probed:
        return [Partition(0, 0, raw.stat().st_size, "", probed.get("TYPE", ""))]
    table = run_tool(["partx", "--show", "--noheadings", "--output", "NR,START,SECTORS,TYPE", str(raw)])
    found = []
    for line in table.splitlines():
        number, start, sectors, kind = [*line.split(), ""][:4]
        offset, size = int(start) * _SECTOR, int(sectors) * _SECTOR
        if kind in _CONTAINERS:
            continue
        if offset + size > raw.stat().st_size:
            raise TreeError(f"a partition must lie in its disk, got partition {number} up to byte {offset + size}")
        file_system = _blkid(raw, offset, size).get("TYPE", "")
        found.append(Partition(int(number), offset, size, kind, file_system))
    return found


class _Namespace:
    """A child process with a mount namespace of its own; its mounts are reached through /proc."""

    def __init__(self, raw: Path, process: subprocess.Popen[bytes], point: Path) -> None:
        self._raw = raw
        self._process = process
        self._point = point

    def mount(self, partition: Partition) -> Path:
        """Mount a partition read-only over what was mounted before; returns where it is seen."""
        kind = partition.file_system
        if kind in _UNREADABLE:
            raise TreeError(f"a partition must hold a file system, got {kind}: {_UNREADABLE[kind]} ({partition})")
        options = f"ro,loop,nodev,nosuid,noexec,offset={partition.offset_bytes},sizelimit={partition.size_bytes}"
        options += _MOUNT_OPTIONS.get(kind, "")
        try:
            run_tool(
                ["nsenter", f"--mount=/proc/{self._process.pid}/ns/mnt", "--",
                 "mount", "-t", kind or "auto", "-o", options, str(self._raw), str(self._point)]
            )  # fmt: skip
        except ToolError as error:
            raise TreeError(f"a partition must hold what this machine can mount: {error} ({partition})") from None
        return Path(f"/proc/{self._process.pid}/root{self._point}")

    def unmount(self) -> None:
        run_tool(["nsenter", f"--mount=/proc/{self._process.pid}/ns/mnt", "--", "umount", str(self._point)])


@contextmanager
def _namespace(raw: Path) -> Iterator[_Namespace]:
    """The child waits for the end of its standard input: it and its mounts end with us, even when we are killed."""
    with tempfile.TemporaryDirectory(prefix="koguma-disk-") as point:
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; read -r _ || :"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - opened as pipes
        try:
            if process.stdout.readline() != b"ready\n":
                raise ToolError("unshare must make a mount namespace, it did not (is this root?)")
            yield _Namespace(raw, process, Path(point))
        finally:
            process.stdin.close()
            process.wait()
            process.stdout.close()


def _choose(partitions: list[Partition], wanted: int, namespace: _Namespace, path: Path) -> Partition:
    """The partition asked for; else the one whose type says root; else the only one that looks like a root."""
    listed = ", ".join(str(partition) for partition in partitions) or "none"
    if wanted:
        found = [partition for partition in partitions if partition.number == wanted]
        if not found:
            raise TreeError(f"there is no partition {wanted}, there are: {listed} ({path})")
        return found[0]
    typed = [partition for partition in partitions if partition.type.upper() in _ROOT_TYPES and partition.file_system]
    if len(typed) == 1:
        return typed[0]
    candidates = [item for item in partitions if item.file_system and item.file_system not in _NO_ROOT_TYPES]
    if len(partitions) == 1 and candidates:
        return candidates[0]
    roots = [partition for partition in candidates if _looks_like_root(partition, namespace)]
    if len(roots) != 1:
        raise TreeError(
            f"one partition must hold a root, {len(roots)} of these do: {listed}; choose one with --partition ({path})"
        )
    return roots[0]


def _looks_like_root(partition: Partition, namespace: _Namespace) -> bool:
    if partition.file_system in _UNREADABLE:
        return False
    try:
        tree = namespace.mount(partition)
    except TreeError:
        return False
    try:
        return all(os.path.lexists(tree / name) for name in ("etc", "usr", "bin"))
    finally:
        namespace.unmount()


@contextmanager
def _raw(path: Path, options: ImportOptions, scratch: Path) -> Iterator[Path]:
    """The image as a raw one: itself, or a copy of a qcow2 image, which loop devices do not know."""
    path = path.absolute()
    with path.open("rb") as file:
        is_qcow2 = file.read(len(qcow2.MAGIC)) == qcow2.MAGIC
    if not is_qcow2:
        yield path
        return
    qcow2.require_whole(path, options.limits.bytes_max, "--max-bytes allows it")
    with tempfile.TemporaryDirectory(prefix="disk-", dir=scratch) as folder:
        raw = Path(folder) / "raw"
        qcow2.make_raw(path, raw)
        yield raw


def _blkid(raw: Path, offset: int, size: int) -> dict[str, str]:
    """What blkid finds in a part of a file, read from the file itself and not from a cache."""
    command = ["blkid", "--probe", "--output", "export", "--offset", str(offset)]
    command += ["--size", str(size)] if size else []
    done = subprocess.run([*command, str(raw)], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    pairs = [line.split("=", 1) for line in done.stdout.decode(errors="replace").splitlines() if "=" in line]
    return dict(pairs)
