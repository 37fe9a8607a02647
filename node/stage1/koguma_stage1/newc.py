"""The cpio format "newc" of initramfs archives, as much of it as handing /koguma/ to stage 2 needs."""

from __future__ import annotations

DIRECTORY = 0o040000
FILE = 0o100000


def archive(folder: str, files: dict[str, bytes]) -> bytes:
    """A newc archive of `folder` (0700) with `files` (0600) in it, owned by root."""
    parts = [_member(folder, DIRECTORY | 0o700, b"", 1)]
    parts += [
        _member(f"{folder}/{name}", FILE | 0o600, data, inode) for inode, (name, data) in enumerate(files.items(), 2)
    ]
    parts.append(_member("TRAILER!!!", 0, b"", 0))
    return b"".join(parts)


def padding(size_bytes: int) -> bytes:
    """What follows `size_bytes` bytes so that the next archive starts at a multiple of four, as the kernel requires."""
    return b"\0" * (-size_bytes % 4)


def _member(name: str, mode: int, data: bytes, inode: int) -> bytes:
    links = 2 if mode & DIRECTORY else 1
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = ("070701" + "".join(f"{field:08x}" for field in fields) + name + "\0").encode()
    return head + padding(len(head)) + data + padding(len(data))
