"""Groups of commands whose modules are loaded when a command of theirs is said, not before.

Starting fast is a feature: help is printed from the table alone, a command loads its own module alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command is and what it does in one line.

    `module` offers `app: typer.Typer`: the command itself when it is a group or has no other, else its home.
    """

    module: str
    help: str


class LazyGroup(TyperGroup):
    """Resolves a command at the moment it is used. A subclass names the commands in `sections`."""

    sections: ClassVar[Mapping[str, Mapping[str, Command]]] = {}
    """Heading of the help to commands, both in the order they are shown."""
    elsewhere: ClassVar[Mapping[str, str]] = {}
    """Commands that people know from a program like this one: what to say here instead."""
    options_elsewhere: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """Their options, by the name of the command here, "" for every command: what to say here instead."""

    def list_commands(self, _ctx: Any) -> list[str]:
        """All names, in the order of the help; for shell completion too."""
        return ["help", *self._commands()]

    def get_command(self, _ctx: Any, cmd_name: str) -> Any:
        """The command of this name, loaded; None when there is none."""
        if cmd_name == "help":
            return _help_command()
        found = self._commands().get(cmd_name)
        if found is None:
            return None
        loaded: Any = typer.main.get_command(_alone(import_module(found.module).app, cmd_name))
        home = getattr(loaded, "commands", {})
        command = home.get(cmd_name, loaded) if not isinstance(loaded, LazyGroup) else loaded
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As click does, but an unknown command's error suggests the nearest one."""
        if args and args[0] not in self.list_commands(ctx) and not args[0].startswith("-"):
            near = get_close_matches(args[0], self.list_commands(ctx), 1)
            nearest = f"did you mean {near[0]!r}?" if near else f"{ctx.command_path} help lists the commands"
            hint = self.elsewhere.get(args[0], nearest)
            ctx.fail(f"{args[0]!r} is not a command of {ctx.command_path}; {hint}")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Plain text, as git's: the sections with one line a command."""
        self.format_usage(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text(self.help or "")
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, command.help) for name, command in commands.items()])
        with formatter.section("Options"):
            formatter.write_dl([record for item in self.get_params(ctx) if (record := item.get_help_record(ctx))])
        formatter.write_paragraph()
        formatter.write_text(f"'{ctx.command_path} COMMAND --help' tells more of a command.")

    def _commands(self) -> dict[str, Command]:
        return {name: command for commands in self.sections.values() for name, command in commands.items()}


def _alone(home: typer.Typer, name: str) -> typer.Typer:
    """Of a module's commands only the one of this name, which is built much sooner; all where none has it."""
    named = [item for item in home.registered_commands if item.callback and _name_of(item) == name]
    if not named:
        return home
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.registered_commands = named
    return alone


def _name_of(command: Any) -> str:
    name: str = command.name or typer.main.get_command_name(command.callback.__name__)
    return name


def _help_command() -> Any:
    """`help` and `help COMMAND`, as git has them."""
    home = typer.Typer()

    @home.command("help", hidden=True)
    def show_help(
        context: typer.Context,
        words: Annotated[
            list[str] | None, typer.Argument(metavar="[COMMAND]...", help="The command to tell of.")
        ] = None,
    ) -> None:
        """Show this help, or that of a command."""
        told: Any = context.parent
        for word in words or ():
            found = told.command.get_command(told, word) if hasattr(told.command, "get_command") else None
            if found is None:
                told.fail(f"{word!r} is not a command of {told.command_path}; {told.command_path} help lists them")
            told = type(told)(found, info_name=word, parent=told)
        print(told.get_help())

    return typer.main.get_command(home)
