"""What a remote repository holds: refs, packs, and through their indexes every object's place.

Reads any backend that has the layout FORMAT.md draws. Indexes are kept under `cache/remotes/`, by their names, which
are their digests: a cached one cannot be wrong, and a pull that follows another reads the new ones only.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from koguma.contracts.errors import BlobMissing
from koguma.contracts.objects import Blob, ReadableBackend
from koguma.images import condemned
from koguma.images.commits import is_id
from koguma.images.errors import CorruptError, RefError
from koguma.images.files import write_atomically
from koguma.images.packs import (
    FANOUT_BYTES,
    INDEX_HEADER,
    INDEX_SUFFIX,
    PACK_HEADER,
    PACK_SUFFIX,
    PLACE,
    RECORD,
    PackReader,
)
from koguma.images.refs import NO_COMMIT, Ref, RefKind, check_ref_name
from koguma.images.repository import FORMAT
from koguma.images.transfer.errors import HostileRemoteError, RemoteError
from koguma.images.transfer.http import HttpObjects
from koguma.images.transfer.limits import (
    INDEX_BYTES_MAX,
    LISTING_BYTES_MAX,
    PACKS_MAX,
    REF_BYTES_MAX,
    REFS_MAX,
    SIGNATURES_BYTES_MAX,
)
from koguma.images.transfer.retrying import Backoff, retrying
from koguma.places import REPOSITORY_MARKER

MOVED_KINDS = (RefKind.BRANCH, RefKind.TAG)
_PACK_NAME = re.compile(r"packs/pack-[0-9a-f]{32}\.(?:pack|idx)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a remote has an object: a record of so many bytes."""

    pack: str
    offset: int
    stored: int


@dataclass(frozen=True, slots=True)
class Advertised:
    """A remote's refs at one moment."""

    refs: tuple[Ref, ...]
    head: str | None
    """The branch its commands mean when none is named."""
    shallow: frozenset[str]
    """Commits whose parents it does not have."""

    def get(self, kind: RefKind, name: str) -> str | None:
        return next((ref.commit for ref in self.refs if ref.kind is kind and ref.name == name), None)


class Catalogue:
    """One remote, read."""

    def __init__(self, backend: ReadableBackend, cache: Path, backoff: Backoff | None = None) -> None:
        self.backend = backend
        self._cache = cache
        self._backoff = backoff or Backoff()
        self._indexes: dict[str, PackReader] = {}

    @property
    def place(self) -> str:
        return self.backend.place

    def advertised(self) -> Advertised:
        """Refs, HEAD and shallow commits. Raises RemoteError when there is no repository."""
        self._require_repository()
        refs = self._served_refs() if isinstance(self.backend, HttpObjects) else self._listed_refs()
        return Advertised(tuple(refs), self._head(), frozenset(self._shallow()))

    def refresh(self, *, to_stay: bool = False) -> None:
        """Learn of the packs the remote has now, and load their indexes.

        `to_stay` leaves out those that its gc is about to remove: they can be read, but nothing new may count on them.
        """
        going = self._condemned() if to_stay else frozenset()
        names = {blob.name: blob.size_bytes for blob in self._listing("packs/", PACKS_MAX * 2)}
        packs = {name.removesuffix(INDEX_SUFFIX) for name in names if name.endswith(INDEX_SUFFIX)}
        wanted = {pack for pack in packs if pack + PACK_SUFFIX in names and pack.rpartition("/")[2] not in going}
        self._indexes = {pack: self._indexes.get(pack) or self._load(pack) for pack in sorted(wanted)}
        for path in self._cache.glob("*" + INDEX_SUFFIX):
            if "packs/" + path.stem not in wanted:
                path.unlink(missing_ok=True)  # the remote's gc merged it into another

    def find(self, object_id: bytes) -> Place | None:
        for pack, index in self._indexes.items():
            if place := index.find(object_id):
                return Place(pack + PACK_SUFFIX, *place)
        return None

    def has(self, object_id: bytes) -> bool:
        return any(index.find(object_id) is not None for index in self._indexes.values())

    def packs(self) -> list[str]:
        return list(self._indexes)

    def objects(self, pack: str) -> Iterator[tuple[bytes, Place]]:
        """All objects of one pack."""
        index = self._indexes[pack]
        for object_id in index.ids():
            place = index.find(object_id)
            if place is not None:
                yield object_id, Place(pack + PACK_SUFFIX, *place)

    def signatures(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of every signature file but those that are `signatures_kept`."""
        for blob in self._listing("signatures/", PACKS_MAX):
            name = blob.name.partition("/")[2]
            if not self._kept(name).exists():
                yield name, self._get(blob.name, SIGNATURES_BYTES_MAX)

    def signatures_kept(self, names: Iterable[str]) -> None:
        """All lines of these files are in our log: they need not be read again where a name is the content's digest."""
        for name in names:
            if re.fullmatch(r"[0-9a-f]{32}", name):
                self._kept(name).parent.mkdir(parents=True, exist_ok=True)
                self._kept(name).touch()

    def close(self) -> None:
        for index in self._indexes.values():
            index.close()
        self._indexes = {}

    def _kept(self, name: str) -> Path:
        return self._cache / "signatures-kept" / name

    def _require_repository(self) -> None:
        try:
            marker = self._get(REPOSITORY_MARKER, REF_BYTES_MAX)
        except BlobMissing:
            raise RemoteError(f"a remote must be an image repository, there is none ({self.place})") from None
        if marker != FORMAT:
            raise RemoteError(f"a remote must have the format {FORMAT!r}, got {marker[:80]!r} ({self.place})")

    def _served_refs(self) -> list[Ref]:
        assert isinstance(self.backend, HttpObjects)  # noqa: S101 - for the type checker; the caller asked
        backend = self.backend
        document = retrying(lambda: backend.json("GET", "/v1/refs"), self._backoff)
        if not isinstance(document, list) or len(document) > REFS_MAX:
            raise HostileRemoteError(f"a remote's refs must be a list of at most {REFS_MAX} ({self.place})")
        found = []
        for item in document:
            if not isinstance(item, list) or len(item) != 3 or not all(isinstance(part, str) for part in item):
                raise HostileRemoteError(
                    f"a remote's ref must be kind, name and commit, got {str(item)[:80]!r} ({self.place})"
                )
            if item[0] not in ("heads", "tags"):
                raise HostileRemoteError(f"a remote's ref is a branch or tag, got {item[0][:80]!r} ({self.place})")
            found.append(self._ref(RefKind(item[0]), item[1], item[2]))
        return found

    def _listed_refs(self) -> list[Ref]:
        found = []
        for kind in MOVED_KINDS:
            prefix = f"refs/{kind.value}/"
            for blob in self._listing(prefix, REFS_MAX):
                value = self._get(blob.name, REF_BYTES_MAX).decode("ascii", errors="replace").strip()
                if value != NO_COMMIT:
                    found.append(self._ref(kind, unquote(blob.name.removeprefix(prefix)), value))
        return found

    def _ref(self, kind: RefKind, name: str, commit: str) -> Ref:
        try:
            check_ref_name(name)
        except RefError as error:
            raise HostileRemoteError(f"a remote's {error} ({self.place})") from None
        if not is_id(commit):
            raise HostileRemoteError(
                f"a remote's ref must hold a commit id of 64 hex digits, got {commit[:80]!r} ({name}, {self.place})"
            )
        return Ref(name, kind, commit)

    def _head(self) -> str | None:
        try:
            text = self._get("HEAD", REF_BYTES_MAX).decode(errors="replace").strip()
        except BlobMissing:
            return None
        try:
            return check_ref_name(text.partition("\n")[0].removeprefix("branch "))
        except RefError:
            return None

    def _shallow(self) -> list[str]:
        try:
            lines = self._get("shallow", LISTING_BYTES_MAX).decode("ascii", errors="replace").split()
        except BlobMissing:
            return []
        if not all(is_id(line) for line in lines):
            raise HostileRemoteError(f"a remote's shallow commits must be ids ({self.place})")
        return lines

    def _condemned(self) -> frozenset[str]:
        """Read before the packs are listed, as FORMAT.md says. One that is damaged condemns nothing, there as here."""
        name = "packs/" + condemned.FILE_NAME
        try:
            return condemned.parse_condemned(self._get(name, LISTING_BYTES_MAX), self.place).packs
        except (BlobMissing, CorruptError):
            return frozenset()

    def _load(self, pack: str) -> PackReader:
        """The index of a pack, held against its name and for sense, from the cache or the remote."""
        path = self._cache / (pack.rpartition("/")[2] + INDEX_SUFFIX)
        if not path.exists():
            data = self._get(pack + INDEX_SUFFIX, INDEX_BYTES_MAX)
            check_index(data, pack, self.place)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data, mode=0o600)
        return PackReader(path)

    def _listing(self, prefix: str, count_max: int) -> Iterator[Blob]:
        for number, blob in enumerate(retrying(lambda: list(self.backend.list(prefix)), self._backoff)):
            if number >= count_max:
                raise HostileRemoteError(f"a remote has at most {count_max} files in {prefix}, got more ({self.place})")
            if prefix == "packs/" and not _PACK_NAME.fullmatch(blob.name):
                continue
            yield blob

    def _get(self, name: str, bytes_max: int) -> bytes:
        return retrying(lambda: self.backend.get(name, bytes_max=bytes_max), self._backoff).data


def check_index(data: bytes, pack: str, place: str) -> None:
    """Hold an index from elsewhere against its name, its own digest and the form FORMAT.md draws."""
    name = pack.rpartition("/")[2]
    try:
        _check_index(data, name)
    except (CorruptError, struct.error, IndexError) as error:
        raise HostileRemoteError(f"an index must have the form FORMAT.md draws: {error} ({name}, {place})") from None


def _check_index(data: bytes, name: str) -> None:
    if name != "pack-" + sha256(data).hexdigest()[:32] or sha256(data[:-32]).digest() != data[-32:]:
        raise CorruptError("its digest is not the one in its name")
    _, _, count = INDEX_HEADER.unpack_from(data)
    ids_at = INDEX_HEADER.size + FANOUT_BYTES
    places_at = ids_at + 32 * count
    if len(data) != places_at + PLACE.size * count + 40:
        raise CorruptError(f"{len(data)} bytes are not those of {count} objects")
    ids = [data[at : at + 32] for at in range(ids_at, places_at, 32)]
    if any(left >= right for left, right in pairwise(ids)):
        raise CorruptError("its ids do not ascend")
    counts = [0] * 256
    for object_id in ids:
        counts[object_id[0]] += 1
    total = 0
    for number, said in zip(counts, struct.unpack_from("<256I", data, INDEX_HEADER.size), strict=True):
        total += number
        if said != total:
            raise CorruptError("its fanout does not count its ids")
    (pack_bytes,) = struct.unpack_from("<Q", data, len(data) - 40)
    for offset, stored in PLACE.iter_unpack(data[places_at : places_at + PLACE.size * count]):
        if offset < PACK_HEADER.size or offset + RECORD.size + stored > pack_bytes:
            raise CorruptError(f"a record at {offset} lies outside the pack of {pack_bytes} bytes")
