"""Package databases of rpm and apk; dpkg's are in test_images_diff."""

from __future__ import annotations

import gzip
import random
import sqlite3
import struct
from collections.abc import Callable, Iterable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from unittest.mock import Mock

import pytest

from koguma.images import apk, debian, packages, rpm
from koguma.images.diff import PackageChange
from koguma.images.errors import PackageDatabaseError
from koguma.images.owners import owners
from koguma.images.repository import Repository
from koguma.images.trees import DIRECTORY, FILE, Entry, Read, encode
from tests.unit.images.making import DPKG_STATUS, make_tree

DATA = Path(__file__).parent / "data"


def data(name: str) -> bytes:
    return gzip.decompress((DATA / name).read_bytes())


def commit_files(repository: Repository, tmp_path: Path, branch: str, files: dict[str, str | bytes]) -> None:
    repository.commit_tree(make_tree(tmp_path / branch, files), branch, "m")


def told(changes: tuple[PackageChange, ...]) -> list[tuple[str, str, str | None, str | None, str]]:
    return [(item.name, item.change, item.old_version, item.new_version, item.manager) for item in changes]


RPM_CHANGES = [
    ("gone", "removed", "1-1", None, "rpm"),
    ("kernel", "installed", None, "6-1", "rpm"),
    ("tree", "upgraded", "1.9-1", "1.10-1", "rpm"),
]


@pytest.mark.parametrize("place", ["var/lib/rpm", "usr/lib/sysimage/rpm"])
def test_packages_of_rpm_are_read_from_its_sqlite_database(repository: Repository, tmp_path: Path, place: str) -> None:
    commit_files(repository, tmp_path, "old", {f"{place}/rpmdb.sqlite": data("rpmdb-old.sqlite.gz")})
    commit_files(repository, tmp_path, "new", {f"{place}/rpmdb.sqlite": data("rpmdb-new.sqlite.gz")})

    diff = repository.diff("old", "new")

    assert told(diff.packages) == RPM_CHANGES
    assert [(entry.version, entry.head) for entry in diff.packages[2].changelog] == [
        ("1.10-1", "Newest point"),
        ("1.9.5-1", "Middle point"),
    ]


@pytest.mark.parametrize("file", ["Packages", "Packages.db"])
def test_packages_of_rpm_are_read_from_berkeley_db_and_ndb(repository: Repository, tmp_path: Path, file: str) -> None:
    for name in ("old", "new"):
        commit_files(repository, tmp_path, name, {f"var/lib/rpm/{file}": data(f"{file}-{name}.gz")})

    assert told(repository.diff("old", "new").packages) == RPM_CHANGES


@pytest.mark.parametrize("name", ["rpmdb.sqlite", "Packages", "Packages.db"])
def test_a_damaged_rpm_database_is_noted_and_the_files_are_told_all_the_same(
    repository: Repository, tmp_path: Path, name: str
) -> None:
    whole = data("rpmdb-old.sqlite.gz" if name == "rpmdb.sqlite" else f"{name}-old.gz")
    commit_files(repository, tmp_path, "old", {f"var/lib/rpm/{name}": whole[:1000]})
    commit_files(repository, tmp_path, "new", {f"var/lib/rpm/{name}": b"nonsense" * 100})

    diff = repository.diff("old", "new")

    assert [item.path for item in diff.files] == [f"var/lib/rpm/{name}".encode()]
    assert len(diff.notes) == 1
    assert diff.notes[0].startswith("packages of rpm could not be compared: ")
    assert name in diff.notes[0]


def test_no_damage_to_an_rpm_database_is_more_than_an_error() -> None:
    from koguma.images.rpmdb import _from_berkeley, _from_ndb

    for content, reader in ((data("Packages-old.gz"), _from_berkeley), (data("Packages.db-old.gz"), _from_ndb)):
        for at in range(0, len(content), 7):
            broken = content[:at] + b"\xff\x7f\xff" + content[at + 3 :]
            try:
                for blob in reader(broken):
                    header = rpm.Header(blob)
                    _ = header.label, header.number(rpm.EPOCH), [*header.texts(rpm.CHANGELOG_TEXT)], [*header.files()]
            except (PackageDatabaseError, struct.error, IndexError):
                continue


INT32, STRING, STRINGS = 4, 6, 8


def make_header(*tags: tuple[int, int, bytes, int]) -> bytes:
    """A header of rpm: tag, type, value and number of values of each."""
    index, values = b"", b""
    for tag, kind, value, count in tags:
        index += struct.pack(">IIII", tag, kind, len(values), count)
        values += value
    return struct.pack(">II", len(tags), len(values)) + index + values


def make_package(name: str, version: str, *more: tuple[int, int, bytes, int]) -> bytes:
    texts = ((rpm.NAME, name), (rpm.VERSION, version), (rpm.RELEASE, "1"), (rpm.ARCHITECTURE, "noarch"))
    return make_header(*((tag, STRING, text.encode() + b"\0", 1) for tag, text in texts), *more)


def make_sqlite(path: Path, statements: str, headers: Iterable[bytes] = ()) -> bytes:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)
        for header in headers:
            connection.execute("INSERT INTO Packages(blob) VALUES (?)", [header])
        connection.commit()
    return path.read_bytes()


RPM_TABLE = "CREATE TABLE IF NOT EXISTS 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL);"
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT zeroblob(1000000) AS blob FROM c"


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        (f"CREATE VIEW Packages AS {ENDLESS}", "must hold tables only"),
        (f"{RPM_TABLE} CREATE VIEW other AS {ENDLESS}", "must hold tables only"),
        ("CREATE VIRTUAL TABLE Packages USING fts5(blob)", "must hold tables only"),
        (f"{RPM_TABLE} CREATE TRIGGER t AFTER DELETE ON Packages BEGIN SELECT 1; END", "must hold tables only"),
        (
            "CREATE TABLE Packages(hnum INTEGER, blob AS (zeroblob(900000000))); INSERT INTO Packages VALUES (1), (2)",
            "computed column 'blob'",
        ),
        ("CREATE TABLE other(blob)", "must be readable by SQLite"),
    ],
)  # fmt: skip
def test_nothing_of_an_rpm_database_is_executed(
    repository: Repository, tmp_path: Path, statements: str, told: str
) -> None:
    hostile = make_sqlite(tmp_path / "hostile.sqlite", statements)
    commit_files(repository, tmp_path, "old", {"var/lib/rpm/rpmdb.sqlite": data("rpmdb-old.sqlite.gz")})
    commit_files(repository, tmp_path, "new", {"var/lib/rpm/rpmdb.sqlite": hostile})

    diff = repository.diff("old", "new")

    assert [item.path for item in diff.files] == [b"var/lib/rpm/rpmdb.sqlite"]
    assert told in diff.notes[0]
    assert diff.packages == ()


def test_headers_that_share_their_bytes_in_an_ndb_database_are_refused() -> None:
    slots, header = 255, make_package("tree", "1.0", (9000, STRING, b"x" * 60_000 + b"\0", 1))
    block = 4096 // 16
    content = struct.pack("<4sIII", b"RpmP", 0, 0, 1).ljust(32, b"\0")
    content += struct.pack("<4sIII", b"Slot", 7, block, len(header) // 16 + 1) * (slots - 1)
    content = content.ljust(4096, b"\0") + struct.pack("<4sIII", b"BlbS", 7, 0, len(header)) + header

    with pytest.raises(PackageDatabaseError, match=r"must fit their database of \d+ bytes, .*/Packages\.db"):
        rpm.installed_packages(*tree_with("var/lib/rpm/Packages.db", content))


def test_headers_that_share_their_bytes_in_a_berkeley_database_are_refused() -> None:
    page_bytes, items = 4096, 100
    header = make_package("tree", "1.0", (9000, STRING, b"x" * 3900 + b"\0", 1))
    meta = struct.pack("<12xII I", 0x061561, 0, page_bytes).ljust(page_bytes, b"\0")
    tail, offsets = b"", []
    for _ in range(items):
        for item in (b"\x01\x07\0\0\0", struct.pack("<B3xII", 3, 2, len(header))):
            tail = item + tail
            offsets.append(page_bytes - len(tail))
    head = struct.pack("<20xHxxBB", len(offsets), 0, 13) + struct.pack(f"<{len(offsets)}H", *offsets)
    overflow = struct.pack("<16xIxxHxB", 0, len(header), 7) + header
    content = meta + head.ljust(page_bytes - len(tail), b"\0") + tail + overflow.ljust(page_bytes, b"\0")

    with pytest.raises(PackageDatabaseError, match=r"must fit their database of 12288 bytes, .*/Packages\)"):
        rpm.installed_packages(*tree_with("var/lib/rpm/Packages", content))


def tree_with(path: str, content: bytes) -> tuple[Read, Entry]:
    """A tree of one file, and what reads it."""
    objects = {sha256(content).digest(): content}
    *folders, name = path.encode().split(b"/")
    entry = Entry(name, FILE, 0o644, 0, 0, len(content), sha256(content).digest())
    for folder in [*reversed(folders), b""]:
        encoded = encode([entry])
        objects[sha256(encoded).digest()] = encoded
        entry = Entry(folder, DIRECTORY, 0o755, 0, 0, 0, sha256(encoded).digest())
    return objects.__getitem__, entry


def test_numbers_must_lie_within_their_header(repository: Repository, tmp_path: Path) -> None:
    header = bytearray(make_package("tree", "2.0", (rpm.EPOCH, INT32, b"\0\0\0\1", 1)))
    struct.pack_into(">I", header, 8 + 4 * 16 + 8, 100_000)
    for name, blob in (("old", make_package("tree", "1.0")), ("new", bytes(header))):
        content = make_sqlite(tmp_path / f"{name}.sqlite", RPM_TABLE, [blob])
        commit_files(repository, tmp_path, name, {"var/lib/rpm/rpmdb.sqlite": content})

    diff = repository.diff("old", "new")

    assert (diff.packages, len(diff.notes)) == ((), 1)
    assert "a number must lie within its header (tag 1003)" in diff.notes[0]
    assert rpm.Header(bytes(make_package("a", "1", (rpm.EPOCH, INT32, b"\0\0\0\1", 1)))).number(rpm.EPOCH) == 1


def test_an_rpm_header_tells_only_paths_that_there_can_be() -> None:
    folder = b"/" + b"d" * 3000 + b"/"
    header = rpm.Header(
        make_package(
            "tree",
            "1.0",
            (rpm.FOLDERS, STRINGS, folder + b"\0/bin/\0", 2),
            (rpm.BASE_NAMES, STRINGS, b"n" * 2000 + b"\0tree\0gone\0", 3),
            (rpm.FOLDER_NUMBERS, INT32, struct.pack(">III", 0, 1, 7), 3),
        )
    )

    assert [*header.files()] == [b"bin/tree"]


def test_changelogs_of_all_upgraded_packages_are_read_from_rpm_at_once(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version in (("old", "1"), ("new", "2")):
        blobs = [
            make_package(
                f"package{number}",
                version,
                (rpm.CHANGELOG_NAME, STRINGS, f"me {version}-1\0".encode(), 1),
                (rpm.CHANGELOG_TEXT, STRINGS, f"- of {number}\0".encode(), 1),
            )
            for number in range(20)
        ]
        content = make_sqlite(tmp_path / f"{name}.sqlite", RPM_TABLE, blobs)
        commit_files(repository, tmp_path, name, {"var/lib/rpm/rpmdb.sqlite": content})
    reading = Mock(wraps=rpm.header_blobs)
    monkeypatch.setattr(rpm, "header_blobs", reading)

    changes = repository.diff("old", "new").packages

    assert sorted(item.changelog[0].head for item in changes) == sorted(f"of {number}" for number in range(20))
    assert reading.call_count == 3  # both sides, and for the changelogs


def test_lists_and_changelogs_too_large_to_be_honest_are_noted(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = "var/lib/dpkg/status"
    commit_files(repository, tmp_path, "old", {status: DPKG_STATUS.format(name="tree", version="2.1.0-1")})
    files: dict[str, str | bytes] = {status: DPKG_STATUS.format(name="tree", version="2.1.0-3")}
    files["usr/share/doc/tree/changelog.Debian.gz"] = gzip.compress(CHANGELOG.encode())
    commit_files(repository, tmp_path, "new", files)

    monkeypatch.setattr(packages, "_CHANGELOGS_CHARS_MAX", 20)
    diff = repository.diff("old", "new")
    assert told(diff.packages) == [("tree", "upgraded", "2.1.0-1", "2.1.0-3", "dpkg")]
    assert diff.packages[0].changelog == ()
    assert diff.notes == ("changelogs of dpkg were left out: more than 20 characters",)

    headings = "".join(f"tree (2.1.0-2+{number}) unstable; urgency=low\n" for number in range(200))
    files["usr/share/doc/tree/changelog.Debian.gz"] = gzip.compress(headings.encode())
    commit_files(repository, tmp_path, "headings", files)
    monkeypatch.setattr(packages, "_CHANGELOGS_CHARS_MAX", 10_000)
    assert repository.diff("old", "headings").packages[0].changelog == ()

    monkeypatch.setattr(debian, "TEXT_BYTES_MAX", 100)
    size = len(DPKG_STATUS.format(name="tree", version="2.1.0-1"))
    assert repository.diff("old", "new").notes == (
        f"packages of dpkg could not be compared: a list must have at most 100 bytes, got {size} (/{status})",
    )


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1.0-1", "1.0-2"), ("1.9-1", "1.10-1"), ("9-1", "1:1-1"), ("1.0~rc1-1", "1.0-1"), ("1.0-1", "1.0^git1-1"),
        ("1.0^git1-1", "1.0.1-1"), ("1.a-1", "1.1-1"), ("1.0-1.fc39", "1.0-1.fc40"), ("2.0a-1", "2.0.1-1"),
    ],
)  # fmt: skip
def test_versions_are_ordered_as_rpm_orders_them(left: str, right: str) -> None:
    assert rpm.compare_versions(left, right) < 0 < rpm.compare_versions(right, left)
    assert rpm.compare_versions(left, left) == 0


APK = (
    "C:Q1abc=\nP:busybox\nV:{version}\nA:x86_64\nF:bin\nR:busybox\nZ:Q1x=\n\n"
    "P:musl\nV:1.2.4-r2\nA:x86_64\nF:lib\nF:\nR:init\n"
)


@pytest.mark.parametrize("place", ["lib/apk/db/installed", "usr/lib/apk/db/installed"])
def test_packages_of_apk_are_read(repository: Repository, tmp_path: Path, place: str) -> None:
    commit_files(repository, tmp_path, "old", {place: APK.format(version="1.36.1-r9")})
    commit_files(repository, tmp_path, "new", {place: APK.format(version="1.36.1-r10")})

    assert told(repository.diff("old", "new").packages) == [("busybox", "upgraded", "1.36.1-r9", "1.36.1-r10", "apk")]
    root = repository.root(repository.resolve("new"))
    assert owners(repository.objects.read, root, b"bin/busybox") == ("busybox",)
    assert owners(repository.objects.read, root, b"bin/other") == ()
    assert owners(repository.objects.read, root, b"bin") == ("busybox",)
    assert owners(repository.objects.read, root, b"init") == ("musl",)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1.0-r1", "1.0-r2"), ("1.9", "1.10"), ("1.0_rc1", "1.0"), ("1.0_alpha2", "1.0_beta1"), ("1.0", "1.0_p1"),
        ("1.0_p1", "1.0.1"), ("1.0", "1.0a"), ("1.0a", "1.0b"), ("1.05", "1.1"), ("1.0_git20240101", "1.0_p1"),
        ("1.0_pre1", "1.0_rc1"), ("1.0_alpha", "1.0_alpha1"), ("1.0_cvs1", "1.0_svn1"), ("1.0_git1", "1.0_hg1"),
        ("1.0_p1_rc1", "1.0_p1"), ("1.0_rc2-r5", "1.0-r0"), ("1.0a_p1", "1.0b"), ("1.0b", "1.0.1"), ("1.0_p1", "1.0a"),
        ("1.01", "1.010"), ("1.010", "1.011"), ("1.1.010", "1.1.9"), ("1.0", "1.00"), ("1.0", "1.0-r0"),
        ("1.0", "1.0.0"), ("1.0-r1", "1.0~1f"), ("1.0~1f", "1.0~2a"), ("1.0~1f-r1", "1.0~1f-r2"),
        ("1.0~1f", "1.0_git1"), ("09", "10"), ("1.0_rc1", "1.0_next1"), ("1.0_next1", "1.0"), ("1.9_next1", "1.10"),
        ("next", "0"),
    ],
)  # fmt: skip
def test_versions_are_ordered_as_apk_orders_them(left: str, right: str) -> None:
    assert apk.compare_versions(left, right) < 0 < apk.compare_versions(right, left)
    assert apk.compare_versions(left, left) == 0


@pytest.mark.parametrize("compare", [debian.compare_versions, rpm.compare_versions, apk.compare_versions])
def test_versions_of_thousands_of_digits_are_ordered_as_others_are(compare: Callable[[str, str], int]) -> None:
    many = "9" * 5000

    assert compare(f"1.{many}", f"1.1{many}") < 0 < compare(f"1.{many}", "1.8")
    assert compare(f"1.1{many}-r2", f"1.1{many}-r10") < 0
    assert compare(many, f"000{many}") == 0


@pytest.mark.parametrize("compare", [debian.compare_versions, rpm.compare_versions])
def test_only_the_digits_0_to_9_make_an_epoch(compare: Callable[[str, str], int]) -> None:
    assert compare("\N{SUPERSCRIPT TWO}:1", "1:1") < 0
    assert compare("\N{ARABIC-INDIC DIGIT THREE}:1", "1:1") < 0
    assert compare("9" * 5000 + ":1", "1" + "0" * 5000 + ":1") < 0


@pytest.mark.parametrize("version", ["9" * 5000, "\N{SUPERSCRIPT TWO}:1", "1.\N{SUPERSCRIPT TWO}", ":", "-"])
def test_no_version_keeps_packages_from_being_compared(repository: Repository, tmp_path: Path, version: str) -> None:
    for name, chosen in (("old", "1"), ("new", version)):
        files: dict[str, str | bytes] = {
            "var/lib/dpkg/status": DPKG_STATUS.format(name="tree", version=chosen),
            "lib/apk/db/installed": APK.format(version=chosen),
        }
        commit_files(repository, tmp_path, name, files)

    diff = repository.diff("old", "new")

    assert [(item.name, item.new_version) for item in diff.packages] == [("busybox", version), ("tree", version)]
    assert diff.notes == ()


def test_the_package_that_owns_a_path_is_told(repository: Repository, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "var/lib/rpm/rpmdb.sqlite": data("rpmdb-old.sqlite.gz"),
        "var/lib/dpkg/info/dash.list": "/.\n/bin\n/bin/dash\n",
        "var/lib/dpkg/info/libc6:amd64.list": "/.\n/bin\n/lib\n",
    }
    commit_files(repository, tmp_path, "main", files)
    root = repository.root(repository.resolve("main"))

    assert owners(repository.objects.read, root, b"usr/bin/dash") == ("dash",)
    assert owners(repository.objects.read, root, b"bin") == ("dash", "libc6:amd64")
    assert owners(repository.objects.read, root, b"usr/share/tree/data-1.9") == ("tree-1.9-1.noarch",)


CHANGELOG = """\
tree (2.1.0-3) unstable; urgency=medium

  [ A Maintainer ]
  * Newest point
    goes on.
  * Another

 -- A Maintainer <maintainer@example.org>  Tue, 03 Feb 2026 00:00:00 +0000

tree (2.1.0-2) unstable; urgency=medium

  * Middle point

 -- A Maintainer <maintainer@example.org>  Mon, 02 Feb 2026 00:00:00 +0000

tree (2.1.0-1) unstable; urgency=medium

  * First point
"""


def test_an_upgrade_tells_what_the_changelog_says_since_the_old_version(repository: Repository, tmp_path: Path) -> None:
    path = "usr/share/doc/tree/changelog.Debian.gz"
    status = "var/lib/dpkg/status"
    old = {status: DPKG_STATUS.format(name="tree", version="2.1.0-1")}
    commit_files(repository, tmp_path, "old", {**old})
    new = {status: DPKG_STATUS.format(name="tree", version="2.1.0-3"), path: gzip.compress(CHANGELOG.encode())}
    commit_files(repository, tmp_path, "new", {**new})

    (package,) = repository.diff("old", "new").packages

    assert [(entry.version, entry.head) for entry in package.changelog] == [
        ("2.1.0-3", "Newest point goes on."),
        ("2.1.0-2", "Middle point"),
    ]
    assert "Another" in package.changelog[0].text
    assert "maintainer@" not in package.changelog[0].text


def test_a_changelog_of_hundreds_of_versions_is_read_until_the_old_one(repository: Repository, tmp_path: Path) -> None:
    points = [random.Random(number).randbytes(400).hex() for number in range(400)]
    text = "".join(
        f"tree ({number}) unstable; urgency=medium\n\n  * {points[number]}\n\n -- A Maintainer <a@example.org>\n\n"
        for number in reversed(range(400))
    )
    status = "var/lib/dpkg/status"
    commit_files(repository, tmp_path, "old", {status: DPKG_STATUS.format(name="tree", version="99")})
    files: dict[str, str | bytes] = {status: DPKG_STATUS.format(name="tree", version="399")}
    files["usr/share/doc/tree/changelog.Debian.gz"] = gzip.compress(text.encode())
    commit_files(repository, tmp_path, "new", files)

    (package,) = repository.diff("old", "new").packages

    assert [(entry.version, entry.head) for entry in package.changelog] == [
        (str(number), points[number]) for number in reversed(range(100, 400))
    ]


def test_a_changelog_that_is_no_gzip_file_is_left_out(repository: Repository, tmp_path: Path) -> None:
    status = "var/lib/dpkg/status"
    commit_files(repository, tmp_path, "old", {status: DPKG_STATUS.format(name="tree", version="1")})
    files: dict[str, str | bytes] = {status: DPKG_STATUS.format(name="tree", version="2")}
    files["usr/share/doc/tree/changelog.gz"] = b"no gzip"
    commit_files(repository, tmp_path, "new", files)

    (package,) = repository.diff("old", "new").packages

    assert (package.change, package.changelog) == ("upgraded", ())
