"""Brings objects from a remote: in ranges that lie together, several at once, each record verified as it arrives.

Every range may be asked for again; what arrived is in part files, so a run that fails or dies is taken up by the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

from koguma.images.errors import ObjectMissingError
from koguma.images.objects import PACK_MAX_BYTES, ObjectStore, part_bytes_max
from koguma.images.packs import RECORD
from koguma.images.transfer.catalogue import Catalogue, Place
from koguma.images.transfer.errors import HostileRemoteError
from koguma.images.transfer.incoming import PartFile
from koguma.images.transfer.records import Header, Stream, cut, verified
from koguma.images.transfer.retrying import Backoff, retrying

GAP_MAX_BYTES = 64 * 1024
"""Records that are not wanted are read over when a request of their own would cost more than they do."""
SPAN_MAX_BYTES = 4 * 1024 * 1024
CONNECTIONS = 4
_PARTS_MAX = 64

Progress = Callable[[int], None]
Require = Callable[[Header], None]
"""Raises HostileRemoteError for a record that is not the one wanted, before any of its content arrived or is kept."""


@dataclass(frozen=True, slots=True)
class Span:
    """Adjacent records of one pack, asked for at once."""

    pack: str
    offset: int
    length: int
    wanted: frozenset[bytes]


class Arrived(NamedTuple):
    """Verified records of one range."""

    data: memoryview
    records: list[tuple[Header, int]]
    """Each with its place in `data`; none for a large record, which is in the part file already."""


class Downloads:
    """Objects from one remote into a part file of one repository."""

    def __init__(
        self,
        catalogue: Catalogue,
        store: ObjectStore,
        part: Callable[[], PartFile],
        *,
        backoff: Backoff | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._new_part = part
        self._parts: list[PartFile] = []
        self._backoff = backoff or Backoff()
        self._progress = progress
        self._pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="fetch")
        self.objects = 0
        self.bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for part in self._parts:
            part.close()

    @property
    def parts(self) -> list[PartFile]:
        return self._parts

    def has(self, object_id: bytes) -> bool:
        """Whether an object is here, in the repository or among what arrived."""
        return self.arrived(object_id) or self._store.contains(object_id)

    def arrived(self, object_id: bytes) -> bool:
        return any(object_id in part.places for part in self._parts)

    def read_many(self, ids: Iterable[bytes], kind: int) -> Iterator[tuple[bytes, bytes]]:
        """Commits or trees, from here where they are here, else from the remote; those are kept, too."""
        wanted, bytes_max = list(ids), part_bytes_max(kind)

        def require(header: Header) -> None:
            if header.size > bytes_max:
                raise HostileRemoteError(
                    f"a tree or commit has at most {bytes_max} bytes, got {header.size} "
                    f"({header.id.hex()}, {self._catalogue.place})"
                )

        for arrived in self._arrivals((item for item in wanted if not self.has(item)), require):
            self._keep(arrived)
        for object_id in wanted:
            yield object_id, self._read_here(object_id, kind)

    def fetch_files(self, sizes: Mapping[bytes, int]) -> None:
        """Bring contents; each must have the size its tree says."""

        def require(header: Header) -> None:
            if header.size != sizes[header.id]:
                raise HostileRemoteError(
                    f"a file must have the {sizes[header.id]} bytes its tree says, got {header.size} "
                    f"({header.id.hex()}, {self._catalogue.place})"
                )

        for arrived in self._arrivals((item for item in sizes if not self.has(item)), require):
            self._keep(arrived)

    def fetch_packs(self) -> None:
        """Bring whole packs of which nearly nothing is here: at a first pull, and of every commit since the last one.

        What no ref leads to comes along and is left to gc; asking a pack's parts one by one would cost more.
        """
        for pack in self._catalogue.packs():
            absent, here = [], 0
            for object_id, place in self._catalogue.objects(pack):
                if self.has(object_id):
                    here += place.stored
                else:
                    absent.append((object_id, place))
            missing = sum(place.stored for _, place in absent)
            if absent and here * 10 <= missing:
                for arrived in self._spans(spans(absent), _whatever):
                    self._keep(arrived)

    def _arrivals(self, ids: Iterable[bytes], require: Require) -> Iterator[Arrived]:
        places = []
        for object_id in ids:
            place = self._catalogue.find(object_id)
            if place is None:
                raise ObjectMissingError(
                    f"a remote must have what its commits refer to, object {object_id.hex()} is in no pack "
                    f"({self._catalogue.place})"
                )
            places.append((object_id, place))
        yield from self._spans(spans(places), require)

    def _spans(self, wanted: list[Span], require: Require) -> Iterator[Arrived]:
        """Ranges in order, the next ones under way while one is worked on."""
        running: deque[Future[Arrived]] = deque()
        todo = deque(wanted)
        while todo or running:
            while todo and len(running) < CONNECTIONS + 2 and todo[0].length <= SPAN_MAX_BYTES + RECORD.size:
                running.append(self._pool.submit(self._fetch_span, todo.popleft(), require))
            if running:
                yield running.popleft().result()
            elif todo:
                self._fetch_large(todo.popleft(), require)

    def _fetch_span(self, span: Span, require: Require) -> Arrived:
        return retrying(lambda: self._try_span(span, require), self._backoff)

    def _try_span(self, span: Span, require: Require) -> Arrived:
        place = f"{span.pack} at {span.offset}, {self._catalogue.place}"
        pieces = list(self._catalogue.backend.read_range(span.pack, span.offset, span.length))
        data = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        records = []
        for header, at in cut(data, place):
            if header.id in span.wanted:
                require(header)
                verified(header, data[at + RECORD.size : at + RECORD.size + header.stored], place)
                records.append((header, at))
        got = {header.id for header, _ in records}
        if got != span.wanted:
            raise _misplaced(next(iter(span.wanted - got)), place)
        return Arrived(data, records)

    def _fetch_large(self, span: Span, require: Require) -> None:
        """A span of one large record goes to the part file as it arrives."""
        (object_id,) = span.wanted
        place = f"{span.pack} at {span.offset}, {self._catalogue.place}"

        def attempt() -> Header:
            stream = Stream(self._catalogue.backend.read_range(span.pack, span.offset, span.length), place)
            header = stream.header()
            if header is None or header.id != object_id or header.stored != span.length - RECORD.size:
                raise _misplaced(object_id, place)
            require(header)
            self._part().append_pieces(header, stream.take_pieces(header.stored), place)
            return header

        self._count([retrying(attempt, self._backoff)])

    def _keep(self, arrived: Arrived) -> None:
        self._part().append(arrived.data, arrived.records)
        self._count([header for header, _ in arrived.records])

    def _count(self, headers: Sequence[Header]) -> None:
        size = sum(RECORD.size + header.stored for header in headers)
        self.objects += len(headers)
        self.bytes += size
        if self._progress:
            self._progress(size)

    def _part(self) -> PartFile:
        """The part to add to. They end after a size, as a writer's packs do; each is an open file, so there are few."""
        if not self._parts or (len(self._parts) < _PARTS_MAX and self._parts[-1].size_bytes >= PACK_MAX_BYTES):
            self._parts.append(self._new_part())
        return self._parts[-1]

    def _read_here(self, object_id: bytes, kind: int) -> bytes:
        for part in self._parts:
            if (content := part.read(object_id, kind)) is not None:
                return content
        return self._store.read_part(object_id, kind, verify=True)


def _whatever(_: Header) -> None:
    """Of a whole pack nobody said yet what its objects are; their trees are held against them later."""


def _misplaced(object_id: bytes, place: str) -> HostileRemoteError:
    return HostileRemoteError(f"a record must be where its index says, object {object_id.hex()} is not ({place})")


def spans(places: Iterable[tuple[bytes, Place]]) -> list[Span]:
    """The ranges to ask for, in the order they lie in the packs."""
    ordered = sorted(places, key=lambda item: (item[1].pack, item[1].offset))
    found: list[Span] = []
    ids: set[bytes] = set()
    pack, start, end = "", 0, 0
    for object_id, place in ordered:
        last = place.offset + RECORD.size + place.stored
        joins = pack == place.pack and 0 <= place.offset - end <= GAP_MAX_BYTES and last - start <= SPAN_MAX_BYTES
        if ids and not joins:
            found.append(Span(pack, start, end - start, frozenset(ids)))
            ids = set()
        if not ids:
            pack, start = place.pack, place.offset
        ids.add(object_id)
        end = last
    if ids:
        found.append(Span(pack, start, end - start, frozenset(ids)))
    return found
