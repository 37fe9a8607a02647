# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands that write a commit's tree somewhere else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koguma.cli.errors import UsageFault
from koguma.cli.image.common import open_repository, printable, progress, say
from koguma.cli.image.paths import WithPaths, paths_said

if TYPE_CHECKING:
    from koguma.images.commits import Commit
    from koguma.images.repository import Repository

app = typer.Typer()


@app.command(cls=WithPaths)
def checkout(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(help="A branch, tag, commit or expression.")],
    directory: Annotated[Path | None, typer.Argument(help="A new or empty directory.")] = None,
) -> None:
    """Write a commit's tree to a directory."""
    if paths := paths_said(context):
        raise UsageFault(
            f"checkout writes a whole tree; a file of a commit is printed by: koguma image show {revision}:{paths[0]}"
        )
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
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file (of oci: the directory) to write; - is standard output.")
    ],
    format: Annotated[str, typer.Option("--format", help="squashfs, erofs, tar, oci or oci-archive.")] = "squashfs",
    base: Annotated[
        str, typer.Option("--base", help="For oci: put this commit in a layer of its own, and above it what changed.")
    ] = "",
    reference: Annotated[
        str, typer.Option("--reference", help="For oci: the image's name; otherwise the branch's or tag's.")
    ] = "",
    compression: Annotated[
        str | None,
        typer.Option("--compression", help="For oci: zstd (the default), gzip (for old registries' clients) or none."),
    ] = None,
) -> None:
    """Write a commit's tree as an image; the same commit gives the same bytes."""
    from koguma.images.formats import export_as

    repository = open_repository(context)
    write = partial(export_as, repository, revision, format, base=base, reference=reference, compression=compression)
    if str(output) == "-":
        found = _to_output(repository, format, write)
    else:
        with progress("exporting") as told:
            found = write(output, progress=told)
    if format == "squashfs":
        from koguma.images.export import attributes_lost

        lost = attributes_lost(repository.objects, repository.root(found))
        if lost:
            without = f"{len(lost)} paths are without ({printable(lost[0])} …)"
            say(f"squashfs cannot hold ACLs and other attributes of the system, {without}; erofs can")
    if str(output) != "-":
        print(output)


def _to_output(repository: Repository, image_format: str, write: Callable[[Path], Commit]) -> Commit:
    """Write the image to standard output when it is whole: a pipe gets all of it or nothing."""
    import sys
    from shutil import copyfileobj
    from tempfile import TemporaryDirectory

    if image_format == "oci":
        raise UsageFault("oci is a directory and cannot go to standard output; oci-archive can")
    scratch = repository.path / "tmp"
    scratch.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=scratch, prefix="export-") as folder:
        image = Path(folder) / "image"
        found = write(image)
        with image.open("rb") as file:
            copyfileobj(file, sys.stdout.buffer, 1024 * 1024)
    return found
