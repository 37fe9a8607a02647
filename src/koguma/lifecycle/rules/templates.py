"""Values of rules: `{inventory[cpu][count]}` and the like are filled in, as Python's format does it.

What cannot be filled in stays as it is, as in Ironic. Names that begin with an underscore are not looked up: a value
names what a machine told, never what the program is made of.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

_INNER = re.compile(r"[.\[]\s*_")


class Document(dict[str, Any]):
    """A document whose keys are attributes as well: `{node.driver}` and `{node[driver]}` are the same."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class _Formatter(string.Formatter):
    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if _INNER.search(field_name):
            raise KeyError(field_name)
        return super().get_field(field_name, args, kwargs)


def filled(value: Any, context: Mapping[str, Any]) -> Any:
    """The value with every template in it filled in; containers are walked."""
    if isinstance(value, str):
        try:
            return _FORMATTER.vformat(value, (), context)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError):
            return value
    if isinstance(value, dict):
        return {filled(key, context): filled(inner, context) for key, inner in value.items()}
    return [filled(item, context) for item in value] if isinstance(value, list) else value


_FORMATTER = _Formatter()
