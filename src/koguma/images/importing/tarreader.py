"""Tar archives as they are met: v7, ustar, pax, GNU and star, read once from front to end.

Owns the format and nothing else: what its entries mean for a tree is `grafting`'s business. Every field is checked,
names stay bytes, and memory does not depend on what an archive claims. See docs/decisions/images-own-tar-reader.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from koguma.images.errors import TreeError
from koguma.images.importing import paxheaders, sparse
from koguma.images.importing.options import Limits
from koguma.images.importing.paxheaders import GlobalRecords, Records
from koguma.images.importing.streams import ByteStream
from koguma.images.trees import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SYMLINK, Xattrs

HARD_LINK = ord("h")
"""A further name of a file before it; the other kinds are those of a tree."""

_BLOCK = 512
_ZERO_BLOCK = bytes(_BLOCK)
_END_MAX_BYTES = 64 * 1024**2
_KINDS = {
    b"0": FILE, b"\0": FILE, b"7": FILE, b"S": FILE, b"1": HARD_LINK, b"2": SYMLINK, b"3": CHARACTER, b"4": BLOCK,
    b"5": DIRECTORY, b"D": DIRECTORY, b"6": FIFO,
}  # fmt: skip
_OLD_SPARSE = b"S"
_LONG_NAME, _LONG_TARGET = b"L", b"K"
_PAX, _PAX_SUN, _PAX_GLOBAL = b"x", b"X", b"g"
_VOLUME_LABEL = b"V"
_WITH_DATA = (FILE, DIRECTORY)
"""A directory's data is GNU tar's list of names for incremental backups."""


class Member(NamedTuple):
    """An entry of a tar."""

    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    size: int
    """Of a file's content, holes included."""
    mtime_ns: int | None
    target: bytes
    """Of a symbolic or hard link."""
    device: tuple[int, int]
    xattrs: Xattrs
    extents: sparse.SparseMap | None
    """Of a sparse file."""


@dataclass(slots=True)
class _Header:
    """The fields of a header block, numbers read, texts cut at their first NUL."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_s: int
    type: bytes
    target: bytes
    device: tuple[int, int]
    block: bytes


def begins_tar(start: bytes) -> bool:
    """Whether the first bytes of a file are a tar's header, by its checksum."""
    if len(start) < _BLOCK:
        return False
    try:
        _check_sum(start[:_BLOCK], 0)
    except TreeError:
        return False
    return True


class TarReader:
    """The members of a tar; the content of one must be taken before the next is asked for, or is left out."""

    def __init__(self, stream: ByteStream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._global = GlobalRecords()
        self._left = 0
        self._padding = 0
        self._member: Member | None = None

    def __iter__(self) -> Iterator[Member]:
        while (member := self._next()) is not None:
            self._member = member
            yield member

    def content(self) -> Iterator[bytes]:
        """The content of the present member, in pieces."""
        member = self._member
        if member is None:
            return iter(())
        data = self._data(member.name)
        return data if member.extents is None else sparse.expand(member.extents, member.size, data)

    def _data(self, name: bytes) -> Iterator[bytes]:
        wanted = self._left
        for piece in self._stream.pieces(wanted):
            self._left -= len(piece)
            yield piece
        if self._left:
            raise TreeError(
                f"a tar must be whole, it ends {self._left} bytes before the end of {name!r}"
                f" (at byte {self._stream.offset})"
            )

    def _next(self) -> Member | None:
        self._finish_member()
        records: Records = []
        long: dict[bytes, bytes] = {}
        told = 0
        while (header := self._header()) is not None:
            if header.size < 0:
                raise self._refused(f"a size must not be negative, got {header.size} for {header.name!r}")
            if header.type in (_PAX, _PAX_SUN, _PAX_GLOBAL, _LONG_NAME, _LONG_TARGET, _VOLUME_LABEL):
                told += header.size
                if told > self._limits.header_bytes_max:
                    most = self._limits.header_bytes_max
                    raise self._refused(f"an entry's names and attributes have at most {most} bytes, got {told}")
                data = self._meta(header.size)
                if header.type in (_LONG_NAME, _LONG_TARGET):
                    long[header.type] = data.partition(b"\0")[0]
                elif header.type == _PAX_GLOBAL:
                    self._take_global(self._records(data))
                elif header.type != _VOLUME_LABEL:
                    records += self._records(data)
            else:
                return self._made(header, records, long)
        if records or long:
            raise self._refused("a tar may not end with what belongs to an entry that does not come")
        return None

    def _finish_member(self) -> None:
        """Leave out what is left of the present member, and its padding."""
        if self._member is None:
            return
        if self._stream.skip(self._left) != self._left:
            raise self._refused(f"a tar must be whole, it ends within {self._member.name!r}")
        if len(self._stream.read(self._padding)) != self._padding:
            raise self._refused(f"a tar must be whole, it ends within the padding of {self._member.name!r}")
        self._member = None

    def _header(self) -> _Header | None:
        """The next header; None at the end, of which at least one block of zeros must be there and nothing after it."""
        block = self._stream.read(_BLOCK)
        if len(block) != _BLOCK:
            raise self._refused("a tar must end with blocks of zeros, it ends without" if not block else _CUT)
        if block == _ZERO_BLOCK:
            self._read_end()
            return None
        _check_sum(block, self._stream.offset - _BLOCK)
        try:
            return _fields(block)
        except ValueError as error:
            raise self._refused(f"a tar header must have {error}") from None

    def _read_end(self) -> None:
        """Zeros, as many as fill up the last block of a tape; without a limit, `/dev/zero` would be an empty tar."""
        zeros = 0
        while rest := self._stream.read(64 * _BLOCK):
            zeros += len(rest)
            if rest.strip(b"\0"):
                raise self._refused("a tar may have nothing but zeros after its end, got other bytes")
            if zeros > _END_MAX_BYTES:
                raise self._refused(f"a tar may have {_END_MAX_BYTES} bytes of zeros after its end, got more")

    def _meta(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) != size or len(self._stream.read(-size % _BLOCK)) != -size % _BLOCK:
            raise self._refused(_CUT)
        return data

    def _records(self, data: bytes) -> Records:
        try:
            return paxheaders.parse_records(data)
        except TreeError as error:
            raise self._refused(str(error)) from None

    def _take_global(self, records: Records) -> None:
        try:
            self._global.add(records)
        except TreeError as error:
            raise self._refused(str(error)) from None

    def _made(self, header: _Header, records: Records, long: dict[bytes, bytes]) -> Member:
        try:
            return self._member_of(header, records, long)
        except TreeError as error:
            raise self._refused(str(error)) from None

    def _member_of(self, header: _Header, records: Records, long: dict[bytes, bytes]) -> Member:
        pax = self._global.with_own(records)
        name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or long.get(_LONG_NAME) or header.name
        target = pax.get(b"linkpath") or long.get(_LONG_TARGET) or header.target
        kind = _KINDS.get(header.type)
        if kind is None:
            raise TreeError(
                f"a tar may hold files, directories, links, devices and FIFOs, got type {header.type!r} for {name!r}"
            )
        if header.type == b"\0" and name.endswith(b"/"):
            kind = DIRECTORY  # as tar of Unix version 7 says it
        if kind == DIRECTORY and header.type != b"D":
            header.size = 0
        stored = paxheaders.number(pax, b"size", header.size, sparse.SIZE_MAX) if kind in _WITH_DATA else 0
        if stored > sparse.SIZE_MAX:
            raise TreeError(f"a size must be a number up to {sparse.SIZE_MAX}, got {stored} for {name!r}")
        self._left, self._padding = stored, -stored % _BLOCK
        size, extents = self._sparse(header, records, pax, name) if kind == FILE else (0, None)
        return Member(
            name=name,
            kind=kind,
            mode=header.mode & 0o7777,
            uid=paxheaders.owner(pax, b"uid", header.uid),
            gid=paxheaders.owner(pax, b"gid", header.gid),
            size=size,
            mtime_ns=paxheaders.time_ns(pax, header.mtime_s),
            target=target,
            device=header.device,
            xattrs=self._global.xattrs(records),
            extents=extents,
        )

    def _sparse(
        self, header: _Header, records: Records, pax: Mapping[bytes, bytes], name: bytes
    ) -> tuple[int, sparse.SparseMap | None]:
        """The size of a file with its holes, and its map."""
        if header.type == _OLD_SPARSE:
            extents, size = self._old_map(header, name)
        elif pax.get(b"GNU.sparse.major") == b"1":
            size = paxheaders.number(pax, b"GNU.sparse.realsize", -1, sparse.SIZE_MAX)
            extents = sparse.read_map_before_data(iter(self._map_block, b""), name)
        elif (told := sparse.pax_map(records, name)) is not None:
            extents = told
            size = paxheaders.number(pax, b"GNU.sparse.size", -1, sparse.SIZE_MAX)
            size = paxheaders.number(pax, b"GNU.sparse.realsize", size, sparse.SIZE_MAX)
        else:
            return self._left, None
        return size, sparse.check_map(extents, size, self._left, name)

    def _map_block(self) -> bytes:
        """The next block of a map that stands before the data; empty where the member's data ends."""
        if self._left < _BLOCK:
            return b""
        self._left -= _BLOCK
        return self._stream.read(_BLOCK)

    def _old_map(self, header: _Header, name: bytes) -> tuple[list[tuple[int, int]], int]:
        """GNU's old map: 4 pieces in the header, 21 in each block that follows while the last one says so."""
        block = header.block
        extents = _extents(block[386:482])
        try:
            size = _number(block[483:495], "a size")
        except ValueError as error:
            raise TreeError(f"a sparse file must have {error}") from None
        extended = block[482]
        while extended:
            block = self._stream.read(_BLOCK)
            if len(block) != _BLOCK:
                raise TreeError(_CUT)
            extents += _extents(block[:504])
            if len(extents) > sparse.EXTENTS_MAX:
                raise TreeError(f"a sparse map may have {sparse.EXTENTS_MAX} pieces, got more for {name!r}")
            extended = block[504]
        return extents, size

    def _refused(self, why: str) -> TreeError:
        return TreeError(f"{why} (before byte {self._stream.offset})")


_CUT = "a tar must be whole, it ends within a header"


def _fields(block: bytes) -> _Header:
    name = _text(block[:100])
    if block[257:263] == b"ustar\0":
        # star has times where others have the end of the prefix, and says so with a magic of its own.
        prefix = _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
        name = prefix + b"/" + name if prefix else name
    kind = block[156:157]
    device = (0, 0)
    if kind in (b"3", b"4"):
        device = (_number(block[329:337], "a major number"), _number(block[337:345], "a minor number"))
    return _Header(
        name=name,
        mode=_number(block[100:108], "a mode"),
        uid=_number(block[108:116], "an owner"),
        gid=_number(block[116:124], "a group"),
        size=_number(block[124:136], "a size"),
        mtime_s=_number(block[136:148], "a time"),
        type=kind,
        target=_text(block[157:257]),
        device=device,
        block=block,
    )


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, what: str) -> int:
    """Octal digits, or for what they have no room for the number itself, big-endian, marked by the first bit."""
    if field[0] == 0xFF:
        return int.from_bytes(field, "big", signed=True)
    if field[0] & 0x80:
        return int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
    text = field.partition(b"\0")[0].strip(b" ")
    if text.translate(None, b"01234567"):
        raise ValueError(f"{what} in octal digits, got {field!r}")
    return int(text, 8) if text else 0


def _extents(field: bytes) -> list[tuple[int, int]]:
    found = []
    for at in range(0, len(field) - 23, 24):
        if not field[at]:
            break
        try:
            found.append((_number(field[at : at + 12], "an offset"), _number(field[at + 12 : at + 24], "a length")))
        except ValueError as error:
            raise TreeError(f"a sparse map must have {error}") from None
    return found


def _check_sum(block: bytes, offset: int) -> None:
    try:
        told = _number(block[148:156], "a checksum")
    except ValueError as error:
        raise TreeError(f"a tar header must have {error} (at byte {offset})") from None
    rest = block[:148] + b"        " + block[156:]
    if told != sum(rest) and told != sum(byte - 256 if byte > 127 else byte for byte in rest):
        raise TreeError(f"a tar header must match its checksum, got {told} instead of {sum(rest)} (at byte {offset})")
