"""A remote as an ObjectSource: `fsck --repair-from REMOTE` asks it for objects that were lost here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from koguma.errors import KogumaError
from koguma.images.objects import BLOB
from koguma.images.packs import RECORD
from koguma.images.repository import Repository
from koguma.images.sources import ObjectSource, SourcedObject
from koguma.images.transfer.catalogue import Catalogue, Place
from koguma.images.transfer.errors import HostileRemoteError, RemoteError
from koguma.images.transfer.fetching import cache_of
from koguma.images.transfer.records import Check, Header, Stream
from koguma.images.transfer.remotes import Remote, find_remote, open_backend
from koguma.images.transfer.retrying import Backoff, resumed


class RemoteSource:
    """One remote. What it cannot give for the moment is asked for again, from where it broke off."""

    def __init__(self, repository: Repository, remote: Remote, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff()
        self._backend = open_backend(remote)
        self._catalogue = Catalogue(self._backend, cache_of(repository, remote), self._backoff)
        self._catalogue.advertised()
        self._catalogue.refresh()

    @property
    def name(self) -> str:
        return self._catalogue.place

    def fetch(self, ids: Iterable[bytes]) -> Iterator[SourcedObject]:
        for object_id in ids:
            place = self._catalogue.find(object_id)
            if place is None:
                continue
            try:
                found = self._object(object_id, place)
            except KogumaError as error:
                # Whoever asked for it goes on with the next.
                found = SourcedObject(object_id, BLOB, map(_raise, [error]))
            yield found

    def close(self) -> None:
        self._catalogue.close()
        self._backend.close()

    def _object(self, object_id: bytes, place: Place) -> SourcedObject:
        where = f"{place.pack} at {place.offset}, {self.name}"
        end = place.offset + RECORD.size + place.stored

        def read(got: int) -> Iterator[bytes]:
            start = place.offset + got
            return self._backend.read_range(place.pack, start, end - start) if start < end else iter(())

        stream = Stream(resumed(read, self._backoff), where)
        header = stream.header()
        if header is None or header.id != object_id or header.stored != place.stored:
            raise HostileRemoteError(
                f"a record must be where its index says, object {object_id.hex()} is not ({where})"
            )
        return SourcedObject(object_id, header.kind, _content(header, stream, where))


def _content(header: Header, stream: Stream, where: str) -> Iterator[bytes]:
    check = Check(header, where)
    arrived = 0
    for piece in stream.take_pieces(header.stored):
        arrived += len(piece)
        for content in check.unfold(piece):
            yield bytes(content)
    check.finish(arrived)


def _raise(error: KogumaError) -> bytes:
    raise error


def open_remote_source(repository: Repository, text: str) -> ObjectSource | None:
    """The remote of this name or address; None when there is none."""
    try:
        remote = find_remote(repository.path, text)
    except RemoteError:
        return None
    return RemoteSource(repository, remote)
