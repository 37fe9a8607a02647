"""ObjectBackend: named blobs somewhere else, and a stateful fake with failures one can set.

A backend knows nothing of commits: it lists, reads in ranges, writes whole blobs and replaces one only if it is still
what it was. `tests/contract/test_objects.py` holds every backend, the fake included, to what is said here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from koguma.contracts.errors import BlobChanged, BlobMissing, ObjectBackendError

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Blob:
    name: str
    """Parts joined by "/", each of letters, digits and . _ % + -, none beginning with a dot."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Versioned:
    """A whole blob, and what `put_if` takes to replace this very one."""

    data: bytes
    version: str


class ReadableBackend(Protocol):
    """Blobs one can read. Every method raises ObjectBackendError; `retry` on it says whether the same call may
    succeed later. Safe to use from several threads.
    """

    @property
    def place(self) -> str:
        """Where it is, for messages: without credentials."""

    def list(self, prefix: str) -> Iterator[Blob]:
        """The blobs directly in the folder `prefix`, which ends with "/", in order of their names."""

    def get(self, name: str, *, bytes_max: int) -> Versioned:
        """A whole small blob. Raises BlobMissing; refuses one of more than `bytes_max` bytes."""

    def read_range(self, name: str, offset: int, length: int) -> Iterator[bytes]:
        """Exactly `length` bytes from `offset` in pieces of about CHUNK_BYTES or less. Raises BlobMissing, and
        ObjectBackendError when the blob ends before or the other side sends something else.
        """

    def close(self) -> None:
        """Let go of connections."""


class ObjectBackend(ReadableBackend, Protocol):
    """Blobs one can write, too. A blob appears whole or not at all."""

    def put(self, name: str, data: bytes | Path) -> None:
        """Write a blob, replacing one of that name."""

    def put_if(self, name: str, data: bytes, version: str | None) -> str:
        """Replace the blob that still has this version (None: that does not exist); returns the new version.

        Raises BlobChanged when it has not.
        """

    def delete(self, name: str) -> None:
        """Remove a blob; one that is not there is not an error."""


class FakeObjects:
    """Blobs in memory. `failures` are raised, one for each call, before anything else; `calls` names all calls."""

    place = "memory"

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.failures: list[ObjectBackendError] = []
        self.calls: list[str] = []
        self.bytes_read = 0
        self._lock = threading.Lock()

    def list(self, prefix: str) -> Iterator[Blob]:
        self._answer(f"list {prefix}")
        for name in sorted(self.blobs):
            if name.startswith(prefix) and "/" not in name[len(prefix) :]:
                yield Blob(name, len(self.blobs[name]))

    def get(self, name: str, *, bytes_max: int) -> Versioned:
        self._answer(f"get {name}")
        data = self._blob(name)
        check_size(name, len(data), bytes_max, self.place)
        self.bytes_read += len(data)
        return Versioned(data, sha256(data).hexdigest())

    def read_range(self, name: str, offset: int, length: int) -> Iterator[bytes]:
        self._answer(f"range {name}")
        data = self._blob(name)
        if offset + length > len(data):
            raise ObjectBackendError(
                f"a blob must have the {offset + length} bytes asked for, got {len(data)} ({name}, memory)"
            )
        for at in range(offset, offset + length, CHUNK_BYTES):
            piece = data[at : min(at + CHUNK_BYTES, offset + length)]
            self.bytes_read += len(piece)
            yield piece

    def put(self, name: str, data: bytes | Path) -> None:
        self._answer(f"put {name}")
        self.blobs[name] = data if isinstance(data, bytes) else data.read_bytes()

    def put_if(self, name: str, data: bytes, version: str | None) -> str:
        self._answer(f"put_if {name}")
        with self._lock:
            current = sha256(self.blobs[name]).hexdigest() if name in self.blobs else None
            if current != version:
                raise BlobChanged(f"a blob must be unchanged to be replaced, {name!r} is not (memory)")
            self.blobs[name] = data
        return sha256(data).hexdigest()

    def delete(self, name: str) -> None:
        self._answer(f"delete {name}")
        self.blobs.pop(name, None)

    def close(self) -> None:
        pass

    def _blob(self, name: str) -> bytes:
        if name not in self.blobs:
            raise BlobMissing(f"a blob must be there to be read, there is no {name!r} (memory)")
        return self.blobs[name]

    def _answer(self, call: str) -> None:
        with self._lock:
            self.calls.append(call)
            failure = self.failures.pop(0) if self.failures else None
        if failure:
            raise failure


def check_size(name: str, size: int, bytes_max: int, place: str) -> None:
    """Refuse a blob that is larger than its reader can use."""
    if size > bytes_max:
        raise ObjectBackendError(f"{name} may have at most {bytes_max} bytes, got {size} ({place})")
