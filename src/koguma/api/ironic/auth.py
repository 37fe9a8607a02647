"""Who asks: anybody (`none`), a user of a file (`http_basic`), or whose token it is (`keystone`).

The user file has a line `name:hash` for each user, the hash made by bcrypt, as `htpasswd -B` writes it. It is read
again when it changes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
from pathlib import Path

import bcrypt
from django.conf import settings

from koguma.api.ironic import keystone
from koguma.api.ironic.http import Refused, Request
from koguma.api.ironic.identity import Identity

_lock = threading.Lock()
_users: tuple[object, dict[str, bytes]] = (None, {})
_proven: dict[str, bytes] = {}
"""Hash in the file -> digest of the password that was proven: bcrypt is slow on purpose, once is enough."""


def check_access(request: Request) -> None:
    """Who asks is in the request then. Raises Refused (401)."""
    if settings.KOGUMA_API_AUTH == "keystone":
        request.identity = keystone.identify(request.headers)
        return
    if settings.KOGUMA_API_AUTH != "http_basic":
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    try:
        name, _, password = base64.b64decode(token, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        name = password = ""
    if scheme.lower() != "basic" or not _is_known(name, password):
        raise Refused(401, "Incorrect username or password" if token else "Authorization required")
    request.identity = Identity(name, unrestricted=True)


def challenge() -> dict[str, str]:
    """The header that says how to prove oneself."""
    if settings.KOGUMA_API_AUTH == "keystone":
        return keystone.challenge()
    return {"WWW-Authenticate": 'Basic realm="Baremetal API"'}


def _is_known(name: str, password: str) -> bool:
    wanted = _read().get(name)
    if wanted is None:
        return False
    digest = hashlib.sha256(wanted + password.encode()).digest()
    if _proven.get(wanted.decode()) == digest:
        return True
    try:
        matches = bcrypt.checkpw(password.encode()[:72], wanted)
    except ValueError:
        return False
    if matches:
        _proven[wanted.decode()] = digest
    return matches


def _read() -> dict[str, bytes]:
    """The users of the file as it is now. Raises Refused (500) when it cannot be read."""
    global _users  # noqa: PLW0603 - one value for the process, replaced as a whole
    path = Path(settings.KOGUMA_API_USERS)
    try:
        about = path.stat()
        state = (about.st_mtime_ns, about.st_size, about.st_ino)
        with _lock:
            if _users[0] != state:
                _users = (state, _parsed(path.read_text(encoding="utf-8")))
            return _users[1]
    except OSError as error:
        raise Refused(500, f"the user file must be readable: {error.strerror} (api.users)") from None


def _parsed(text: str) -> dict[str, bytes]:
    users = {}
    for line in text.splitlines():
        name, _, hashed = line.strip().partition(":")
        if name and hashed.startswith(("$2y$", "$2b$", "$2a$")):
            users[name] = hashed.replace("$2y$", "$2b$", 1).encode()
    return users
