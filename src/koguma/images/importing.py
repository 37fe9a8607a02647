"""Root file systems made elsewhere: a directory, or a tar file read straight into the repository.

A tar is never unpacked on a disk, so its names cannot reach outside anything; names that try are refused all the same,
because a commit must not hold what a checkout could not write. Works without root.
"""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO

from koguma.images.draft import Folder, settle_links, store_root
from koguma.images.errors import TreeError
from koguma.images.hashing import FileHasher
from koguma.images.inodes import compiled_stems
from koguma.images.objects import STREAM_MIN_BYTES, ObjectWriter
from koguma.images.refs import RefKind, check_ref_name
from koguma.images.repository import Committed, Repository
from koguma.images.trees import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    EMPTY_DIGEST,
    FIFO,
    FILE,
    LINK_BYTES,
    SYMLINK,
    TARGET_MAX_BYTES,
    Entry,
    Xattrs,
)

_XATTR = "SCHILY.xattr."
_READ_BYTES = 1024 * 1024
_DEPTH_MAX = 500
_ROOT = Entry(b"", DIRECTORY, 0o755, 0, 0)


def import_source(
    repository: Repository, source: str, branch: str, message: str, *, progress: Callable[[int], None] | None = None
) -> Committed:
    """Commit a directory, a tar file (plain, gzip, bzip2, xz) or, for `-`, a tar on standard input."""
    path = Path(source)
    if source != "-" and path.is_dir():
        return repository.commit_tree(path, branch, message, progress=progress)
    if source == "-":
        return import_tar(repository, sys.stdin.buffer, source, branch, message, progress=progress)
    try:
        with path.open("rb") as file:
            return import_tar(repository, file, source, branch, message, progress=progress)
    except OSError as error:
        raise TreeError(f"an import must be a directory or a tar file: {error.strerror} ({source})") from None


def import_tar(
    repository: Repository,
    file: IO[bytes],
    place: str,
    branch: str,
    message: str,
    *,
    progress: Callable[[int], None] | None = None,
) -> Committed:
    """Commit the content of a tar stream."""
    check_ref_name(branch)
    base = repository.refs.get(RefKind.BRANCH, branch)
    with repository.objects.writing() as writer:
        try:
            root = read_tar(file, writer, progress)
        except (tarfile.TarError, EOFError) as error:
            raise TreeError(f"an import must be a whole tar file: {error} ({place})") from None
        except TreeError as error:
            raise TreeError(f"{error} ({place})") from None
        commit = repository.add_commit(writer, store_root(root, writer), [base] if base else [], message)
        writer.finish()
        return repository.publish(commit, branch, base)


def read_tar(file: IO[bytes], writer: ObjectWriter, progress: Callable[[int], None] | None = None) -> Folder:
    """A draft of what a tar stream holds, its files stored. A name that comes twice is what it was the last time."""
    root = Folder(_ROOT, None)
    with FileHasher(writer, progress) as hasher:
        reader = _Reader(root, hasher, writer)
        with tarfile.open(fileobj=file, mode="r|*", encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                reader.add(archive, member)
        hasher.finish()
        reader.settle()
    return root


class _Reader:
    def __init__(self, root: Folder, hasher: FileHasher, writer: ObjectWriter) -> None:
        self._root = root
        self._hasher = hasher
        self._writer = writer
        self._hashed: list[tuple[Folder, bytes, Entry, bytes]] = []
        self._links: set[bytes] = set()

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = _parts(os.fsencode(member.name))
        if not parts:
            if member.isdir():
                self._root.entry = _entry(b"", DIRECTORY, member)
            return
        folder = self._parent(parts)
        name = parts[-1]
        if member.isdir():
            self._add_directory(folder, name, member)
        elif member.islnk():
            self._add_link(folder, name, member)
        elif member.isreg():
            self._add_file(folder, name, member, archive)
        else:
            folder.put(_special(name, member))

    def _parent(self, parts: list[bytes]) -> Folder:
        folder = self._root
        for depth, part in enumerate(parts[:-1]):
            below = folder.folder(part)
            if below is None:
                if folder.get(part) is not None:
                    place = b"/".join(parts).decode(errors="backslashreplace")
                    raise TreeError(f"a tar's names may not lead through something that is no directory, got {place!r}")
                below = folder.put_folder(_ROOT._replace(name=part))
            folder = below
            if depth > _DEPTH_MAX:
                raise TreeError(f"a tar's directories may be nested {_DEPTH_MAX} deep, got more")
        return folder

    def _add_directory(self, folder: Folder, name: bytes, member: tarfile.TarInfo) -> None:
        entry = _entry(name, DIRECTORY, member)
        below = folder.folder(name)
        if below is None:
            folder.put_folder(entry)
        else:
            below.entry = entry

    def _add_file(self, folder: Folder, name: bytes, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        entry = _entry(name, FILE, member)._replace(size=member.size, digest=EMPTY_DIGEST)
        content = archive.extractfile(member)
        if content is not None and member.size >= STREAM_MIN_BYTES:
            digest, size = self._writer.add_stream(_pieces(content))
            entry = entry._replace(digest=digest, size=size)
        elif content is not None and member.size:
            entry = entry._replace(digest=b"")
            data = content.read()
            if len(data) != member.size:
                raise TreeError(f"a tar's file must have the {member.size} bytes it says, got {len(data)} for {name!r}")
            self._hasher.add_bytes(data, lambda digest, _: self._hashed.append((folder, name, entry, digest)))
        folder.put(entry)

    def _add_link(self, folder: Folder, name: bytes, member: tarfile.TarInfo) -> None:
        target_parts = _parts(os.fsencode(member.linkname))
        target_folder = self._parent(target_parts) if target_parts else self._root
        target = target_folder.get(target_parts[-1]) if target_parts else None
        if target is None or target.kind == DIRECTORY:
            raise TreeError(f"a tar's hard link must name a file before it, got {member.name!r} -> {member.linkname!r}")
        if not target.link:
            link = sha256(b"/".join(target_parts)).digest()[:LINK_BYTES]
            self._links.add(link)
            target = target._replace(link=link)
            target_folder.put(target)
        if target_folder is not folder or target.name != name:
            folder.put(target._replace(name=name))

    def settle(self) -> None:
        """Fill in digests, then give hard links their final ids and normalise times."""
        digests: dict[bytes, tuple[bytes, int]] = {}
        for folder, name, added, digest in self._hashed:
            found = folder.get(name)
            if found is not None and found._replace(link=b"") == added:  # not replaced by a later member
                folder.put(found._replace(digest=digest))
                if found.link:
                    digests[found.link] = (digest, found.size)
        for _, folder, entry in list(self._root.walk()):
            if entry.kind == FILE and not entry.digest and entry.link in digests:
                digest, size = digests[entry.link]
                folder.put(entry._replace(digest=digest, size=size))
        settle_links(self._root, self._links)
        _normalise_times(self._root)


def _normalise_times(folder: Folder) -> None:
    """Keep only the times of Python sources that have a compiled file; see `inodes.kept_mtime_ns`."""
    folder.entry = folder.entry._replace(mtime_ns=None)
    pycache = folder.folder(b"__pycache__")
    stems = compiled_stems(list(pycache.names())) if pycache else set()
    for name in list(folder.names()):
        below = folder.folder(name)
        if below is not None:
            _normalise_times(below)
            continue
        entry = folder.get(name)
        if entry is not None and not (name.endswith(b".py") and name[:-3] in stems):
            folder.put(entry._replace(mtime_ns=None))


def _parts(name: bytes) -> list[bytes]:
    """The names of a path, without `.`; refuses what leads outside."""
    if name.startswith(b"/") or b"\0" in name:
        raise TreeError(f"a tar's names must be relative, got {name!r}")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise TreeError(f"a tar's names may not contain '..', got {name!r}")
    return parts


def _entry(name: bytes, kind: int, member: tarfile.TarInfo) -> Entry:
    return Entry(
        name=name,
        kind=kind,
        mode=member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        mtime_ns=int(member.mtime) * 10**9,
        xattrs=_xattrs(member),
    )


def _xattrs(member: tarfile.TarInfo) -> Xattrs:
    found = [
        (os.fsencode(key.removeprefix(_XATTR)), os.fsencode(value))
        for key, value in member.pax_headers.items()
        if key.startswith(_XATTR)
    ]
    return tuple(sorted(found))


def _special(name: bytes, member: tarfile.TarInfo) -> Entry:
    if member.issym():
        target = os.fsencode(member.linkname)
        if not 0 < len(target) <= TARGET_MAX_BYTES:
            raise TreeError(
                f"a symbolic link's target has 1 to {TARGET_MAX_BYTES} bytes, got {len(target)} for {name!r}"
            )
        return _entry(name, SYMLINK, member)._replace(target=target, mode=0o777)
    if member.ischr() or member.isblk():
        kind = CHARACTER if member.ischr() else BLOCK
        return _entry(name, kind, member)._replace(device=(member.devmajor, member.devminor))
    if member.isfifo():
        return _entry(name, FIFO, member)
    raise TreeError(
        f"a tar may hold files, directories, links, devices and FIFOs, got type {member.type!r} for {name!r}"
    )


def _pieces(content: IO[bytes]) -> Iterator[bytes]:
    while piece := content.read(_READ_BYTES):
        yield piece
