"""Signatures of commits, and the policy that demands them. Owns `signatures/` of a repository.

A signature is detached: a line `<commit id> <key id> <base64> <checksum>`, signed are the commit's exact bytes, so that
a commit can be signed later, by further keys, and by a new key after a rotation. Lines are only ever added; what is not
a whole, valid line counts for nothing.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature

from koguma.images.errors import CorruptError, ImageError, SignatureError
from koguma.images.files import locked, storage_errors, sync_directory, write_all
from koguma.images.objects import COMMIT
from koguma.images.policy import load_policy
from koguma.images.refs import RefKind
from koguma.images.signing import key_id, signing_keys, trusted_keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from koguma.images.repository import Repository

FOLDER = "signatures"
_LOG = "log"
_LINE = re.compile(rb"([0-9a-f]{64}) ([0-9a-f]{16}) ([A-Za-z0-9+/]{86}==) ([0-9a-f]{8})")
_UNVERIFIED_MAX, _UNVERIFIED_OF_KEY_MAX = 64, 4
"""Lines that a commit keeps of keys that are not trusted here: the log is read as a whole, nobody shall fill it."""
LINE_BYTES = 64 + 1 + 16 + 1 + 88 + 1 + 8 + 1


@dataclass(frozen=True, slots=True)
class Signature:
    commit: str
    key: str
    """The id of the key."""
    encoded: str
    """Base64 of the 64 bytes."""

    def line(self) -> bytes:
        body = f"{self.commit} {self.key} {self.encoded}".encode()
        return body + b" %08x\n" % zlib.crc32(body)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a commit's signatures are worth here."""

    valid: tuple[str, ...]
    """Ids of trusted keys whose signatures are right."""
    untrusted: tuple[str, ...]
    """Ids of keys that are not trusted here."""
    wrong: tuple[str, ...]
    """Ids of trusted keys whose signatures do not match the commit."""


def sign_commit(repository: Repository, commit: str) -> tuple[str, ...]:
    """Sign a commit with the keys of this repository; the ids of the keys. Signing it again changes nothing.

    A wrong line of a key is no signature of it: whoever may push can bring one.
    """
    content = repository.objects.read_verified(bytes.fromhex(commit))
    present = signatures_of(repository.path, commit)
    fresh = []
    keys = signing_keys(repository.path / "keys")
    for key in keys:
        public = key.public_key()
        identity = key_id(public)
        if not any(item.key == identity and _is_by(public, item, content) for item in present):
            fresh.append(signature_by(key, commit, content))
    add_signatures(repository.path, fresh)
    return tuple(key_id(key.public_key()) for key in keys)


def verify_commit(repository: Repository, commit: str) -> Verdict:
    """Hold a commit's signatures against the keys trusted here."""
    content = repository.objects.read_verified(bytes.fromhex(commit))
    trusted = trusted_keys(repository.path / "keys")
    valid, untrusted, wrong = [], [], []
    for signature in signatures_of(repository.path, commit):
        if signature.key not in trusted:
            untrusted.append(signature.key)
        elif _is_by(trusted[signature.key], signature, content):
            valid.append(signature.key)
        else:
            wrong.append(signature.key)
    return Verdict(tuple(dict.fromkeys(valid)), tuple(dict.fromkeys(untrusted)), tuple(dict.fromkeys(wrong)))


def reason_unsigned(repository: Repository, kind: RefKind, name: str, commit: str) -> str | None:
    """Why policy does not let this ref name this commit; None when it does."""
    if kind is RefKind.REMOTE or not load_policy(repository.path).signatures.requires(name):
        return None
    verdict = verify_commit(repository, commit)
    if verdict.valid:
        return None
    seen = [*(f"{key}, not trusted here" for key in verdict.untrusted), *(f"{key}, wrong" for key in verdict.wrong)]
    return (
        f"{kind.word} {name!r} takes commits signed by a trusted key only, {commit[:12]} has "
        f"{'signatures of ' + '; '.join(seen) if seen else 'no signature'} (policy.toml, signatures.require_signed)"
    )


def require_signature(repository: Repository, kind: RefKind, name: str, commit: str) -> None:
    """Raises SignatureError when policy does not let this ref name this commit."""
    if reason := reason_unsigned(repository, kind, name, commit):
        raise SignatureError(reason)


def add_signatures(repository: Path, signatures: Iterable[Signature]) -> None:
    """Append to the log; a line that a crash cut short before is dropped first."""
    data = b"".join(signature.line() for signature in signatures)
    if not data:
        return
    with storage_errors("signatures"), locked(repository / "locks" / "signatures", timeout_s=60, what="signatures"):
        folder = repository / FOLDER
        fresh = not (folder / _LOG).exists()
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder / _LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            end = os.pread(descriptor, LINE_BYTES, max(0, size - LINE_BYTES))
            if end and not end.endswith(b"\n"):
                os.ftruncate(descriptor, size - len(end) + end.rfind(b"\n") + 1)
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if fresh:
            sync_directory(folder)
            sync_directory(repository)


def receive_signatures(repository: Repository, signatures: Iterable[Signature]) -> None:
    """Keep signatures that come from elsewhere: of commits that are stored, not kept yet, and not wrong.

    Those of keys that nobody trusts here are kept unseen, a few: a key may be trusted later.
    """
    known = set(all_signatures(repository.path))
    trusted = trusted_keys(repository.path / "keys")
    unverified = [item for item in known if item.key not in trusted]
    of_commit = Counter(item.commit for item in unverified)
    of_key = Counter((item.commit, item.key) for item in unverified)
    fresh = []
    for item in dict.fromkeys(signatures):
        if item in known or not _is_credible(repository, trusted, item):
            continue
        if item.key not in trusted:
            if of_key[item.commit, item.key] >= _UNVERIFIED_OF_KEY_MAX or of_commit[item.commit] >= _UNVERIFIED_MAX:
                continue
            of_key[item.commit, item.key] += 1
            of_commit[item.commit] += 1
        fresh.append(item)
    add_signatures(repository.path, fresh)


def signatures_of(repository: Path, commit: str) -> list[Signature]:
    return [item for item in _search(repository, commit.encode()) if item.commit == commit]


def all_signatures(repository: Path) -> list[Signature]:
    return list(parse_signatures(_content(repository)))


def parse_signatures(data: bytes) -> Iterator[Signature]:
    """The whole lines of a signature file; others are passed over."""
    for line in data.split(b"\n"):
        match = _LINE.fullmatch(line)
        if match and b"%08x" % zlib.crc32(line[:-9]) == match[4]:
            commit, key, encoded = (part.decode() for part in match.groups()[:3])
            yield Signature(commit, key, encoded)


def check_signatures(repository: Repository) -> Iterator[str]:
    """What is wrong with the signatures that are stored. A last line that a crash cut short is not."""
    path = repository.path / FOLDER / _LOG
    *lines, rest = _content(repository.path).split(b"\n")
    # What a crash cut short is a part of a line; a whole one without its end lost that to something else.
    whole = len(rest) >= LINE_BYTES - 1
    for number, line in enumerate([*lines, *([rest] if whole else [])], 1):
        if (whole and line is rest) or not list(parse_signatures(line)):
            yield f"a signature must be a line as FORMAT.md draws it, got {line[:80]!r} ({path}, line {number})"
    for commit in dict.fromkeys(item.commit for item in all_signatures(repository.path)):
        try:
            wrong = verify_commit(repository, commit).wrong
        except ImageError:
            continue  # gc removed the commit, or it is damaged, which is said elsewhere
        for key in wrong:
            yield f"a signature must be of its commit, that of key {key} is not (commit {commit[:12]}, {path})"


def signature_by(key: Ed25519PrivateKey, commit: str, content: bytes) -> Signature:
    return Signature(commit, key_id(key.public_key()), base64.b64encode(key.sign(content)).decode())


def _is_credible(repository: Repository, trusted: Mapping[str, Ed25519PublicKey], signature: Signature) -> bool:
    """Whether its commit is stored, and no key that is trusted here says that it is wrong."""
    store, commit = repository.objects, bytes.fromhex(signature.commit)
    if not store.contains(commit) or store.describe(commit).kind != COMMIT:
        return False
    key = trusted.get(signature.key)
    try:
        return key is None or _is_by(key, signature, store.read_part(commit, COMMIT, verify=True))
    except CorruptError:
        return False


def _is_by(key: Ed25519PublicKey, signature: Signature, content: bytes) -> bool:
    try:
        key.verify(base64.b64decode(signature.encoded, validate=True), content)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _search(repository: Path, commit: bytes) -> Iterator[Signature]:
    """Lines of one commit, without parsing those of all others."""
    data = _content(repository)
    at = data.find(commit)
    while at >= 0:
        yield from parse_signatures(data[at : at + LINE_BYTES - 1])
        at = data.find(commit, at + 1)


def _content(repository: Path) -> bytes:
    try:
        return (repository / FOLDER / _LOG).read_bytes()
    except FileNotFoundError:
        return b""
