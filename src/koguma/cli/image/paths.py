"""Commands that end with `-- PATH…`: the words after the dashes are paths, whatever they look like.

And what else git's commands read that no option can say: `-3` for at most three.
"""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.core import TyperCommand

_KEY = "koguma.paths"


class WithPaths(TyperCommand):
    """Takes the paths off the command line before anybody reads the rest."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the parent's, of what stands before the dashes."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[_KEY] = args[at + 1 :]
            args = args[:at]
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line tells of the paths, too."""
        return [*super().collect_usage_pieces(ctx), "[-- PATH...]"]


class WithCount(WithPaths):
    """As `git log` has it, `-3` means `-n 3`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the parent's, with the number's option before it."""
        end = args.index("--") if "--" in args else len(args)
        said = [f"-n{word[1:]}" if re.fullmatch(r"-[1-9]\d*", word) else word for word in args[:end]]
        return super().parse_args(ctx, [*said, *args[end:]])


def paths_said(context: typer.Context) -> list[str]:
    """The words after `--`."""
    found: list[str] = context.meta.get(_KEY, [])
    return found
