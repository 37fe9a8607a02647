"""Reads /run/koguma/boot.env: KEY='value' lines quoted for sh, as stage 1 or the boot service wrote them."""

from __future__ import annotations

import shlex
from pathlib import Path


def read_boot_env(path: Path) -> dict[str, str]:
    values = {}
    for word in shlex.split(path.read_text(encoding="utf-8")):
        key, separator, value = word.partition("=")
        if separator:
            values[key] = value
    return values
