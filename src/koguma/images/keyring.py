"""Adding, rotating and revoking keys: `keys/` of a repository changes only here.

A rotation never leaves a moment when nothing is accepted: the new key is trusted first, everything signed gets a
signature by it too, and the old key goes on signing beside it until it is revoked. What is interrupted, the next run
completes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from koguma.images.errors import KeyringError, ManifestError
from koguma.images.files import locked, storage_errors, sync_directory, write_atomically
from koguma.images.signatures import add_signatures, all_signatures, signature_by, verify_commit
from koguma.images.signing import KEY_ID_DIGITS, key_id, load_private_key, load_signing_key, sign, trusted_keys, verify

if TYPE_CHECKING:
    from koguma.images.repository import Repository

SIGNING, RETIRING, TRUSTED, REVOKED = "signing", "retiring", "trusted", "revoked"


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    role: str
    """signing: signs and is trusted; retiring: rotated out, signs and is trusted until revoked; trusted: of another
    site; revoked: not trusted any more.
    """


def keys_of(repository: Path) -> list[Key]:
    """All keys, the signing one first."""
    folder = repository / "keys"
    signing = key_id(load_signing_key(folder).public_key()) if (folder / "signing.pem").exists() else ""
    retiring = {path.stem for path in (folder / "retiring").glob("*.pem")}
    trusted = [
        Key(identity, SIGNING if identity == signing else RETIRING if identity in retiring else TRUSTED)
        for identity in trusted_keys(folder)
    ]
    order = (SIGNING, RETIRING, TRUSTED)
    revoked = [Key(path.stem, REVOKED) for path in sorted((folder / "revoked").glob("*.pem"))]
    return sorted(trusted, key=lambda key: (order.index(key.role), key.id)) + revoked


def export_key(repository: Path, identity: str | None = None) -> bytes:
    """The public half of a key, the signing one's by default, as PEM for `add_key` at another site."""
    keys = trusted_keys(repository / "keys")
    if identity is None:
        return _public_pem(load_signing_key(repository / "keys").public_key())
    return _public_pem(keys[_one(identity, list(keys), repository)])


def add_key(repository: Path, pem: bytes) -> str:
    """Trust another site's public key; returns its id."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyringError(f"a key to trust must be SubjectPublicKeyInfo PEM: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyringError(f"a key to trust must be ed25519, got {type(key).__name__}")
    identity = key_id(key)
    with _changing(repository):
        revoked = repository / "keys" / "revoked" / f"{identity}.pem"
        if revoked.exists():
            raise KeyringError(f"a revoked key is not trusted again, got {identity}; remove {revoked} if it shall be")
        _trust(repository / "keys", key)
    return identity


def rotate_key(repository: Repository) -> tuple[str, str]:
    """Make a new signing key; returns the ids of the new one and of the old one, which goes on beside it."""
    folder = repository.path / "keys"
    with _changing(repository.path):
        old = load_signing_key(folder)
        upcoming = folder / "next.pem"
        if (identity := _identity(upcoming)) and (folder / "revoked" / f"{identity}.pem").exists():
            upcoming.unlink()  # of a rotation that was cut short, before its key was revoked
        if not upcoming.exists():
            write_atomically(upcoming, _private_pem(Ed25519PrivateKey.generate()), mode=0o600)
        new = load_private_key(upcoming)
        old_id, new_id = key_id(old.public_key()), key_id(new.public_key())
        if old_id != new_id:
            _trust(folder, new.public_key())
            (folder / "retiring").mkdir(mode=0o700, exist_ok=True)
            write_atomically(folder / "retiring" / f"{old_id}.pem", _private_pem(old), mode=0o600)
            _sign_everything(repository, new)
        upcoming.rename(folder / "signing.pem")
        sync_directory(folder)
        # What was made while we signed has the old signature only.
        _sign_everything(repository, new)
    return new_id, old_id


def revoke_key(repository: Repository, identity: str) -> tuple[str, list[str]]:
    """Trust a key no more; returns its id and the commits that no trusted key signs any longer."""
    folder = repository.path / "keys"
    with _changing(repository.path):
        identity = _one(identity, list(trusted_keys(folder)), repository.path)
        if identity == key_id(load_signing_key(folder).public_key()):
            raise KeyringError(
                f"the key that signs cannot be revoked, got {identity}; make another one first with: "
                "koguma image keys rotate"
            )
        # The private half first: while the key is trusted, who was interrupted can do it again.
        (folder / "retiring" / f"{identity}.pem").unlink(missing_ok=True)
        if _identity(folder / "next.pem") == identity:
            (folder / "next.pem").unlink()
        (folder / "revoked").mkdir(mode=0o700, exist_ok=True)
        (folder / "trusted" / f"{identity}.pem").rename(folder / "revoked" / f"{identity}.pem")
        sync_directory(folder / "trusted")
        sync_directory(folder / "revoked")
    signed = dict.fromkeys(item.commit for item in all_signatures(repository.path) if item.key == identity)
    return identity, [
        commit for commit in signed if _has(repository, commit) and not verify_commit(repository, commit).valid
    ]


def _sign_everything(repository: Repository, key: Ed25519PrivateKey) -> None:
    """Sign with a new key what a trusted key signed: commits, and the manifests machines read."""
    identity = key_id(key.public_key())
    fresh = []
    for commit in dict.fromkeys(item.commit for item in all_signatures(repository.path)):
        if not _has(repository, commit):
            continue
        verdict = verify_commit(repository, commit)
        if verdict.valid and identity not in verdict.valid:
            content = repository.objects.read_verified(bytes.fromhex(commit))
            fresh.append(signature_by(key, commit, content))
    add_signatures(repository.path, fresh)
    with locked(repository.path / "locks" / "labels", timeout_s=3600, what="the labels"):
        for manifest in sorted((repository.path / "boot").glob("*/*/manifest.json")):
            if not manifest.parent.is_symlink():
                _sign_manifest(repository.path, manifest, key)


def _sign_manifest(repository: Path, manifest: Path, key: Ed25519PrivateKey) -> None:
    """Add a line to a manifest's signatures; those that are there stay, for machines that know the old key only."""
    content, file = manifest.read_bytes(), manifest.with_name("manifest.sig")
    present = file.read_bytes() if file.exists() else b""
    if key_id(key.public_key()).encode() in present:
        return
    try:
        verify(content, present, trusted_keys(repository / "keys"))
    except ManifestError:
        return  # nobody whom we trust signed it, so neither do we
    write_atomically(file, present + sign(content, key))


def _trust(keys: Path, key: Ed25519PublicKey) -> None:
    (keys / "trusted").mkdir(exist_ok=True)
    write_atomically(keys / "trusted" / f"{key_id(key)}.pem", _public_pem(key))


def _one(identity: str, known: list[str], repository: Path) -> str:
    found = [item for item in known if item.startswith(identity)]
    if len(found) != 1 or len(identity) < 4:
        raise KeyringError(
            f"a key is named by its id of {KEY_ID_DIGITS} digits or the first of them, got {identity!r}; "
            f"trusted are {', '.join(known) or 'none'} ({repository / 'keys'})"
        )
    return found[0]


def _identity(private: Path) -> str | None:
    """The id of a private key's file; None when there is none that can be read."""
    try:
        return key_id(load_private_key(private).public_key())
    except ManifestError:
        return None


def _has(repository: Repository, commit: str) -> bool:
    return repository.objects.contains(bytes.fromhex(commit))


@contextmanager
def _changing(repository: Path) -> Iterator[None]:
    with storage_errors("changing keys"), locked(repository / "locks" / "keys", timeout_s=60, what="the keys"):
        yield


def _public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
