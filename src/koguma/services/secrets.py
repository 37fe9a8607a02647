"""The site's secrets under `<state>/secrets` (mode 0700), made at first use and never replaced.

boot.key      64 hex digits: seals boot tokens, and is what the boot service proves itself to the server with
operator      SSH private key of the operator (OpenSSH, ed25519); operator.pub is authorised on every node
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path


def ensure(directory: Path) -> None:
    """Make what is missing. Two processes that start at once agree on the first one's."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    _ensure_file(directory / "boot.key", lambda: secrets.token_hex(32).encode())
    if not (directory / "operator.pub").exists():
        _ensure_operator(directory)


def boot_key(directory: Path) -> str:
    return (directory / "boot.key").read_text(encoding="ascii").strip()


def _ensure_operator(directory: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415 - slow, needed once
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    private = directory / "operator"
    _ensure_file(
        private,
        lambda: Ed25519PrivateKey.generate().private_bytes(
            form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption()
        ),
    )
    key = form.load_ssh_private_key(private.read_bytes(), None)
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    _ensure_file(directory / "operator.pub", lambda: public + b" koguma operator\n")


def _ensure_file(path: Path, make: Callable[[], bytes]) -> None:
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(make())
        file.flush()
        os.fsync(file.fileno())
    try:
        # link() fails where rename() would replace: whoever comes second keeps the first one's secret.
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
