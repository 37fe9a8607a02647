from __future__ import annotations

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from koguma_node.errors import NodeError, UnverifiedError
from koguma_stage1.signature import require_trusted_signature
from koguma_stage1.steps.profile import checked_profile
from koguma_stage1.steps.verify import parse_manifest

COMMIT = "c" * 64
FILE = {"name": "kernel", "size_bytes": 1, "sha256": "a" * 64}
MANIFEST: dict[str, Any] = {
    "format": "koguma-manifest/1",
    "commit": COMMIT,
    "root_format": "squashfs",
    "files": {"kernel": FILE, "initrd": FILE, "root": FILE},
}
PROFILE: dict[str, Any] = {
    "node": "node-1",
    "label": "compute",
    "commit": COMMIT,
    "root_method": "ram",
    "kernel_args": "console=ttyS0",
    "artifact_url": "http://h/artifacts/c/",
    "overlay_size_bytes": 1,
    "nfs": None,
}


class Key:
    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()
        public = self.private.public_key()
        self.pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.id = sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]

    def line(self, data: bytes) -> str:
        return f"{self.id} {base64.b64encode(self.private.sign(data)).decode()}\n"


@pytest.fixture
def trusted(tmp_path: Path) -> Key:
    key = Key()
    (tmp_path / "trusted").mkdir()
    (tmp_path / f"trusted/{key.id}.pem").write_bytes(key.pem)
    (tmp_path / "manifest.json").write_bytes(b"{}")
    return key


def verify(tmp_path: Path, signatures: str) -> str:
    return require_trusted_signature(
        tmp_path / "manifest.json", signatures, "http://h/manifest.sig", tmp_path / "trusted", tmp_path
    )


def test_a_trusted_key_s_signature_is_accepted_beside_a_stranger_s(tmp_path: Path, trusted: Key) -> None:
    assert verify(tmp_path, Key().line(b"{}") + trusted.line(b"{}")) == trusted.id


def test_a_stranger_s_signature_is_refused_with_both_ids(tmp_path: Path, trusted: Key) -> None:
    stranger = Key()
    with pytest.raises(UnverifiedError) as refused:
        verify(tmp_path, stranger.line(b"{}"))
    assert trusted.id in str(refused.value)
    assert stranger.id in str(refused.value)


def test_a_signature_of_other_bytes_is_refused(tmp_path: Path, trusted: Key) -> None:
    with pytest.raises(UnverifiedError, match=f"the signature of key {trusted.id} must match"):
        verify(tmp_path, trusted.line(b"{ }"))


@pytest.mark.parametrize("line", ["nonsense", "../../../etc/passwd AAAA", "0123456789abcdef !!!"])
def test_a_malformed_signature_is_refused(tmp_path: Path, trusted: Key, line: str) -> None:
    with pytest.raises(UnverifiedError, match="a line must be a key id"):
        verify(tmp_path, line)


def test_no_signature_is_refused(tmp_path: Path, trusted: Key) -> None:
    with pytest.raises(UnverifiedError, match="got no signature"):
        verify(tmp_path, "")


def test_a_manifest_of_this_commit_is_accepted() -> None:
    assert parse_manifest(json.dumps(MANIFEST).encode(), COMMIT, "place") == MANIFEST


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"commit": "d" * 64}, "commit must be"),
        ({"format": "koguma-stage1/1"}, "format must be"),
        ({"root_format": "ext4"}, "root_format must be"),
        ({"files": {"kernel": FILE, "initrd": FILE}}, r"files\.root must have"),
        ({"files": {**MANIFEST["files"], "root": {**FILE, "name": "../../etc/x"}}}, r"files\.root must have"),
        ({"files": {**MANIFEST["files"], "root": {**FILE, "size_bytes": "1"}}}, r"files\.root must have"),
        ({"files": {**MANIFEST["files"], "root": {**FILE, "sha256": "A" * 64}}}, r"files\.root must have"),
    ],
)
def test_a_manifest_that_promises_something_else_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnverifiedError, match=message):
        parse_manifest(json.dumps({**MANIFEST, **changes}).encode(), COMMIT, "place")


def test_a_manifest_that_is_no_json_is_refused() -> None:
    with pytest.raises(UnverifiedError, match="must be JSON"):
        parse_manifest(b"\0", COMMIT, "place")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"commit": "short"}, "commit must be 64 hex digits"),
        ({"root_method": "tape"}, "root_method must be ram, nfs, disk, iscsi"),
        ({"root_method": "disk"}, "disk must be hints"),
        ({"kernel_args": "a\nb"}, "kernel_args must be one line"),
        ({"artifact_url": "https://h/"}, "artifact_url must be an http:// URL"),
        ({"overlay_size_bytes": True}, "overlay_size_bytes must be a number"),
        ({"root_method": "nfs"}, "nfs must be HOST:/PATH"),
    ],
)
def test_a_profile_that_breaks_the_contract_is_refused(changes: dict[str, Any], message: str) -> None:
    assert checked_profile(PROFILE) is PROFILE
    with pytest.raises(NodeError, match=message):
        checked_profile({**PROFILE, **changes})
