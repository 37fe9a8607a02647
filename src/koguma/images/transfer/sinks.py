"""Where a push goes: a repository on this machine or a mounted file system, a served one, or a store of blobs.

A sink takes packs, then moves refs by compare and swap. The three differ in who verifies: a repository and a server do
it themselves; a store of blobs cannot, so there the sender's own walk is what keeps refs whole.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from koguma.contracts.errors import BlobChanged, BlobMissing
from koguma.contracts.objects import ObjectBackend
from koguma.images.refs import NO_COMMIT, RefKind, head_bytes
from koguma.images.repository import FORMAT, Repository, default_author
from koguma.images.signatures import Signature
from koguma.images.transfer.errors import HostileRemoteError
from koguma.images.transfer.http import HttpObjects
from koguma.images.transfer.incoming import UploadFile, accept, salvage
from koguma.images.transfer.limits import REF_BYTES_MAX
from koguma.images.transfer.outgoing import OutgoingPack
from koguma.images.transfer.receiving import RefResult, RefUpdate, receive
from koguma.images.transfer.retrying import Backoff, retrying
from koguma.places import REPOSITORY_MARKER


class Sink(Protocol):
    def prepare(self) -> None:
        """Make a repository where there is none, and keep what interrupted pushes left."""

    def send(self, pack: OutgoingPack) -> None:
        """Deliver a pack; when this returns, its objects are there for good."""

    def move(self, updates: Sequence[RefUpdate], signatures: Sequence[Signature]) -> list[RefResult]:
        """Move refs, each only if it is still what the update says."""


class RepositorySink:
    """A repository in a directory; one is made where the directory is new or empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._repository: Repository | None = None

    def prepare(self) -> None:
        fresh = not self._path.exists() or (self._path.is_dir() and not any(self._path.iterdir()))
        self._repository = Repository.init(self._path) if fresh else Repository.open(self._path)
        with self._repository.objects.writing():
            salvage(self._path)

    def send(self, pack: OutgoingPack) -> None:
        repository = self._open()
        upload = UploadFile(self._path)
        try:
            for piece in pack.pieces():
                upload.write(piece)
            with repository.objects.writing():
                accept(repository, upload.path, str(self._path))
        finally:
            upload.close()

    def move(self, updates: Sequence[RefUpdate], signatures: Sequence[Signature]) -> list[RefResult]:
        return receive(self._open(), updates, signatures, default_author())

    def _open(self) -> Repository:
        if self._repository is None:
            self._repository = Repository.open(self._path)
        return self._repository


class ServedSink:
    """A repository that `koguma image serve --allow-push` offers; the server verifies what it gets."""

    def __init__(self, backend: HttpObjects, backoff: Backoff | None = None) -> None:
        self._backend = backend
        self._backoff = backoff or Backoff()

    def prepare(self) -> None:
        retrying(lambda: self._backend.json("POST", "/v1/salvage", {}), self._backoff)

    def send(self, pack: OutgoingPack) -> None:
        retrying(lambda: self._send(pack), self._backoff)

    def move(self, updates: Sequence[RefUpdate], signatures: Sequence[Signature]) -> list[RefResult]:
        document = {
            "updates": [
                {"kind": item.kind.value, "name": item.name, "old": item.old, "new": item.new, "force": item.force}
                for item in updates
            ],
            "signatures": [[item.commit, item.key, item.encoded] for item in signatures],
            "author": default_author(),
        }
        # Not tried again by itself: the answer to a change that did happen may be what got lost. So it goes over a new
        # connection; one that was idle may have been closed at the other end.
        self._backend.close()
        answer = self._backend.json("POST", "/v1/refs", document)
        if not isinstance(answer, list) or len(answer) != len(updates):
            raise HostileRemoteError(f"an answer must have one result for each ref ({self._backend.place})")
        return [
            RefResult(update, str(item["problem"])[:1000] if item.get("problem") else None, bool(item.get("retry")))
            if isinstance(item, dict)
            else RefResult(update, "the remote's answer cannot be read")
            for update, item in zip(updates, answer, strict=True)
        ]

    def _send(self, pack: OutgoingPack) -> None:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(pack.size_bytes)}
        with self._backend.request("POST", "/v1/packs", body=pack.pieces(), headers=headers) as response:
            self._backend.require(response, (201,), "/v1/packs")
            response.read(REF_BYTES_MAX)


class BlobSink:
    """Packs, indexes and refs as blobs. A pack is there when its index is; a ref moves by a conditional write.

    A ref that is removed stays as a blob of 64 zeros: stores have no conditional removal.
    """

    def __init__(self, backend: ObjectBackend, scratch: Path, backoff: Backoff | None = None) -> None:
        self._backend = backend
        self._scratch = scratch
        self._backoff = backoff or Backoff()

    def prepare(self) -> None:
        try:
            self._get(REPOSITORY_MARKER)
        except BlobMissing:
            self._backend.put(REPOSITORY_MARKER, FORMAT)

    def send(self, pack: OutgoingPack) -> None:
        name = pack.name()
        with tempfile.NamedTemporaryFile(prefix="push-", dir=self._scratch) as file:
            for piece in pack.pieces():
                file.write(piece)
            file.flush()
            path = Path(file.name)
            retrying(lambda: self._backend.put(f"packs/{name}.pack", path), self._backoff)
        index = pack.index()
        retrying(lambda: self._backend.put(f"packs/{name}.idx", index), self._backoff)

    def move(self, updates: Sequence[RefUpdate], signatures: Sequence[Signature]) -> list[RefResult]:
        if signatures:
            data = b"".join(sorted(item.line() for item in signatures))
            name = f"signatures/{sha256(data).hexdigest()[:32]}"
            retrying(lambda: self._backend.put(name, data), self._backoff)
        return [self._move(update) for update in updates]

    def set_head(self, branch: str) -> None:
        """The branch that a clone begins with: the first that was pushed."""
        try:
            self._backend.put_if("HEAD", head_bytes(branch), None)
        except BlobChanged:
            return

    def _move(self, update: RefUpdate) -> RefResult:
        name = f"refs/{update.kind.value}/{quote(update.name, safe='')}"
        try:
            found, version = self._current(name)
            if found != update.old:
                problem = (
                    f"{update.kind.word} {update.name!r} must be at {(update.old or 'nothing')[:12]} for this push, "
                    f"it is at {(found or 'nothing')[:12]} now ({self._backend.place})"
                )
                return RefResult(update, problem, retry=True)
            self._replace(name, update.new, version)
        except BlobChanged as error:
            return RefResult(update, str(error), retry=True)
        if update.kind is RefKind.BRANCH and update.new:
            self.set_head(update.name)
        return RefResult(update, None)

    def _replace(self, name: str, new: str | None, version: str | None) -> None:
        try:
            self._backend.put_if(name, f"{new or NO_COMMIT}\n".encode(), version)
        except BlobChanged:
            # A write whose answer was lost and that was repeated looks like somebody else's.
            if self._current(name)[0] != new:
                raise

    def _current(self, name: str) -> tuple[str | None, str | None]:
        """A ref's commit and the version of its blob."""
        try:
            found = retrying(lambda: self._backend.get(name, bytes_max=REF_BYTES_MAX), self._backoff)
        except BlobMissing:
            return None, None
        commit = found.data.decode("ascii", errors="replace").strip()
        return (None if commit == NO_COMMIT else commit), found.version

    def _get(self, name: str) -> bytes:
        return retrying(lambda: self._backend.get(name, bytes_max=REF_BYTES_MAX), self._backoff).data
