"""The operators of conditions. Each takes its arguments by name and answers yes or no, or raises RuleError."""

from __future__ import annotations

import ipaddress
import itertools
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from koguma.lifecycle.rules.errors import RuleError


@dataclass(frozen=True)
class Operator:
    """`required` and `optional` are its arguments in the order in which a list gives them."""

    check: Callable[..., bool]
    required: tuple[str, ...] = ("value",)
    optional: tuple[str, ...] = ()


def _compare(compare: Callable[[Any, Any], bool]) -> Operator:
    def check(values: Any, force_strings: bool = False) -> bool:
        if not isinstance(values, list):
            raise RuleError(f"values must be a list, got {type(values).__name__}")
        same = [str(value) for value in values] if force_strings else _comparable(values)
        try:
            return all(compare(one, other) for one, other in itertools.pairwise(same))
        except TypeError:
            raise RuleError(f"values must be of one kind to be compared, got {values!r}"[:200]) from None

    return Operator(check, ("values",), ("force_strings",))


def _comparable(values: list[Any]) -> list[Any]:
    """A template makes text of a number: among numbers, text that is one is one."""
    if any(isinstance(value, int | float) for value in values):
        try:
            return [float(value) if isinstance(value, str) else value for value in values]
        except ValueError:
            return values
    return values


def _is_true(value: Any) -> bool:
    return (
        value.lower() in ("yes", "true") if isinstance(value, str) else isinstance(value, int | float) and bool(value)
    )


def _is_false(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() in ("no", "false")
    return value is None or (isinstance(value, int | float) and not value)


def _is_in_net(address: str, subnet: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(subnet, strict=False)
    except ValueError as error:
        raise RuleError(f"in-net needs an address and a subnet: {error}") from None


def _pattern(regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except re.error as error:
        raise RuleError(f"a regular expression must be one: {error}, got {regex[:80]!r}") from None


def _matches(value: Any, regex: str) -> bool:
    return _pattern(regex.removesuffix("$") + r"\Z").match(str(value)) is not None


OPERATORS: Mapping[str, Operator] = {
    "eq": _compare(operator.eq),
    "lt": _compare(operator.lt),
    "gt": _compare(operator.gt),
    "is-empty": Operator(lambda value: str(value) in ("", "None", "[]", "{}")),
    "is-none": Operator(lambda value: str(value) == "None"),
    "is-true": Operator(_is_true),
    "is-false": Operator(_is_false),
    "in-net": Operator(_is_in_net, ("address", "subnet")),
    "matches": Operator(_matches, ("value", "regex")),
    "contains": Operator(lambda value, regex: _pattern(regex).search(str(value)) is not None, ("value", "regex")),
    "one-of": Operator(lambda value, values=(): value in values, ("value",), ("values",)),
}
