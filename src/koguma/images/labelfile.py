"""labels.json: which name leads to which commit. FORMAT.md draws it; what belongs in it `labels` decides."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = "koguma-labels/1"


class Label(NamedTuple):
    """A name machines can boot by."""

    name: str
    kind: str
    """branch, tag or commit."""
    commit: str


def labels_path(repository: Path) -> Path:
    return repository / "boot" / "labels.json"


def read_labels(repository: Path) -> list[Label]:
    """The labels as published. A reader may do this at any time, without a lock."""
    try:
        document = json.loads(labels_path(repository).read_bytes())
    except FileNotFoundError:
        return []
    return [Label(name, item["kind"], item["commit"]) for name, item in document["labels"].items()]


def encode_labels(labels: Iterable[Label]) -> bytes:
    """The bytes of the file."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "labels": {label.name: {"commit": label.commit, "kind": label.kind} for label in labels},
    }
    document["crc32"] = labels_checksum(document)
    return json.dumps(document, indent=1).encode() + b"\n"


def labels_checksum(document: dict[str, Any]) -> str:
    """What `fsck` knows a changed file by; whoever boots machines need not look at it."""
    return f"{zlib.crc32(json.dumps(document['labels'], indent=1).encode()):08x}"
