"""Boot tokens: prove that a request belongs to a boot that this boot service started.

A token is `<boot id>.<HMAC-SHA256 of "<uuid> <boot id>" under the site's boot key, 32 hex digits>`. It is stateless:
any boot service with the site's key accepts it, also after a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from koguma.boot.errors import NotThisMachine

_FORM = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{32})")


class Tokens:
    """Mints and checks the tokens of one site."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def mint(self, uuid: str, boot_id: str) -> str:
        return f"{boot_id}.{self._seal(uuid, boot_id)}"

    def boot_id(self, uuid: str, token: str) -> str:
        """The boot a token belongs to. Raises NotThisMachine when it was not minted for `uuid`."""
        match = _FORM.fullmatch(token)
        if not match or not hmac.compare_digest(match[2], self._seal(uuid, match[1])):
            raise NotThisMachine(f"the boot token must be one that was given to machine {uuid}")
        return match[1]

    def _seal(self, uuid: str, boot_id: str) -> str:
        return hmac.new(self._key, f"{uuid} {boot_id}".encode(), hashlib.sha256).hexdigest()[:32]


def new_boot_id() -> str:
    """32 random hex digits."""
    return secrets.token_hex(16)
