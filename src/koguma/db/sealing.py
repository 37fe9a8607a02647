"""Secrets of the database at rest: BMC passwords and host keys are stored sealed with a key that is not in the
database.

The key is `db.key` in the site's secrets directory, made at first use. Without a directory (type checks, migrations
written by a developer) a key of this process alone is used: nothing sealed with it can be read again.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import bcrypt
from cryptography.fernet import Fernet, InvalidToken

from koguma.errors import KogumaError
from koguma.model.errors import InvalidValue

PASSWORD_BYTES_MAX = 72


class UnsealError(KogumaError):
    """A secret was sealed with another key than `db.key`."""


def seal(text: str) -> str:
    return _fernet(os.environ.get("KOGUMA_SECRETS_DIR", "")).encrypt(text.encode()).decode() if text else ""


def unseal(sealed: str) -> str:
    """Raises UnsealError."""
    if not sealed:
        return ""
    directory = os.environ.get("KOGUMA_SECRETS_DIR", "")
    try:
        return _fernet(directory).decrypt(sealed.encode()).decode()
    except InvalidToken:
        raise UnsealError(f"a secret must be sealed with this site's key ({Path(directory) / 'db.key'})") from None


def hashed_password(password: str) -> str:
    """A password as a machine's `/etc/shadow` takes it, sealed. Raises InvalidValue."""
    if len(password.encode()) > PASSWORD_BYTES_MAX or "\x00" in password:
        raise InvalidValue(f"a password has at most {PASSWORD_BYTES_MAX} bytes, none of them zero")
    return seal(bcrypt.hashpw(password.encode(), bcrypt.gensalt()).decode())


def site_secret(name: str, make: bytes) -> bytes:
    """The content of a file in the secrets directory, made from `make` when it is missing. Whoever comes second reads
    the first one's.
    """
    directory = os.environ.get("KOGUMA_SECRETS_DIR", "")
    if not directory:
        return make
    path = Path(directory) / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{name}.{os.getpid()}.{os.urandom(4).hex()}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(make)
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_bytes().strip()


@lru_cache(maxsize=4)
def _fernet(directory: str) -> Fernet:
    del directory  # the cache's key: another site has another key
    return Fernet(site_secret("db.key", Fernet.generate_key()))
