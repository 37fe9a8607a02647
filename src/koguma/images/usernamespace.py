"""A user namespace in which somebody who is not root is root over ids that the system lends: /etc/subuid, /etc/subgid.

Edits hold files of every owner, so whoever makes and reads them must be able to give files away. `enter` replaces the
process by the same program inside; the files are those of lent ids outside, and of their own owners inside. Whoever
mounts asks `is_inside`: the kernel mounts no block device for such a root, and overlays keep their notes elsewhere.
"""

from __future__ import annotations

import getpass
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from koguma.images.errors import EditError

_ALL_IDS = ["0", "0", str(2**32 - 1)]
_NEEDED_IDS = 65535
_LENDERS = ("newuidmap", "newgidmap")
_RANGES = (Path("/etc/subuid"), Path("/etc/subgid"))


def is_inside() -> bool:
    """Whether this process is in a user namespace, where root may do less."""
    return Path("/proc/self/uid_map").read_text(encoding="ascii").split() != _ALL_IDS


def enter(arguments: Sequence[str]) -> NoReturn:
    """Run `koguma` with these arguments as root of a new user namespace, in place of this process.

    Raises EditError when nobody lends ids to this user.
    """
    _check_lent()
    unshare = ["unshare", "--user", "--map-root-user", "--map-auto", "--"]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvp(unshare[0], [*unshare, sys.executable, "-m", "koguma", *arguments])  # noqa: S606 - no shell is needed
    except FileNotFoundError:
        raise EditError("an edit needs unshare, it was not found on PATH (package util-linux)") from None


def _check_lent() -> None:
    for tool in _LENDERS:
        if shutil.which(tool) is None:
            raise EditError(f"an edit without root needs {tool}, it was not found on PATH (package uidmap)")
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.geteuid())
    for path in _RANGES:
        lent = _lent(path, {name, str(os.geteuid())})
        if lent < _NEEDED_IDS:
            raise EditError(
                f"an edit without root needs {_NEEDED_IDS} ids lent to {name}, got {lent} ({path});"
                f" as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
            )


def _lent(path: Path, names: set[str]) -> int:
    """How many ids the first range of a user has: `NAME:FIRST:COUNT`. unshare takes no other."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    for line in lines:
        name, _, rest = line.partition(":")
        count = rest.partition(":")[2]
        if name in names and count.isdigit():
            return int(count)
    return 0
