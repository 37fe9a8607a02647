"""Commits as OCI images: a layout in a directory or in a tar, the same bytes every time.

One layer holds the whole tree; with a base there are two, the base's and what changed since, so that a registry which
has the base gets the difference only. The base's layer is the one an export of the base itself has.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import IO, Any, Protocol, cast

import zstandard

from koguma.images.commits import Commit
from koguma.images.errors import ImageError
from koguma.images.files import remove_tree, storage_errors, sync_directory, sync_file, written_whole
from koguma.images.oci import documents
from koguma.images.oci.difference import checked, difference
from koguma.images.oci.importing import ANNOTATIONS_NOTE, CONFIG_NOTE
from koguma.images.repository import Repository
from koguma.images.tarstream import entries_stream, tar_header
from koguma.images.trees import DIRECTORY, FILE, Entry, walk

OCI, OCI_ARCHIVE = "oci", "oci-archive"
COMPRESSIONS = {"zstd": "+zstd", "gzip": "+gzip", "none": ""}
"""How a layer is compressed -> what its media type ends with."""
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3
_PIECE_BYTES = 1024 * 1024
_REVISION = "org.opencontainers.image.revision"

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Layer:
    descriptor: dict[str, Any]
    diff_id: str


class _Sink(Protocol):
    """Where blobs go: a directory or a tar."""

    def add(self, name: str, data: bytes) -> None: ...

    def add_file(self, name: str, file: IO[bytes], size: int) -> None: ...


def export_oci(
    repository: Repository,
    revision: str,
    output: Path,
    *,
    archive: bool,
    base: str = "",
    reference: str = "",
    compression: str = "zstd",
    progress: Progress | None = None,
) -> Commit:
    """Write a commit as an OCI image to `output`, which must not exist. Returns the commit.

    `reference` is the name the image has in the layout; otherwise that of the revision, when it is a branch or tag.
    """
    if compression not in COMPRESSIONS:
        raise ImageError(f"a layer's compression is one of {', '.join(COMPRESSIONS)}, got {compression!r}")
    if output.exists():
        raise ImageError(f"an export may not overwrite a file, got {str(output)!r}")
    commit = repository.resolve(revision)
    parts = [_whole(repository, commit)]
    if base:
        parent = repository.resolve(base)
        root, new = repository.root(parent), repository.root(commit)
        parts = [_whole(repository, parent), difference(repository.objects.read, root, new)]
    named = reference or (revision if repository.refs.find(revision) else commit.short_id)
    sink = _archive_sink if archive else _directory_sink
    with storage_errors("an export"), sink(output) as target:
        layers = [_add_layer(repository, part, target, output.parent, compression, progress) for part in parts]
        _add_documents(repository, commit, layers, named, target)
    return commit


def _whole(repository: Repository, commit: Commit) -> Iterator[tuple[bytes, Entry]]:
    root = repository.root(commit)
    return checked(chain(((b"", root),), walk(repository.objects.read, root)))


def _add_layer(
    repository: Repository,
    entries: Iterable[tuple[bytes, Entry]],
    sink: _Sink,
    scratch: Path,
    compression: str,
    progress: Progress | None,
) -> _Layer:
    """Compress a layer into a nameless file, because its name is its digest; then add it."""
    whole = hashlib.sha256()
    with tempfile.TemporaryFile(dir=scratch) as spool:
        with _compressor(spool, compression) as compressed:
            for piece in entries_stream(repository.objects, entries):
                whole.update(piece)
                compressed.write(piece)
                if progress:
                    progress(len(piece))
        size = spool.seek(0, os.SEEK_END)
        spool.seek(0)
        digest = hashlib.file_digest(cast("Any", spool), "sha256").hexdigest()
        spool.seek(0)
        sink.add_file(f"blobs/sha256/{digest}", spool, size)
    media_type = documents.LAYER_TYPE + COMPRESSIONS[compression]
    return _Layer({"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}, f"sha256:{whole.hexdigest()}")


@contextmanager
def _compressor(file: IO[bytes], compression: str) -> Iterator[IO[bytes]]:
    """A file that compresses what is written to it; what comes out depends on nothing but what goes in."""
    if compression == "gzip":
        with gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0) as stream:
            yield cast("IO[bytes]", stream)
    elif compression == "zstd":
        # One worker and two give the same frames; none would give others, so there is always at least one.
        parameters = zstandard.ZstdCompressionParameters.from_level(
            _ZSTD_LEVEL, threads=max(1, os.cpu_count() or 1), write_checksum=True
        )
        with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(file, closefd=False) as stream:
            yield cast("IO[bytes]", stream)
    else:
        yield file


def _add_documents(repository: Repository, commit: Commit, layers: list[_Layer], reference: str, sink: _Sink) -> None:
    """Config, manifest, index and layout, from the leaves up: each names the digest of the one before."""
    origin = _origin(repository, commit)
    config = _config(repository, commit, origin, layers)
    annotations = _note(origin, ANNOTATIONS_NOTE) | {_REVISION: commit.id}
    annotations.pop(documents.REF_NAME, None)
    manifest = {
        "schemaVersion": 2,
        "mediaType": documents.MANIFEST_TYPE,
        "config": _add_document(sink, config, documents.CONFIG_TYPE),
        "layers": [layer.descriptor for layer in layers],
        "annotations": annotations,
    }
    described = _add_document(sink, manifest, documents.MANIFEST_TYPE)
    described["annotations"] = {documents.REF_NAME: reference}
    described["platform"] = {key: config[key] for key in ("architecture", "os", "variant") if key in config}
    index = {"schemaVersion": 2, "mediaType": documents.INDEX_TYPE, "manifests": [described]}
    sink.add("index.json", _json(index))
    sink.add("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))


def _config(repository: Repository, commit: Commit, origin: Commit, layers: list[_Layer]) -> dict[str, Any]:
    """The config of the image the tree came from, or a plain one, with what this commit changes in it."""
    created = datetime.fromtimestamp(commit.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = _note(origin, CONFIG_NOTE)
    if not isinstance(config.get("architecture"), str):
        from koguma.images.kernels import architecture  # noqa: PLC0415 - most images bring theirs

        machine = architecture(repository.objects.read, repository.root(commit))
        config["architecture"] = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    config.setdefault("config", {})
    config |= {
        "os": "linux",
        "created": created,
        "author": commit.author,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": created, "created_by": "koguma image export"} for _ in layers],
    }
    return config


def _origin(repository: Repository, commit: Commit) -> Commit:
    """The nearest commit on the way of first parents that came from an image; the commit itself where none did."""
    here = commit
    while CONFIG_NOTE not in here.notes:
        if not here.parents:
            return commit
        here = repository.commit(here.parents[0])
    return here


def _note(commit: Commit, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(commit.notes.get(name, "{}"))
    return found


def _add_document(sink: _Sink, document: dict[str, Any], media_type: str) -> dict[str, Any]:
    """Store a document; returns its descriptor."""
    data = _json(document)
    digest = hashlib.sha256(data).hexdigest()
    sink.add(f"blobs/sha256/{digest}", data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


class _Directory:
    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, name: str, data: bytes) -> None:
        (self._path / name).write_bytes(data)
        sync_file(self._path / name)

    def add_file(self, name: str, file: IO[bytes], size: int) -> None:  # noqa: ARG002 - a tar must know it before
        with (self._path / name).open("wb") as target:
            shutil.copyfileobj(file, target, _PIECE_BYTES)
        sync_file(self._path / name)


@contextmanager
def _directory_sink(output: Path) -> Iterator[_Sink]:
    """A directory that gets its name when everything is in it."""
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        folder.chmod(0o755)
        (folder / "blobs" / "sha256").mkdir(parents=True)
        yield _Directory(folder)
        sync_directory(folder / "blobs" / "sha256")
        folder.rename(output)
    except BaseException:
        remove_tree(folder)
        raise
    sync_directory(output.parent)


class _Archive:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, name: str, data: bytes) -> None:
        self._file.write(tar_header(name.encode(), Entry(b"", FILE, 0o644, 0, 0, size=len(data))))
        self._file.write(data + bytes(-len(data) % 512))

    def add_file(self, name: str, file: IO[bytes], size: int) -> None:
        self._file.write(tar_header(name.encode(), Entry(b"", FILE, 0o644, 0, 0, size=size)))
        shutil.copyfileobj(file, self._file, _PIECE_BYTES)
        self._file.write(bytes(-size % 512))


@contextmanager
def _archive_sink(output: Path) -> Iterator[_Sink]:
    """A tar that gets its name when it is whole."""
    with written_whole(output) as file:
        for name in (b"blobs/", b"blobs/sha256/"):
            file.write(tar_header(name, Entry(b"", DIRECTORY, 0o755, 0, 0)))
        yield _Archive(file)
        file.write(bytes(1024))
