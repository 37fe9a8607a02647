"""What a reboot from one commit to another means for a machine: kernel, services, users, configuration, memory.

Works from a diff that was made already and opens only what that names. Users, units and configuration are read as the
distributions lay them out: /etc/passwd, systemd's unit directories, /etc.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from koguma.images.debian import read_text
from koguma.images.diff import Diff, FileChange
from koguma.images.errors import NotBootableError
from koguma.images.kernels import BootFiles, find_boot_files
from koguma.images.trees import DIRECTORY, SYMLINK, Entry, Read

UNIT_FOLDERS = (
    b"etc/systemd/system/",
    b"usr/lib/systemd/system/",
    b"lib/systemd/system/",
    b"usr/local/lib/systemd/system/",
)
UNIT_KINDS = (b".service", b".timer", b".socket", b".mount", b".path", b".target", b".automount", b".swap")
_MODULES = (b"lib/modules/", b"usr/lib/modules/")
_FIRMWARE = (b"lib/firmware/", b"usr/lib/firmware/")
_USER_FILES = (b"etc/passwd", b"etc/group", b"etc/shadow", b"etc/gshadow", b"etc/subuid", b"etc/subgid")


class UnitChange(NamedTuple):
    """What happens to one systemd unit: added, removed, changed, enabled, disabled, masked or unmasked."""

    unit: str
    change: str


class AccountChange(NamedTuple):
    """A user or group that was added, removed or changed."""

    kind: str
    """user or group."""
    name: str
    change: str


class Reboot(NamedTuple):
    """All of it; empty values mean that nothing of the kind changes."""

    kernel: tuple[str | None, str | None]
    """Versions of the old and the new kernel; None: a tree that cannot be booted."""
    kernel_changed: bool
    initramfs_changed: bool
    modules: int
    """Files of kernel modules that were added, removed or changed."""
    firmware: int
    units: tuple[UnitChange, ...]
    accounts: tuple[AccountChange, ...]
    configuration: tuple[FileChange, ...]
    """Files below /etc that are neither units nor the lists of accounts."""
    grown_bytes: int
    """How much more the files take, unpacked; hard links count once for each name."""
    root_image_bytes: tuple[int | None, int | None] = (None, None)
    """The root images that machines load into memory, where they are made already."""

    @property
    def grown_image_bytes(self) -> int | None:
        """How much more memory the image takes on each machine."""
        old, new = self.root_image_bytes
        return None if old is None or new is None else new - old

    @property
    def nothing(self) -> bool:
        """Whether the machine would not notice."""
        told = (self.kernel_changed, self.initramfs_changed, self.modules, self.firmware, self.units, self.accounts)
        return not any((*told, self.configuration, self.grown_bytes))


def reboot_meaning(
    read: Read, old: Entry, new: Entry, diff: Diff, images: tuple[int | None, int | None] = (None, None)
) -> Reboot:
    """What a machine that runs the one tree will find changed when it boots the other.

    `images` are the sizes of the root images, where there are any.
    """
    before, after = _boot_files(read, old), _boot_files(read, new)
    return Reboot(
        kernel=(before.version if before else None, after.version if after else None),
        kernel_changed=_kernel(before) != _kernel(after),
        initramfs_changed=(before.initrd.digest if before else None) != (after.initrd.digest if after else None),
        modules=_below(diff.files, _MODULES),
        firmware=_below(diff.files, _FIRMWARE),
        units=unit_changes(diff.files),
        accounts=(
            *_account_changes(read, old, new, "user", b"etc/passwd", diff.files),
            *_account_changes(read, old, new, "group", b"etc/group", diff.files),
        ),
        configuration=tuple(item for item in diff.files if _is_configuration(item)),
        grown_bytes=sum(item.new_size - item.old_size for item in diff.files),
        root_image_bytes=images,
    )


def unit_changes(files: Iterable[FileChange]) -> tuple[UnitChange, ...]:
    """Changes of systemd's units, of their overrides (`x.service.d/*.conf`) and of what boots start (`*.wants`)."""
    found: dict[tuple[str, str], UnitChange] = {}
    for item in files:
        told = _unit_change(item) if item.path.startswith(UNIT_FOLDERS) else None
        if told:
            found.setdefault((told.unit, told.change), told)
    # A unit that is gone is not also disabled, and a new one that starts is told as both.
    removed = {unit for unit, change in found if change == "removed"}
    kept = [told for told in found.values() if not (told.unit in removed and told.change == "disabled")]
    return tuple(sorted(kept, key=lambda told: (told.unit, told.change)))


def _unit_change(item: FileChange) -> UnitChange | None:
    """What a change below one of the folders of units means."""
    if item.kind == "directory":
        return None
    folder = next(each for each in UNIT_FOLDERS if item.path.startswith(each))
    parent, _, name = item.path.removeprefix(folder).rpartition(b"/")
    if parent.endswith(b".d"):
        return UnitChange(_text(parent[:-2]), "changed")
    if not name.endswith(UNIT_KINDS):
        return None
    if parent.endswith((b".wants", b".requires", b".upholds")):
        started = {"added": "enabled", "removed": "disabled"}
        return UnitChange(_text(name), started[item.change]) if item.change in started else None
    return None if parent else UnitChange(_text(name), _change_of_itself(item))


def _change_of_itself(item: FileChange) -> str:
    """What a unit's own file or link says: a link to /dev/null masks it, another one in /etc is an alias."""
    if _is_mask(item.old) != _is_mask(item.new):
        return "masked" if _is_mask(item.new) else "unmasked"
    if item.path.startswith(b"etc/") and _is_alias(item):
        return {"added": "enabled", "removed": "disabled"}.get(item.change, item.change)
    return item.change


def _is_mask(entry: Entry | None) -> bool:
    return entry is not None and entry.kind == SYMLINK and entry.target == b"/dev/null"


def _is_alias(item: FileChange) -> bool:
    """Whether this is a link in /etc to a unit elsewhere: `systemctl enable` makes those for aliases."""
    return all(entry is None or entry.kind == SYMLINK for entry in (item.old, item.new))


def _account_changes(
    read: Read, old: Entry, new: Entry, kind: str, path: bytes, files: Iterable[FileChange]
) -> list[AccountChange]:
    if not any(item.path == path for item in files):
        return []
    before, after = _accounts(read, old, path), _accounts(read, new, path)
    changes = []
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            change = "added" if name not in before else "removed" if name not in after else "changed"
            changes.append(AccountChange(kind, name, change))
    return changes


def _accounts(read: Read, root: Entry, path: bytes) -> dict[str, str]:
    lines = read_text(read, root, path).splitlines()
    return {line.partition(":")[0]: line for line in lines if ":" in line}


def _is_configuration(item: FileChange) -> bool:
    if not item.path.startswith(b"etc/") or item.path in _USER_FILES or item.path.endswith(b"-"):
        return False
    if item.path.startswith(UNIT_FOLDERS[0]):
        return False
    entry = item.new or item.old
    return entry is not None and entry.kind != DIRECTORY


def _below(files: Iterable[FileChange], folders: tuple[bytes, ...]) -> int:
    return sum(item.path.startswith(folders) and item.kind != "directory" for item in files)


def _boot_files(read: Read, root: Entry) -> BootFiles | None:
    try:
        return find_boot_files(read, root)
    except NotBootableError:
        return None


def _kernel(files: BootFiles | None) -> tuple[str, bytes] | None:
    return (files.version, files.kernel.digest) if files else None


def _text(name: bytes) -> str:
    return name.decode("utf-8", errors="backslashreplace")
