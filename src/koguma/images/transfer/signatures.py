"""Signatures that arrive from elsewhere: which of them a repository keeps.

A line of a key that is trusted here is verified. Of other keys nothing can be verified, but they may be trusted later:
of those a commit keeps a few, so that nobody fills the log, which is read as a whole.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature

from koguma.images.errors import ImageError
from koguma.images.objects import COMMIT
from koguma.images.signatures import Signature, add_signatures, all_signatures
from koguma.images.signing import trusted_keys

if TYPE_CHECKING:
    from koguma.images.repository import Repository

_LINES_MAX = 4
"""Of one commit by one key that is not trusted here."""
_UNVERIFIED_MAX = 64
"""Of one commit by all such keys."""


def keep_signatures(repository: Repository, signatures: Iterable[Signature]) -> None:
    """Add those to the log that are new and worth it. Their commits are stored here."""
    arrived = dict.fromkeys(signatures)
    if not arrived:
        return
    known = set(all_signatures(repository.path))
    trusted = trusted_keys(repository.path / "keys")
    of_key = Counter((item.commit, item.key) for item in known)
    of_commit = Counter(item.commit for item in known if item.key not in trusted)
    kept, content, commit = [], b"", ""
    for item in sorted(arrived.keys() - known, key=lambda item: (item.commit, item.key, item.encoded)):
        if item.key not in trusted:
            if of_key[item.commit, item.key] < _LINES_MAX and of_commit[item.commit] < _UNVERIFIED_MAX:
                of_key[item.commit, item.key] += 1
                of_commit[item.commit] += 1
                kept.append(item)
            continue
        try:
            if item.commit != commit:
                content = repository.objects.read_part(bytes.fromhex(item.commit), COMMIT, verify=True)
                commit = item.commit
            trusted[item.key].verify(base64.b64decode(item.encoded, validate=True), content)
        except (InvalidSignature, binascii.Error, ValueError, ImageError):
            continue
        kept.append(item)
    add_signatures(repository.path, kept)
