"""Codecs: what is encoded is decoded as it was, and no bytes whatever make a decoder do anything but refuse."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koguma.images.commits import TIME_MAX_S, Commit, decode_commit
from koguma.images.debian import compare_versions
from koguma.images.errors import CorruptError, RefError, RevisionError
from koguma.images.refs import check_ref_name
from koguma.images.revisions import _split, split_path, split_range
from koguma.images.statcache import CachedDirectory, StatCache
from koguma.images.tarstream import _header
from koguma.images.trees import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    LINK_BYTES,
    NAME_MAX_BYTES,
    OVERLAY_XATTRS,
    SYMLINK,
    Entry,
    decode,
    differing,
    encode,
)
from koguma.model.errors import InvalidValue
from koguma.model.manifest import Manifest

names = st.binary(min_size=1, max_size=NAME_MAX_BYTES).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
names = names.filter(lambda name: name not in (b".", b".."))
numbers = st.integers(0, 2**32 - 1)
xattr_names = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name)
xattr_names = xattr_names.filter(lambda name: not name.startswith(OVERLAY_XATTRS))  # which no tree has


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from([FILE, DIRECTORY, SYMLINK, CHARACTER, BLOCK, FIFO]))
    return Entry(
        name=draw(names),
        kind=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(numbers),
        gid=draw(numbers),
        size=draw(st.integers(0, 2**63)) if kind == FILE else 0,
        digest=draw(st.binary(min_size=32, max_size=32)) if kind in (FILE, DIRECTORY) else b"",
        target=draw(st.binary(max_size=4095)) if kind == SYMLINK else b"",
        device=draw(st.tuples(numbers, numbers)) if kind in (CHARACTER, BLOCK) else (0, 0),
        link=draw(st.one_of(st.just(b""), st.binary(min_size=LINK_BYTES, max_size=LINK_BYTES))),
        mtime_ns=draw(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))),
        xattrs=tuple(sorted(draw(st.dictionaries(xattr_names, st.binary(max_size=200), max_size=3)).items())),
    )


@given(st.lists(entries(), max_size=8, unique_by=lambda entry: entry.name))
def test_a_tree_is_decoded_as_it_was_encoded(items: list[Entry]) -> None:
    assert decode(encode(items)) == sorted(items)


@given(st.lists(entries(), max_size=4), st.lists(entries(), max_size=4), st.lists(entries(), max_size=4))
def test_what_differs_between_two_directories_is_what_their_entries_say(
    shared: list[Entry], old: list[Entry], new: list[Entry]
) -> None:
    before, after = ({entry.name: entry for entry in [*own, *shared]} for own in (old, new))

    found = differing(encode(before.values()), encode(after.values()))

    assert found == (
        {name: entry for name, entry in before.items() if after.get(name) != entry},
        {name: entry for name, entry in after.items() if before.get(name) != entry},
    )


@given(st.binary(max_size=300), st.lists(entries(), max_size=2, unique_by=lambda entry: entry.name))
def test_bytes_that_are_no_directory_differ_from_none_and_are_refused(data: bytes, items: list[Entry]) -> None:
    for one, other in ((data, encode(items)), (encode(items) + data, encode([]))):
        try:
            differing(one, other)
        except CorruptError:
            continue


@given(st.lists(entries(), min_size=1, max_size=4, unique_by=lambda entry: entry.name), st.data())
def test_a_damaged_tree_is_refused_or_differs(items: list[Entry], data: st.DataObject) -> None:
    encoded = bytearray(encode(items))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))

    try:
        decoded = decode(bytes(encoded))
    except CorruptError:
        return
    assert decoded != sorted(items)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_as_tree_commit_and_manifest(data: bytes) -> None:
    with pytest.raises(CorruptError):
        decode(data)
    with pytest.raises(CorruptError):
        decode_commit(data, "0" * 64)
    with pytest.raises(InvalidValue):
        Manifest.from_bytes(data)


digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
texts = st.text(st.characters(codec="utf-8"), max_size=50)


@given(
    digests,
    st.lists(digests, max_size=3),
    texts,
    st.integers(0, TIME_MAX_S),
    texts,
    st.dictionaries(texts, texts, max_size=3),
)
def test_a_commit_is_decoded_as_it_was_encoded(
    tree: str, parents: list[str], author: str, time: int, message: str, notes: dict[str, str]
) -> None:
    commit = Commit(tree, tuple(parents), author, time, message, notes, id="0" * 64)

    assert decode_commit(commit.to_bytes(), "0" * 64) == commit


@given(
    entries().filter(lambda entry: entry.kind != DIRECTORY and entry.size < 2**40), st.binary(min_size=1, max_size=300)
)
def test_a_tar_header_says_what_the_entry_is(entry: Entry, path: bytes) -> None:
    """Read back by the standard library's own implementation."""
    entry = entry._replace(size=0, target=entry.target.replace(b"\0", b"_"), device=(entry.device[0] % 2**20, 7))
    name = path.replace(b"\0", b"_").strip(b"/") or b"x"
    types = {FILE: b"0", SYMLINK: b"2", CHARACTER: b"3", BLOCK: b"4", FIFO: b"6"}
    stream = io.BytesIO(_header(name, entry, types[entry.kind], entry.target) + bytes(1024))

    with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        member = archive.next()

    assert member is not None
    assert member.name.encode("utf-8", "surrogateescape") == name.rstrip(b"/")
    assert (member.mode, member.uid, member.gid) == (entry.mode, entry.uid, entry.gid)
    if entry.kind == SYMLINK:
        assert member.linkname.encode("utf-8", "surrogateescape") == entry.target
    if entry.mtime_ns is not None and entry.mtime_ns % 10**9 == 0:
        assert int(member.mtime) * 10**9 == entry.mtime_ns


@given(st.text(max_size=30))
def test_a_name_is_either_refused_or_safe_as_label_path_and_expression(name: str) -> None:
    try:
        check_ref_name(name)
    except RefError:
        return
    assert name.isascii()
    assert not name.startswith(("/", "-", "."))
    assert ".." not in name
    assert _split(name) == (name, None, [])
    assert (split_range(name), split_path(name)) == (None, None)


@given(st.text(max_size=20))
def test_an_expression_is_either_refused_or_a_name_with_steps(text: str) -> None:
    try:
        base, _, steps = _split(text)
    except RevisionError:
        return
    assert base
    assert all(sign in "~^@" and count >= 0 for sign, count in steps)


@given(st.dictionaries(names, st.tuples(st.binary(min_size=32, max_size=32), st.binary(max_size=99)), max_size=5))
def test_a_stat_cache_is_read_back_and_a_damaged_one_ignored(
    tmp_path_factory: pytest.TempPathFactory, items: dict[bytes, tuple[bytes, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    directories = {path: CachedDirectory(tree, signature) for path, (tree, signature) in items.items()}
    StatCache.load(folder, folder, 1, keep_times=False).save(directories)
    (file,) = folder.iterdir()

    assert StatCache.load(folder, folder, 1, keep_times=False).directories == directories
    assert StatCache.load(folder, folder, 2, keep_times=False).directories == {}
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    assert StatCache.load(folder, folder, 1, keep_times=False).directories == {}


versions = st.from_regex(r"([0-9]:)?[0-9][0-9a-z.+~]{0,6}(-[0-9a-z.+~]{1,4})?", fullmatch=True)


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is not installed")
@settings(max_examples=60, deadline=None)
@given(versions, versions)
def test_versions_are_ordered_as_by_dpkg(left: str, right: str) -> None:
    expected = compare_versions(left, right)
    relation = "lt" if expected < 0 else "gt" if expected > 0 else "eq"

    assert subprocess.run(["dpkg", "--compare-versions", left, relation, right], check=False).returncode == 0
