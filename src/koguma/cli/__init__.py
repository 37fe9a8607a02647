"""The command line: one module per noun, loaded only when its noun is said.

A module `koguma.cli.<noun>` offers `app: typer.Typer`; NOUNS lists it with its one line of help, so that
`koguma --help` and a git-like `koguma image log` start without importing what they do not use.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from koguma.errors import KogumaError

NOUNS = {
    "image": ("koguma.cli.image", "Image repositories: commit, branch, diff, edit and export root file systems."),
    "node": ("koguma.cli.node", "Machines: list, show, power, boot."),
    "flavor": ("koguma.cli.flavor", "What machines of a role boot."),
    "network": ("koguma.cli.network", "VLANs, subnets and their purposes."),
    "lab": ("koguma.cli.lab", "The virtual datacentre: a switch, BMCs and machines."),
    "server": ("koguma.services.server", "Run the API server."),
    "worker": ("koguma.services.worker", "Run a worker: power, provisioning."),
    "boot": ("koguma.services.boot", "Run the boot service: DHCP, TFTP, iPXE, stage-1 API, artifacts."),
    "database": ("koguma.services.database", "Run the embedded PostgreSQL."),
    "up": ("koguma.services.up", "Run everything on this machine, database included."),
}
"""Each command's module and help. Services are above the command line, so they are named here and not imported."""


class LazyGroup(TyperGroup):
    """Resolves a noun to its module's command at the moment it is used."""

    _listing = False
    """Whether the group's own help is being printed, which needs the nouns' one-liners only."""

    def list_commands(self, _ctx: Any) -> list[str]:
        return list(NOUNS)

    def get_command(self, _ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in NOUNS:
            return None
        module, text = NOUNS[cmd_name]
        loaded = _described(text) if self._listing else import_module(module).app
        command = typer.main.get_command(loaded)
        command.name = cmd_name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        super().format_help(ctx, formatter)
        self._listing = False


def _described(text: str) -> typer.Typer:
    described = typer.Typer(help=text)
    described.callback(invoke_without_command=True)(lambda: None)
    return described


app = typer.Typer(
    name="koguma",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run bare metal without disks and without drift: every machine boots a commit into memory.",
)


@app.callback()
def _root() -> None:
    """Options of the whole program would be here."""


def main() -> None:
    """Run the program; an error a person can mend is one line on standard error and status 1."""
    try:
        app()
    except KogumaError as error:
        print(f"koguma: {error}", file=sys.stderr)
        sys.exit(1)
