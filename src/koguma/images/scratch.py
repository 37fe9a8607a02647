"""A place for trees that are compared and thrown away: what `status` and a merge of merge bases make on the way.

Reads what it holds itself first, then the repository. Nothing of it reaches a disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from koguma.images.hashing import FileHasher
from koguma.images.objects import BLOB, ObjectStore, ObjectWriter, Prepared
from koguma.images.storing import Done
from koguma.images.trees import Read


class ScratchWriter(ObjectWriter):
    """Takes objects like the writer of a commit, but keeps in memory what it is handed and forgets files' contents."""

    def __init__(self, store: ObjectStore, read: Read | None = None) -> None:
        super().__init__(store)
        self._below = read or store.read
        self._kept: dict[bytes, bytes] = {}
        self._files: dict[bytes, bytes] = {}

    def sibling(self) -> ObjectWriter:
        return ScratchWriter(self._store)

    def claim(self, object_id: bytes) -> bool:  # noqa: ARG002 - nobody has to store anything
        return False

    def add(self, kind: int, content: bytes) -> bytes:  # noqa: ARG002 - kinds order packs, and there is none
        object_id = sha256(content).digest()
        self._kept[object_id] = content
        return object_id

    def append(self, batch: Iterable[Prepared]) -> None:
        raise NotImplementedError("nothing was claimed, so there is nothing to append")

    def add_stream(
        self,
        pieces: Iterable[bytes],
        *,
        kind: int = BLOB,  # noqa: ARG002 - kinds order packs, and there is none
        expected: bytes | None = None,  # noqa: ARG002 - what somebody stores he has to be told apart; nobody stores
    ) -> tuple[bytes, int]:
        digest, size = sha256(), 0
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
        return digest.digest(), size

    def remember(self, object_id: bytes, path: bytes) -> None:
        """A file on a disk has this content, should somebody ask for it."""
        self._files.setdefault(object_id, path)

    def read(self, object_id: bytes) -> bytes:
        if (kept := self._kept.get(object_id)) is not None:
            return kept
        if path := self._files.get(object_id):
            return Path(path.decode("utf-8", "surrogateescape")).read_bytes()
        return self._below(object_id)


class ScratchHasher(FileHasher):
    """Hashes files without storing them; the scratch writer learns where each is."""

    def __init__(self, writer: ScratchWriter) -> None:
        super().__init__(writer)
        self._scratch = writer

    def add(self, path: bytes, size: int, done: Done) -> None:
        def remember(digest: bytes, size: int) -> None:
            self._scratch.remember(digest, path)
            done(digest, size)

        super().add(path, size, remember)
