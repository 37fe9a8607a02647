"""Writes files of the machine atomically, under a root directory that tests replace."""

from __future__ import annotations

import os
from pathlib import Path

from koguma_stage2.errors import DetailError


def write(root: Path, path: str, content: str, mode: int = 0o644) -> bool:
    """Make the file hold `content`; whether that changed anything. Never is a part of it there."""
    target = inside(root, path)
    data = content.encode()
    if _holds(target, data, mode):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.koguma-{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
        # No fsync: the file system is memory, and nothing of it outlives the machine.
        temporary.rename(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return True


def inside(root: Path, path: str) -> Path:
    """`path` of the machine below `root`. Raises DetailError unless it is absolute and plain."""
    parts = path.split("/")
    if not path.startswith("/") or any(part in ("", ".", "..") for part in parts[1:]) or not path.isprintable():
        raise DetailError(f'a path must be absolute, without ".." and empty parts, got {path!r} (detail.json)')
    return root / path[1:]


def _holds(target: Path, data: bytes, mode: int) -> bool:
    try:
        return not target.is_symlink() and target.stat().st_mode & 0o7777 == mode and target.read_bytes() == data
    except OSError:
        return False
