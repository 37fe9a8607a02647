# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands that write a commit's tree somewhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koguma.cli.errors import UsageFault
from koguma.cli.image.common import open_repository, printable, progress, say

app = typer.Typer()


@app.command()
def checkout(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(help="A branch, tag, commit or expression.")],
    directory: Annotated[Path | None, typer.Argument(help="A new or empty directory.")] = None,
) -> None:
    """Write a commit's tree to a directory."""
    if directory is None:
        raise UsageFault(
            f"checkout writes a tree to a directory: koguma image checkout {revision} DIR;"
            f" to choose the branch that commands mean say: koguma image switch {revision}"
        )
    repository = open_repository(context)
    with progress("writing") as told:
        found = repository.checkout(revision, directory, told)
    print(found.id)


@app.command()
def export(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(help="A branch, tag, commit or expression.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file (of oci: the directory) to write.")],
    format: Annotated[str, typer.Option("--format", help="squashfs, erofs, tar, oci or oci-archive.")] = "squashfs",
    base: Annotated[
        str, typer.Option("--base", help="For oci: put this commit in a layer of its own, and above it what changed.")
    ] = "",
    reference: Annotated[
        str, typer.Option("--reference", help="For oci: the image's name; otherwise the branch's or tag's.")
    ] = "",
    compression: Annotated[
        str, typer.Option("--compression", help="For oci: zstd, gzip (for old registries' clients) or none.")
    ] = "zstd",
) -> None:
    """Write a commit's tree as an image; the same commit gives the same bytes."""
    from koguma.images.formats import export_as

    repository = open_repository(context)
    with progress("exporting") as told:
        found = export_as(
            repository,
            revision,
            format,
            output,
            base=base,
            reference=reference,
            compression=compression,
            progress=told,
        )
    if format == "squashfs":
        from koguma.images.export import attributes_lost

        lost = attributes_lost(repository.objects, repository.root(found))
        if lost:
            say(f"squashfs cannot hold POSIX ACLs, {len(lost)} paths are without ({printable(lost[0])} …); erofs can")
    print(output)
