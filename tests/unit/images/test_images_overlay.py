"""What an upper layer says of the tree below it, without a mount: the kernel's marks, and attributes that are none."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from koguma.images import usernamespace
from koguma.images.draft import Folder
from koguma.images.errors import TreeError
from koguma.images.overlay import apply_upper
from koguma.images.repository import Repository
from koguma.images.scratch import ScratchHasher, ScratchWriter
from tests.unit.images.making import make_tree

_NOBODY = 2**32 - 1
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, who)
    for tag, bits, who in ((1, 6, _NOBODY), (2, 4, 1234), (4, 4, _NOBODY), (16, 4, _NOBODY), (32, 4, _NOBODY))
)
"""user::rw-, user:1234:r--, group::r--, mask::r--, other::r--"""


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "upper", {"d/new": "2"})


def applied(repository: Repository, tree: Path, upper: Path) -> Folder:
    root = repository.root(repository.commit_tree(tree, "main", "m").commit)
    scratch = ScratchWriter(repository.objects)
    draft = Folder(root, scratch.read)
    with ScratchHasher(scratch) as hasher:
        apply_upper(os.fsencode(upper), draft, hasher)
    return draft


@pytest.mark.parametrize(("inside", "names"), [(False, [b"new", b"old"]), (True, [b"new"])])
def test_only_the_marks_of_those_who_mount_here_are_read(
    repository: Repository,
    tmp_path: Path,
    upper: Path,
    monkeypatch: pytest.MonkeyPatch,
    inside: bool,
    names: list[bytes],
) -> None:
    """The kernel copies a user.overlay.opaque of the image along when it writes trusted.overlay.… itself."""
    monkeypatch.setattr(usernamespace, "is_inside", lambda: inside)
    os.setxattr(upper / "d", "user.overlay.opaque", b"y")

    folder = applied(repository, make_tree(tmp_path / "tree", {"d/old": "1"}), upper).folder(b"d")

    assert folder is not None
    assert sorted(folder.names()) == names
    assert folder.entry.xattrs == ()


def test_a_layer_whose_files_are_elsewhere_is_refused(
    repository: Repository, tmp_path: Path, upper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(tmp_path / "tree", {"d/old": "1"})
    os.setxattr(upper / "d", "user.overlay.redirect", b"/other")
    monkeypatch.setattr(usernamespace, "is_inside", lambda: True)
    with pytest.raises(TreeError, match=r"may not have user\.overlay\.redirect"):
        applied(repository, tree, upper)

    monkeypatch.setattr(usernamespace, "is_inside", lambda: False)
    applied(repository, tree, upper)


@pytest.mark.parametrize("place", ["d", "d/old"])
def test_an_acl_that_an_edit_takes_away_is_gone(
    repository: Repository, tmp_path: Path, upper: Path, place: str
) -> None:
    tree = make_tree(tmp_path / "tree", {"d/old": "1"})
    try:
        os.setxattr(tree / place, "system.posix_acl_access", ACL)
    except OSError:
        pytest.skip("this file system has no ACLs")
    make_tree(upper, {"d/old": "1"})
    (upper / place).chmod((tree / place).stat().st_mode)

    folder = applied(repository, tree, upper).folder(b"d")

    assert folder is not None
    old = folder.get(b"old")
    assert old is not None
    assert (folder.entry.xattrs, old.xattrs) == ((), ())
