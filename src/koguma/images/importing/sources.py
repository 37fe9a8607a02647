"""What can be imported, told by how it is named: a directory, a tar, an OCI image, a docker archive, a disk image."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from koguma.images.errors import TreeError
from koguma.images.hashing import FileHasher
from koguma.images.importing.grafting import Grafter
from koguma.images.importing.options import ImportOptions
from koguma.images.importing.streams import ByteStream
from koguma.images.importing.tarreader import TarReader
from koguma.images.objects import ObjectWriter
from koguma.images.refs import RefKind, check_ref_name
from koguma.images.repository import Committed, Repository

Progress = Callable[[int], None]
_OCI_SCHEMES = ("oci", "oci-archive", "docker-archive")
_LAYOUT = {b"oci-layout", b"index.json", b"blobs"}
"""What is in an OCI image's directory or archive."""
_DOCKER_BLOB = re.compile(rb"(sha256:)?[0-9a-f]{64}(\.json|\.tar(\.gz)?)?")
"""A config or layer in a docker archive."""
_DEFAULTS = ImportOptions()


@dataclass(frozen=True, slots=True)
class Imported:
    """A tree that was stored, and what the commit notes of where it came from."""

    tree: bytes
    """The id of its root object."""
    notes: Mapping[str, str] = field(default_factory=dict)
    left_out: Collection[bytes] = ()
    """As in Committed."""


def import_source(
    repository: Repository,
    source: str,
    branch: str,
    message: str,
    *,
    options: ImportOptions = _DEFAULTS,
    author: str | None = None,
    progress: Progress | None = None,
) -> Committed:
    """Commit a root file system made elsewhere to a branch, which is created when there is none.

    `source` is a directory; a tar file (plain, gzip, bzip2, xz, zstd), or `-` for one on standard input; a disk image
    (raw or qcow2); `oci:DIRECTORY[:REF]`, `oci-archive:FILE[:REF]` or `docker-archive:FILE[:REF]`. Raises TreeError
    for anything a commit must not hold, and for options that say nothing of such a source; then nothing of it stays.
    """
    scheme, colon, rest = source.partition(":")
    if colon and scheme in _OCI_SCHEMES and not Path(source).exists():
        _refuse_partition(options, source)
        from koguma.images.oci.importing import import_image  # noqa: PLC0415 - most imports are no images

        return _commit(
            repository,
            source,
            branch,
            message,
            author,
            lambda writer: import_image(repository, writer, scheme, rest, options, progress),
        )
    if options.platform:
        raise TreeError(f"only an OCI image has a platform to choose, got --platform {options.platform} for {source}")
    path = Path(source)
    if source == "-":
        _refuse_partition(options, source)
        return import_tar(
            repository, sys.stdin.buffer, source, branch, message, options=options, author=author, progress=progress
        )
    if path.is_dir():
        _refuse_partition(options, source)
        _refuse_image({name for name in _LAYOUT if os.path.lexists(path / name.decode())}, "oci", source)
        return repository.commit_tree(
            path,
            branch,
            message,
            author=author,
            keep_times=options.keep_times,
            one_file_system=options.one_file_system,
            progress=progress,
        )
    try:
        with path.open("rb") as file:
            from koguma.images import diskimage  # noqa: PLC0415 - most imports are none

            if diskimage.is_disk_image(file):
                return diskimage.import_disk(repository, path, branch, message, options, author, progress)
            _refuse_partition(options, source)
            return import_tar(
                repository, file, source, branch, message, options=options, author=author, progress=progress
            )
    except OSError as error:
        raise TreeError(
            f"an import must be a directory, a tar, a disk image or an OCI image: {error.strerror} ({source})"
        ) from None


def import_tar(
    repository: Repository,
    file: IO[bytes],
    place: str,
    branch: str,
    message: str,
    *,
    options: ImportOptions = _DEFAULTS,
    author: str | None = None,
    progress: Progress | None = None,
) -> Committed:
    """Commit the content of a tar stream, which is read once. Needs no root: nothing is unpacked."""

    def read(writer: ObjectWriter) -> Imported:
        with FileHasher(writer, progress) as hasher:
            grafter = Grafter(writer, hasher, options, progress)
            grafter.add_archive(TarReader(ByteStream(file, options.limits), options.limits), layer=False)
            _refuse_image(grafter.root_names(), "oci-archive", place)
            return Imported(grafter.store(), left_out=grafter.left_out)

    return _commit(repository, place, branch, message, author, read)


def _refuse_partition(options: ImportOptions, source: str) -> None:
    if options.partition:
        raise TreeError(f"only a disk image has partitions, got --partition {options.partition} for {source}")


def _refuse_image(names: Collection[bytes], scheme: str, source: str) -> None:
    """Raises TreeError when these are the names in an OCI image or a docker archive, which is no root but holds one."""
    found = ""
    if _LAYOUT.issubset(names):
        found = scheme
    elif b"manifest.json" in names and any(_DOCKER_BLOB.fullmatch(name) for name in names):
        found = "docker-archive"
    if found:
        named = f"{found}:{'FILE' if source == '-' else source}"
        raise TreeError(f"an import must be a root file system, got the files of an image; import it as {named}")


def _commit(
    repository: Repository,
    place: str,
    branch: str,
    message: str,
    author: str | None,
    read: Callable[[ObjectWriter], Imported],
) -> Committed:
    """Store and commit what `read` gives; an error in it leaves the repository as it was."""
    check_ref_name(branch)
    base = repository.refs.get(RefKind.BRANCH, branch)
    with repository.objects.writing() as writer:
        try:
            found = read(writer)
        except TreeError as error:
            raise type(error)(f"{error} ({place})") from None
        commit = repository.add_commit(
            writer, found.tree, [base] if base else [], message, author=author, notes=found.notes
        )
        writer.finish()
        return repository.publish(commit, branch, base)._replace(left_out=tuple(sorted(found.left_out)))
