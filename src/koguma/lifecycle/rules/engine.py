"""Runs rules on a subject: the highest priority first; one whose conditions all hold does its actions in their order.

`checked` refuses operations that could never run, when a rule is made; both read the same tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from koguma.lifecycle.rules.actions import ACTIONS, Action
from koguma.lifecycle.rules.conditions import OPERATORS, Operator
from koguma.lifecycle.rules.errors import RuleError
from koguma.lifecycle.rules.subject import Subject
from koguma.lifecycle.rules.templates import filled

LITERAL = frozenset({"regex", "path"})
"""Arguments whose braces are their own, but in a loop, where `{item}` may stand in any."""

Operation = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    uuid: str
    actions: tuple[Operation, ...]
    conditions: tuple[Operation, ...] = ()
    description: str | None = None
    priority: int = 0
    phase: str = "main"
    sensitive: bool = False


def apply(rules: Iterable[Rule], subject: Subject, phase: str) -> list[str]:
    """The UUIDs of the rules whose actions ran. Raises RuleError or RefusedByRule; the subject is half changed then."""
    applied = []
    for rule in sorted((rule for rule in rules if rule.phase == phase), key=lambda rule: -rule.priority):
        context = subject.context(sensitive=rule.sensitive)
        try:
            if all(_holds(condition, context) for condition in rule.conditions):
                for action in rule.actions:
                    # What an action changed is what the next one sees.
                    _run(action, subject, subject.context(sensitive=rule.sensitive))
                applied.append(rule.uuid)
        except RuleError as error:
            raise RuleError(f"{error} (inspection rule {rule.description or rule.uuid})") from None
    return applied


def reason_not_runnable(operation: Operation, known: Mapping[str, Operator] | Mapping[str, Action]) -> str | None:
    """Why an operation can never run, or None: its name and its arguments."""
    name = name_of(operation)[0] if known is OPERATORS else str(operation.get("op", ""))
    if name not in known:
        return f"op must be one of {', '.join(sorted(known))}, got {name[:40]!r}"
    try:
        _named(operation, known[name])
    except RuleError as error:
        return str(error)
    return None


def name_of(operation: Operation) -> tuple[str, bool]:
    """The operator's name, and whether it is inverted: `!eq` and `! eq` are not eq."""
    text = str(operation.get("op", "")).strip()
    return (text[1:].strip(), True) if text.startswith("!") else (text, False)


def _holds(condition: Operation, context: Mapping[str, Any]) -> bool:
    name, inverted = name_of(condition)
    operator = OPERATORS[name]

    def check(more: Mapping[str, Any]) -> bool:
        arguments = _arguments(condition, operator, {**context, **more}, looped=bool(more))
        if more and "force_strings" in operator.optional:
            arguments["force_strings"] = True
        return bool(operator.check(**arguments)) is not inverted

    items = _items(condition, context)
    if items is None:
        return check({})
    answers = (check({"item": item}) for item in items)
    match condition.get("multiple", "any"):
        case "all":
            return all(answers)
        case "first" | "any":
            return any(answers)
        case _:
            found = list(answers)
            return bool(found) and found[-1]


def _run(operation: Operation, subject: Subject, context: Mapping[str, Any]) -> None:
    name, _ = name_of(operation)
    action = ACTIONS[name]
    items = _items(operation, context)
    for more in [{}] if items is None else [{"item": item} for item in items]:
        action.run(subject, **_arguments(operation, action, {**context, **more}, looped=bool(more)))


def _items(operation: Operation, context: Mapping[str, Any]) -> list[Any] | None:
    """What a loop goes over: a list, one object, or a template that names a list."""
    loop = operation.get("loop")
    if not loop:
        return None
    if isinstance(loop, str):
        loop = _looked_up(loop, context)
    return [filled(item, context) for item in loop] if isinstance(loop, list) else [filled(loop, context)]


def _looked_up(text: str, context: Mapping[str, Any]) -> Any:
    """`{inventory[disks]}` as the list that it names, which a format would make text of."""
    here: Any = context
    for part in text.strip("{}").replace("]", "").split("["):
        here = here.get(part) if isinstance(here, Mapping) else None
    return here if here is not None else []


def _arguments(
    operation: Operation, known: Operator | Action, context: Mapping[str, Any], *, looped: bool
) -> dict[str, Any]:
    return {
        name: value if name in LITERAL and not looped else filled(value, context)
        for name, value in _named(operation, known).items()
    }


def _named(operation: Operation, known: Operator | Action) -> dict[str, Any]:
    """Arguments by name, from an object or in their order. Raises RuleError."""
    names, given = (*known.required, *known.optional), operation.get("args", {})
    if isinstance(given, list):
        if len(given) > len(names):
            raise RuleError(f"{operation['op']} takes {', '.join(names)}, got {len(given)} arguments")
        given = dict(zip(names, given, strict=False))
    if not isinstance(given, Mapping):
        raise RuleError("args must be either a list or dictionary")
    if absent := [name for name in known.required if name not in given]:
        raise RuleError(f"{operation['op']}: missing required argument(s): {', '.join(absent)}")
    if unknown := sorted(set(given) - set(names)):
        raise RuleError(f"{operation['op']}: unexpected argument(s): {', '.join(unknown)}")
    return dict(given)
