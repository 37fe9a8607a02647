"""Values from outside: each check takes the field's name and its value, and returns the value to store or raises
Refused (400).
"""

from __future__ import annotations

import re
import uuid as _uuid
from collections.abc import Callable, Collection
from typing import Any

from koguma.api.ironic.http import bad, truth
from koguma.model.names import shown

Check = Callable[[str, Any], Any]

_LOGICAL = re.compile(r"[A-Za-z0-9\-._~]{1,255}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_TRAIT = re.compile(r"(CUSTOM|HW|COMPUTE|STORAGE|MISC|OWNER)_[A-Z0-9_]{1,248}")
STEP_INTERFACES = (
    "power", "management", "deploy", "bios", "raid", "firmware", "vendor", "network", "boot", "rescue", "inspect",
    "storage", "console",
)  # fmt: skip


def text(max_length: int = 255, *, null: bool = True, empty: bool = True) -> Check:
    def check(name: str, value: Any) -> str | None:
        if value is None and null:
            return None
        if not isinstance(value, str) or len(value) > max_length or not (value or empty) or "\x00" in value:
            bad(f"{name} must be a text of at most {max_length} characters, got {shown(value)}")
        return value

    return check


def mapping(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        bad(f"{name} must be an object, got {shown(value)}")
    return value


def listing(name: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        bad(f"{name} must be a list, got {shown(value)}")
    return value


def boolean(name: str, value: Any) -> bool:
    return False if value is None else truth(value, name)


def boolean_or_null(name: str, value: Any) -> bool | None:
    return None if value is None else truth(value, name)


def default_true(name: str, value: Any) -> bool:
    return True if value is None else truth(value, name)


def integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        bad(f"{name} must be an integer, got {shown(value)}")
    return value


def uuid(name: str, value: Any) -> str:
    if not is_uuid(value):
        bad(f"{name} must be a UUID, got {shown(value)}")
    return str(_uuid.UUID(value))


def uuid_or_null(name: str, value: Any) -> str | None:
    return None if value is None else uuid(name, value)


def is_uuid(value: object) -> bool:
    if not isinstance(value, str) or len(value) not in (32, 36):
        return False
    try:
        _uuid.UUID(value)
    except ValueError:
        return False
    return True


def mac(name: str, value: Any) -> str:
    """Any six bytes: what a switch or a test calls a port is its own affair."""
    normal = value.strip().lower().replace("-", ":") if isinstance(value, str) else ""
    if not _MAC.fullmatch(normal):
        bad(f"{name} must be a MAC address, got {shown(value)}")
    return normal


def mac_or_null(name: str, value: Any) -> str | None:
    return None if value is None else mac(name, value)


def logical_name(name: str, value: Any) -> str | None:
    """The characters that need no escaping in a URL; nothing that could be taken for a UUID."""
    if value is None:
        return None
    if not isinstance(value, str) or not _LOGICAL.fullmatch(value) or is_uuid(value):
        bad(f"{name} must be 1 to 255 letters, digits and -._~ and no UUID, got {shown(value)}")
    return value


def trait(name: str, value: Any) -> str:
    if not isinstance(value, str) or not _TRAIT.fullmatch(value):
        bad(f"{name} must be a standard trait or CUSTOM_ and capitals, digits and underscores, got {shown(value)}")
    return value


def traits(name: str, value: Any) -> list[str]:
    return [trait(name, item) for item in listing(name, value)]


def one_of(*allowed: str) -> Check:
    def check(name: str, value: Any) -> str:
        if value not in allowed:
            bad(f"{name} must be one of {', '.join(allowed)}, got {shown(value)}")
        return str(value)

    return check


def link(name: str, value: Any) -> dict[str, Any]:
    """`local_link_connection`: which switch port a NIC is plugged into."""
    connection = mapping(name, value)
    known = {
        "port_id", "switch_id", "hostname", "switch_info", "network_type", "vtep-logical-switch",
        "vtep-physical-switch",
    }  # fmt: skip
    if unknown := sorted(set(connection) - known):
        bad(f"{name} has no {', '.join(unknown)}")
    if not connection or connection.get("network_type") == "unmanaged":
        return connection
    if not {"port_id"} <= connection.keys() or not {"switch_id", "hostname"} & connection.keys():
        bad(f"{name} needs port_id and switch_id, got {shown(sorted(connection))}")
    if "switch_id" in connection:
        return {**connection, "switch_id": _switch_id(name, connection["switch_id"])}
    return connection


def _switch_id(name: str, value: Any) -> str:
    normal = value.lower() if isinstance(value, str) else ""
    if not _MAC.fullmatch(normal) and not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){7}", normal):
        bad(f"{name}.switch_id must be a MAC address or an OpenFlow datapath id, got {shown(value)}")
    return normal


def steps(rank: str, *, needs_args: bool, optional: Collection[str] = ()) -> Check:
    """`rank` is the key of a step's place: priority or order."""

    def check(name: str, value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list) or not value:
            bad(f"{name} must be a list of at least one step, got {shown(value)}")
        checked = [_step(f"{name}[{place}]", item, rank, needs_args, optional) for place, item in enumerate(value)]
        names = [(item["interface"], item["step"]) for item in checked]
        if rank in ("priority", "order") and len(set(names)) < len(names) and not optional:
            bad(f"{name} must not have a step twice")
        return checked

    return check


def _step(name: str, item: Any, rank: str, needs_args: bool, optional: Collection[str]) -> dict[str, Any]:
    step = mapping(name, item)
    needed = {"interface", "step", *([rank] if rank not in optional else []), *(["args"] if needs_args else [])}
    allowed = {*needed, "args", rank, *optional}
    if item is None or not needed <= step.keys() or not step.keys() <= allowed:
        bad(f"{name} must have {', '.join(sorted(needed))} and may have {', '.join(sorted(allowed - needed))}")
    one_of(*STEP_INTERFACES)(f"{name}.interface", step["interface"])
    text(255, null=False, empty=False)(f"{name}.step", step["step"])
    checked = {**step, "args": mapping(f"{name}.args", step.get("args"))}
    if rank in step:
        checked[rank] = _rank(f"{name}.{rank}", step[rank])
    return checked


def _rank(name: str, value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        bad(f"{name} must be a number from 0, got {shown(value)}")
    return int(value)
