"""From the members of tars to a draft of a tree: one archive, or the layers of an OCI image one upon the other.

Nothing is unpacked on a disk, so no name can reach outside anything; names that try are refused all the same, because a
commit must not hold what a checkout could not write. Works without root.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from koguma.images.draft import Folder, settle_links, store_root
from koguma.images.errors import TreeError
from koguma.images.hashing import FileHasher
from koguma.images.importing import acl, attributes
from koguma.images.importing.options import (
    PATH_MAX_BYTES,
    Budget,
    ImportOptions,
    Repeated,
    check_device,
)
from koguma.images.importing.tarreader import HARD_LINK, Member, TarReader
from koguma.images.inodes import compiled_stems
from koguma.images.objects import STREAM_MIN_BYTES, ObjectWriter
from koguma.images.trees import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    EMPTY_DIGEST,
    FILE,
    LINK_BYTES,
    NAME_MAX_BYTES,
    SYMLINK,
    TARGET_MAX_BYTES,
    Entry,
    Xattrs,
    room_for_depth,
)

WHITEOUT = b".wh."
"""Begins the name of what a layer removes: OCI's image specification."""
OPAQUE = b".wh..wh..opq"
_AUFS_NOTES = b".wh..wh."
_ROOT = Entry(b"", DIRECTORY, 0o755, 0, 0)
_ACCOUNT_FILE_MAX_BYTES = 1024 * 1024


class Grafter:
    """Puts members of one or more tars into a draft. Call `settle` after the last, then `store`."""

    def __init__(
        self,
        writer: ObjectWriter,
        hasher: FileHasher,
        options: ImportOptions,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._writer = writer
        self._progress = progress
        self._hasher = hasher
        self._options = options
        self._budget = Budget(options.limits)
        self._root = Folder(_ROOT, None)
        self._digests: dict[bytes, tuple[bytes, int]] = {}
        self._links: set[bytes] = set()
        self._counted = 0
        self._accounts: dict[bytes, bytes] = {}
        self._fresh: dict[Folder, dict[bytes, bool]] = {}
        """What the present layer put where; True: by a member of its own, not only as the parent of one."""
        self._root_said = self._layer = False
        self.left_out: set[bytes] = set()
        """Names of extended attributes that Linux has no place for."""

    def add_archive(self, reader: TarReader, *, layer: bool) -> None:
        """Add all members of a tar. As a layer, it may remove what lower layers have."""
        self._fresh, self._root_said, self._layer = {}, False, layer
        for member in reader:
            self._budget.take_entry()
            self._add(reader, member)

    def _add(self, reader: TarReader, member: Member) -> None:
        parts = self._parts(member.name)
        if not parts:
            self._set_root(member)
            return
        if self._layer and any(part.startswith(WHITEOUT) for part in parts):
            self._white_out(parts, member)
            return
        folder = self._parent(parts)
        name = parts[-1]
        _check_length(name, member.name)
        if member.kind == DIRECTORY:
            self._add_directory(folder, name, member)
            return
        self._check_new(folder, name, member.name)
        if member.kind == HARD_LINK:
            self._add_link(folder, name, member)
        elif member.kind == FILE:
            folder.put(self._stored_file(name, reader, member, parts))
        else:
            folder.put(self._special(name, member))
        self._fresh.setdefault(folder, {})[name] = True

    # Names

    def _parts(self, name: bytes) -> list[bytes]:
        """The names of a path, without `.`; refuses what leads outside. In a layer, `/` is the root it is made for."""
        if not name or (name.startswith(b"/") and not self._layer) or b"\0" in name:
            raise TreeError(f"a tar's names must be relative and not empty, got {name!r}")
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise TreeError(f"a tar's names may not contain '..', got {name!r}")
        if len(name) > PATH_MAX_BYTES and (size := len(b"/".join(parts))) > PATH_MAX_BYTES:
            raise TreeError(f"a path has at most {PATH_MAX_BYTES} bytes, got {size} in {name[:80]!r}…")
        depth_max = self._options.limits.depth_max
        if len(parts) > depth_max:
            raise TreeError(
                f"an import's directories may be nested {depth_max} deep, got {len(parts)} in {name[:80]!r}…;"
                " --max-depth allows more"
            )
        return parts

    def _parent(self, parts: list[bytes]) -> Folder:
        """The directory a name goes into; made when no member said it."""
        folder = self._root
        for part in parts[:-1]:
            below = folder.folder(part)
            if below is None:
                if folder.get(part) is not None:
                    raise _leads_through(parts, part)
                _check_length(part, b"/".join(parts))
                below = folder.put_folder(_ROOT._replace(name=part))
                self._budget.take_entry()
            self._fresh.setdefault(folder, {}).setdefault(part, False)
            folder = below
        return folder

    def _find(self, parts: list[bytes]) -> tuple[Folder, Entry] | None:
        folder: Folder | None = self._root
        for part in parts[:-1]:
            folder = folder.folder(part) if folder else None
        entry = folder.get(parts[-1]) if folder and parts else None
        return (folder, entry) if folder and entry else None

    def _check_new(self, folder: Folder, name: bytes, place: bytes) -> None:
        """Refuse what this archive named before, unless the last name is to count."""
        before = self._fresh.get(folder, {}).get(name)
        if before is None:
            return
        if self._options.repeated is Repeated.REFUSE or (before is False):
            raise TreeError(f"a name may come once in an archive, got {place!r} again; --repeated=last takes the last")

    # What members are

    def _set_root(self, member: Member) -> None:
        if member.kind != DIRECTORY:
            raise TreeError(f"a tar's root must be a directory, got another kind for {member.name!r}")
        entry = self._entry(b"", DIRECTORY, member)
        if self._root_said and entry != self._root.entry._replace(digest=b""):
            self._check_repeated_directory(member)
        self._root.entry, self._root_said = entry, True

    def _add_directory(self, folder: Folder, name: bytes, member: Member) -> None:
        entry = self._entry(name, DIRECTORY, member)
        fresh = self._fresh.setdefault(folder, {})
        below = folder.folder(name)
        if below is None:
            self._check_new(folder, name, member.name)
            folder.put_folder(entry)
        else:
            if fresh.get(name) and entry != below.entry._replace(digest=b""):
                self._check_repeated_directory(member)
            below.entry = entry
        fresh[name] = True

    def _check_repeated_directory(self, member: Member) -> None:
        if self._options.repeated is Repeated.REFUSE:
            raise TreeError(
                f"a directory that comes twice must have the same attributes, got others for {member.name!r};"
                " --repeated=last takes the last"
            )

    def _stored_file(self, name: bytes, reader: TarReader, member: Member, parts: list[bytes]) -> Entry:
        """The entry of a file; the digest of one that is still being hashed is a number that `settle` replaces."""
        self._budget.take_bytes(member.size, member.name)
        entry = self._entry(name, FILE, member)._replace(size=member.size, digest=EMPTY_DIGEST)
        if member.size >= STREAM_MIN_BYTES:
            digest, size = self._writer.add_stream(self._told(reader.content()))
            return entry._replace(digest=digest, size=size)
        if member.size:
            content = b"".join(reader.content())
            number = self._number()
            self._hasher.add_bytes(content, lambda digest, size: self._digests.__setitem__(number, (digest, size)))
            entry = entry._replace(digest=number)
            if b"/".join(parts) in (acl.USERS_FILE, acl.GROUPS_FILE) and len(content) <= _ACCOUNT_FILE_MAX_BYTES:
                self._accounts[b"/".join(parts)] = content
        return entry

    def _told(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            if self._progress:
                self._progress(len(piece))

    def _add_link(self, folder: Folder, name: bytes, member: Member) -> None:
        found = self._find(self._parts(member.target)) if member.target else None
        if found is None or found[1].kind == DIRECTORY:
            raise TreeError(f"a tar's hard link must name a file before it, got {member.name!r} -> {member.target!r}")
        target_folder, target = found
        if not target.link:
            target = target._replace(link=self._number())
            self._links.add(target.link)
            target_folder.put(target)
        folder.put(target._replace(name=name))

    def _special(self, name: bytes, member: Member) -> Entry:
        entry = self._entry(name, member.kind, member)
        if member.kind == SYMLINK:
            target = member.target
            if not 0 < len(target) <= TARGET_MAX_BYTES or b"\0" in target:
                raise TreeError(
                    f"a symbolic link's target has 1 to {TARGET_MAX_BYTES} bytes without NUL,"
                    f" got {len(target)} for {member.name!r}"
                )
            return entry._replace(target=target, mode=0o777)
        if member.kind in (CHARACTER, BLOCK):
            check_device(self._options.devices, member.kind, member.device, member.name)
            return entry._replace(device=member.device)
        return entry

    def _entry(self, name: bytes, kind: int, member: Member) -> Entry:
        return Entry(
            name=name,
            kind=kind,
            mode=member.mode,
            uid=member.uid,
            gid=member.gid,
            mtime_ns=member.mtime_ns,
            xattrs=self._attributes(kind, member) if member.xattrs else (),
        )

    def _attributes(self, kind: int, member: Member) -> Xattrs:
        self._budget.take_attributes(member.xattrs, member.name)
        kept = attributes.kept(member.xattrs, kind)
        if len(kept) < len(member.xattrs):
            self.left_out.update(attributes.left_out(member.xattrs, kind))
        return kept

    def _number(self) -> bytes:
        """A mark that is no digest and no other mark."""
        self._counted += 1
        return self._counted.to_bytes(LINK_BYTES, "big")

    # Whiteouts

    def _white_out(self, parts: list[bytes], member: Member) -> None:
        """Remove what lower layers have; what this layer puts there stays, whichever comes first."""
        if any(part.startswith(_AUFS_NOTES) and part != OPAQUE for part in parts):
            return  # AUFS's own notes, which old layers contain
        name = parts[-1]
        hidden = name.removeprefix(WHITEOUT)
        reserved = any(part.startswith(WHITEOUT) for part in parts[:-1]) or not name.startswith(WHITEOUT)
        if reserved or member.kind == DIRECTORY or hidden in (b"", b".", b".."):
            raise TreeError(f"a layer's names may begin with .wh. only to remove a name, got {member.name!r}")
        if name == OPAQUE:
            self._prune(self._parent(parts))
            return
        folder = self._root
        for part in parts[:-1]:
            below = folder.folder(part)
            if below is None:
                if folder.get(part) is not None:
                    raise _leads_through(parts, part)
                return  # there is nothing to remove
            folder = below
        below = folder.folder(hidden)
        fresh = self._fresh.get(folder, {})
        if hidden not in fresh:
            folder.remove(hidden)
        elif below is not None:
            if not fresh[hidden]:
                _forget_attributes(below)
            self._prune(below)

    def _prune(self, folder: Folder) -> None:
        """Remove everything below a directory that the present layer did not put there, and what it had been like."""
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            fresh = self._fresh.get(here, {})
            for name in list(here.names()):
                below = here.folder(name)
                if name not in fresh:
                    here.remove(name)
                elif below is not None:
                    if not fresh[name]:
                        _forget_attributes(below)
                    waiting.append(below)

    # The end

    def root_names(self) -> Collection[bytes]:
        """What is in the root so far."""
        return set(self._root.names())

    def store(self) -> bytes:
        """Wait for all files, finish the draft and store it; returns the id of its root object."""
        self._hasher.finish()
        with room_for_depth():
            self._settle()
            settle_links(self._root, self._links)
            return store_root(self._root, self._writer)

    def _settle(self) -> None:
        """Fill in digests and ACLs, and leave out the times that are not kept."""
        accounts = acl.Accounts(self._accounts)
        waiting = [(b"", self._root)]
        while waiting:
            path, folder = waiting.pop()
            folder.entry = self._settled(folder.entry, path, accounts, keep_time=False)
            pycache = folder.folder(b"__pycache__")
            compiled = compiled_stems(list(pycache.names())) if pycache else set()
            for name in list(folder.names()):
                below = folder.folder(name)
                place = path + b"/" + name if path else name
                if below is not None:
                    waiting.append((place, below))
                elif entry := folder.get(name):
                    keep = bool(compiled) and name.endswith(b".py") and name[:-3] in compiled
                    folder.put(self._settled(entry, place, accounts, keep_time=keep))

    def _settled(self, entry: Entry, place: bytes, accounts: acl.Accounts, *, keep_time: bool) -> Entry:
        if entry.digest in self._digests:
            digest, size = self._digests[entry.digest]
            entry = entry._replace(digest=digest, size=size)
        if entry.xattrs:
            entry = entry._replace(xattrs=acl.with_acls(entry.xattrs, accounts, place))
        if self._options.keep_times or entry.mtime_ns is None:
            return entry
        # See `inodes.kept_mtime_ns`: a compiled Python file names its source's time.
        return entry._replace(mtime_ns=entry.mtime_ns // 10**9 * 10**9 if keep_time else None)


def _leads_through(parts: list[bytes], part: bytes) -> TreeError:
    return TreeError(
        f"a tar's names may not lead through something that is no directory, got {b'/'.join(parts)!r} through {part!r}"
    )


def _forget_attributes(folder: Folder) -> None:
    """As if it were made now, because no member said it."""
    folder.entry = _ROOT._replace(name=folder.entry.name)


def _check_length(part: bytes, place: bytes) -> None:
    if len(part) > NAME_MAX_BYTES:
        raise TreeError(f"a file name has at most {NAME_MAX_BYTES} bytes, got {len(part)} in {place[:400]!r}")
