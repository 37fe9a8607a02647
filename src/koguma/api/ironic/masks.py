"""Secrets inside of documents: what is shown instead of them, and how they are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MASK = "******"

_SECRET_WORDS = (
    "password", "passwd", "secret", "token", "credential", "auth_key", "priv_key", "private_key", "admin_pass",
    "passphrase", "snmp_community",
)  # fmt: skip


def is_secret(key: str) -> bool:
    word = key.lower()
    return any(part in word for part in _SECRET_WORDS)


def masked(document: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with every secret behind a mask, inner objects and lists included."""
    return {key: MASK if is_secret(key) and value else _inner(value) for key, value in document.items()}


def masked_instance(document: Mapping[str, Any]) -> dict[str, Any]:
    """`instance_info`: the config drive and the temporary address of an image are secrets, too."""
    shown = masked(document)
    for key in ("configdrive", "image_url"):
        if shown.get(key):
            shown[key] = MASK
    return shown


def _inner(value: Any) -> Any:
    if isinstance(value, dict):
        return masked(value)
    return [_inner(item) for item in value] if isinstance(value, list) else value
