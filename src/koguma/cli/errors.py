"""What the command line itself refuses."""

from __future__ import annotations

from koguma.errors import KogumaError


class UsageFault(KogumaError):
    """The words on the command line do not fit together."""


class Failed(KogumaError):
    """What was waited for has failed or did not happen in time."""


def one_line(text: str) -> str:
    """A text as one line that does nothing to a terminal: control characters appear as `\\xNN`, `\\uNNNN`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(ord(char)) for char in text)


def _escaped(number: int) -> str:
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
