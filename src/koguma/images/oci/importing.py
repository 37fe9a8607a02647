"""An OCI image or a docker archive, its layers put one upon the other into a tree.

1. Find the manifest: the index, the index in it for a platform, the manifest, its config; each has its digest.
2. Read the layers, lowest first, straight into the draft of a tree; whiteouts remove what is below them.
3. Hold every layer against its digest and, decompressed, against the config's: only then is anything committed.

Where it came from is kept in the notes of the commit, so that an export can say it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koguma.images.errors import TreeError
from koguma.images.hashing import FileHasher
from koguma.images.importing.grafting import Grafter
from koguma.images.importing.options import ImportOptions
from koguma.images.importing.sources import Imported
from koguma.images.importing.streams import PIECE_BYTES, ByteStream
from koguma.images.importing.tarreader import TarReader
from koguma.images.objects import ObjectWriter
from koguma.images.oci import documents
from koguma.images.oci.blobs import Blobs, Checked, DirectoryBlobs, archive, blob_name, read_document, read_small
from koguma.images.oci.documents import Config, Descriptor
from koguma.images.repository import Repository

CONFIG_NOTE = "oci.config"
"""The image's config as JSON, without what follows from the layers."""
ANNOTATIONS_NOTE = "oci.annotations"
"""The manifest's annotations as JSON."""
DIGEST_NOTE = "oci.manifest"
"""The digest of the manifest; of a docker archive, that of the config."""
_INDEX_DEPTH_MAX = 4


@dataclass(frozen=True, slots=True)
class _Layer:
    """A file with a tar in it, and what it is promised to be."""

    name: str
    diff_id: str
    descriptor: Descriptor | None
    """A docker archive has none: there the decompressed digest is all that is promised."""


@dataclass(frozen=True, slots=True)
class _Image:
    layers: tuple[_Layer, ...]
    notes: Mapping[str, str]


def import_image(
    repository: Repository,
    writer: ObjectWriter,
    scheme: str,
    rest: str,
    options: ImportOptions,
    progress: Callable[[int], None] | None,
) -> Imported:
    """Store the tree of an image. `rest` is what follows the scheme and colon: a path, and perhaps a reference."""
    path, reference = _split(rest)
    with _blobs(scheme, path, options, repository.path / "tmp") as blobs:
        find = _docker_image if scheme == "docker-archive" else _oci_image
        image = find(blobs, reference, options)
        with FileHasher(writer, progress) as hasher:
            grafter = Grafter(writer, hasher, options, progress)
            for number, layer in enumerate(image.layers, 1):
                try:
                    _add_layer(grafter, blobs, layer, options)
                except TreeError as error:
                    raise type(error)(f"{error} (layer {number} of {len(image.layers)})") from None
            return Imported(grafter.store(), image.notes, grafter.left_out)


def _split(rest: str) -> tuple[Path, str]:
    """A path that may hold colons, and a reference that may, too: the first colon behind which a file ends divides."""
    if Path(rest).exists():
        return Path(rest), ""
    at = rest.find(":")
    while at >= 0:
        if at and Path(rest[:at]).exists():
            return Path(rest[:at]), rest[at + 1 :]
        at = rest.find(":", at + 1)
    raise TreeError(f"an image must be there: no such file or directory, {rest!r}")


@contextmanager
def _blobs(scheme: str, path: Path, options: ImportOptions, scratch: Path) -> Iterator[Blobs]:
    if scheme == "oci":
        if not path.is_dir():
            raise TreeError("an image named oci: must be a directory; a file is named oci-archive:")
        yield DirectoryBlobs(path)
    else:
        if path.is_dir():
            raise TreeError(f"an image named {scheme}: must be a file; a directory is named oci:")
        with archive(path, options.limits, scratch) as found:
            yield found


def _oci_image(blobs: Blobs, reference: str, options: ImportOptions) -> _Image:
    layout = json_object(read_small(blobs, "oci-layout"), "oci-layout")
    if layout.get("imageLayoutVersion") != "1.0.0":
        raise TreeError(f"an image layout must have version 1.0.0, got {str(layout.get('imageLayoutVersion'))[:40]!r}")
    chosen = _chosen(blobs, reference, options.platform)
    if chosen.media_type not in documents.MANIFEST_TYPES:
        raise TreeError(f"an index must lead to an image's manifest, got type {chosen.media_type!r} ({chosen.digest})")
    manifest = documents.parse_manifest(read_document(blobs, chosen), chosen.digest)
    config = documents.parse_config(read_document(blobs, manifest.config), manifest.config.digest)
    documents.check_platform(config, options.platform, manifest.config.digest)
    if len(config.diff_ids) != len(manifest.layers):
        raise TreeError(
            f"an image's config must name its {len(manifest.layers)} layers, got {len(config.diff_ids)}"
            f" ({manifest.config.digest})"
        )
    layers = tuple(
        _Layer(blob_name(descriptor.digest), diff_id, descriptor)
        for descriptor, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
    )
    return _Image(layers, _notes(config, chosen.digest, {**chosen.annotations, **manifest.annotations}))


def _chosen(blobs: Blobs, reference: str, platform: str) -> Descriptor:
    """What the index leads to. A reference may mean something in an index within it, which no other name leads to."""
    place = "index.json"
    found = documents.parse_index(read_small(blobs, place), place)
    if not documents.named(found, reference):
        found = _with_nested(blobs, found)
    chosen = documents.choose(found, platform, reference, place)
    depth = 0
    while chosen.media_type in documents.INDEX_TYPES:
        depth += 1
        if depth > _INDEX_DEPTH_MAX:
            raise TreeError(f"indexes may be nested {_INDEX_DEPTH_MAX} deep, got more ({chosen.digest})")
        below = documents.parse_index(read_document(blobs, chosen), chosen.digest)
        again = reference if documents.named(below, reference) else ""
        chosen = documents.choose(below, platform, again, chosen.digest)
    return chosen


def _with_nested(blobs: Blobs, found: list[Descriptor]) -> list[Descriptor]:
    """What an index names and what indexes in it name; each of them is read once."""
    listed = list(found)
    read: set[str] = set()
    level = found
    for _ in range(_INDEX_DEPTH_MAX):
        indexes = [item for item in level if item.media_type in documents.INDEX_TYPES]
        level = []
        for index in indexes:
            if index.digest not in read:
                read.add(index.digest)
                level += documents.parse_index(read_document(blobs, index), index.digest)
        listed += level
    return listed


def _docker_image(blobs: Blobs, reference: str, options: ImportOptions) -> _Image:
    """`manifest.json` names a config and layers by files whose names promise nothing."""
    try:
        listed = json.loads(read_small(blobs, "manifest.json"))
    except (ValueError, RecursionError):
        raise TreeError("a docker archive's manifest.json must be JSON") from None
    images = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    tags = sorted({tag for item in images for tag in _tags(item)})
    if reference:
        images = [item for item in images if reference in _tags(item)]
    if len(images) != 1:
        raise TreeError(f"one image must be meant, got {len(images)}; name one of: {', '.join(tags)[:500]}")
    name, layers = images[0].get("Config"), images[0].get("Layers")
    if not isinstance(name, str) or not isinstance(layers, list) or not all(isinstance(item, str) for item in layers):
        raise TreeError("a docker archive's image must name its Config and its Layers")
    data = read_small(blobs, name)
    config = documents.parse_config(data, name)
    documents.check_platform(config, options.platform, name)
    if len(layers) != len(config.diff_ids) or len(layers) > documents.LAYERS_MAX:
        raise TreeError(f"an image's config must name its {len(layers)} layers, got {len(config.diff_ids)} ({name})")
    digest = Checked("sha256:" + "0" * 64)
    digest.take(data)
    return _Image(
        tuple(_Layer(layer, diff_id, None) for layer, diff_id in zip(layers, config.diff_ids, strict=True)),
        _notes(config, digest.found(), {}),
    )


def _tags(image: Mapping[str, Any]) -> list[str]:
    tags = image.get("RepoTags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _add_layer(grafter: Grafter, blobs: Blobs, layer: _Layer, options: ImportOptions) -> None:
    """Add a layer and hold it against what is promised of it; an error leaves nothing, because nothing is committed."""
    whole = Checked(layer.diff_id)
    stored = Checked(layer.descriptor.digest, layer.descriptor.size) if layer.descriptor else None
    with blobs.open(layer.name) as file:
        stream = ByteStream(file, options.limits, stored_tap=stored.take if stored else None, tap=whole.take)
        grafter.add_archive(TarReader(stream, options.limits), layer=True)
        while stream.read(PIECE_BYTES):
            pass
        if stored:
            while rest := file.read(PIECE_BYTES):
                stored.take(rest)  # what a decompressor did not ask for counts for the digest, too
            stored.finish("a layer")
    whole.finish("a decompressed layer")


def _notes(config: Config, digest: str, annotations: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in config.document.items() if key not in ("rootfs", "history")}
    notes = {DIGEST_NOTE: digest, CONFIG_NOTE: _json(kept)}
    if annotations:
        notes[ANNOTATIONS_NOTE] = _json(dict(annotations))
    return notes


def json_object(data: bytes, place: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise TreeError(f"{place} must be a JSON object")
    return found


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))
