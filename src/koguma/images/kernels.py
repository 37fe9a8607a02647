"""Which kernel and initramfs of a tree a machine boots, found by Debian's conventions.

`/vmlinuz` and `/boot/vmlinuz` (links that Debian keeps on the newest kernel) come first; else the newest
`/boot/vmlinuz-<version>` that has a `/boot/initrd.img-<version>`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from koguma.images.debian import STATUS, version_key
from koguma.images.errors import NotBootableError
from koguma.images.trees import DIRECTORY, FILE, Entry, Read, decode, resolve
from koguma.model.errors import InvalidValue
from koguma.model.manifest import check_word

_KERNEL = re.compile(rb"vmlinuz-([A-Za-z0-9][A-Za-z0-9._+~-]*)")
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


class _Candidate(NamedTuple):
    version: str
    kernel: Entry


class BootFiles(NamedTuple):
    """What a boot artifact takes from the tree."""

    version: str
    kernel: Entry
    initrd: Entry


def find_boot_files(read: Read, root: Entry) -> BootFiles:
    """The kernel to boot and its initramfs. Raises NotBootableError that says what is missing, or what no manifest can
    hold.
    """
    candidates = _linked(read, root) or _newest_first(read, root)
    if not candidates:
        raise NotBootableError("a bootable tree needs a kernel, there is none at /vmlinuz or /boot/vmlinuz-*")
    for candidate in candidates:
        for name in (f"boot/initrd.img-{candidate.version}", f"boot/initramfs-{candidate.version}.img"):
            found = resolve(read, root, name.encode())
            if found and found[1].kind == FILE and found[1].size:
                version = _described(candidate.version, "kernel_version", "the name of the kernel")
                return BootFiles(version, candidate.kernel, found[1])
    version = candidates[0].version
    raise NotBootableError(f"a bootable tree needs an initramfs, there is no /boot/initrd.img-{version}")


def architecture(read: Read, root: Entry) -> str:
    """The machine type, from dpkg's own; x86_64 where dpkg says nothing. Raises NotBootableError for one that no
    manifest can hold.
    """
    from koguma.images.debian import native_architecture  # noqa: PLC0415 - reads the status file, for labels only

    native = native_architecture(read, root)
    if not native:
        return "x86_64"
    place = f"the Architecture of dpkg, /{STATUS.decode()}"
    return _described(_ARCHITECTURES.get(native, native), "architecture", place)


def _described(value: str, name: str, place: str) -> str:
    """A value as a manifest holds it; asked for before a root image is made, which takes long."""
    try:
        check_word(value, name)
    except InvalidValue as error:
        raise NotBootableError(f"{error} ({place})") from None
    return value


def _linked(read: Read, root: Entry) -> list[_Candidate]:
    for link in (b"vmlinuz", b"boot/vmlinuz"):
        found = resolve(read, root, link)
        if found and found[1].kind == FILE and (match := _KERNEL.fullmatch(found[0].rpartition(b"/")[2])):
            return [_Candidate(match[1].decode(), found[1])]
    return []


def _newest_first(read: Read, root: Entry) -> list[_Candidate]:
    found = resolve(read, root, b"boot")
    if not found or found[1].kind != DIRECTORY:
        return []
    entries = [entry for entry in decode(read(found[1].digest)) if entry.kind == FILE]
    matches = [(match, entry) for entry in entries if (match := _KERNEL.fullmatch(entry.name))]
    candidates = [_Candidate(match[1].decode(), entry) for match, entry in matches]
    return sorted(candidates, key=lambda candidate: version_key(candidate.version), reverse=True)
