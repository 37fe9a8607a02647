"""The layer between image and changes of an edit: what helps the session and is never part of a commit.

Name servers, a policy-rc.d that keeps services from starting, mount points that the image has not. A copy of one of
these files among the changes (`chown -R` makes one) is no change of the image: `copied_up` tells which are.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from koguma.images.aptsources import apt_settings
from koguma.images.checkout import apply_attributes
from koguma.images.files import remove_tree, write_atomically
from koguma.images.overlay import is_copied_up
from koguma.images.trees import DIRECTORY, Entry, Read, decode, resolve

POLICY = b"#!/bin/sh\n# Services do not start while an image is edited.\nexit 101\n"
_MOUNT_POINTS = (b"proc", b"sys", b"dev", b"run", b"tmp")


def prepare_aid(read: Read, root: Entry, folder: Path) -> None:
    """Lay out the layer that lies between image and changes, its directories with the image's own attributes.

    Copies of the last one's files among the changes go: they would hide those of now.
    """
    aid = folder / "aid"
    for copy in copied_up(folder):
        os.unlink(copy)  # noqa: PTH108 - names are bytes
    remove_tree(aid)
    aid.mkdir()
    touched: dict[bytes, Entry] = {b"": root}
    for point in _MOUNT_POINTS:
        if resolve(read, root, point) is None:
            (aid / os.fsdecode(point)).mkdir()
    for place, name, content, mode in (
        (b"usr/sbin", b"policy-rc.d", POLICY, 0o755),
        (b"etc", b"resolv.conf", _resolv_conf(), 0o644),
    ):
        found = resolve(read, root, place)
        if found is None or found[1].kind != DIRECTORY:
            continue
        directory = aid / os.fsdecode(found[0])
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / os.fsdecode(name)
        path.write_bytes(content)
        path.chmod(mode)
        touched |= _chain(read, root, found[0])
    for path_bytes, entry in sorted(touched.items(), reverse=True):
        apply_attributes(os.fsencode(aid) + (b"/" + path_bytes if path_bytes else b""), entry)
    write_atomically(folder / "apt.conf", apt_settings().encode())


def copied_up(folder: Path) -> set[bytes]:
    """The files in a session's upper layer that are only copies of the aid's, by their paths there."""
    aid, upper = folder / "aid", folder.resolve() / "upper"
    places = [(path, path.relative_to(aid)) for path in aid.rglob("*") if path.is_file()]
    return {os.fsencode(folder / "upper" / name) for path, name in places if _is_copy(upper, name, path)}


def _is_copy(upper: Path, name: Path, original: Path) -> bool:
    copy = upper / name
    try:
        status = copy.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(status.st_mode) or status.st_size != original.stat().st_size:
        return False
    within = copy.parent.resolve() == copy.parent  # a directory of the layer, and no link that leads elsewhere
    return within and is_copied_up(os.fsencode(copy)) and copy.read_bytes() == original.read_bytes()


def _chain(read: Read, root: Entry, path: bytes) -> dict[bytes, Entry]:
    """The directories on the way to a path, with their entries."""
    found, here, done = {}, root, b""
    for part in path.split(b"/"):
        here = next(entry for entry in decode(read(here.digest)) if entry.name == part)
        done = done + b"/" + part if done else part
        found[done] = here
    return found


def _resolv_conf() -> bytes:
    try:
        return Path("/etc/resolv.conf").read_bytes()
    except OSError:
        return b""
