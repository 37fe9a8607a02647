"""What machines send, checked before anything looks at it: UUIDs, MACs, bodies and their sizes.

Every function raises a BootError that says rule and value; a value is cut to a sensible length, because it may be
hostile.
"""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.requests import Request

from koguma.boot.errors import MalformedRequest, TooLarge
from koguma.model.errors import InvalidValue
from koguma.model.mirror import mirror

REGISTER_SIZE_MAX_BYTES = 256 * 1024
REPORT_SIZE_MAX_BYTES = 16 * 1024
REASON_LENGTH_MAX = 2000

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_PHASE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_STATES = ("started", "succeeded", "failed")


def uuid_of(text: str) -> str:
    """A SMBIOS UUID in lower case; the values firmware has where nobody set one are refused."""
    uuid = text.lower()
    if not _UUID.fullmatch(uuid):
        raise MalformedRequest(f"a machine's UUID must be 8-4-4-4-12 hex digits, got {_shown(text)}")
    if set(uuid) <= {"0", "-"} or set(uuid) <= {"f", "-"}:
        raise MalformedRequest(f"a machine's UUID must be its own, got {uuid}: its firmware has none set")
    return uuid


def mac_of(text: str) -> str:
    mac = text.lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise MalformedRequest(f"a MAC address must be six pairs of hex digits, got {_shown(text)}")
    return mac


async def json_object(request: Request, size_max_bytes: int) -> dict[str, Any]:
    """The body, read no further than its limit."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > size_max_bytes:
            raise TooLarge(f"a body may have {size_max_bytes} bytes, got more ({request.url.path})")
    try:
        document = json.loads(bytes(data), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"a body must be JSON: {error} ({request.url.path})") from None
    if not isinstance(document, dict):
        raise MalformedRequest(f"a body must be a JSON object, got {type(document).__name__} ({request.url.path})")
    return document


def phase_of(document: dict[str, Any]) -> dict[str, Any]:
    """A phase report with exactly its known keys."""
    phase, state = document.get("phase"), document.get("state")
    if not isinstance(phase, str) or not _PHASE.fullmatch(phase):
        raise MalformedRequest(f"phase must be lower-case letters, digits and '-', at most 32, got {_shown(phase)}")
    if state not in _STATES:
        raise MalformedRequest(f"state must be one of {', '.join(_STATES)}, got {_shown(state)}")
    reason = document.get("reason")
    if reason is not None and not isinstance(reason, str):
        raise MalformedRequest(f"reason must be text or null, got {_shown(reason)}")
    data = document.get("data", {})
    if not isinstance(data, dict):
        raise MalformedRequest(f"data must be an object, got {_shown(data)}")
    return {
        "phase": phase,
        "state": state,
        "uptime_s": _uptime_of(document),
        "reason": printable(reason)[:REASON_LENGTH_MAX] if reason else None,
        "data": data,
    }


def installed_of(document: dict[str, Any]) -> dict[str, Any]:
    """The body of `installed` and `heartbeat`: uptime, memory figures, and of a mirrored root its disks."""
    memory = document.get("memory", {})
    if not isinstance(memory, dict) or not all(_is_size(value) for value in memory.values()) or len(memory) > 16:
        raise MalformedRequest(f"memory must be an object of sizes in bytes, got {_shown(memory)}")
    body = {"uptime_s": _uptime_of(document), "memory": {str(key)[:32]: value for key, value in memory.items()}}
    try:
        return {**body, "mirror": mirror(document["mirror"])} if "mirror" in document else body
    except InvalidValue as error:
        raise MalformedRequest(str(error)) from None


def printable(text: str) -> str:
    """The text with everything that could steer a terminal or a log replaced by spaces."""
    return "".join(char if char.isprintable() else " " for char in text)


def _uptime_of(document: dict[str, Any]) -> float | None:
    uptime = document.get("uptime_s")
    if uptime is None:
        return None
    if isinstance(uptime, bool) or not isinstance(uptime, int | float) or not 0 <= uptime < 1e9:
        raise MalformedRequest(f"uptime_s must be seconds since the kernel started, got {_shown(uptime)}")
    return float(uptime)


def _is_size(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _shown(value: object) -> str:
    return printable(repr(value))[:80]
