"""All nouns of the command line, each loaded only when it is said.

A module `koguma.cli.<noun>` offers `app: typer.Typer`; `Nouns` lists it with its one line of help.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from itertools import islice, takewhile
from typing import Annotated, Any

import typer

from koguma.cli.errors import one_line
from koguma.cli.lazy import Command, LazyGroup


class Nouns(LazyGroup):
    """Every noun. Services are layers above the command line, so they are named here and not imported."""

    sections = {
        "What there is": {
            "image": Command(
                "koguma.cli.image.group", "Image repositories: commit, branch, diff, edit and export root file systems."
            ),
            "node": Command("koguma.cli.node", "Machines: list, show, power, boot."),
            "flavor": Command("koguma.cli.flavor", "What machines of a role boot."),
            "network": Command("koguma.cli.network", "VLANs, subnets and their purposes."),
            "switch": Command("koguma.cli.switch", "The switches that nodes are cabled to."),
            "events": Command("koguma.cli.events", "What happens to nodes: list and follow."),
            "webhook": Command("koguma.cli.webhook", "Who is told of events over HTTP."),
            "lab": Command("koguma.cli.lab", "The virtual datacentre: a switch, BMCs and machines."),
        },
        "Services": {
            "server": Command("koguma.services.server", "Run the API server."),
            "worker": Command("koguma.services.worker", "Run a worker: power, provisioning."),
            "boot": Command("koguma.services.boot", "Run the boot service: DHCP, TFTP, iPXE, stage-1 API, artifacts."),
            "database": Command("koguma.services.database", "Run the embedded PostgreSQL."),
            "up": Command("koguma.services.up", "Run everything on this machine, database included."),
        },
    }


app = typer.Typer(
    name="koguma",
    cls=Nouns,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Run bare metal without disks and without drift: every machine boots a commit into memory.",
)


def _print_version(said: bool) -> None:
    if said:
        print(f"koguma {version('koguma')}")
        raise typer.Exit


@app.callback()
def _root(
    said: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def run() -> int:
    """Run what the command line says; the exit status. A mistake in it is one line on standard error."""
    try:
        status = app(standalone_mode=False)
    except typer.Abort:
        return 130
    except _UsageError as error:
        _print_usage_error(error)
        return 2
    return status if isinstance(status, int) else 0


_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""Typer exports one kind of usage error; this is what it shares with the others."""


def _print_usage_error(error: Any) -> None:
    where = error.ctx.command_path if error.ctx else _command_said(sys.argv[1:])
    message = " ".join(error.format_message().split())
    if hint := _known_elsewhere(error):
        message = f"{message.partition(' (')[0].rstrip('.')}; {hint}"
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
    elif hint or " help" in message:
        print(f"koguma: {one_line(message)}", file=sys.stderr)
    else:
        print(f"koguma: {one_line(message.rstrip('.'))}; see: {where} --help", file=sys.stderr)


def _command_said(words: list[str]) -> str:
    """The nouns and the command at the beginning of a command line, of which nothing more could be made."""
    said = [word for before, word in zip(["", *words], words, strict=False) if before != "--repo" != word]
    return " ".join(["koguma", *islice(takewhile(lambda word: not word.startswith("-"), said), 2)])


def _known_elsewhere(error: Any) -> str:
    """For an option that there is in a program like the one of these commands: what to say here."""
    option, context = getattr(error, "option_name", ""), error.ctx
    if not option or context is None or context.parent is None:
        return ""
    known = getattr(context.parent.command, "options_elsewhere", {})
    return str(known.get(context.info_name, {}).get(option) or known.get("", {}).get(option, ""))
