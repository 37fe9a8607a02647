"""SSH host keys: made once for each node, so that a machine that forgets all at every boot keeps its identity."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def make(name: str) -> tuple[str, str]:
    """The private key (OpenSSH PEM) and the public key's line."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption()).decode()
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH).decode()
    return private, f"{public} {name}"
