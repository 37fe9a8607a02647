"""What is mounted where, as this process sees it: /proc/self/mountinfo, read anew for every question.

Asked by whoever walks or removes a directory: device numbers do not tell a bind mount from a directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

_LAYERS = (b"lowerdir", b"lowerdir+", b"datadir+", b"upperdir")
_OCTAL = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """A line of mountinfo."""

    parent: int
    """The number of the mount that it lies in."""
    point: bytes
    """Where, from this process's root."""
    kind: str
    """The type of its file system."""
    options: bytes
    """Those of the file system, as the kernel writes them."""

    def layers(self) -> list[bytes]:
        """An overlay's directories, as they were named to the mount: relative ones are those of that process."""
        found = []
        for option in self.options.split(b","):
            name, _, value = option.partition(b"=")
            if name in _LAYERS:
                parts = re.findall(rb"(?:\\.|[^:\\])+", _unescaped(value))
                found += [re.sub(rb"\\(.)", rb"\1", part) for part in parts]
        return found


Mounts = Mapping[int, Mount]
"""By their numbers."""


def read_mounts() -> Mounts:
    """All that this process can see."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        number, parent, _, _, point, _, *rest = line.split(b" ")
        kind, _, options = rest[rest.index(b"-") + 1 :]
        found[int(number)] = Mount(int(parent), _unescaped(point), kind.decode("ascii", "replace"), options)
    return found


def mount_of(path: bytes | Path) -> int:
    """The number of the mount that a file or directory lies in. It may be none that this process sees: in a chroot."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        for line in Path(f"/proc/self/fdinfo/{descriptor}").read_bytes().splitlines():
            if line.startswith(b"mnt_id:"):
                return int(line.split()[1])
        raise OSError("the kernel does not say which mount a file is in")
    finally:
        os.close(descriptor)


def mounts_below(path: Path, mounts: Mounts | None = None) -> list[bytes]:
    """The mount points in a directory, itself among them; not those that a later mount over a parent hides."""
    top, here, mounts = os.fsencode(path.resolve()), mount_of(path), read_mounts() if mounts is None else mounts
    return [
        mount.point
        for number, mount in mounts.items()
        if (mount.point == top or mount.point.startswith(top.rstrip(b"/") + b"/")) and here in _chain(number, mounts)
    ]


def _chain(number: int, mounts: Mounts) -> Iterator[int]:
    """A mount, the one it lies in, and so on."""
    for _ in range(len(mounts) + 1):
        yield number
        if number not in mounts or mounts[number].parent == number:
            return
        number = mounts[number].parent


def _unescaped(text: bytes) -> bytes:
    """The kernel writes blanks and the like as three octal digits."""
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), text)
