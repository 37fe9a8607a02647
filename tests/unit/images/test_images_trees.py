from __future__ import annotations

import struct

import pytest

from koguma.images import trees
from koguma.images.errors import CorruptError, TreeError
from koguma.images.trees import (
    CHARACTER,
    DIRECTORY,
    EMPTY_DIGEST,
    FIFO,
    FILE,
    SYMLINK,
    Entry,
    check_name,
    decode,
    encode,
    encode_root,
    lookup,
    read_root,
    resolve,
)


class Objects:
    """Stored trees by name; ids are what they happen to be called here."""

    def __init__(self) -> None:
        self.by_id: dict[bytes, bytes] = {}

    def directory(self, name: bytes, *entries: Entry) -> Entry:
        tree_id = (name + b"." * 32)[:32]
        self.by_id[tree_id] = encode(entries)
        return Entry(name, DIRECTORY, 0o755, 0, 0, digest=tree_id)

    def read(self, tree_id: bytes) -> bytes:
        return self.by_id[tree_id]


def _file(name: bytes) -> Entry:
    return Entry(name, FILE, 0o644, 0, 0, digest=EMPTY_DIGEST)


def _link(name: bytes, target: bytes) -> Entry:
    return Entry(name, SYMLINK, 0o777, 0, 0, target=target)


def test_the_order_in_which_entries_come_does_not_change_a_tree() -> None:
    assert encode([_file(b"b"), _file(b"a")]) == encode([_file(b"a"), _file(b"b")])


def test_every_attribute_survives_being_stored() -> None:
    entries = [
        Entry(b"dev", CHARACTER, 0o600, 1, 2, device=(4095, 1_048_575)),
        Entry(
            b"f", FILE, 0o6755, 2**32 - 1, 7, 9, b"d" * 32, link=b"12345678", mtime_ns=-1, xattrs=((b"user.a", b"\0"),)
        ),
        _link(b"l\xff\n", b"/somewhere/else"),
    ]

    assert decode(encode(entries)) == entries


@pytest.mark.parametrize("name", [b"a/b", b"..", b".", b"a\0b", b"x" * 256])
def test_a_tree_with_a_name_that_reaches_elsewhere_is_refused(name: bytes) -> None:
    with pytest.raises(CorruptError):
        decode(encode([_file(name)]))
    with pytest.raises(TreeError):
        check_name(name, b"/etc")


def test_a_tree_with_a_repeated_name_is_refused() -> None:
    with pytest.raises(CorruptError, match="does not come after"):
        decode(encode([_file(b"a"), _file(b"a")]))


def test_a_tree_of_equal_entries_is_refused_at_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(trees, "Entry", lambda *fields: made.append(fields))
    one = encode([Entry(b"a", FIFO, 0o644, 0, 0)])[8:]

    with pytest.raises(CorruptError, match="does not come after"):
        decode(b"KGT1" + struct.pack("<I", 100_000) + one * 100_000)
    assert len(made) == 1


def test_a_directory_has_a_million_names_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    three = encode([_file(b"%d" % number) for number in range(3)])
    monkeypatch.setattr(trees, "ENTRIES_MAX", 2)

    with pytest.raises(CorruptError, match="3 entries are more than 2"):
        decode(three)
    with pytest.raises(TreeError, match="at most 2 names, got 3"):
        encode(_file(b"%d" % number) for number in range(3))


def test_extended_attributes_ascend() -> None:
    data = encode([_file(b"a")._replace(xattrs=((b"user.a", b"1"), (b"user.b", b"2")))])

    with pytest.raises(CorruptError, match=r"attribute b'user\.a' does not come after"):
        decode(data.replace(b"user.b", b"user.a"))


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_truncated_tree_is_refused(cut: int) -> None:
    with pytest.raises(CorruptError):
        decode(encode([_file(b"a"), _link(b"b", b"target")])[:-cut])


def test_a_commits_tree_must_be_a_root_object() -> None:
    objects = {b"r": encode_root(Entry(b"", DIRECTORY, 0o755, 0, 0, digest=b"t" * 32)), b"t": encode([_file(b"a")])}

    assert read_root(objects.__getitem__, b"r").digest == b"t" * 32
    with pytest.raises(CorruptError, match="root object"):
        read_root(objects.__getitem__, b"t")


def test_links_are_followed_inside_the_tree_as_a_chroot_would() -> None:
    objects = Objects()
    usr = objects.directory(b"usr", objects.directory(b"lib", _file(b"x")))
    root = objects.directory(
        b"root", usr, _link(b"lib", b"usr/lib"), _link(b"abs", b"/lib/x"), _link(b"up", b"../../usr")
    )

    assert resolve(objects.read, root, b"lib/x") == (b"usr/lib/x", _file(b"x"))
    assert resolve(objects.read, root, b"abs") == (b"usr/lib/x", _file(b"x"))
    assert resolve(objects.read, root, b"up/lib/../lib/x") == (b"usr/lib/x", _file(b"x"))
    assert lookup(objects.read, root, b"lib/x") is None


def test_a_loop_of_links_leads_nowhere() -> None:
    objects = Objects()
    root = objects.directory(b"root", _link(b"a", b"b"), _link(b"b", b"a"))

    assert resolve(objects.read, root, b"a") is None
