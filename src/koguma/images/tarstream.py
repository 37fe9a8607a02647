"""A commit as a tar stream, made straight from the packs: what exports read, without unpacking anything on a disk.

ustar headers, with pax records for attributes that have no room in them. Long names are said in GNU's way and not in
pax's: mksquashfs 4.5.1, which others may give it to, damages some long link targets that come as pax records. Entries
come in order of their names, parents first, so equal trees give equal streams.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

from koguma.images.objects import ObjectStore
from koguma.images.trees import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, NORMAL_MTIME_NS, SYMLINK, Entry, walk

_BLOCK = 512
_TYPES = {FILE: b"0", SYMLINK: b"2", CHARACTER: b"3", BLOCK: b"4", DIRECTORY: b"5", FIFO: b"6"}
_HARD_LINK = b"1"
_HELPER = Entry(b"", FILE, 0o644, 0, 0)
_NAME_BYTES = 100
_OCTAL_MAX = 0o7777777
_SIZE_MAX = 0o77777777777
_BATCH_ENTRIES = 256
_BATCH_BYTES = 1024 * 1024
_BATCHES_AHEAD = 8
"""Batches that are read while earlier ones are consumed: bounds memory to some ten megabytes."""
_LARGE_MIN_BYTES = 4 * 1024 * 1024
"""Contents that go through in pieces."""

Item = tuple[bytes, Entry]
"""A path and its entry."""


def tar_stream(store: ObjectStore, root: Entry) -> Iterator[bytes]:
    """The tree below `root` (the root itself as `./`) as the bytes of a tar file, in pieces of about a megabyte."""
    return entries_stream(store, chain(((b"", root),), walk(store.read, root)))


def entries_stream(store: ObjectStore, entries: Iterable[Item]) -> Iterator[bytes]:
    """These paths and entries as the bytes of a tar file; the first name of a hard-linked file has its content."""
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="read") as pool:
        ahead: deque[Future[bytes] | Entry] = deque()
        for batch in _batches(_with_first_names(entries)):
            ahead.append(batch if isinstance(batch, Entry) else pool.submit(_render, store, batch))
            if len(ahead) > _BATCHES_AHEAD:
                yield from _pieces(store, ahead.popleft())
        while ahead:
            yield from _pieces(store, ahead.popleft())
    yield bytes(2 * _BLOCK)


def _with_first_names(items: Iterable[Item]) -> Iterator[tuple[bytes, Entry, bytes]]:
    """Every entry with the first name of its file: empty for the first itself and for files with a single name."""
    first_names: dict[bytes, bytes] = {}
    for path, entry in items:
        first = first_names.setdefault(entry.link, path) if entry.link else path
        yield path, entry, b"" if first == path else first


def _batches(
    items: Iterable[tuple[bytes, Entry, bytes]],
) -> Iterator[list[tuple[bytes, Entry, bytes]] | Entry]:
    """Entries in batches that are rendered as one; a large file's header ends a batch, its content follows alone."""
    batch: list[tuple[bytes, Entry, bytes]] = []
    size = 0
    for item in items:
        entry = item[1]
        large = entry.kind == FILE and entry.size >= _LARGE_MIN_BYTES and not item[2]
        batch.append(item)
        size += 0 if large or item[2] else entry.size
        if large or size >= _BATCH_BYTES or len(batch) >= _BATCH_ENTRIES:
            yield batch
            batch, size = [], 0
        if large:
            yield entry
    if batch:
        yield batch


def _render(store: ObjectStore, batch: list[tuple[bytes, Entry, bytes]]) -> bytes:
    parts: list[bytes] = []
    for path, entry, first in batch:
        if first:
            parts.append(_header(path, entry, _HARD_LINK, first))
            continue
        name = (path or b".") + b"/" if entry.kind == DIRECTORY else path
        parts.append(_header(name, entry, _TYPES[entry.kind], entry.target))
        if entry.kind == FILE and 0 < entry.size < _LARGE_MIN_BYTES:
            parts += (store.read(entry.digest), bytes(-entry.size % _BLOCK))
    return b"".join(parts)


def _pieces(store: ObjectStore, part: Future[bytes] | Entry) -> Iterator[bytes]:
    """A rendered batch, or a large file's content."""
    if not isinstance(part, Entry):
        yield part.result()
        return
    yield from store.chunks(part.digest)
    yield bytes(-part.size % _BLOCK)


def tar_header(name: bytes, entry: Entry) -> bytes:
    """The header of one file or directory, for tars of things that are no tree."""
    return _header(name, entry, _TYPES[entry.kind], b"")


def _header(name: bytes, entry: Entry, kind: bytes, target: bytes) -> bytes:
    size = entry.size if kind == b"0" else 0
    mtime_ns = NORMAL_MTIME_NS if entry.mtime_ns is None else entry.mtime_ns
    seconds = mtime_ns // 10**9
    before = (_long(b"K", target) if len(target) > _NAME_BYTES else b"") + (
        _long(b"L", name) if len(name) > _NAME_BYTES else b""
    )
    plain = _plain(name, entry, kind, target, size, seconds)
    if kind == _HARD_LINK:
        return before + plain
    # As GNU tar does it: a key ends at the first `=`.
    records = [
        (b"SCHILY.xattr." + key.replace(b"%", b"%25").replace(b"=", b"%3D"), value) for key, value in entry.xattrs
    ]
    numbers = ((b"uid", entry.uid, _OCTAL_MAX), (b"gid", entry.gid, _OCTAL_MAX), (b"size", size, _SIZE_MAX))
    records += [(key, b"%d" % value) for key, value, limit in numbers if value > limit]
    if mtime_ns % 10**9 or not 0 <= seconds <= _SIZE_MAX:
        records.append((b"mtime", _decimal(mtime_ns)))
    if not records:
        return before + plain
    body = b"".join(_record(key, value) for key, value in records)
    extended = _plain(b"./PaxHeaders/entry", _HELPER, b"x", b"", len(body), 0)
    return before + extended + body + bytes(-len(body) % _BLOCK) + plain


def _long(kind: bytes, text: bytes) -> bytes:
    """GNU's way to say a long name (L) or link target (K) of the next header."""
    header = _plain(b"././@LongLink", _HELPER, kind, b"", len(text) + 1, 0)
    return header + text + bytes(_BLOCK - len(text) % _BLOCK)


def _plain(name: bytes, entry: Entry, kind: bytes, target: bytes, size: int, seconds: int) -> bytes:
    major, minor = entry.device
    header = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            b"%07o\0" % entry.mode,
            b"%07o\0" % (entry.uid if entry.uid <= _OCTAL_MAX else 0),
            b"%07o\0" % (entry.gid if entry.gid <= _OCTAL_MAX else 0),
            b"%011o\0" % (size if size <= _SIZE_MAX else 0),
            b"%011o\0" % (seconds if 0 <= seconds <= _SIZE_MAX else 0),
            b"        ",
            kind,
            target[:100].ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            b"%07o\0" % (major if kind in b"34" else 0),
            b"%07o\0" % (minor if kind in b"34" else 0),
            bytes(167),
        )
    )
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """A pax record, `<length> <key>=<value>\\n`, whose length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    while rest + len(str(length)) != length:
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _decimal(nanoseconds: int) -> bytes:
    sign, value = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    return f"{sign}{value // 10**9}.{value % 10**9:09d}".encode()
