"""Root-device hints, as Ironic writes them: which of a machine's disks is the root's. Pure.

A hint is a plain value, or an operator and a value: `== != >= <= > <` and `=` (at least) compare numbers, `s== s!= s>=
s<= s> s<` text; `<in>` asks for a part, `<all-in>` for all of several parts, `<or>` for one of several values. Text is
compared without regard to case. All hints must fit; of several disks the smallest is taken, by name where sizes agree.
"""

from __future__ import annotations

import operator
import re
from typing import Any

from koguma_node.errors import NodeError

GIB = 1024**3
LEAST_BYTES = 4 * GIB
"""Without hints, smaller disks are left alone: they are boot modules and virtual media."""
NUMBERS = ("size",)
TEXTS = ("model", "vendor", "serial", "wwn", "name", "hctl")
COMPARISONS = {
    "=": operator.ge, "==": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le, ">": operator.gt,
    "<": operator.lt,
}  # fmt: skip
OPERATOR = re.compile(r"\s*(<all-in>|<in>|<or>|s?(?:==|!=|>=|<=|>|<)|=)\s*(.*)", re.DOTALL)


def choose(disks: list[dict[str, Any]], hints: dict[str, Any]) -> dict[str, Any]:
    """The root's disk. Raises NodeError that names the hints and the disks when none fits."""
    fitting = [disk for disk in disks if _fits(disk, hints)] if hints else _large_enough(disks)
    if not fitting:
        rule = f"root-device hints {hints}" if hints else f"a disk of {LEAST_BYTES // GIB} GiB at least"
        seen = "; ".join(_shown(disk) for disk in disks) or "no disk at all"
        raise NodeError(f"the machine must have {rule}, got {seen}")
    return min(fitting, key=lambda disk: (disk["size_bytes"], disk["name"]))


def _large_enough(disks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [disk for disk in disks if disk["size_bytes"] >= LEAST_BYTES]


def _fits(disk: dict[str, Any], hints: dict[str, Any]) -> bool:
    return all(_matches(disk, name, wanted) for name, wanted in hints.items())


def _matches(disk: dict[str, Any], name: str, wanted: Any) -> bool:
    if name == "rotational":
        return bool(disk["rotational"]) == (str(wanted).strip().lower() in ("true", "1", "yes", "on"))
    if name in NUMBERS:
        return _number_matches(disk["size_bytes"] // GIB, str(wanted), name)
    if name in TEXTS:
        found = f"/dev/{disk['name']}" if name == "name" else str(disk.get(name) or "")
        return _text_matches(found.strip().lower(), str(wanted).lower())
    known = ", ".join(("rotational", *NUMBERS, *TEXTS))
    raise NodeError(f"a root-device hint must be one of {known}, got {name!r} (profile)")


def _number_matches(found: int, wanted: str, name: str) -> bool:
    match = OPERATOR.fullmatch(wanted)
    sign, text = (match[1], match[2]) if match else ("==", wanted)
    try:
        if sign == "<or>":
            return found in [int(part) for part in _alternatives(wanted)]
        return bool(COMPARISONS[sign](found, int(text)))
    except (KeyError, ValueError):
        raise NodeError(f"hint {name} must be a number of GiB, got {wanted!r} (profile)") from None


def _text_matches(found: str, wanted: str) -> bool:
    match = OPERATOR.fullmatch(wanted)
    if match is None:
        return found == wanted.strip()
    sign, text = match[1], match[2].strip()
    if sign == "<in>":
        return text in found
    if sign == "<all-in>":
        return all(part in found for part in text.replace("<all-in>", " ").split())
    if sign == "<or>":
        return found in _alternatives(wanted)
    if sign in ("=", "s=="):
        return found == text
    return bool(COMPARISONS[sign.removeprefix("s")](found, text))


def _alternatives(wanted: str) -> list[str]:
    return [part.strip() for part in wanted.split("<or>") if part.strip()]


def _shown(disk: dict[str, Any]) -> str:
    kind = "rotational" if disk["rotational"] else "not rotational"
    return f"{disk['name']} ({disk['size_bytes'] // GIB} GiB, {disk['model'] or 'no model'}, {kind})"
