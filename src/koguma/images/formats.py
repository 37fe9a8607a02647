"""The formats a commit can be exported in, and the one way to all of them.

Root images (squashfs, erofs) are `export`'s; OCI images are `oci.exporting`'s; a tar is written here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from koguma.images.commits import Commit
from koguma.images.errors import ImageError, ToolError
from koguma.images.files import storage_errors, written_whole
from koguma.images.repository import Repository
from koguma.images.trees import NAME_MAX_BYTES, walk

ROOT_IMAGES = ("squashfs", "erofs")
OCI_IMAGES = ("oci", "oci-archive")
TAR = "tar"
FORMATS = (*ROOT_IMAGES, TAR, *OCI_IMAGES)


def export_as(
    repository: Repository,
    revision: str,
    image_format: str,
    output: Path,
    *,
    base: str = "",
    reference: str = "",
    compression: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Commit:
    """Write a commit to `output`, which must not exist; the same commit gives the same bytes. Returns the commit.

    `base`, `reference` and `compression` (zstd otherwise) are for OCI images, see `oci.exporting.export_oci`.
    """
    if image_format not in FORMATS:
        raise ImageError(f"an export's format is one of {', '.join(FORMATS)}, got {image_format!r}")
    if image_format in OCI_IMAGES:
        from koguma.images.oci.exporting import export_oci  # noqa: PLC0415 - most exports are root images

        return export_oci(
            repository,
            revision,
            output,
            archive=image_format == "oci-archive",
            base=base,
            reference=reference,
            compression=compression or "zstd",
            progress=progress,
        )
    if base or reference or compression:
        raise ImageError(f"a base, a reference and a compression are for OCI images, got format {image_format!r}")
    if image_format == TAR:
        return export_tar(repository, revision, output, progress)
    try:
        return repository.export(revision, image_format, output, progress)
    except ToolError as error:
        raise _explained(repository, revision, image_format, error) from None


def _explained(repository: Repository, revision: str, image_format: str, error: ToolError) -> ToolError:
    """mkfs.erofs 1.5 cannot write the longest names and says "no such file"; say which name it is."""
    read, root = repository.objects.read, repository.root(repository.resolve(revision))
    longest = next((path for path, entry in walk(read, root) if len(entry.name) == NAME_MAX_BYTES), None)
    if image_format != "erofs" or longest is None:
        return error
    return ToolError(f"{error}; versions of mkfs.erofs cannot write a name of {NAME_MAX_BYTES} bytes, got {longest!r}")


def export_tar(
    repository: Repository, revision: str, output: Path, progress: Callable[[int], None] | None = None
) -> Commit:
    """Write a commit's tree as a plain tar to `output`, which must not exist. Returns the commit."""
    from koguma.images.export import check_output  # noqa: PLC0415
    from koguma.images.tarstream import tar_stream  # noqa: PLC0415

    check_output(output)
    commit = repository.resolve(revision)
    with storage_errors("an export"), written_whole(output) as file:
        for piece in tar_stream(repository.objects, repository.root(commit)):
            file.write(piece)
            if progress:
                progress(len(piece))
    return commit
