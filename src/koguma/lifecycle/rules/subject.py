"""What rules look at and change: a node and its ports under Ironic's names, and what its inspection told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from koguma.lifecycle.rules.errors import RuleError
from koguma.lifecycle.rules.templates import Document

MASK = "******"
_SECRETS = ("password", "auth_token", "bmc_password")


@dataclass
class Subject:
    """`node` and each of `ports` are documents as Ironic shows them; rules change them in place."""

    node: dict[str, Any]
    ports: list[dict[str, Any]]
    inventory: dict[str, Any]
    plugin_data: dict[str, Any] = field(default_factory=dict)

    def port(self, reference: str) -> dict[str, Any]:
        """By UUID or MAC. Raises RuleError."""
        for port in self.ports:
            if reference in (port.get("uuid"), port.get("address")):
                return port
        raise RuleError(f"a port must be one of the node's, got {reference[:60]!r}")

    def context(self, *, sensitive: bool) -> dict[str, Any]:
        """What templates may name; secrets are masked but for rules that are sensitive themselves."""
        told = {"inventory": self.inventory, "plugin_data": self.plugin_data}
        return {
            "node": Document(self.node),
            **(told if sensitive else {key: masked(value) for key, value in told.items()}),
        }


def masked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: MASK if key in _SECRETS and inner else masked(inner) for key, inner in value.items()}
    return [masked(item) for item in value] if isinstance(value, list) else value


def place_of(document: dict[str, Any], path: Any, separator: str = "/") -> tuple[dict[str, Any], str]:
    """The object that a path's last part is a key of, made on the way, and that key. Raises RuleError.

    Paths are `/properties/cpus`, `properties.cpus`, or a list of parts.
    """
    parts = parts_of(path, separator)
    here: Any = document
    for part in parts[:-1]:
        here = here.setdefault(part, {}) if isinstance(here, dict) else None
    if not isinstance(here, dict):
        raise RuleError(f"a path must lead through objects, got {path!r}")
    return here, parts[-1]


def parts_of(path: Any, separator: str = "/") -> list[str]:
    if isinstance(path, list) and path:
        return [str(part) for part in path]
    text = str(path).strip("/")
    parts = [part for part in text.split(separator if separator in text else ".") if part]
    if not parts:
        raise RuleError(f"a path must name something, got {path!r}")
    return parts
