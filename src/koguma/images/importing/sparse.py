"""Sparse files in tars: where their data belongs and what lies between. GNU's old form, pax 0.0, 0.1 and 1.0."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from koguma.images.errors import TreeError
from koguma.images.importing.paxheaders import Records
from koguma.images.importing.streams import PIECE_BYTES

SparseMap = tuple[tuple[int, int], ...]
"""Offset and length of each piece of data."""

EXTENTS_MAX = 1_000_000
_ZEROS = bytes(PIECE_BYTES)
SIZE_MAX = 2**63 - 1


def check_map(extents: Iterable[tuple[int, int]], size: int, stored: int, name: bytes) -> SparseMap:
    """A map that tells no lies: it ascends, stays inside the file and needs just the bytes that are there."""
    if not 0 <= size <= SIZE_MAX:
        raise TreeError(f"a sparse file's size must be a number up to {SIZE_MAX}, got {size} for {name!r}")
    found = tuple(extents)
    end = total = 0
    for offset, length in found:
        if offset < end or length < 0 or offset + length > size:
            raise TreeError(
                f"a sparse file's pieces must ascend within its {size} bytes, got {length} at {offset} for {name!r}"
            )
        end, total = offset + length, total + length
    if total != stored:
        raise TreeError(f"a sparse file's pieces must be the {stored} bytes stored, got {total} for {name!r}")
    return found


def pax_map(records: Records, name: bytes) -> list[tuple[int, int]] | None:
    """The map that pax records of version 0.0 or 0.1 tell; None when they tell none."""
    values = dict(records)
    if text := values.get(b"GNU.sparse.map"):
        numbers = [_decimal(part, name) for part in text.split(b",")]
    else:
        keys = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        told = [(key, value) for key, value in records if key in keys]
        if not told:
            return None
        if [key for key, _ in told] != [*keys] * (len(told) // 2):
            raise TreeError(f"a sparse map's offsets and lengths must alternate, they do not for {name!r}")
        numbers = [_decimal(value, name) for _, value in told]
    if len(numbers) % 2:
        raise TreeError(f"a sparse map has an offset and a length for each piece, got {len(numbers)} for {name!r}")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def read_map_before_data(blocks: Iterator[bytes], name: bytes) -> list[tuple[int, int]]:
    """The map of version 1.0: decimal lines in whole blocks before the data."""
    text = b""
    numbers: list[int] = []
    wanted = 1
    while len(numbers) < wanted:
        line, newline, rest = text.partition(b"\n")
        if not newline:
            if len(text) > 20:
                raise TreeError(f"a sparse map must be lines of numbers, got {text[:20]!r} for {name!r}")
            block = next(blocks, b"")
            if not block:
                raise TreeError(f"a sparse map must be whole, it ends too early for {name!r}")
            text += block
            continue
        text = rest
        numbers.append(_decimal(line, name))
        if len(numbers) == 1:
            if numbers[0] > EXTENTS_MAX:
                raise TreeError(f"a sparse map may have {EXTENTS_MAX} pieces, got {numbers[0]} for {name!r}")
            wanted = 1 + 2 * numbers[0]
    return list(zip(numbers[1::2], numbers[2::2], strict=True))


def expand(extents: SparseMap, size: int, data: Iterable[bytes]) -> Iterator[bytes]:
    """The whole content, holes as zeros, from the stored pieces."""
    source = iter(data)
    rest = b""
    at = 0
    for offset, length in extents:
        yield from _zeros(offset - at)
        left = length
        while left:
            rest = rest or next(source, b"")
            if not rest:
                return  # the archive ends early; its reader says so
            piece, rest = rest[:left], rest[left:]
            left -= len(piece)
            yield piece
        at = offset + length
    yield from _zeros(size - at)


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield _ZEROS[:count]
        count -= len(_ZEROS)


def _decimal(text: bytes, name: bytes) -> int:
    if not text.isdigit() or len(text) > 19 or int(text) > SIZE_MAX:
        raise TreeError(f"a sparse map must consist of numbers, got {text[:20]!r} for {name!r}")
    return int(text)
