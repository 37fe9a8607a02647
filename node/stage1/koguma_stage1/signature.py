"""Signatures of manifests: "<key id> <base64 of the 64-byte ed25519 signature>" lines, checked with OpenSSL.

Trusted are the public keys that `koguma image build-stage1` baked into this initramfs, one file per key id.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from koguma_node import command
from koguma_node.errors import UnverifiedError

TRUSTED = Path("/etc/koguma/trusted")
SIGNATURE_BYTES = 64
VERIFY_TIMEOUT_S = 10.0


def require_trusted_signature(
    data: Path, signatures: str, place: str, trusted: Path = TRUSTED, scratch: Path = Path("/run/koguma")
) -> str:
    """The id of the trusted key that signed `data`. Raises UnverifiedError when none of them did."""
    seen = []
    for line in signatures.splitlines():
        key_id, signature = _parse(line, place)
        seen.append(key_id)
        key = trusted / f"{key_id}.pem"
        if key.is_file():
            if _verifies(key, data, signature, scratch):
                return key_id
            raise UnverifiedError(f"manifest.json: the signature of key {key_id} must match ({place})")
    keys = ", ".join(sorted(path.stem for path in trusted.glob("*.pem"))) or "none"
    raise UnverifiedError(
        f"manifest.json: must be signed by a trusted key ({keys}), got {', '.join(seen) or 'no signature'} ({place})"
    )


def _parse(line: str, place: str) -> tuple[str, bytes]:
    key_id, _, encoded = line.strip().partition(" ")
    try:
        signature = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        signature = b""
    if len(key_id) != 16 or not set(key_id) <= set("0123456789abcdef") or len(signature) != SIGNATURE_BYTES:
        raise UnverifiedError(
            f"manifest.sig: a line must be a key id and {SIGNATURE_BYTES} bytes in base64, got {line[:120]!r} ({place})"
        )
    return key_id, signature


def _verifies(key: Path, data: Path, signature: bytes, scratch: Path) -> bool:
    file = scratch / "signature"
    file.write_bytes(signature)
    arguments = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-rawin",
        "-inkey",
        str(key),
        "-in",
        str(data),
        "-sigfile",
        str(file),
    ]
    return command.run(arguments, VERIFY_TIMEOUT_S).returncode == 0
