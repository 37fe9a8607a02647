"""The documents of an OCI image: descriptors, indexes, manifests and configs, read strictly from a stranger's bytes.

Docker's documents of the second schema are the same under other media types. Sizes, digests and types are checked here;
that a blob has the digest a descriptor claims is checked by `blobs`.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from koguma.images.errors import TreeError

DOCUMENT_MAX_BYTES = 4 * 1024**2
LAYERS_MAX = 1000

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
INDEX_TYPES = (INDEX_TYPE, "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES = (MANIFEST_TYPE, "application/vnd.docker.distribution.manifest.v2+json")
CONFIG_TYPES = (CONFIG_TYPE, "application/vnd.docker.container.image.v1+json")
LAYER_TYPES = (
    *(LAYER_TYPE + suffix for suffix in ("", "+gzip", "+zstd")),
    *(f"application/vnd.docker.image.rootfs.diff.tar{suffix}" for suffix in ("", ".gzip", ".zstd")),
)
REF_NAME = "org.opencontainers.image.ref.name"
_REFERENCE_TYPE = "vnd.docker.reference.type"
"""Marks what BuildKit puts beside an image: statements on how it was built."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What one document says of another blob."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str]
    platform: str = ""
    """`os/architecture[/variant]`; empty when it does not say."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image: its config and its layers, lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Config:
    """What of an image's config an import needs."""

    diff_ids: tuple[str, ...]
    platform: str
    document: Mapping[str, Any]
    """The whole."""


def parse_index(data: bytes, place: str) -> list[Descriptor]:
    document = _document(data, place)
    _require(document.get("schemaVersion") == 2, "schemaVersion", "2", document.get("schemaVersion"), place)
    _require_type(document, INDEX_TYPES, place)
    return [_descriptor(item, place) for item in _list(document, "manifests", place)]


def parse_manifest(data: bytes, place: str) -> Manifest:
    document = _document(data, place)
    _require(document.get("schemaVersion") == 2, "schemaVersion", "2", document.get("schemaVersion"), place)
    _require_type(document, MANIFEST_TYPES, place)
    config = _descriptor(document.get("config"), place)
    if config.media_type not in CONFIG_TYPES:
        raise TreeError(f"a manifest must be that of a container image, got a config of type {config.media_type!r}"
                        f" ({place})")  # fmt: skip
    layers = tuple(_descriptor(item, place) for item in _list(document, "layers", place))
    for layer in layers:
        if layer.media_type not in LAYER_TYPES:
            raise TreeError(
                f"a layer must be a tar, plain or compressed with gzip or zstd, got type {layer.media_type!r} ({place})"
            )
    if len(layers) > LAYERS_MAX:
        raise TreeError(f"an image may have {LAYERS_MAX} layers, got {len(layers)} ({place})")
    return Manifest(config, layers, _texts(document.get("annotations"), "annotations", place))


def parse_config(data: bytes, place: str) -> Config:
    document = _document(data, place)
    rootfs = document.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(
        isinstance(item, str) and _DIGEST.fullmatch(item) for item in diff_ids
    ):
        raise TreeError(f"an image's config must name the digests of its layers, got {str(diff_ids)[:80]!r} ({place})")
    return Config(tuple(diff_ids), _platform(document), document)


def named(found: list[Descriptor], reference: str) -> list[Descriptor]:
    """Those that a reference means: a name or a digest. Without one, all that are images."""
    images = [item for item in found if _REFERENCE_TYPE not in item.annotations]
    return [item for item in images if not reference or reference in (item.annotations.get(REF_NAME), item.digest)]


def choose(found: list[Descriptor], wanted: str, reference: str, place: str) -> Descriptor:
    """The one image that is meant, by its reference and platform; an error lists what there is."""
    candidates = list({item.digest: item for item in named(found, reference)}.values())
    if reference and not candidates:
        names = ", ".join(sorted({item.annotations.get(REF_NAME, item.digest) for item in found})) or "none"
        raise TreeError(f"there is no image {reference!r}, there are: {names} ({place})")
    if len(candidates) > 1:
        asked = wanted or this_platform()
        exact = [item for item in candidates if item.platform == asked]
        matching = exact or [item for item in candidates if _matches(item.platform, asked)]
        candidates = matching or [item for item in candidates if not item.platform]
        if len(candidates) != 1:
            listed = sorted(
                {f"{item.annotations.get(REF_NAME, item.digest)} {item.platform}".strip() for item in found}
            )
            raise TreeError(
                f"one image must be meant, got {len(candidates)} for platform {asked}; name one of: {', '.join(listed)}"
                f" ({place})"
            )
    if not candidates:
        raise TreeError(f"an image must be there, the index names none ({place})")
    return candidates[0]


def this_platform() -> str:
    machine = platform.machine()
    return f"linux/{_MACHINES.get(machine, machine)}"


def check_platform(config: Config, wanted: str, place: str) -> None:
    told = config.platform
    # A config may leave out the variant that the index says.
    suits = not wanted or _matches(told, wanted) or _matches(wanted, told)
    if not told.startswith("linux/") or not suits:
        raise TreeError(f"an image must be made for {wanted or 'linux'}, got one for {config.platform!r} ({place})")


def check_digest(text: object, place: str) -> str:
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise TreeError(f"a digest must be sha256: or sha512: and hex digits, got {str(text)[:80]!r} ({place})")
    return text


def _document(data: bytes, place: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TreeError(f"a document of an image must be JSON: {str(error)[:100]} ({place})") from None
    if not isinstance(document, dict):
        raise TreeError(f"a document of an image must be a JSON object, got {type(document).__name__} ({place})")
    return document


def _descriptor(item: Any, place: str) -> Descriptor:
    if not isinstance(item, dict) or not isinstance(item.get("mediaType"), str):
        raise TreeError(f"a descriptor must have a media type, got {str(item)[:80]!r} ({place})")
    size = item.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise TreeError(f"a descriptor must have a size, got {str(size)[:40]!r} ({place})")
    described = item.get("platform")
    return Descriptor(
        item["mediaType"],
        check_digest(item.get("digest"), place),
        size,
        _texts(item.get("annotations"), "annotations", place),
        _platform(described) if isinstance(described, dict) else "",
    )


def _platform(document: Mapping[str, Any]) -> str:
    parts = [document.get(key) for key in ("os", "architecture", "variant")]
    return "/".join(part for part in parts if isinstance(part, str) and part)


def _matches(told: str, asked: str) -> bool:
    """Whether `linux/arm64/v8` is what somebody who asks for `linux/arm64` means."""
    return told == asked or told.startswith(asked + "/")


def _list(document: Mapping[str, Any], key: str, place: str) -> list[Any]:
    found = document.get(key)
    if not isinstance(found, list):
        raise TreeError(f"a document of an image must have a list {key!r}, got {type(found).__name__} ({place})")
    return found


def _texts(value: Any, key: str, place: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise TreeError(f"{key} must be texts by name, got {str(value)[:80]!r} ({place})")
    return value


def _require(condition: bool, key: str, expected: str, value: object, place: str) -> None:
    if not condition:
        raise TreeError(f"a document of an image must have {key} {expected}, got {str(value)[:80]!r} ({place})")


def _require_type(document: Mapping[str, Any], types: tuple[str, ...], place: str) -> None:
    told = document.get("mediaType", types[0])
    _require(told in types, "mediaType", f"one of {', '.join(types)}", told, place)
