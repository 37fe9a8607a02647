"""Tars that lie: each is refused with the rule, the value and the place, and nothing of it stays."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from koguma.images.errors import LimitError, TreeError
from koguma.images.importing import Devices, ImportOptions, Limits, import_source, import_tar
from koguma.images.repository import Repository
from tests.unit.images.archives import END, HARD_LINK, SYMLINK, header, padded, pax, tar_of

SPARSE_1 = (("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.name", b"a"))


def _device(kind: bytes, major: int, minor: int) -> bytes:
    rest = bytes(64) + b"%07o\0%07o\0" % (major, minor) + bytes(167)
    return header(b"dev/x", kind=kind, rest=rest) + END


def _sparse(size: bytes) -> bytes:
    """GNU's old header of a sparse file with nothing but a hole."""
    return header(b"a", kind=b"S", magic=b"ustar  \0", rest=bytes(121 + 97) + size + bytes(17))


def _refused(repository: Repository, data: bytes, options: ImportOptions | None = None) -> str:
    with pytest.raises(TreeError) as caught:
        import_tar(repository, io.BytesIO(data), "hostile.tar", "main", "m", options=options or ImportOptions())
    assert repository.refs.all() == []
    assert list((repository.path / "packs").iterdir()) == []
    assert "hostile.tar" in str(caught.value)
    return str(caught.value)


def _acl(*entries: tuple[int, int], version: int = 2, cut: int = 0) -> bytes:
    """An ACL as the kernel has it, right or wrong: of each entry its tag and its bits."""
    value = struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry, 7) for entry in entries)
    return pax(("SCHILY.xattr.system.posix_acl_access", value[: len(value) - cut])) + header() + END


LIES = {
    "a checksum that is wrong": (header(b"a").replace(b"0000644", b"0000755") + END, "checksum"),
    "a checksum that is no number": (header(b"a")[:148] + b"zzzzzzzz" + header(b"a")[156:] + END, "checksum"),
    "a size that is no number": (header(b"a", size=b"12x45678901\0") + END, "octal"),
    "a negative size": (header(b"a", size=b"\xff" * 12) + END, "negative"),
    "a size beyond everything": (header(b"a", size=b"\x80" + b"\xff" * 11) + END, "size"),
    "a negative owner": (header(b"a", uid=b"\xff" * 8) + END, "owner"),
    "an owner that means none": (pax(("uid", b"4294967295")) + header(b"a") + END, "uid"),
    "a file that is cut": (header(b"a", size=5000) + bytes(1024), "whole"),
    "a header that is cut": (header(b"a")[:300], "whole"),
    "no end": (header(b"a"), "end with blocks of zeros"),
    "nothing": (b"", "end with blocks of zeros"),
    "something after the end": (header(b"a") + END + header(b"b"), "after its end"),
    "pax without an entry": (pax(("path", b"x")) + END, "does not come"),
    "pax without a length": (header(kind=b"x", size=5) + padded(b"a=bc\n") + header() + END, "pax record"),
    "pax with a length of nothing": (header(kind=b"x", size=8) + padded(b"0 a=bcd\n") + header() + END, "pax record"),
    "pax with a length beyond it": (header(kind=b"x", size=8) + padded(b"99 a=bc\n") + header() + END, "pax record"),
    "pax with an endless length": (header(kind=b"x", size=30) + padded(b"9" * 30) + header() + END, "pax record"),
    "pax without a key": (header(kind=b"x", size=7) + padded(b"7 =abc\n") + header() + END, "pax record"),
    "pax with a size that is none": (pax(("size", b"-1")) + header() + END, "size"),
    "pax with a time that is none": (pax(("mtime", b"nan")) + header() + END, "mtime"),
    "pax larger than allowed": (header(kind=b"x", size=2**30) + END, "at most"),
    "many pax headers": (pax(("comment", b"x" * 2_000_000)) * 3 + header() + END, "at most"),
    "a long name larger than allowed": (header(kind=b"L", size=2**32) + END, "at most"),
    "global records larger than allowed": (
        b"".join(pax((f"k{number}", b"x" * 30_000), kind=b"g") + header(b"%d" % number) for number in range(3)),
        "global records have at most 65536 bytes",
    ),
    "a name with NUL": (pax(("path", b"a\0b")) + header() + END, "relative"),
    "no name": (header(b"") + END, "not empty"),
    "a name of another length": (pax(("path", b"n" * 256)) + header() + END, "255"),
    "a directory of another length": (pax(("path", b"n" * 256 + b"/a")) + header() + END, "255"),
    "a path that Linux does not take": (pax(("path", (b"d" * 199 + b"/") * 21)) + header() + END, "4095"),
    "a target with NUL": (pax(("linkpath", b"a\0b")) + header(kind=b"2") + END, "target"),
    "a target too long": (pax(("linkpath", b"x" * 4096)) + header(kind=b"2") + END, "target"),
    "a root that is no directory": (header(b"./") + END, "root must be a directory"),
    "an unknown type": (header(kind=b"Z") + END, "type"),
    "a part of another volume": (header(kind=b"M") + END, "type"),
    "an attribute without a name": (pax(("SCHILY.xattr.", b"x")) + header() + END, "attribute"),
    "an attribute too large": (pax(("SCHILY.xattr.user.a", b"x" * 65537)) + header() + END, "65536"),
    "attributes that Linux cannot list": (
        pax(*((f"SCHILY.xattr.user.{number}", b"") for number in range(7000))) + header() + END,
        "65536 bytes together",
    ),
    "an attribute that is no base64": (pax(("LIBARCHIVE.xattr.user.a", b"!!")) + header() + END, "base64"),
    "an ACL of a stranger": (
        pax(("SCHILY.acl.access", b"user::rw-,user:nobody-here:r--,group::r--,mask::r--,other::r--")) + header() + END,
        "nobody-here",
    ),
    "an ACL without others": (pax(("SCHILY.acl.access", b"user::rw-,group::r--")) + header() + END, "ACL"),
    "an ACL of nonsense": (pax(("SCHILY.acl.access", b"everybody")) + header() + END, "ACL"),
    "an ACL of two bytes": (_acl(cut=2), "kernel"),
    "an ACL of another version": (_acl((1, 6), (4, 4), (32, 4), version=3), "kernel"),
    "an ACL that is cut": (_acl((1, 6), (4, 4), (32, 4), cut=1), "kernel"),
    "an ACL without a mask": (_acl((1, 6), (2, 4), (4, 4), (32, 4)), "kernel"),
    "an ACL out of order": (_acl((4, 4), (1, 6), (32, 4)), "kernel"),
    "an ACL of an unknown kind": (_acl((1, 6), (3, 4), (4, 4), (16, 4), (32, 4)), "kernel"),
    "an ACL of unknown rights": (_acl((1, 14), (4, 4), (32, 4)), "kernel"),
    "a sparse map that goes back": (
        pax(("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"10,2,0,2")) + header(size=4) + padded(b"abcd") + END,
        "ascend",
    ),
    "a sparse map beyond the file": (
        pax(("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"8,4")) + header(size=4) + padded(b"abcd") + END,
        "within its 10 bytes",
    ),
    "a sparse map of more than there is": (
        pax(("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"0,50")) + header(size=4) + padded(b"abcd") + END,
        "stored",
    ),
    "a sparse map of one number": (
        pax(("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"0,4,8")) + header(size=4) + padded(b"abcd") + END,
        "each piece",
    ),
    "a sparse map out of step": (
        pax(("GNU.sparse.size", b"9"), ("GNU.sparse.numbytes", b"4"), ("GNU.sparse.offset", b"0")) + header() + END,
        "alternate",
    ),
    "a sparse map without a size": (pax(("GNU.sparse.map", b"0,4")) + header(size=4) + padded(b"abcd") + END, "size"),
    "a sparse file without a size": (pax(*SPARSE_1) + header(size=512) + padded(b"0\n") + END, "size"),
    "a sparse file of less than nothing": (_sparse(b"\xff" * 12) + END, "size"),
    "a sparse file whose size is no number": (_sparse(b"-0000000001\0") + END, "octal"),
    "a sparse file beyond everything": (_sparse(b"\x80" + b"\xff" * 11) + END, "size"),
    "a sparse map of a million pieces": (
        pax(*SPARSE_1, ("GNU.sparse.realsize", b"9")) + header(size=512) + padded(b"99999999\n") + END,
        "1000000",
    ),
    "a sparse map that never ends": (
        pax(*SPARSE_1, ("GNU.sparse.realsize", b"9")) + header(size=512) + padded(b"3\n0\n1\n") + END,
        "map",
    ),
    "a sparse map of letters": (
        pax(*SPARSE_1, ("GNU.sparse.realsize", b"9")) + header(size=512) + padded(b"one\n") + END,
        "numbers",
    ),
    "a block device": (_device(b"4", 8, 0), "block device 8:0"),
    "the memory": (_device(b"3", 1, 1), "character device 1:1"),
    "an overlay's whiteout": (_device(b"3", 0, 0), "character device 0:0"),
    "a device no kernel has": (_device(b"3", 5000, 0), "4095"),
    "a directory that comes twice, differently": (
        header(b"d/", kind=b"5") + header(b"d/", kind=b"5", mode=b"0000777\0") + END,
        "same attributes",
    ),
    "a file where a directory was": (header(b"d/a") + header(b"d") + END, "once"),
    "a directory where a file was": (header(b"d") + header(b"d/", kind=b"5") + END, "once"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "rule"), LIES.values(), ids=LIES.keys())
def test_a_tar_that_lies_is_refused_by_its_rule(repository: Repository, data: bytes, rule: str) -> None:
    assert rule in _refused(repository, data)


def test_a_link_does_not_lead_what_follows_out_of_the_tree(repository: Repository, tmp_path: Path) -> None:
    """The classic: a link to a directory of the machine, then a file through it."""
    (tmp_path / "outside").mkdir()
    for target in (str(tmp_path / "outside"), "../../outside", "."):
        data = tar_of(("in", SYMLINK | {"linkname": target}, b""), ("in/evil", {}, b"x"))
        assert "no directory" in _refused(repository, data)
        data = tar_of(("in", SYMLINK | {"linkname": target}, b""), ("h", HARD_LINK | {"linkname": "in/evil"}, b""))
        assert "hard link" in _refused(repository, data)
    assert list((tmp_path / "outside").iterdir()) == []


def test_standard_devices_come_in_and_others_when_asked(repository: Repository) -> None:
    import_tar(repository, io.BytesIO(_device(b"3", 1, 3)), "t", "null", "m")
    import_tar(
        repository, io.BytesIO(_device(b"4", 8, 0)), "t", "disk", "m", options=ImportOptions(devices=Devices.KEEP)
    )
    with pytest.raises(TreeError, match="no devices"):
        import_tar(
            repository, io.BytesIO(_device(b"3", 1, 3)), "t", "no", "m", options=ImportOptions(devices=Devices.REFUSE)
        )


BOMBS = {
    "entries": (b"".join(header(b"%d" % number) for number in range(50)) + END, Limits(entries_max=40), "40 entries"),
    "directories nobody named": (header(b"/".join([b"d"] * 45)) + END, Limits(entries_max=40), "40 entries"),
    "depth": (header(b"d/" * 41, kind=b"5") + END, Limits(depth_max=40), "40 deep"),
    "bytes": (header(size=2000) + padded(bytes(2000)) + END, Limits(bytes_max=1999), "1999 bytes"),
    "attributes": (
        b"".join(pax(("SCHILY.xattr.user.a", b"x" * 100)) + header(b"%d" % number) for number in range(9)) + END,
        Limits(attribute_bytes_max=2000),
        "attributes may take 2000 bytes",
    ),
    "attributes among bytes": (
        pax(("SCHILY.xattr.user.a", b"x" * 99)) + header() + END,
        Limits(bytes_max=99),
        "99 bytes together",
    ),
    "a hole": (
        pax(("GNU.sparse.size", b"%d" % 2**62), ("GNU.sparse.map", b"0,0")) + header() + END,
        Limits(),
        "bytes together",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "limits", "rule"), BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_does_not_go_off(repository: Repository, data: bytes, limits: Limits, rule: str) -> None:
    assert rule in _refused(repository, data, ImportOptions(limits=limits))


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_bomb_in_a_compressed_tar_is_stopped_early(repository: Repository, compress: object, tmp_path: Path) -> None:
    """Half a GiB of zeros in some KB: refused by its ratio, in little memory."""
    head = header(b"zeros", size=2**29)
    bomb = compress(head + bytes(2**29) + END)  # type: ignore[operator]
    assert len(bomb) < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(LimitError, match="200 times"):
            import_tar(repository, io.BytesIO(bomb), "bomb", "main", "m")
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
    assert list((repository.path / "packs").iterdir()) == []


def test_zeros_without_end_after_the_end_are_stopped(repository: Repository) -> None:
    assert "bytes of zeros" in _refused(repository, zstandard.compress(header(b"a") + END + bytes(2**27)))
    with pytest.raises(TreeError, match="bytes of zeros"):
        import_source(repository, "/dev/zero", "main", "m")


@pytest.mark.parametrize(
    "nothing",
    [gzip.compress(b""), zstandard.compress(b""), b"\x50\x2a\x4d\x18" + bytes(4)],
    ids=["gzip", "zstd", "skipped"],
)
def test_compressed_pieces_of_nothing_are_stopped(repository: Repository, nothing: bytes) -> None:
    limits = Limits(bytes_max=1000, entries_max=1)

    assert "some 1000 bytes" in _refused(repository, nothing * 2000, ImportOptions(limits=limits))


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "zstd"])
def test_a_compressed_tar_that_is_cut_or_damaged_is_refused(repository: Repository, compression: str) -> None:
    content = os.urandom(70_000)
    plain = header(b"a", size=len(content)) + padded(content) + END
    packed = subprocess.run([compression, "-c"], input=plain, capture_output=True, check=True).stdout
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 1

    for data in (packed[: len(packed) // 2], packed[:20], bytes(damaged), packed + b"rubbish"):
        _refused(repository, data)
    import_tar(repository, io.BytesIO(packed), "whole", "main", "m")


def test_two_compressed_pieces_are_one_tar(repository: Repository) -> None:
    plain = header(b"a", size=3) + padded(b"abc") + END
    for compress in (gzip.compress, zstandard.compress):
        data = compress(plain[:700]) + compress(plain[700:])
        import_tar(repository, io.BytesIO(data), "pieces", "main", "m")


@pytest.mark.parametrize("first", [0x50, 0x5F])
def test_a_compressed_tar_may_begin_with_what_is_to_be_skipped(repository: Repository, first: int) -> None:
    """As pzstd writes it."""
    skipped = bytes((first,)) + b"\x2a\x4d\x18\x03\0\0\0abc"
    data = (
        skipped
        + zstandard.compress(header(b"a", size=3) + padded(b"abc"))
        + skipped
        + zstandard.compress(END)
        + skipped
    )

    import_tar(repository, io.BytesIO(data), "pieces", "main", "m")


def test_an_error_of_an_import_is_one_line_and_leaves_no_branch(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "evil.tar").write_bytes(tar_of(("../evil", {}, b"x")))
    command = [sys.executable, "-m", "koguma", "image", "--repo", str(repository.path), "import", "-b", "main"]

    done = subprocess.run([*command, str(tmp_path / "evil.tar")], capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "'..'" in done.stderr
    assert "evil.tar" in done.stderr
    assert not (tmp_path.parent / "evil").exists()


def test_a_file_that_is_no_archive_says_what_an_import_can_be(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello\n" * 1000)

    with pytest.raises(TreeError, match="checksum"):
        import_source(repository, str(tmp_path / "text"), "main", "m")
    with pytest.raises(TreeError, match="a directory, a tar, a disk image or an OCI image"):
        import_source(repository, str(tmp_path / "nothing"), "main", "m")
