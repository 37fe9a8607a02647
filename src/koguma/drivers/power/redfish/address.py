"""Where a Redfish BMC is, and how its certificate is judged: the forms that `Access.address` may have.

bmc1.example.org                                   https, certificate of a public authority
redfish://192.0.2.7:8443/redfish/v1/Systems/1      the same with port and one system of several
redfish+http://127.0.0.1:8000                      without encryption: for emulators
redfish://192.0.2.7?tls=sha256:ab12…               the certificate with this SHA-256 fingerprint, and no other
redfish://192.0.2.7?tls=ca:/etc/koguma/bmc-ca.pem  signed by this authority
redfish://192.0.2.7?tls=any                        any certificate: whoever is on the way can read the password
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from koguma.contracts.errors import PowerRefused
from koguma.contracts.power import Access

_SCHEMES = {"redfish": "https", "redfish+https": "https", "https": "https", "redfish+http": "http", "http": "http"}
_FORMS = "HOST, redfish://HOST[:PORT][/redfish/v1/Systems/ID][?tls=sha256:…|ca:FILE|any] or redfish+http://HOST[:PORT]"


@dataclass(frozen=True)
class Place:
    """One system behind one BMC."""

    url: str
    """Scheme and authority."""
    system: str | None
    """The path of the system; None: the only one there is."""
    fingerprint: str | None = None
    """SHA-256 of the certificate, hexadecimal."""
    verify: bool | str = True
    """As `requests` takes it."""


def place_of(access: Access) -> Place:
    """Raises PowerRefused for an address of another form."""
    text = access.address if "://" in access.address else f"redfish://{access.address}"
    try:
        parts = urlsplit(text)
        port = parts.port or access.port
    except ValueError:
        raise _refused(access) from None
    host = parts.hostname
    if parts.scheme not in _SCHEMES or not host or not re.fullmatch(r"[0-9A-Za-z.:%_-]+", host) or parts.username:
        raise _refused(access)
    path = parts.path.rstrip("/") or str(access.options.get("redfish_system_id") or "").rstrip("/")
    if path and not re.fullmatch(r"/redfish/v1/Systems/[^/\s]+", path):
        raise _refused(access)
    authority = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    query = parse_qs(parts.query, keep_blank_values=True)
    fingerprint, verify = _trust(access, query.pop("tls", [_ironics_trust(access)]))
    if query:
        raise _refused(access)
    return Place(f"{_SCHEMES[parts.scheme]}://{authority}", path or None, fingerprint, verify)


def _trust(access: Access, values: list[str]) -> tuple[str | None, bool | str]:
    kind, _, value = values[-1].partition(":")
    if kind == "sha256" and re.fullmatch(r"[0-9a-f]{64}", digest := value.replace(":", "").lower()):
        return digest, False
    if kind == "ca" and value.startswith("/"):
        return None, value
    if kind in {"any", "public"} and not value:
        return None, kind == "public"
    raise _refused(access)


def _ironics_trust(access: Access) -> str:
    """`redfish_verify_ca` in our words: a truth value, as such or as text, or the path of an authority."""
    value = str(access.options.get("redfish_verify_ca", True))
    if value.lower() in {"false", "no", "off", "0"}:
        return "any"
    return "public" if value.lower() in {"true", "yes", "on", "1"} else f"ca:{value}"


def _refused(access: Access) -> PowerRefused:
    shown = "".join(char if char.isprintable() else " " for char in access.address)[:120]
    return PowerRefused(f"a Redfish BMC's address must be {_FORMS}, got {shown!r}")
