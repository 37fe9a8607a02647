"""What other programs write as a tar is read as they meant it; the directory it was made of is the witness."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from koguma.images.importing import Devices, ImportOptions, import_source, import_tar, paxheaders
from koguma.images.repository import Repository
from koguma.images.trees import DIRECTORY, FILE, Entry, Xattrs, lookup, walk
from tests.unit.images.archives import END, header, padded, pax
from tests.unit.images.making import make_tree

ACL = bytes.fromhex("0200000001000600ffffffff0200040031d4000004000400ffffffff10000400ffffffff20000400ffffffff")
KEEP = ImportOptions(devices=Devices.KEEP)


def _entry(repository: Repository, data: bytes, path: bytes = b"a", options: ImportOptions = KEEP) -> Entry:
    commit = import_tar(repository, io.BytesIO(data), "t", "main", "m", options=options).commit
    found = lookup(repository.objects.read, repository.root(commit), path)
    assert found is not None
    return found


def _tree(path: Path) -> Path:
    tree = make_tree(path, {"a": "1", "d/b": "2" * 70_000, "x" * 150: "long", ("deep/" * 40) + "y": "z", "empty": ""})
    (tree / "link").symlink_to("y" * 140)
    (tree / "hard").hardlink_to(tree / "d" / "b")
    os.mkfifo(tree / "fifo")
    (tree / "void").mkdir(mode=0o2750)
    (tree / "a").chmod(0o4711)
    with (tree / "sparse").open("wb") as file:
        file.write(b"start")
        for at in range(1, 40):
            file.seek(at * 200_000)
            file.write(b"piece %d" % at)
        file.truncate(40 * 200_000)
    with (tree / "hole").open("wb") as file:
        file.truncate(3_000_000)
    os.setxattr(tree / "a", "user.binary", b"\xff\0\n=")
    os.setxattr(tree / "a", "user.odd=%3D%25%", b"1")
    return tree


@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=gnu", "--sparse"],
        ["--format=oldgnu", "--sparse"],
        ["--format=pax"],
        *(["--format=pax", "--sparse", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0")),
        ["--format=pax", "--gzip"],
        ["--format=pax", "--bzip2"],
        ["--format=pax", "--xz"],
        ["--format=pax", "--zstd"],
    ],
    ids=" ".join,
)
def test_a_tar_that_gnu_tar_made_holds_the_directory(
    repository: Repository, tmp_path: Path, options: list[str]
) -> None:
    if missing := [
        name for name in ("gzip", "bzip2", "xz", "zstd") if f"--{name}" in options and not shutil.which(name)
    ]:
        pytest.skip(f"{missing[0]} is not installed")
    tree = _tree(tmp_path / "tree")
    if "--format=pax" in options:
        options = [*options, "--xattrs", "--xattrs-include=*"]
    else:
        for name in os.listxattr(tree / "a"):
            os.removexattr(tree / "a", name)  # only pax has a place for it
    subprocess.run(["tar", "-C", tree, *options, "-cf", tmp_path / "t.tar", "."], check=True)

    imported = import_source(repository, str(tmp_path / "t.tar"), "tar", "m").commit

    assert imported.tree == repository.commit_tree(tree, "directory", "m").commit.tree


def test_a_tar_keeps_times_to_the_nanosecond_when_asked(repository: Repository, tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree")
    for number, path in enumerate([*tree.rglob("*"), tree]):
        os.utime(path, ns=(0, number * 1_234_567_891_011 - 5_000_000_000_007), follow_symlinks=False)
    subprocess.run(
        ["tar", "-C", tree, "--format=pax", "--xattrs", "--xattrs-include=*", "-cf", tmp_path / "t.tar", "."],
        check=True,
    )

    imported = import_source(repository, str(tmp_path / "t.tar"), "tar", "m", options=ImportOptions(keep_times=True))

    assert imported.commit.tree == repository.commit_tree(tree, "directory", "m", keep_times=True).commit.tree


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="ACLs of other users and file systems that hold them need root")
def test_acls_that_come_as_text_become_the_kernels(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path / "tree", {"a": "1", "etc/passwd": "web:x:54321:7::/:/bin/sh\n", "etc/group": "adm:x:4:\n"}
    )
    (tree / "d").mkdir()
    os.setxattr(tree / "a", "system.posix_acl_access", ACL)
    os.setxattr(tree / "d", "system.posix_acl_default", ACL)
    subprocess.run(["tar", "-C", tree, "--acls", "-cf", tmp_path / "t.tar", "."], check=True)

    imported = import_source(repository, str(tmp_path / "t.tar"), "tar", "m").commit

    assert imported.tree == repository.commit_tree(tree, "directory", "m").commit.tree


def test_names_in_an_acl_are_those_of_the_root_that_is_imported(repository: Repository) -> None:
    text = b"user::rw-,user:web:r--,group::r--,mask::r--,other::r--"
    passwd = b"web:x:54321:7::/:/bin/sh\n"
    data = (
        pax(("SCHILY.acl.access", text)) + header(b"a")
        + header(b"etc/passwd", size=len(passwd)) + padded(passwd) + END
    )  # fmt: skip

    assert _entry(repository, data).xattrs == ((b"system.posix_acl_access", ACL),)


def test_an_acl_that_says_no_more_than_the_mode_is_none(repository: Repository) -> None:
    data = pax(("SCHILY.acl.access", b"user::rw-\ngroup::r--\nother::r--\n")) + header(b"a") + END

    assert _entry(repository, data).xattrs == ()


def test_attributes_are_read_from_each_tool_s_records(repository: Repository) -> None:
    data = (
        pax(
            ("LIBARCHIVE.xattr.user.odd%20name", b"/wA"),
            ("LIBARCHIVE.xattr.user.both", b"AAAA"),
            ("SCHILY.xattr.user.both", b"\0\n=1"),
            ("RHT.security.selinux", b"system_u:object_r:bin_t:s0"),
            ("SCHILY.nlink", b"2"),
            ("comment", b"no matter"),
        )
        + header(b"a")
        + END
    )

    assert _entry(repository, data).xattrs == (
        (b"security.selinux", b"system_u:object_r:bin_t:s0\0"),
        (b"user.both", b"\0\n=1"),
        (b"user.odd name", b"\xff\x00"),
    )


def test_attributes_that_no_file_can_have_are_left_out_and_told(repository: Repository) -> None:
    attributes = pax(
        ("SCHILY.xattr.com.apple.provenance", b"1"), ("SCHILY.xattr.user.a", b"2"),
        ("SCHILY.xattr.system.nfs4_acl", b""), ("SCHILY.xattr.security.capability", b"3"),
        ("SCHILY.xattr.trusted.", b"4"), ("SCHILY.acl.default", b"user::rw-,group::r--,other::r--"),
    )  # fmt: skip
    data = attributes + header(b"file") + attributes + header(b"link", kind=b"2", target=b"x".ljust(100, b"\0")) + END

    done = import_tar(repository, io.BytesIO(data), "t", "main", "m")

    found = {path: entry.xattrs for path, entry in walk(repository.objects.read, repository.root(done.commit))}
    assert found == {
        b"file": ((b"security.capability", b"3"), (b"user.a", b"2")),
        b"link": ((b"security.capability", b"3"),),
    }
    assert done.left_out == (
        b"com.apple.provenance", b"system.nfs4_acl", b"system.posix_acl_default", b"trusted.", b"user.a",
    )  # fmt: skip


def test_what_overlayfs_noted_in_a_layer_is_no_attribute_of_a_file(repository: Repository) -> None:
    records = (("trusted.overlay.opaque", b"y"), ("user.overlay.metacopy", b""), ("user.overlay", b"mine"))
    data = pax(*((f"SCHILY.xattr.{name}", value) for name, value in records)) + header(b"a") + END

    assert _entry(repository, data).xattrs == ((b"user.overlay", b"mine"),)


def test_large_numbers_are_read_in_base_256_and_in_pax(repository: Repository) -> None:
    uid = b"\x80\0\0\0" + (3_000_000_000).to_bytes(4, "big")
    data = pax(("gid", b"4000000000")) + header(b"a", uid=uid) + END

    entry = _entry(repository, data)

    assert (entry.uid, entry.gid) == (3_000_000_000, 4_000_000_000)


def test_a_time_before_1970_is_read_in_base_256(repository: Repository) -> None:
    data = header(b"a", mtime=b"\xff" * 11 + b"\xfe") + END

    assert _entry(repository, data, options=ImportOptions(keep_times=True)).mtime_ns == -2 * 10**9


@pytest.mark.parametrize("sizes", [b"%011o " % 3, b"%11o\0" % 3, b"  3 " + bytes(8), b"\x80" + bytes(10) + b"\x03"])
def test_sizes_are_read_however_they_are_written(repository: Repository, sizes: bytes) -> None:
    assert _entry(repository, header(b"a", size=sizes) + padded(b"abc") + END).size == 3


def test_unix_version_7_says_a_directory_by_a_slash(repository: Repository) -> None:
    assert _entry(repository, header(b"a/", kind=b"\0", magic=bytes(8)) + END).kind == DIRECTORY


def test_a_prefix_belongs_to_ustar_and_not_to_gnu(repository: Repository) -> None:
    rest = bytes(80) + b"folder".ljust(155, b"\0") + bytes(12)
    assert _entry(repository, header(b"a", rest=rest) + END, b"folder/a").kind == FILE
    rest = bytes(80) + b"12345670123\0".ljust(155, b"\0") + bytes(12)
    assert _entry(repository, header(b"b", rest=rest, magic=b"ustar  \0") + END, b"b").kind == FILE


def test_what_is_left_empty_counts_for_nothing(repository: Repository) -> None:
    """A pax record without a value takes back what was said before, as an empty path takes back nothing else."""
    data = pax(("comment", b"x"), ("path", b"global"), kind=b"g") + pax(("path", b"")) + header(b"a") + END

    assert _entry(repository, data).name == b"a"


def test_global_attributes_are_those_of_every_entry_but_where_it_says_others(repository: Repository) -> None:
    data = (
        pax(("SCHILY.xattr.user.a", b"all"), ("SCHILY.xattr.user.b", b"all"), kind=b"g") + header(b"before")
        + pax(("SCHILY.xattr.user.b", b"own")) + header(b"own") + pax(("SCHILY.xattr.user.a", b""), kind=b"g")
        + header(b"after") + END
    )  # fmt: skip
    commit = import_tar(repository, io.BytesIO(data), "t", "main", "m").commit
    found = {path: entry.xattrs for path, entry in walk(repository.objects.read, repository.root(commit))}

    assert found == {
        b"before": ((b"user.a", b"all"), (b"user.b", b"all")),
        b"own": ((b"user.a", b"all"), (b"user.b", b"own")),
        b"after": ((b"user.b", b"all"),),
    }


def test_global_records_are_parsed_once_however_many_entries_follow(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def counted(records: Mapping[bytes, bytes]) -> Xattrs:
        told.append(len(records))
        return original(records)

    original = paxheaders.xattrs
    monkeypatch.setattr(paxheaders, "xattrs", counted)
    data = pax(("SCHILY.xattr.user.a", b"1"), kind=b"g") + b"".join(header(b"%d" % number) for number in range(50))

    import_tar(repository, io.BytesIO(data + END), "t", "main", "m")

    assert told == [1]


def test_names_are_bytes(repository: Repository) -> None:
    name = bytes(range(1, 256)).replace(b"/", b"")
    data = pax(("path", name)) + header(b"short") + END

    assert _entry(repository, data, name).kind == FILE


def test_gnu_s_directories_of_backups_are_directories(repository: Repository) -> None:
    data = header(b"d/", kind=b"D", size=20) + padded(b"Yfile\0\0") + header(b"d/file") + END

    assert _entry(repository, data, b"d/file").kind == FILE


def test_padding_may_follow_the_end(repository: Repository) -> None:
    assert _entry(repository, header(b"a") + END + bytes(20 * 512)).kind == FILE
    assert _entry(repository, header(b"a") + bytes(512)).kind == FILE


def test_links_to_a_name_that_was_replaced_are_told_apart(repository: Repository) -> None:
    """With repeated names: b names the first a, c the second; b and c are not one file."""
    from koguma.images.importing import Repeated

    link = {"kind": b"1", "target": b"a".ljust(100, b"\0")}
    data = (
        header(b"a", size=3) + padded(b"one") + header(b"b", **link)
        + header(b"a", size=3) + padded(b"two") + header(b"c", **link) + END
    )  # fmt: skip
    options = ImportOptions(repeated=Repeated.LAST)
    commit = import_tar(repository, io.BytesIO(data), "t", "main", "m", options=options).commit
    read, root = repository.objects.read, repository.root(commit)
    a, b, c = (lookup(read, root, name) for name in (b"a", b"b", b"c"))

    assert a is not None
    assert b is not None
    assert c is not None
    assert (read(a.digest), read(b.digest), read(c.digest)) == (b"two", b"one", b"two")
    assert (a.link == c.link, bool(a.link), b.link) == (True, True, b"")
