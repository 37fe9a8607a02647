"""Names and identifiers: their rules, and their one normal form.

Every boundary (API, registration, command line) passes values through here, so the rest of the code compares plain
text. Each function returns the normal form or raises InvalidValue.
"""

from __future__ import annotations

import re
import uuid as _uuid

from koguma.model.errors import InvalidValue

_HOST_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NOUN = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

HOST_NAME_MAX = 64
"""Linux refuses a longer host name."""

_PLACEHOLDER_SERIALS = frozenset(
    {
        "", "0", "none", "na", "n/a", "null", "unknown", "default", "default string", "not specified", "not available",
        "not applicable", "empty", "system serial number", "chassis serial number", "serial number", "invalid",
        "to be filled by o.e.m.", "to be filled by o.e.m", "to be filled by oem", "oem", "o.e.m.", "0123456789",
        "123456789", "1234567890", "xxxxxxxxxx", "sernum0",
    }
)  # fmt: skip


def host_name(text: str, place: str = "node name") -> str:
    """A node's name is its host name: labels of lower-case letters, digits and hyphens, joined by dots."""
    if not text or len(text) > HOST_NAME_MAX or not all(_HOST_LABEL.fullmatch(part) for part in text.split(".")):
        raise InvalidValue(
            f"a {place} must be a host name of at most {HOST_NAME_MAX} lower-case letters, digits, hyphens and dots,"
            f" each part starting and ending with a letter or digit, got {shown(text)}"
        )
    return text


def as_host_name(name: str, uuid: str) -> str:
    """The host name of a node. OpenStack's clients may call a node what no host can be called; what is changed because
    of that gets a part of the UUID, so that two nodes stay two hosts.
    """
    if len(name) <= HOST_NAME_MAX and all(_HOST_LABEL.fullmatch(part) for part in name.split(".")):
        return name
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48].rstrip("-")
    return f"{plain or 'node'}-{uuid[:8]}"


def noun_name(text: str, place: str) -> str:
    """The name of a flavor or a network."""
    if not _NOUN.fullmatch(text):
        raise InvalidValue(
            f"a {place} must be 1 to 63 lower-case letters, digits, dots, hyphens and underscores,"
            f" starting and ending with a letter or digit, got {shown(text)}"
        )
    return text


def boot_label(text: str) -> str:
    """A label as image repositories make them: the name of a branch, tag or commit."""
    if not _LABEL.fullmatch(text) or ".." in text or "//" in text or text.endswith("/"):
        raise InvalidValue(f"a label must have the form of a branch name, a tag or a commit id, got {shown(text)}")
    return text


def mac(text: str) -> str:
    """`aa:bb:cc:dd:ee:ff`, lower case, of one station."""
    normal = text.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(normal):
        raise InvalidValue(f"a MAC address must be six hexadecimal bytes joined by colons, got {shown(text)}")
    if int(normal[:2], 16) & 1 or normal == "00:00:00:00:00:00":
        raise InvalidValue(f"a MAC address must be that of one station, not a group's or zero, got {shown(text)}")
    return normal


def machine_uuid(text: str) -> str:
    """An SMBIOS UUID in lower-case 8-4-4-4-12 form; the placeholders of careless vendors identify nothing."""
    normal = text.strip().lower()
    if not _UUID.fullmatch(normal):
        raise InvalidValue(f"a UUID must have the form 8-4-4-4-12 of hexadecimal digits, got {shown(text)}")
    if _uuid.UUID(normal).int in (0, 2**128 - 1):
        raise InvalidValue(f"a UUID of only zeros or only ones identifies no machine, got {shown(text)}")
    return normal


def serial(text: str) -> str:
    """The serial number, or an empty text when it is a vendor's placeholder, which identifies nothing."""
    stripped = text.strip()
    if stripped.lower() in _PLACEHOLDER_SERIALS or not stripped.strip("0. -_xX"):
        return ""
    return stripped


def shown(value: object) -> str:
    """A value from outside, safe and short enough for a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…'"
