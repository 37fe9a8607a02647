"""Trees: one object per directory, so that equal directories are stored once and a comparison skips them.

Owns the entry, its bytes (drawn in FORMAT.md) and the walk over stored trees. A directory's own attributes stand in its
parent's entry; those of the root stand in a root object, whose single entry has an empty name. The id of that root
object is the `tree` of a commit.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from koguma.images.errors import CorruptError, TreeError

TREE_MAGIC = b"KGT1"

FILE, DIRECTORY, SYMLINK, CHARACTER, BLOCK, FIFO = (ord(letter) for letter in "fdlcbp")

KIND_NAMES = {
    FILE: "file",
    DIRECTORY: "directory",
    SYMLINK: "symlink",
    CHARACTER: "character device",
    BLOCK: "block device",
    FIFO: "fifo",
}

EMPTY_DIGEST = sha256(b"").digest()
NORMAL_MTIME_NS = 946_684_800 * 10**9
"""2000-01-01T00:00:00Z: what an entry without a recorded time gets. Not zero: zip refuses years before 1980."""

HAS_LINK, HAS_MTIME, HAS_XATTRS = 1, 2, 4
NAME_MAX_BYTES = 255
ENTRIES_MAX = 1_000_000
"""In one directory. Decoded, an entry has a dozen times the bytes of the smallest one."""
DEPTH_MAX = 2100
"""Directories below each other: what fits in the 4096 bytes Linux allows a path."""
TARGET_MAX_BYTES = 4095
OVERLAY_XATTRS = (b"trusted.overlay.", b"user.overlay.")
"""How the kernel's own notes in an overlay's layers begin. They describe the layer, not the file; no tree has them."""

_HEADER = struct.Struct("<4sI")
_FIXED = struct.Struct("<BBHIIH")
"""Kind, flags, permission bits, owner, group, length of the name."""
_FILE_BODY = struct.Struct("<Q32s")
_DEVICE_BODY = struct.Struct("<II")
_MTIME = struct.Struct("<q")
LINK_BYTES = 8
_BODY_BYTES = {FILE: _FILE_BODY.size, DIRECTORY: 32, SYMLINK: 2, CHARACTER: 8, BLOCK: 8, FIFO: 0}
"""Fixed part of what follows the name, by kind."""

_NO_NAMES = frozenset((b".", b".."))
_SLASH = ord("/")
"""A number is found in bytes several times as fast as bytes are."""

Xattrs = tuple[tuple[bytes, bytes], ...]


class Entry(NamedTuple):
    """One name in a directory. A named tuple, not a frozen dataclass: a commit makes tens of thousands of them."""

    name: bytes
    kind: int
    mode: int
    """Permission bits with setuid, setgid and sticky: 0 to 0o7777."""
    uid: int
    gid: int
    size: int = 0
    """Bytes of a file's content."""
    digest: bytes = b""
    """SHA-256 of a file's content, or the id of a directory's tree."""
    target: bytes = b""
    """Where a symbolic link points."""
    device: tuple[int, int] = (0, 0)
    """Major and minor of a device node."""
    link: bytes = b""
    """Names that share it are one file (hard links): the first 8 bytes of the SHA-256 of the first of their paths."""
    mtime_ns: int | None = None
    """None: NORMAL_MTIME_NS."""
    xattrs: Xattrs = ()
    """Sorted by name."""


def encode(entries: Iterable[Entry]) -> bytes:
    """The bytes of a directory. Equal directories give equal bytes: entries and xattrs are sorted by name."""
    ordered = sorted(entries)
    if len(ordered) > ENTRIES_MAX:
        raise TreeError(f"a directory has at most {ENTRIES_MAX} names, got {len(ordered)}")
    parts = [_HEADER.pack(TREE_MAGIC, len(ordered))]
    for entry in ordered:
        name, kind, mode, uid, gid, size, digest, target, device, link, mtime_ns, xattrs = entry
        flags = (HAS_LINK if link else 0) | (HAS_MTIME if mtime_ns is not None else 0) | (HAS_XATTRS if xattrs else 0)
        parts.append(_FIXED.pack(kind, flags, mode, uid, gid, len(name)))
        parts.append(name)
        if kind == FILE:
            parts.append(_FILE_BODY.pack(size, digest))
        elif kind == DIRECTORY:
            parts.append(digest)
        elif kind == SYMLINK:
            parts += (struct.pack("<H", len(target)), target)
        elif kind in (CHARACTER, BLOCK):
            parts.append(_DEVICE_BODY.pack(*device))
        if flags:
            parts.append(link)
            if mtime_ns is not None:
                parts.append(_MTIME.pack(mtime_ns))
            if xattrs:
                parts.append(_encode_xattrs(xattrs))
    return b"".join(parts)


def decode(data: bytes) -> list[Entry]:
    """The entries of a directory, in order of their names. Raises CorruptError for anything `encode` does not write."""
    try:
        return _decode(data)
    except (struct.error, IndexError, ValueError) as error:
        raise CorruptError(f"a tree must have the form FORMAT.md draws: {error}") from None


def _decode(data: bytes) -> list[Entry]:  # noqa: C901 - one flat loop: calls would double the time of a walk
    magic, count = _HEADER.unpack_from(data)
    if magic != TREE_MAGIC:
        raise ValueError(f"it starts with {magic!r}")
    if count > ENTRIES_MAX:
        raise ValueError(f"{count} entries are more than {ENTRIES_MAX}")
    entries: list[Entry] = []
    at, previous = _HEADER.size, b""
    for _ in range(count):
        kind, flags, mode, uid, gid, length = _FIXED.unpack_from(data, at)
        at += _FIXED.size
        name = data[at : at + length]
        at += length
        # At once: a few bytes may be compressed millions of entries.
        if name <= previous or _SLASH in name or 0 in name or name in _NO_NAMES or length > NAME_MAX_BYTES:
            _check_name(name, previous, count)
        previous = name
        size, digest, target, device, link, mtime_ns = 0, b"", b"", (0, 0), b"", None
        xattrs: Xattrs = ()
        if kind == FILE:
            size, digest = _FILE_BODY.unpack_from(data, at)
            at += _FILE_BODY.size
        elif kind == DIRECTORY:
            digest = data[at : at + 32]
            at += 32
        elif kind == SYMLINK:
            end = at + 2 + struct.unpack_from("<H", data, at)[0]
            target = data[at + 2 : end]
            at = end
        elif kind in (CHARACTER, BLOCK):
            device = _DEVICE_BODY.unpack_from(data, at)
            at += _DEVICE_BODY.size
        elif kind != FIFO:
            raise ValueError(f"kind {kind} is none")
        if flags:
            link, mtime_ns, xattrs, at = _decode_rest(data, at, flags)
        if len(name) != length or mode > 0o7777:
            raise ValueError(f"entry {name!r} is damaged")
        entries.append(Entry(name, kind, mode, uid, gid, size, digest, target, device, link, mtime_ns, xattrs))
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes follow the last entry")
    return entries


def differing(old: bytes, new: bytes) -> tuple[dict[bytes, Entry], dict[bytes, Entry]]:
    """What only one of two directories has, by name: an entry that both have, to the last bit, is not even decoded.

    Raises CorruptError for what cannot be taken apart; entries that are equal are not checked.
    """
    try:
        before, after = _records(old), _records(new)
    except (struct.error, IndexError, KeyError, ValueError) as error:
        raise CorruptError(f"a tree must have the form FORMAT.md draws: {error}") from None
    sides = []
    for own, other in ((before, after), (after, before)):
        changed = [record for record in own if record not in other]
        entries = decode(_HEADER.pack(TREE_MAGIC, len(changed)) + b"".join(changed))
        sides.append({entry.name: entry for entry in entries})
    return sides[0], sides[1]


def _records(data: bytes) -> dict[bytes, None]:
    """The bytes of each entry, in order."""
    magic, count = _HEADER.unpack_from(data)
    if magic != TREE_MAGIC:
        raise ValueError(f"it starts with {magic!r}")
    found: dict[bytes, None] = {}
    at, fixed_bytes, fixed, body_bytes = _HEADER.size, _FIXED.size, _FIXED.unpack_from, _BODY_BYTES
    for _ in range(count):
        kind, flags, _, _, _, length = fixed(data, at)
        end = at + fixed_bytes + length + body_bytes[kind]
        if kind == SYMLINK:
            end += struct.unpack_from("<H", data, end - 2)[0]
        if flags:
            end = _decode_rest(data, end, flags)[-1]
        found[data[at:end]] = None
        at = end
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes follow the last entry")
    return found


def _decode_rest(data: bytes, at: int, flags: int) -> tuple[bytes, int | None, Xattrs, int]:
    link, mtime_ns = b"", None
    xattrs: Xattrs = ()
    if flags & ~(HAS_LINK | HAS_MTIME | HAS_XATTRS):
        raise ValueError(f"flags {flags} are not all known")
    if flags & HAS_LINK:
        link = data[at : at + LINK_BYTES]
        at += LINK_BYTES
    if flags & HAS_MTIME:
        mtime_ns = _MTIME.unpack_from(data, at)[0]
        at += _MTIME.size
    if flags & HAS_XATTRS:
        xattrs, at = _decode_xattrs(data, at)
    return link, mtime_ns, xattrs, at


def _encode_xattrs(xattrs: Xattrs) -> bytes:
    parts = [struct.pack("<H", len(xattrs))]
    for name, value in sorted(xattrs):
        parts += (struct.pack("<HI", len(name), len(value)), name, value)
    return b"".join(parts)


def _decode_xattrs(data: bytes, at: int) -> tuple[Xattrs, int]:
    count = struct.unpack_from("<H", data, at)[0]
    at += 2
    found = []
    previous = b""
    for _ in range(count):
        name_bytes, value_bytes = struct.unpack_from("<HI", data, at)
        at += 6
        name = data[at : at + name_bytes]
        if name <= previous:
            raise ValueError(f"attribute {name!r} does not come after {previous!r}")
        previous = name
        at += name_bytes + value_bytes
        # A tree made elsewhere may have them: whoever mounts it as an overlay's lower layer would see another tree.
        if not name.startswith(OVERLAY_XATTRS):
            found.append((name, data[at - value_bytes : at]))
    return tuple(found), at


def _check_name(name: bytes, previous: bytes, count: int) -> None:
    """Names must be usable as names and ascend: a tree from elsewhere must not reach outside its directory."""
    if b"/" in name or b"\0" in name or name in _NO_NAMES or len(name) > NAME_MAX_BYTES:
        raise ValueError(f"{name!r} is no file name")
    if not name and count > 1:
        raise ValueError("only a root object has an entry without a name")
    if name and name <= previous:
        raise ValueError(f"{name!r} does not come after {previous!r}")


def encode_root(root: Entry) -> bytes:
    """The root object: the attributes of the root directory and the id of its tree."""
    return encode([root._replace(name=b"")])


Read = Callable[[bytes], bytes]


def read_root(read: Read, tree_id: bytes) -> Entry:
    """The root directory's entry of a commit's tree. Raises CorruptError when the object is no root object."""
    entries = decode(read(tree_id))
    if len(entries) != 1 or entries[0].name or entries[0].kind != DIRECTORY:
        raise CorruptError(f"a commit's tree must be a root object ({tree_id.hex()})")
    return entries[0]


def walk(read: Read, root: Entry, path: bytes = b"") -> Iterator[tuple[bytes, Entry]]:
    """Every entry below `root` with its path relative to it, parents before children, in order of names.

    With a stack of its own: generators within generators would hand each entry up every level.
    """
    stack = [(path + b"/" if path else b"", iter(decode(read(root.digest))))]
    while stack:
        prefix, entries = stack[-1]
        for entry in entries:
            below = prefix + entry.name
            yield below, entry
            if entry.kind == DIRECTORY:
                stack.append((below + b"/", iter(decode(read(entry.digest)))))
                break
        else:
            stack.pop()


@contextmanager
def room_for_depth() -> Iterator[None]:
    """Let what follows directories by calls within calls, four to each at most, reach the deepest of them."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 4 * DEPTH_MAX + 500))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def lookup(read: Read, root: Entry, path: bytes) -> Entry | None:
    """The entry at a path, without following symbolic links; None when there is none."""
    here = root
    for part in path.split(b"/"):
        if part in (b"", b"."):
            continue
        if here.kind != DIRECTORY:
            return None
        found = _by_name(read(here.digest)).get(part)
        if found is None:
            return None
        here = found
    return here


@lru_cache(maxsize=64)
def _by_name(data: bytes) -> dict[bytes, Entry]:
    """The entries of a directory; kept for the next look-ups, which are often in the same large directories."""
    return {entry.name: entry for entry in decode(data)}


_FOLLOWED_MAX = 40


def resolve(read: Read, root: Entry, path: bytes) -> tuple[bytes, Entry] | None:
    """The path and entry that `path` leads to with every symbolic link followed inside the tree, as a chroot would."""
    parts = [part for part in path.split(b"/") if part]
    done: list[tuple[bytes, Entry]] = []
    followed = 0
    while parts:
        part = parts.pop(0)
        if part == b".":
            continue
        if part == b"..":
            done = done[:-1]
            continue
        here = done[-1][1] if done else root
        found = lookup(read, here, part) if here.kind == DIRECTORY else None
        if found is None:
            return None
        if found.kind == SYMLINK:
            followed += 1
            if followed > _FOLLOWED_MAX:
                return None
            if found.target.startswith(b"/"):
                done = []
            parts = [piece for piece in found.target.split(b"/") if piece] + parts
            continue
        done.append((part, found))
    return b"/".join(name for name, _ in done), done[-1][1] if done else root


def link_id(paths: Iterable[bytes]) -> bytes:
    """What the names of one hard-linked file share: it follows from the paths alone, so equal trees get equal ids."""
    return sha256(min(paths)).digest()[:LINK_BYTES]


def check_name(name: bytes, place: bytes) -> None:
    """Refuse a name that cannot stand in a directory."""
    if not name or b"/" in name or b"\0" in name or name in (b".", b"..") or len(name) > NAME_MAX_BYTES:
        raise TreeError(f"a file name must be 1 to {NAME_MAX_BYTES} bytes without '/', got {name!r} (in {place!r})")
