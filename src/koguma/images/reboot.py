"""What a reboot from one commit to another means for a machine: kernel, services, users, configuration, programs.

Works from a diff that was made already and opens only what that names. Users, units and configuration are read as the
distributions lay them out: /etc/passwd, systemd's unit directories, /etc. Every change of the diff is told by kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from koguma.images.accounts import LISTS, AccountChange, account_changes
from koguma.images.diff import Diff, FileChange
from koguma.images.errors import NotBootableError
from koguma.images.kernels import BootFiles, find_boot_files
from koguma.images.trees import FILE, SYMLINK, Entry, Read
from koguma.images.units import UnitChange, unit_change, unit_changes

_UNITS = b"systemd/system/"
"""All directories of units have it in their names."""
_MODULES = (b"lib/modules/", b"usr/lib/modules/")
_FIRMWARE = (b"lib/firmware/", b"usr/lib/firmware/")
_BACKUPS = frozenset(path + b"-" for path in LISTS)
_LIBRARY = re.compile(rb"\.so(\.[0-9.]+)?$")
_COMMAND = re.compile(rb"(^|/)s?bin/[^/]+$")
_SETUID, _SETGID, _SET_IDS, _EXECUTABLE = 0o4000, 0o2000, 0o6000, 0o111
_CAPABILITIES = b"security.capability"


class PrivilegeChange(NamedTuple):
    """A file that began or ceased to run with the rights of its owner or group, or with capabilities."""

    path: bytes
    privilege: str
    """setuid, setgid or capabilities."""
    change: str
    """gained, lost, or changed: other capabilities, another owner or group."""


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
    """What is below /etc and is told neither as a unit nor as an account."""
    privileges: tuple[PrivilegeChange, ...]
    programs: tuple[FileChange, ...]
    """What may be executed, and links to that."""
    libraries: tuple[FileChange, ...]
    others: tuple[FileChange, ...]
    """What is none of these. Directories are among them if they changed themselves, or came or went empty."""
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
        return not any((*told, self.configuration, self.privileges, self.programs, self.libraries, self.others))


def reboot_meaning(
    read: Read, old: Entry, new: Entry, diff: Diff, images: tuple[int | None, int | None] = (None, None)
) -> Reboot:
    """What a machine that runs the one tree will find changed when it boots the other.

    `images` are the sizes of the root images, where there are any.
    """
    before, after = _boot_files(read, old), _boot_files(read, new)
    kernel_changed = _kernel(before) != _kernel(after)
    initramfs_changed = (before.initrd.digest if before else None) != (after.initrd.digest if after else None)
    boot = [side for side in (before, after) if side]
    told = {side.kernel.digest for side in boot} if kernel_changed else set()
    told |= {side.initrd.digest for side in boot} if initramfs_changed else set()
    accounts = account_changes(read, old, new, {item.path for item in diff.files if item.path in LISTS})
    kinds = _Kinds.of(diff.files, told, accounts.told)
    return Reboot(
        kernel=(before.version if before else None, after.version if after else None),
        kernel_changed=kernel_changed,
        initramfs_changed=initramfs_changed,
        modules=len(kinds.modules),
        firmware=len(kinds.firmware),
        units=unit_changes(kinds.units),
        accounts=accounts.changes,
        configuration=tuple(kinds.configuration),
        privileges=tuple(privilege_changes(diff.files)),
        programs=tuple(kinds.programs),
        libraries=tuple(kinds.libraries),
        others=tuple(kinds.others),
        grown_bytes=sum(item.new_size - item.old_size for item in diff.files),
        root_image_bytes=images,
    )


class _Kinds(NamedTuple):
    """The changes of a diff, each under the first kind that it is of."""

    units: list[FileChange]
    configuration: list[FileChange]
    modules: list[FileChange]
    firmware: list[FileChange]
    libraries: list[FileChange]
    programs: list[FileChange]
    others: list[FileChange]

    @classmethod
    def of(cls, files: tuple[FileChange, ...], boot: set[bytes], accounts: frozenset[bytes]) -> _Kinds:
        """`boot` are the contents, and `accounts` the lists, that are told already."""
        kinds = cls([], [], [], [], [], [], [])
        for item, following in zip(files, (*files[1:], None), strict=False):
            path = item.path
            if item.kind == "directory":
                if not _is_told_by(item, following):
                    (kinds.configuration if path.startswith(b"etc/") else kinds.others).append(item)
            elif _UNITS in path and unit_change(item):
                kinds.units.append(item)
            elif path.startswith(b"etc/"):
                if path not in accounts or not _is_only_content(item):
                    (kinds.others if path in _BACKUPS else kinds.configuration).append(item)
            elif (found := kinds._list_of(item)) is not None:
                found.append(item)
            elif not (path.startswith(b"boot/") and any(side and side.digest in boot for side in (item.old, item.new))):
                kinds.others.append(item)
        return kinds

    def _list_of(self, item: FileChange) -> list[FileChange] | None:
        """Where a file belongs that is neither configuration nor a unit; None: to the others."""
        path = item.path
        if path.startswith(_MODULES):
            return self.modules
        if path.startswith(_FIRMWARE):
            return self.firmware
        if b".so" in path and _LIBRARY.search(path):
            return self.libraries
        return self.programs if _is_program(item.old, path) or _is_program(item.new, path) else None


def _is_told_by(directory: FileChange, following: FileChange | None) -> bool:
    """Whether a directory came or went with what is in it, which stands next in a diff."""
    if following is None or directory.change == "changed" or following.change != directory.change:
        return False
    return following.path.startswith(directory.path + b"/")


def _is_only_content(item: FileChange) -> bool:
    return item.change == "changed" and {"content", "time"}.issuperset(item.aspects)


def _is_program(entry: Entry | None, path: bytes) -> bool:
    if entry is None or entry.kind != SYMLINK:
        return entry is not None and entry.kind == FILE and bool(entry.mode & _EXECUTABLE)
    return _COMMAND.search(path) is not None


def privilege_changes(files: Iterable[FileChange]) -> list[PrivilegeChange]:
    """Files that became or ceased to be setuid or setgid, and whose capabilities changed."""
    changes = []
    for item in files:
        before, after = _privileges(item.old), _privileges(item.new)
        for name in sorted(before.keys() | after.keys()) if before or after else ():
            if before.get(name) != after.get(name):
                change = "gained" if name not in before else "lost" if name not in after else "changed"
                changes.append(PrivilegeChange(item.path, name, change))
    return changes


_NO_PRIVILEGES: dict[str, bytes | int] = {}


def _privileges(entry: Entry | None) -> dict[str, bytes | int]:
    """What a file runs with beside the rights of its caller."""
    if entry is None or not (entry.mode & _SET_IDS or entry.xattrs) or entry.kind != FILE:
        return _NO_PRIVILEGES
    found: dict[str, bytes | int] = {}
    if entry.mode & _SETUID:
        found["setuid"] = entry.uid
    if entry.mode & _SETGID:
        found["setgid"] = entry.gid
    capabilities = dict(entry.xattrs).get(_CAPABILITIES)
    return found if capabilities is None else {**found, "capabilities": capabilities}


def _boot_files(read: Read, root: Entry) -> BootFiles | None:
    try:
        return find_boot_files(read, root)
    except NotBootableError:
        return None


def _kernel(files: BootFiles | None) -> tuple[str, bytes] | None:
    return (files.version, files.kernel.digest) if files else None
