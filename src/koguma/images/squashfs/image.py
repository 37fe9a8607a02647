"""A whole image: contents, then the tables, then the superblock, which says where the tables are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from koguma.images.files import write_all, write_parts
from koguma.images.objects import ObjectStore
from koguma.images.squashfs import layout
from koguma.images.squashfs.contents import Contents, pack_contents
from koguma.images.squashfs.donors import Donor, DonorError, Packed
from koguma.images.squashfs.inodes import Folder, Inodes, folders_below
from koguma.images.squashfs.layout import Tables
from koguma.images.trees import NORMAL_MTIME_NS, Entry

Progress = Callable[[int], None]


class Written(NamedTuple):
    """What there is to know of an image besides its bytes."""

    packed: dict[bytes, Packed]
    """Where it has what, for a note beside it (`donors`)."""
    whole: bool
    """Whether it has all that the tree has: squashfs has no place for POSIX ACLs."""


def write_image(
    store: ObjectStore, root: Entry, output: Path, donor: Path | None = None, progress: Progress | None = None
) -> Written:
    """Write the tree to a new file.

    Blocks that the image `donor` has are copied; whatever it has, the result is the same. `progress` is told the bytes
    of content that are packed. Raises CorruptError for a damaged store, TreeError for what no squashfs can hold.
    """
    folders = folders_below(store.read, root)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        contents = _with_contents(store, folders, descriptor, donor, progress)
        whole = _write_tables(folders, contents, descriptor)
    except BaseException:
        output.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return Written(contents.packed(), whole)


def _with_contents(
    store: ObjectStore, folders: list[Folder], descriptor: int, donor: Path | None, progress: Progress | None
) -> Contents:
    if donor is not None:
        with Donor.opened(donor) as opened:
            try:
                return _pack(store, folders, descriptor, opened, progress)
            except DonorError:
                os.ftruncate(descriptor, 0)  # it is damaged on the disk: nothing of it is trusted
    return _pack(store, folders, descriptor, None, progress)


def _pack(
    store: ObjectStore, folders: list[Folder], descriptor: int, donor: Donor | None, progress: Progress | None
) -> Contents:
    os.lseek(descriptor, layout.SUPER_BYTES, os.SEEK_SET)
    write_all(descriptor, layout.OPTIONS)
    entries = (entry for folder in folders for entry in folder.children)
    return pack_contents(store, entries, descriptor, donor, progress)


def _write_tables(folders: list[Folder], contents: Contents, descriptor: int) -> bool:
    """Whether they have all that the tree has."""
    inodes = Inodes(folders, contents)
    at = inodes_at = os.lseek(descriptor, 0, os.SEEK_CUR)
    inode_blocks = inodes.inodes.to_bytes()
    at = directories_at = at + len(inode_blocks)
    listings = inodes.directories.to_bytes()
    at += len(listings)
    fragments, fragments_at = layout.table(contents.fragment_table(), at)
    at += len(fragments)
    ids, ids_at = layout.table(inodes.ids(), at)
    at += len(ids)
    attributes, attributes_at = inodes.attributes.table(at)
    at += len(attributes)
    padding = bytes(-at % layout.PAD_BYTES)
    write_parts(descriptor, [inode_blocks, listings, fragments, ids, attributes, padding])
    os.lseek(descriptor, 0, os.SEEK_SET)
    tables = Tables(
        inodes=inodes.count,
        time_s=_newest_time_s(folders),
        fragments=len(contents.fragments),
        ids=inodes.id_count,
        root=inodes.root,
        end=at,
        ids_at=ids_at,
        attributes_at=attributes_at,
        inodes_at=inodes_at,
        directories_at=directories_at,
        fragments_at=fragments_at,
    )
    write_all(descriptor, layout.superblock(tables))
    return not inodes.attributes.lost


def _newest_time_s(folders: list[Folder]) -> int:
    """When the image was made, as far as it says: a function of the tree."""
    times = [entry.mtime_ns for folder in folders for entry in folder.children if entry.mtime_ns is not None]
    return layout.time_s(max([NORMAL_MTIME_NS, *times]))
