"""What a machine needs in stage 2, as an initramfs: `/koguma/boot.env` and `/koguma/detail.json` in a newc cpio.

Stage 1 makes the same on the machine; this one serves the boot without kexec, where no stage 1 runs. The format is
the kernel's "initramfs buffer format" (newc: 13 fields of 8 hex digits, names and data padded to 4 bytes).
"""

from __future__ import annotations

import json
import shlex
import stat
from collections.abc import Mapping
from typing import Any


def handover(env: Mapping[str, str | int], detail: Mapping[str, Any]) -> bytes:
    """The archive; `env` becomes KEY='value' lines that a POSIX shell reads back as they are."""
    lines = "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in env.items())
    return b"".join(
        (
            _member(1, "koguma", stat.S_IFDIR | 0o700, b""),
            _member(2, "koguma/boot.env", stat.S_IFREG | 0o600, lines.encode()),
            _member(3, "koguma/detail.json", stat.S_IFREG | 0o600, json.dumps(detail).encode()),
            _member(0, "TRAILER!!!", 0, b""),
        )
    )


def _member(inode: int, name: str, mode: int, data: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + encoded) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
