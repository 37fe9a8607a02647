"""Damaged archives: whatever bytes change, an import works or raises an ImageError, and leaves no half commit."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koguma.images.errors import ImageError
from koguma.images.fsck import fsck
from koguma.images.hashing import FileHasher
from koguma.images.importing import Devices, ImportOptions, Limits, import_source
from koguma.images.importing.grafting import Grafter
from koguma.images.importing.paxheaders import parse_records
from koguma.images.importing.streams import ByteStream
from koguma.images.importing.tarreader import TarReader
from koguma.images.repository import Repository
from koguma.images.trees import decode, read_root, walk
from tests.unit.images.archives import DIRECTORY, HARD_LINK, SYMLINK, Layout, header, padded, pax, tar_of

OPTIONS = ImportOptions(limits=Limits(bytes_max=2**22, entries_max=500), devices=Devices.KEEP)
many = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def _seeds() -> list[bytes]:
    """Tars that use everything the reader knows."""
    plain = tar_of(
        ("d", DIRECTORY, b""), ("d/file", {}, b"content" * 100), ("link", SYMLINK | {"linkname": "d/file"}, b""),
        ("hard", HARD_LINK | {"linkname": "d/file"}, b""), ("n" * 150, {}, b"x"),
        ("null", {"type": tarfile.CHRTYPE}, b""),
        ("fifo", {"type": tarfile.FIFOTYPE}, b""), ("d/.wh.gone", {}, b""), ("d/.wh..wh..opq", {}, b""),
    )  # fmt: skip
    attributes = pax(
        ("SCHILY.xattr.user.a", b"\0\1"), ("LIBARCHIVE.xattr.user.b", b"AAAA"), ("mtime", b"-1.5"), ("uid", b"4000000"),
        ("SCHILY.acl.access", b"user::rw-,user:5:r--,group::r--,mask::r--,other::r--"), ("size", b"3"),
    )  # fmt: skip
    sparse = pax(
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"90"),
    )
    older = pax(("GNU.sparse.size", b"90"), ("GNU.sparse.map", b"2,1,80,2"))
    rest = bytes(121) + b"%011o\0%011o\0" % (5, 3) + bytes(72) + b"\0" + b"%011o\0" % 100 + bytes(17)
    gnu = (
        header(b"@LongLink", kind=b"L", size=200) + padded(b"y" * 199 + b"\0") + header(b"y", magic=b"ustar  \0")
        + header(b"old", kind=b"S", size=3, magic=b"ustar  \0", rest=rest) + padded(b"abc")
    )  # fmt: skip
    end = bytes(1024)
    return [
        plain,
        attributes + header(b"a", size=3) + padded(b"abc") + end,
        sparse + header(b"a", size=515) + padded(b"1\n40\n3\n") + padded(b"abc") + end,
        older + header(b"a", size=3) + padded(b"abc") + end,
        gnu + end,
        pax(("comment", b"x"), kind=b"g") + header(b"a", kind=b"D", size=5) + padded(b"Ya\0\0") + end,
    ]


SEEDS = _seeds()
edits = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "repeat", "drop", "digits"]), st.integers(0, 2**16), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)


def _edited(data: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    for what, where, value in changes:
        at = where % max(1, len(data))
        if what == "set":
            data = data[:at] + bytes((value,)) + data[at + 1 :]
        elif what == "cut":
            data = data[:at]
        elif what == "repeat":
            block = at // 512 * 512
            data = data[:block] + data[block : block + 512] + data[block:]
        elif what == "drop":
            block = at // 512 * 512
            data = data[:block] + data[block + 512 :]
        else:
            data = data[:at] + b"%o" % (value * 1000) + data[at + len(b"%o" % (value * 1000)) :]
    return data


def _checksums_right(data: bytes) -> bytes:
    """Every block that was meant as a header passes its checksum, so that damage reaches what is behind it."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    for number, block in enumerate(blocks):
        if len(block) == 512 and block[257:262] == b"ustar":
            rest = block[:148] + b" " * 8 + block[156:]
            blocks[number] = rest[:148] + b"%06o\0 " % sum(rest) + rest[156:]
    return b"".join(blocks)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository.init(tmp_path_factory.mktemp("fuzz") / "repository")


def _import(repository: Repository, data: bytes, *, layer: bool) -> None:
    """As an import does it; what it accepts must be a tree that can be stored and read."""
    with repository.objects.writing() as writer, FileHasher(writer) as hasher:
        grafter = Grafter(writer, hasher, OPTIONS)
        stream = ByteStream(io.BytesIO(data), OPTIONS.limits)
        grafter.add_archive(TarReader(stream, OPTIONS.limits), layer=layer)
        tree = grafter.store()
    for _, entry in walk(repository.objects.read, read_root(repository.objects.read, tree)):
        assert entry.kind != ord("f") or len(entry.digest) == 32
        assert entry.name not in (b"", b".", b"..")


@many
@given(st.sampled_from(SEEDS), edits, st.booleans(), st.booleans())
def test_a_damaged_tar_is_imported_or_refused(
    shared: Repository, seed: bytes, changes: list[tuple[str, int, int]], layer: bool, honest: bool
) -> None:
    data = _edited(seed, changes)
    with suppress(ImageError):
        _import(shared, _checksums_right(data) if honest else data, layer=layer)


def test_the_seeds_themselves_are_whole(shared: Repository) -> None:
    for seed in SEEDS:
        _import(shared, seed, layer=True)
    assert fsck(shared).problems == ()


@few
@given(st.sampled_from(SEEDS), edits, st.sampled_from([gzip.compress, zstandard.compress]))
def test_a_damaged_compressed_tar_is_imported_or_refused(
    shared: Repository, seed: bytes, changes: list[tuple[str, int, int]], compress: object
) -> None:
    with suppress(ImageError):
        _import(shared, _edited(compress(seed), changes), layer=False)  # type: ignore[operator]


@few
@given(st.data())
def test_a_damaged_image_is_refused_and_leaves_no_branch(
    tmp_path_factory: pytest.TempPathFactory, shared: Repository, data: st.DataObject
) -> None:
    """Any byte of any file of a layout: either it does not matter, or the import says what is wrong."""
    layout = Layout(tmp_path_factory.mktemp("image") / "layout")
    source = layout.index(layout.image(SEEDS[0], tar_of(("new", {}, b"x")), compression="+gzip"))
    files = sorted(path for path in layout.path.rglob("*") if path.is_file())
    victim = data.draw(st.sampled_from(files))
    content = victim.read_bytes()
    changes = data.draw(edits)
    victim.write_bytes(_edited(content, changes))
    before = shared.refs.all()
    try:
        import_source(shared, source, f"b{len(before)}", "m", options=OPTIONS)
    except ImageError:
        return
    assert len(shared.refs.all()) == len(before) + 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["sha256:" + "0" * 64, "linux"]),
    lambda below: st.lists(below, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["schemaVersion", "manifests", "layers", "config", "mediaType", "digest", "size", "annotations", "platform",
             "os", "rootfs", "diff_ids", "Layers", "Config", "RepoTags"]
        ),
        below,
        max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@few
@given(json_values)
def test_any_json_as_a_document_is_refused(
    tmp_path_factory: pytest.TempPathFactory, shared: Repository, document: object
) -> None:
    layout = Layout(tmp_path_factory.mktemp("image") / "layout")
    (layout.path / "index.json").write_text(json.dumps(document))
    saved = Path(layout.path.parent / "saved.tar")
    saved.write_bytes(tar_of(("manifest.json", {}, json.dumps(document).encode())))
    image = layout.document(document, "application/vnd.oci.image.manifest.v1+json")
    for source in (f"oci:{layout.path}", f"docker-archive:{saved}", layout.index(image)):
        with pytest.raises(ImageError):
            import_source(shared, source, "never", "m")
    assert shared.refs.find("never") is None


@given(st.binary(max_size=200))
def test_any_bytes_as_pax_records_are_parsed_or_refused(data: bytes) -> None:
    try:
        records = parse_records(data)
    except ImageError:
        return
    assert sum(len(key) + len(value) for key, value in records) <= len(data)


@many
@given(st.binary(max_size=3000))
def test_any_bytes_as_an_archive_are_refused(shared: Repository, data: bytes) -> None:
    if not data.strip(b"\0") and len(data) >= 512:
        return  # an empty tar
    with pytest.raises(ImageError):
        _import(shared, data, layer=False)


def test_decoding_what_the_fuzz_stored_finds_nothing_wrong(shared: Repository) -> None:
    for ref in shared.refs.all():
        root = shared.root(shared.commit(ref.commit))
        assert decode(shared.objects.read(root.digest)) is not None
    assert fsck(shared).problems == ()
