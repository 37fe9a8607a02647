"""The kernel arguments stage 1 is started with, checked."""

from __future__ import annotations

import re
from pathlib import Path

from koguma_node.errors import NodeError

MODES = ("register", "boot", "rescue", "deploy", "clean")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Arguments:
    """koguma.mode, koguma.url, koguma.uuid, koguma.token, koguma.mac."""

    def __init__(self, mode: str, url: str, uuid: str, token: str, mac: str) -> None:
        self.mode = mode
        self.url = url
        self.uuid = uuid
        self.token = token
        self.mac = mac


def read_arguments(path: Path = Path("/proc/cmdline")) -> Arguments:
    return parse_arguments(path.read_text(encoding="utf-8", errors="replace"))


def parse_arguments(line: str) -> Arguments:
    """Raises NodeError that names the argument."""
    given = {}
    for word in line.split():
        key, _, value = word.partition("=")
        if key.startswith("koguma."):
            given[key.removeprefix("koguma.")] = value
    return Arguments(
        mode=_checked(given, "mode", f"one of {', '.join(MODES)}", lambda value: value in MODES),
        url=_checked(given, "url", "an http:// URL", lambda value: value.startswith("http://")).rstrip("/"),
        uuid=_checked(given, "uuid", "a UUID in lower-case 8-4-4-4-12 form", lambda value: bool(UUID.fullmatch(value))),
        token=_checked(given, "token", "given", bool),
        mac=given.get("mac", "").lower(),
    )


def _checked(given: dict[str, str], key: str, rule: str, test: object) -> str:
    value = given.get(key, "")
    if not test(value):  # type: ignore[operator]
        shown = "" if key == "token" else f", got {value!r}"
        raise NodeError(f"koguma.{key} must be {rule}{shown} (kernel command line)")
    return value
