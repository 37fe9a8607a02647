"""What the tests of the image repository begin with: repositories, trees on a disk, packs."""

from __future__ import annotations

import os
import struct
import tempfile
import time
from pathlib import Path

import pytest

from koguma.images.commits import Commit
from koguma.images.merging.acls import ACCESS_ACL
from koguma.images.objects import COMMIT
from koguma.images.refs import RefKind
from koguma.images.repository import Repository
from koguma.images.scan import scan
from koguma.images.statcache import RECENT_NS

DPKG_STATUS = """\
Package: dpkg
Status: install ok installed
Architecture: amd64
Version: 1.21.22

Package: {name}
Status: install ok installed
Architecture: amd64
Version: {version}
Description: something
 with a continuation: line

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0
"""


def make_repository(path: Path) -> Repository:
    return Repository.init(path)


def make_tree(path: Path, files: dict[str, str | bytes]) -> Path:
    """A directory with these files; their parents come by themselves."""
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    path.mkdir(exist_ok=True)
    return path


def make_bootable_tree(path: Path, *, version: str = "6.1.0-9-amd64", package: str = "1.0") -> Path:
    """The least a label needs: a kernel, an initramfs and dpkg's word on the architecture."""
    return make_tree(
        path,
        {
            f"boot/vmlinuz-{version}": f"kernel {version}",
            f"boot/initrd.img-{version}": f"initrd {version}",
            "var/lib/dpkg/status": DPKG_STATUS.format(name="tree", version=package),
            "etc/motd": "hello\n",
        },
    )


def let_age() -> None:
    """Wait until what was written is old enough for the stat cache to trust it."""
    time.sleep(RECENT_NS / 10**9 + 0.02)


def make_acl(owner: int, mask: int, other: int) -> bytes:
    """An access ACL that lets user 1000 and the group read; the permissions of the others are said."""
    nobody = 2**32 - 1
    entries = ((1, owner, nobody), (2, 4, 1000), (4, 4, nobody), (0x10, mask, nobody), (0x20, other, nobody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def set_acl(path: Path, acl: bytes) -> None:
    try:
        os.setxattr(path, ACCESS_ACL, acl)
    except OSError:
        pytest.skip("this file system has no ACLs")


def listing(path: Path) -> dict[str, tuple[int, bytes]]:
    """Modes and contents below a directory, for comparing two of them."""
    found = {}
    for folder, folders, files in os.walk(path):
        for name in [*folders, *files]:
            item = Path(folder) / name
            if item.is_symlink():
                content = os.fsencode(item.readlink())
            else:
                content = item.read_bytes() if item.is_file() else b""
            found[str(item.relative_to(path))] = (item.lstat().st_mode, content)
    return found


def commit_graph(
    repository: Repository, parents: dict[str, str], files: dict[str, dict[str, str]] | None = None
) -> dict[str, str]:
    """Commits named by letters: `{"a": "", "b": "a"}`; each is a second newer than the one before. Ids by name.

    A commit's tree holds `files` of it; a merge's and a child's do not inherit, so say all of them.
    """
    ids: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, line) in enumerate(parents.items()):
            tree = make_tree(Path(folder) / name, dict((files or {}).get(name, {"name": name})))
            with repository.objects.writing() as writer:
                root = scan(tree, repository.objects, writer, Path(folder), remember=False, keep_times=False)
                time_s = 1_790_000_000 + number
                commit = Commit(root.hex(), tuple(ids[parent] for parent in line), "me <me@example.org>", time_s, name)
                ids[name] = writer.add(COMMIT, commit.to_bytes()).hex()
    for name, commit_id in ids.items():
        if not any(name in line for line in parents.values()):
            repository.refs.update(RefKind.BRANCH, f"of-{name}", commit_id, old=None, author="me", reason="made")
    return ids
