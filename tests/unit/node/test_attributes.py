"""Extended attributes of a root over NFS: listed by the boot service, set again on the machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from koguma_stage2.attributes import LIST, restore

from koguma.boot.nfs_trees import ATTRIBUTES, _list_attributes

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.mark.root
def test_attributes_survive_a_copy_that_carries_none(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("trusted attributes and capabilities are root's")
    source, copy = tmp_path / "source", tmp_path / "copy"
    odd = os.fsdecode(b"odd \xff\n name")
    (source / "bin").mkdir(parents=True)
    for name in ("bin/ping", odd):
        (source / name).write_text("x")
    (source / "bin/link").symlink_to("ping")
    os.setxattr(source / "bin/ping", "security.capability", CAPABILITY)
    os.setxattr(source / odd, "user.note", b"\x00\xff")
    os.setxattr(source / "bin", "trusted.note", b"")
    os.setxattr(source / "bin/link", "trusted.note", b"of the link", follow_symlinks=False)
    _list_attributes(source)

    shutil.copytree(source, copy, symlinks=True, copy_function=shutil.copyfile)
    for path in (copy / "bin", copy / "bin/ping", copy / odd):
        assert os.listxattr(path) == [] or path.is_dir()

    assert ATTRIBUTES == LIST
    assert restore(copy) == 4
    assert os.getxattr(copy / "bin/ping", "security.capability") == CAPABILITY
    assert os.getxattr(copy / odd, "user.note") == b"\x00\xff"
    assert os.getxattr(copy / "bin", "trusted.note") == b""
    assert os.getxattr(copy / "bin/link", "trusted.note", follow_symlinks=False) == b"of the link"
    assert not (copy / LIST).exists()


def test_a_list_that_leads_out_of_the_root_is_refused(tmp_path: Path) -> None:
    line = f'["{b"../outside".hex()}", "{b"user.x".hex()}", ""]\n'
    (tmp_path / LIST).write_text(line)
    with pytest.raises(ValueError, match="must lie in the root"):
        restore(tmp_path)


def test_a_root_without_a_list_is_left_alone(tmp_path: Path) -> None:
    assert restore(tmp_path) == 0
