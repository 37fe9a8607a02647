"""Makes a signed boot artifact of a root directory, as ARCHITECTURE.md draws it, for the machines of these tests."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from koguma.images.signing import load_signing_key, sign

COMMIT = "c" * 64
TREE = "e" * 64


def make_artifact(root: Path, shelf: Path, keys: Path, *, commit: str = COMMIT) -> Path:
    """`<shelf>/<commit>/` with kernel, initrd, root.squashfs and the signed manifest."""
    target = shelf / commit
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    release = next((root / "lib/modules").iterdir()).name
    shutil.copyfile(root / f"boot/vmlinuz-{release}", target / "kernel")
    shutil.copyfile(root / f"boot/initrd.img-{release}", target / "initrd")
    subprocess.run(
        ["mksquashfs", root, target / "root.squashfs", "-comp", "zstd", "-Xcompression-level", "3", "-noappend",
         "-quiet", "-no-progress", "-e", "boot"],
        check=True,
    )  # fmt: skip
    write_manifest(target, commit, release, keys)
    return target


def write_manifest(target: Path, commit: str, release: str, keys: Path, *, root_size_bytes: int | None = None) -> None:
    files: dict[str, dict[str, Any]] = {
        part: {"name": name, "size_bytes": (target / name).stat().st_size, "sha256": _sha256(target / name)}
        for part, name in (("kernel", "kernel"), ("initrd", "initrd"), ("root", "root.squashfs"))
    }
    if root_size_bytes is not None:
        files["root"]["size_bytes"] = root_size_bytes
    manifest = {
        "format": "koguma-manifest/1", "commit": commit, "tree": TREE, "architecture": "x86_64",
        "kernel_version": release, "root_format": "squashfs", "unpacked_size_bytes": 1, "files": files,
    }  # fmt: skip
    data = json.dumps(manifest).encode()
    (target / "manifest.json").write_bytes(data)
    (target / "manifest.sig").write_bytes(sign(data, load_signing_key(keys)))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
