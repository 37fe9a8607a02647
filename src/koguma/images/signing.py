"""Ed25519 keys and signatures of manifests. Owns `keys/` of a repository, with `keyring`, which changes it.

`keys/signing.pem` (PKCS#8, mode 0600) signs, and `keys/retiring/<key id>.pem` sign too, until they are revoked;
`keys/trusted/<key id>.pem` are what machines accept. A signature file holds one line per key, `<key id> <base64>`, so
that keys can be rotated without a moment when nothing is accepted.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from koguma.images.errors import ManifestError
from koguma.images.files import write_atomically

KEY_ID_DIGITS = 16


def key_id(public: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the raw 32-byte public key."""
    return sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:KEY_ID_DIGITS]


def create_keys(keys: Path) -> str:
    """Make a signing key unless there is one, trust it, and return its id."""
    trusted = keys / "trusted"
    keys.mkdir(mode=0o700, exist_ok=True)
    trusted.mkdir(exist_ok=True)
    path = keys / "signing.pem"
    if not path.exists():
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomically(path, pem, mode=0o600)
    public = load_signing_key(keys).public_key()
    identity = key_id(public)
    if not (trusted / f"{identity}.pem").exists():
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        write_atomically(trusted / f"{identity}.pem", pem)
    return identity


def load_signing_key(keys: Path) -> Ed25519PrivateKey:
    """The private key. Raises ManifestError when it is missing or of another kind."""
    return load_private_key(keys / "signing.pem")


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """A private key of a file. Raises ManifestError when it is missing or of another kind."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ManifestError(f"the signing key must be readable PKCS#8 PEM: {error} ({path})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ManifestError(f"the signing key must be ed25519, got {type(key).__name__} ({path})")
    return key


def signing_keys(keys: Path) -> list[Ed25519PrivateKey]:
    """All keys that sign: the present one first, then those that were rotated out and are not revoked yet.

    Machines whose stage 1 was built before a rotation know the old key only.
    """
    retiring = sorted((keys / "retiring").glob("*.pem"))
    return [load_signing_key(keys), *(load_private_key(path) for path in retiring)]


def trusted_keys(keys: Path) -> dict[str, Ed25519PublicKey]:
    """The public keys machines accept, by id. A file whose name is not its key's id is refused."""
    found: dict[str, Ed25519PublicKey] = {}
    for path in sorted((keys / "trusted").glob("*.pem")):
        try:
            key = load_pem_public_key(path.read_bytes())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ManifestError(f"a trusted key must be SubjectPublicKeyInfo PEM: {error} ({path})") from None
        if not isinstance(key, Ed25519PublicKey) or key_id(key) != path.stem:
            raise ManifestError(f"a trusted key must be ed25519 and its file named by its id ({path})")
        found[path.stem] = key
    return found


def sign(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """The content of `manifest.sig` for these exact bytes."""
    signature = base64.b64encode(key.sign(manifest)).decode()
    return f"{key_id(key.public_key())} {signature}\n".encode()


def sign_manifest(manifest: bytes, keys: Path) -> bytes:
    """The content of `manifest.sig` by all keys that sign."""
    return b"".join(sign(manifest, key) for key in signing_keys(keys))


def verify(manifest: bytes, signatures: bytes, trusted: dict[str, Ed25519PublicKey]) -> str:
    """The id of a trusted key that signed these bytes. Raises ManifestError when none did."""
    seen = []
    for line in signatures.decode("ascii", errors="replace").splitlines():
        identity, _, encoded = line.partition(" ")
        seen.append(identity)
        if identity not in trusted:
            continue
        try:
            trusted[identity].verify(base64.b64decode(encoded, validate=True), manifest)
        except (InvalidSignature, binascii.Error, ValueError):
            raise ManifestError(f"a manifest must match its signature, key {identity} did not sign this one") from None
        return identity
    raise ManifestError(f"a manifest must be signed by a trusted key, got signatures of {seen or 'nobody'}")
