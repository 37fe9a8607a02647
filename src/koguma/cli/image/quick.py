"""The commands typed all day, answered without the library that parses command lines: it loads longer than they run.

A command line is answered here when it is made of nothing but what its line of `COMMANDS` names; the rest (help, rare
options, mistakes) is for `koguma.cli.program`, whose commands call the same functions. A test holds both together.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from koguma import places


class Quick(NamedTuple):
    """What of a command is understood here."""

    module: str
    """Offers a function named like the command: of the repository, the words, and the options by name."""
    words: tuple[int, int]
    """How many it takes, at least and at most."""
    flags: Mapping[str, str] = {}
    """Options without a value, and the parameters they set."""
    values: Mapping[str, str] = {}
    """Options with a value, likewise."""
    needed: str = ""
    """The option that has to be said."""


_ANY = 1000
_OBJECTS_PER_COLLECTION = 100_000
"""Of the garbage collector: these commands make many objects, hardly any in cycles, and then they end."""
_JSON = {"--json": "json"}
_LOOKING = {"--patch": "patch", "-p": "patch", "--stat": "stat", "--name-only": "name_only", **_JSON}
COMMANDS: Mapping[str, Quick] = {
    "branch": Quick("naming", (0, 2), {"--force": "force", "-f": "force", **_JSON}),
    "tag": Quick("naming", (0, 2), _JSON),
    "log": Quick("looking", (0, _ANY), {"--oneline": "oneline", "--graph": "graph", "--all": "everything", **_LOOKING}),
    "diff": Quick(
        "looking",
        (1, _ANY),
        {"--shortstat": "shortstat", "--changelogs": "changelogs", "--reboot": "reboot", **_LOOKING},
    ),
    "commit": Quick(
        "recording",
        (0, 1),
        {"--keep-times": "keep_times"},
        {"--branch": "branch", "-b": "branch", "--message": "message", "-m": "message", "--author": "author"},
        needed="message",
    ),
}


def answer(said: Sequence[str]) -> bool:
    """Do what the words after `koguma image` say; False, with nothing done, when they are not all understood."""
    repository, rest = _repository(said)
    command = COMMANDS.get(rest[0]) if rest else None
    if command is None or repository is None:
        return False
    understood = _understood(command, rest[1:])
    if understood is None:
        return False
    from koguma.images.repository import Repository  # noqa: PLC0415 - not for what is not answered here

    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    words, options = understood
    run: Any = getattr(import_module(f"koguma.cli.image.{command.module}"), rest[0])
    run(Repository.open(Path(repository)), *words, **options)
    gc.freeze()  # the program ends: Python need not look through all of that for garbage once more
    return True


def _repository(said: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """Which repository, as the command line, the environment or the site say, and the words after that."""
    if said and said[0].startswith("--repo="):
        return said[0].partition("=")[2] or None, said[1:]
    if len(said) > 1 and said[0] == "--repo":
        return said[1] or None, said[2:]
    if not said or said[0] not in COMMANDS:
        return None, said
    found = os.environ.get("KOGUMA_REPO") or places.repository_here() or places.repository()
    return (str(found) if found else None), said


def _understood(command: Quick, said: Sequence[str]) -> tuple[list[str], dict[str, Any]] | None:
    """The words and the options of a command; None when anything else was said."""
    words: list[str] = []
    options: dict[str, Any] = {}
    rest = iter(said)
    for item in rest:
        if item in command.flags:
            options[command.flags[item]] = True
        elif item in command.values:
            value = next(rest, "")
            if not value or value.startswith("-") or command.values[item] in options:
                return None
            options[command.values[item]] = value
        elif not item or item.startswith("-"):
            return None
        else:
            words.append(item)
    least, most = command.words
    if not least <= len(words) <= most or (command.needed and command.needed not in options):
        return None
    return words, options
