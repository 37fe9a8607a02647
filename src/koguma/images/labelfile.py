"""labels.json: which name leads to which commit. FORMAT.md draws it; what belongs in it `labels` decides."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from koguma.images.commits import is_id
from koguma.images.errors import CorruptError

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
    """The labels as published. A reader may do this at any time, without a lock. Raises CorruptError for a damaged
    file; `koguma image labels` writes it again.
    """
    path = labels_path(repository)
    try:
        document = json.loads(path.read_bytes())
        labels = [Label(name, item["kind"], item["commit"]) for name, item in document["labels"].items()]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptError(f"labels.json must be as it was written: {error!r} ({path})") from None
    if not all(isinstance(label.kind, str) and is_id(label.commit) for label in labels):
        raise CorruptError(f"labels.json must lead to commits by ids of 64 hex digits, it does not ({path})")
    return labels


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
