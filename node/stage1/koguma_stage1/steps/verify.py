"""Fetches the manifest, the kernel and the initramfs, and lets nothing pass that a trusted key did not sign.

The root image is not fetched here: the initramfs that is verified here fetches it, and verifies it with the digest of
the same signed manifest (docs/decisions/node-root-image-after-kexec.md).
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from koguma_node import transport
from koguma_node.console import say
from koguma_node.download import fetch_verified
from koguma_node.errors import NodeError, UnverifiedError

from koguma_stage1 import signature
from koguma_stage1.context import Context

OUTCOME = "manifest, kernel and initramfs are verified"
PHASE = "verify"
TIMEOUT_S = 600.0
MANIFEST_BYTES_MAX = 64 * 1024
MANIFEST_ATTEMPTS_MAX = 5
FORMAT = "koguma-manifest/1"
ROOT_FORMATS = ("squashfs", "erofs")
SHA256 = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def run(context: Context) -> None:
    base = context.profile["artifact_url"].rstrip("/") + "/"
    manifest = context.work / "manifest.json"
    manifest.write_bytes(_fetch_small(base + "manifest.json", context.deadline))
    signatures = _fetch_small(base + "manifest.sig", context.deadline).decode("ascii", "replace")
    key_id = signature.require_trusted_signature(manifest, signatures, base + "manifest.sig", scratch=context.work)
    context.manifest = parse_manifest(manifest.read_bytes(), context.profile["commit"], base + "manifest.json")
    say(f"the manifest is signed by {key_id}")
    for part in ("kernel", "initrd"):
        file = context.manifest["files"][part]
        fetch_verified(
            base + file["name"], context.work / part, file["name"], file["size_bytes"], file["sha256"], context.deadline
        )


def parse_manifest(data: bytes, commit: str, place: str) -> dict[str, Any]:
    """The manifest, if it is this commit's and well formed. Raises UnverifiedError."""
    try:
        manifest = json.loads(data)
    except ValueError as error:
        raise UnverifiedError(f"manifest.json: must be JSON: {error} ({place})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UnverifiedError(f"manifest.json: format must be {FORMAT} ({place})")
    if manifest.get("commit") != commit:
        raise UnverifiedError(f"manifest.json: commit must be {commit}, got {manifest.get('commit')!r} ({place})")
    if manifest.get("root_format") not in ROOT_FORMATS:
        raise UnverifiedError(
            f"manifest.json: root_format must be squashfs or erofs, got {manifest.get('root_format')!r} ({place})"
        )
    files = manifest.get("files")
    for part in ("kernel", "initrd", "root"):
        _require_file(files.get(part) if isinstance(files, dict) else None, part, place)
    return manifest


def _require_file(file: Any, part: str, place: str) -> None:
    if not (
        isinstance(file, dict)
        and isinstance(file.get("name"), str)
        and NAME.fullmatch(file["name"])
        and type(file.get("size_bytes")) is int
        and file["size_bytes"] > 0
        and isinstance(file.get("sha256"), str)
        and SHA256.fullmatch(file["sha256"])
    ):
        raise UnverifiedError(
            f"manifest.json: files.{part} must have a name, a size and a SHA-256, got {file!r} ({place})"
        )


def _fetch_small(url: str, deadline: float) -> bytes:
    problem = ""
    for attempt in range(MANIFEST_ATTEMPTS_MAX):
        if attempt:
            say(f"{problem}; trying again")
            time.sleep(min(attempt, max(0.0, deadline - time.monotonic())))
        try:
            response = transport.request("GET", url, {}, None, 10.0)
        except transport.TransportError as error:
            problem = str(error)
            continue
        try:
            if response.status == 200:
                return response.read_all(MANIFEST_BYTES_MAX)
            problem = f"HTTP {response.status} ({url})"
        except transport.TransportError as error:
            problem = f"{error} ({url})"
        finally:
            response.close()
        if 400 <= response.status < 500:
            break
    raise NodeError(f"{Path(url).name}: must be served, got {problem}")
