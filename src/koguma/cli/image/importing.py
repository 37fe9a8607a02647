# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image import`: root file systems made elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from koguma.cli.image.common import Branch, Message, finish, open_repository, printable, progress, say, whole_message

app = typer.Typer()

_GIBIBYTE = 1024**3


@app.command("import")
def import_(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            help="A directory; a tar (plain, gz, bz2, xz, zst) or - for one on standard input; a disk image (raw or"
            " qcow2); oci:DIRECTORY[:REF], oci-archive:FILE[:REF] or docker-archive:FILE[:REF]."
        ),
    ],
    branch: Branch,
    message: Message = None,
    author: Annotated[str | None, typer.Option(help="Otherwise KOGUMA_AUTHOR, else user@host.")] = None,
    keep_times: Annotated[
        bool, typer.Option("--keep-times", help="Record modification times; they are normalised otherwise.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the label to be bootable.")] = True,
    platform: Annotated[
        str, typer.Option(help="Which of an image's platforms, such as linux/arm64; otherwise this machine's.")
    ] = "",
    partition: Annotated[
        int, typer.Option(min=0, help="Which partition of a disk image; otherwise the one that holds a root.")
    ] = 0,
    one_file_system: Annotated[
        bool, typer.Option("--one-file-system", help="Take mounts inside a directory as empty directories.")
    ] = False,
    devices: Annotated[
        str,
        typer.Option(help="Device nodes an archive may hold: standard (null, tty …), keep (all) or refuse (none)."),
    ] = "standard",
    repeated: Annotated[
        str, typer.Option(help="A name that comes twice in an archive: refuse it, or take the last.")
    ] = "refuse",
    max_bytes: Annotated[
        int, typer.Option(envvar="KOGUMA_IMPORT_MAX_BYTES", min=1, help="Of all files, holes included.")
    ] = 64 * _GIBIBYTE,
    max_entries: Annotated[int, typer.Option(envvar="KOGUMA_IMPORT_MAX_ENTRIES", min=1, help="Of names.")] = 2_000_000,
    max_depth: Annotated[
        int, typer.Option(envvar="KOGUMA_IMPORT_MAX_DEPTH", min=1, max=2000, help="Of directories.")
    ] = 500,
    max_ratio: Annotated[
        int, typer.Option(envvar="KOGUMA_IMPORT_MAX_RATIO", min=1, help="Of decompressed to compressed bytes.")
    ] = 200,
) -> None:
    """Commit a root file system made elsewhere; prints the commit's id last.

    Archives are read straight into the repository, without root and without unpacking. What a root must not hold is
    refused, and then nothing of it stays.
    """
    from koguma.images.importing import ImportOptions, Limits, import_source
    from koguma.images.importing.options import devices_named, repeated_named

    options = ImportOptions(
        limits=Limits(bytes_max=max_bytes, entries_max=max_entries, depth_max=max_depth, ratio_max=max_ratio),
        devices=devices_named(devices),
        repeated=repeated_named(repeated),
        keep_times=keep_times,
        platform=platform,
        partition=partition,
        one_file_system=one_file_system,
    )
    repository = open_repository(context)
    with progress("reading") as told:
        done = import_source(
            repository,
            source,
            branch,
            whole_message(message) or f"import {source}",
            options=options,
            author=author,
            progress=told,
        )
    if done.left_out:
        names = ", ".join(map(printable, done.left_out))
        say(f"attributes that Linux has no place for are left out: {names}")
    finish(repository, done, wait=wait)
