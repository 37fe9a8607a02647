"""The kernel's FUSE protocol for read-only file systems whose content never changes: requests in, answers out.

Owns the bytes of the protocol (Linux's include/uapi/linux/fuse.h, version 7.31) and the threads that answer. What a
file system holds is said by a `FileSystem`; `viewfs` has the one of a commit. No library in between: those for Python
answer path by path through callbacks, while this needs a dozen read-only requests, and everything it says stays valid
for ever, so that the kernel asks once.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

ROOT = 1
"""The number of the root directory, by the protocol."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What `stat` shows of a node. `mode` has the file type's bits, too."""

    node: int
    mode: int
    size: int
    links: int
    uid: int
    gid: int
    device: int
    mtime_ns: int


class FileSystem(Protocol):
    """A tree that does not change while it is served. Called from several threads; raises OSError with an errno."""

    def attributes(self, node: int) -> Attributes: ...

    def lookup(self, folder: int, name: bytes) -> Attributes | None: ...

    def names(self, folder: int) -> Sequence[bytes]: ...

    def target(self, node: int) -> bytes: ...

    def read(self, node: int, offset: int, size: int) -> bytes: ...

    def xattrs(self, node: int) -> Sequence[tuple[bytes, bytes]]: ...


_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_ATTR = struct.Struct("<6Q10I")
_ENTRY = struct.Struct("<4Q2I")
_ATTR_VALID = struct.Struct("<QII")
_INIT_IN = struct.Struct("<IIII")
_INIT_OUT = struct.Struct("<IIIIHHIIHHII24x")
_READ_IN = struct.Struct("<QQIIQII")
_GETXATTR_IN = struct.Struct("<II")
_DIRENT = struct.Struct("<QQII")
_STATFS = struct.Struct("<5Q10I")

(
    _LOOKUP, _FORGET, _GETATTR, _READLINK, _OPEN, _READ, _STATFS_OP, _GETXATTR, _LISTXATTR, _INIT, _OPENDIR,
    _READDIR, _INTERRUPT, _DESTROY, _BATCH_FORGET, _READDIRPLUS,
) = (1, 2, 3, 5, 14, 15, 17, 22, 23, 26, 27, 28, 36, 38, 42, 44)  # fmt: skip
_UNANSWERED = (_FORGET, _BATCH_FORGET, _INTERRUPT)

_MINOR = 31
_FLAGS = sum(
    1 << bit
    for bit in (
        0,  # several reads at a time
        13,  # directories with the attributes of what is in them
        17,  # files are not opened here, and what was read of them stays valid
        18,  # several look-ups in one directory at a time
        20,  # ACLs are judged by the kernel
        22,  # reads of more than 128 KiB
        23,  # link targets stay valid
        24,  # directories are not opened here either
    )
)
_FOR_EVER_S = 1 << 31
_READ_MAX_BYTES = 1024 * 1024
_BUFFER_BYTES = _READ_MAX_BYTES + 65536
_THREADS = 4
_MOUNT_POLL_S = 0.005


def mount_options(descriptor: int) -> str:
    """What `mount -i -t fuse -o …` is told to mount the file system that is served on this `/dev/fuse`."""
    return f"ro,fd={descriptor},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"


def serve(descriptor: int, files: FileSystem, still_wanted: Callable[[], bool]) -> None:
    """Answer until the file system is unmounted. `descriptor` is an open `/dev/fuse`.

    It may be mounted a little later; that is waited for as long as `still_wanted` says so.
    """
    first = _wait_for_mount(descriptor, still_wanted)
    if first is None:
        return
    _reply_to_init(descriptor, first)
    server = _Server(descriptor, files)
    others = [threading.Thread(target=server.run, daemon=True) for _ in range(_THREADS - 1)]
    for thread in others:
        thread.start()
    server.run()
    for thread in others:
        thread.join()


def _wait_for_mount(descriptor: int, still_wanted: Callable[[], bool]) -> bytes | None:
    """The first request, INIT; None when nobody will mount it any more."""
    while True:
        try:
            return os.read(descriptor, _BUFFER_BYTES)
        except OSError as error:
            if error.errno == errno.ENODEV or not still_wanted():
                return None
            if error.errno not in (errno.EPERM, errno.EINTR, errno.EAGAIN):
                raise
        time.sleep(_MOUNT_POLL_S)


def _reply_to_init(descriptor: int, request: bytes) -> None:
    _, opcode, unique, *_ = _IN.unpack_from(request)
    _, _, readahead, flags = _INIT_IN.unpack_from(request, _IN.size)
    if opcode != _INIT:
        raise OSError(errno.EPROTO, f"the kernel must begin with INIT, got request {opcode}")
    pages = _READ_MAX_BYTES // 4096
    body = _INIT_OUT.pack(7, _MINOR, max(readahead, _READ_MAX_BYTES), flags & _FLAGS, 64, 48, 4096, 1, pages, 0, 0, 0)
    _reply(descriptor, unique, 0, body)


def _reply(descriptor: int, unique: int, error: int, body: bytes = b"") -> None:
    try:
        os.writev(descriptor, (_OUT.pack(_OUT.size + len(body), -error, unique), body))
    except OSError as problem:
        if problem.errno not in (errno.ENOENT, errno.ENODEV):  # the asker was interrupted, or it was unmounted
            raise


class _Server:
    """Answers requests, one at a time per thread."""

    def __init__(self, descriptor: int, files: FileSystem) -> None:
        self._descriptor = descriptor
        self._files = files
        self._answers: dict[int, Callable[[int, bytes], bytes]] = {
            _LOOKUP: self._lookup,
            _GETATTR: self._getattr,
            _READLINK: lambda node, _: files.target(node),
            _READ: self._read,
            _STATFS_OP: lambda *_: _STATFS.pack(0, 0, 0, 0, 0, 4096, 255, 4096, *(0,) * 7),
            _GETXATTR: self._getxattr,
            _LISTXATTR: self._listxattr,
            _READDIR: lambda node, body: self._readdir(node, body, plus=False),
            _READDIRPLUS: lambda node, body: self._readdir(node, body, plus=True),
            _DESTROY: lambda *_: b"",
        }

    def run(self) -> None:
        """Until the file system is unmounted."""
        buffer = bytearray(_BUFFER_BYTES)
        view = memoryview(buffer)
        while True:
            try:
                size = os.readv(self._descriptor, (view,))
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                raise
            _, opcode, unique, node, *_ = _IN.unpack_from(buffer)
            if opcode not in _UNANSWERED:
                self._answer(opcode, unique, node, bytes(view[_IN.size : size]))

    def _answer(self, opcode: int, unique: int, node: int, body: bytes) -> None:
        answer = self._answers.get(opcode)
        if answer is None:
            _reply(self._descriptor, unique, errno.ENOSYS)
            return
        try:
            said = answer(node, body)
        except OSError as error:
            _reply(self._descriptor, unique, error.errno or errno.EIO)
        except Exception:  # whatever went wrong, the asking program must not wait for ever
            _reply(self._descriptor, unique, errno.EIO)
        else:
            _reply(self._descriptor, unique, 0, said)

    def _lookup(self, node: int, body: bytes) -> bytes:
        found = self._files.lookup(node, body[:-1])
        if found is None:  # node 0: there is no such name, and there will be none
            return _ENTRY.pack(0, 0, _FOR_EVER_S, 0, 0, 0) + bytes(_ATTR.size)
        return _entry(found)

    def _getattr(self, node: int, _: bytes) -> bytes:
        return _ATTR_VALID.pack(_FOR_EVER_S, 0, 0) + _attributes(self._files.attributes(node))

    def _read(self, node: int, body: bytes) -> bytes:
        _, offset, size, *_ = _READ_IN.unpack_from(body)
        return self._files.read(node, offset, size)

    def _getxattr(self, node: int, body: bytes) -> bytes:
        room, _ = _GETXATTR_IN.unpack_from(body)
        name = body[_GETXATTR_IN.size : -1]
        for found, value in self._files.xattrs(node):
            if found == name:
                return _sized(value, room)
        raise OSError(errno.ENODATA, "no such attribute")

    def _listxattr(self, node: int, body: bytes) -> bytes:
        room, _ = _GETXATTR_IN.unpack_from(body)
        return _sized(b"".join(name + b"\0" for name, _ in self._files.xattrs(node)), room)

    def _readdir(self, node: int, body: bytes, *, plus: bool) -> bytes:
        """Names from an offset on, which is the number of names before; . and .. are the first two."""
        _, offset, room, *_ = _READ_IN.unpack_from(body)
        names = (b".", b"..", *self._files.names(node))
        parts: list[bytes] = []
        for at in range(offset, len(names)):
            name = names[at]
            found = None if at < 2 else self._files.lookup(node, name)
            number, kind = (found.node, found.mode >> 12) if found else (node, 0o040000 >> 12)
            part = _DIRENT.pack(number, at + 1, len(name), kind) + name
            part += bytes(-len(part) % 8)
            if plus:
                part = (_entry(found) if found else bytes(_ENTRY.size + _ATTR.size)) + part
            room -= len(part)
            if room < 0:
                break
            parts.append(part)
        return b"".join(parts)


def _sized(value: bytes, room: int) -> bytes:
    """The value; its size when no room is offered, as the caller asks for the size then."""
    if room == 0:
        return struct.pack("<II", len(value), 0)
    if len(value) > room:
        raise OSError(errno.ERANGE, "the attribute has more bytes than there is room for")
    return value


def _entry(found: Attributes) -> bytes:
    return _ENTRY.pack(found.node, 0, _FOR_EVER_S, _FOR_EVER_S, 0, 0) + _attributes(found)


def _attributes(found: Attributes) -> bytes:
    seconds, nanoseconds = divmod(found.mtime_ns, 10**9)
    seconds &= (1 << 64) - 1
    return _ATTR.pack(
        found.node, found.size, -(-found.size // 512), seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds,
        found.mode, found.links, found.uid, found.gid, found.device, 4096, 0,
    )  # fmt: skip
