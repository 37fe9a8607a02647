# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""How `koguma image` prints what lies between two commits: lines for people, documents for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from koguma.cli.errors import one_line
from koguma.cli.image.printing import printable

if TYPE_CHECKING:
    from koguma.images.commits import Commit
    from koguma.images.diff import Diff, FileChange
    from koguma.images.reboot import Reboot
    from koguma.images.trees import Entry, Read

_STAT_WIDTH = 40
_HEAD_CHARS = 100
_NAMED_MAX = 8
_LETTERS = {"added": "A", "removed": "D", "changed": "M"}


class Form(NamedTuple):
    """In which form a diff is printed; the plain one is packages, files and a summary."""

    patch: bool = False
    stat: bool = False
    shortstat: bool = False
    name_only: bool = False
    changelogs: bool = False

    @property
    def plain(self) -> bool:
        return not (self.patch or self.stat or self.shortstat or self.name_only)


def write_bytes(data: bytes) -> None:
    """To standard output as it is, after what was printed before."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def print_diff(diff: Diff, read: Read | None = None, form: Form | None = None, *, stat: bool = False) -> None:
    """Print a diff; `read` is needed for the forms that look into files."""
    form = form or Form(shortstat=stat)
    if form.name_only:
        for file in diff.files:
            print(f"/{printable(file.path)}")
        return
    if form.patch and read is not None:
        from koguma.images.patch import patch

        for line in patch(read, diff.files):
            write_bytes(line)
        return
    _print_packages(diff, whole=form.changelogs)
    if form.stat and read is not None:
        _print_stat(diff.files, read)
    elif not form.shortstat:
        _print_files(diff)
    print(summary(diff))
    for note in diff.notes:
        print(f"note: {one_line(note)}")


def summary(diff: Diff) -> str:
    """One line of numbers."""
    counts = [
        f"{sum(item.change == change for item in diff.files)} {change}" for change in ("added", "removed", "changed")
    ]
    grown = sum(item.new_size - item.old_size for item in diff.files)
    return f"{len(diff.packages)} packages; files: {', '.join(counts)}; {grown:+,d} bytes"


def _print_packages(diff: Diff, *, whole: bool) -> None:
    for package in diff.packages:
        versions = " -> ".join(version for version in (package.old_version, package.new_version) if version)
        architecture = f":{package.architecture}" if package.architecture else ""
        print(f"{package.change:10} {one_line(f'{package.name}{architecture} {versions}')}")
        for entry in package.changelog if whole else package.changelog[:1]:
            if whole:
                print(f"           {one_line(entry.version)}")
                print("".join(f"             {one_line(line.rstrip())}\n" for line in entry.text.splitlines()), end="")
            elif entry.head:
                print(f"           {shortened(entry.head)}")
    if diff.packages:
        print()


def shortened(text: str) -> str:
    """A text that fits a line of a terminal, and cannot do anything to it."""
    clean = "".join(char if char.isprintable() else " " for char in text)
    return clean if len(clean) <= _HEAD_CHARS else clean[: _HEAD_CHARS - 1] + "…"


def _print_files(diff: Diff) -> None:
    if diff.files:
        print("\n".join(_file_lines(diff)), end="\n\n")


def _file_lines(diff: Diff) -> Iterator[str]:
    """One line a path; what only got another name has one line for both names, and a directory one for all in it."""
    new_names = {move.new_path: move for move in diff.moves}
    folders = tuple(
        path + b"/" for move in diff.moves if move.kind == "directory" for path in (move.old_path, move.new_path)
    )
    old_names = {move.old_path for move in diff.moves}
    for file in diff.files:
        if file.change == "added" and file.path in new_names:
            move = new_names[file.path]
            yield f"R /{printable(move.old_path)} -> /{printable(move.new_path)}"
        elif not (file.change == "removed" and file.path in old_names) and not (
            folders and file.change != "changed" and file.path.startswith(folders)
        ):
            aspects = f" ({', '.join(file.aspects)})" if file.aspects else ""
            yield f"{_LETTERS[file.change]} /{printable(file.path)}{aspects}"


def _print_stat(files: Iterable[FileChange], read: Read) -> None:
    from koguma.images.patch import line_counts

    rows: list[tuple[str, str]] = []
    counted: list[tuple[str, int, int]] = []
    for file in files:
        if file.kind == "directory":
            continue
        name = f"/{printable(file.path)}"
        counts = line_counts(read, file)
        if counts is None:
            rows.append((name, f"Bin {file.old_size} -> {file.new_size} bytes"))
        elif counts == (0, 0):
            rows.append((name, ", ".join(file.aspects) or "empty"))
        else:
            counted.append((name, *counts))
            rows.append((name, ""))
    most = max((added + removed for _, added, removed in counted), default=0)
    bars = {name: _bar(added, removed, most) for name, added, removed in counted}
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print(f" {name.ljust(width)} | {text or bars[name]}")
    if rows:
        print()


def _bar(added: int, removed: int, most: int) -> str:
    scale = min(1.0, _STAT_WIDTH / most)
    plus, minus = (max(1, round(count * scale)) if count else 0 for count in (added, removed))
    return f"{added + removed:>5} " + "+" * plus + "-" * minus


def print_reboot(meaning: Reboot) -> None:
    """Lines that tell an operator what a machine will find changed."""
    print("A reboot means:")
    for line in reboot_lines(meaning):
        print(f"  {line}")


def reboot_lines(meaning: Reboot) -> list[str]:
    """One line a matter; a single one when nothing is to be noticed."""
    old, new = (version or "none" for version in meaning.kernel)
    lines = []
    if meaning.kernel_changed:
        lines.append(f"kernel        {old} -> {new}" if old != new else f"kernel        {new}, another build")
    if meaning.initramfs_changed:
        lines.append("initramfs     changed")
    if meaning.modules:
        lines.append(f"modules       {meaning.modules} files")
    if meaning.firmware:
        lines.append(f"firmware      {meaning.firmware} files")
    lines += [f"service       {printable(item.unit.encode())} {item.change}" for item in meaning.units]
    lines += [f"{item.kind:13} {printable(item.name.encode())} {item.change}" for item in meaning.accounts]
    lines += [f"{item.privilege:13} /{printable(item.path)} {item.change}" for item in meaning.privileges]
    lines += [f"configuration /{printable(item.path)} {item.change}" for item in meaning.configuration]
    lines += _some("program", "programs", meaning.programs) + _some("library", "libraries", meaning.libraries)
    if meaning.others:
        counts = {change: sum(item.change == change for item in meaning.others) for change in _LETTERS}
        lines.append(f"other files   {', '.join(f'{count} {change}' for change, count in counts.items() if count)}")
    if meaning.grown_bytes:
        lines.append(f"root          {meaning.grown_bytes:+,d} bytes unpacked")
    if meaning.grown_image_bytes:
        lines.append(f"memory        {meaning.grown_image_bytes:+,d} bytes of root image on each machine")
    return lines or ["nothing that a machine would notice"]


def _some(one: str, many: str, files: Sequence[FileChange]) -> list[str]:
    """By name if they are few, else their number."""
    if len(files) > _NAMED_MAX:
        return [f"{many:13} {len(files)} files"]
    return [f"{one:13} /{printable(item.path)} {item.change}" for item in files]


def commit_document(commit: Commit, names: dict[str, list[str]]) -> dict[str, Any]:
    from datetime import UTC, datetime

    return {
        "commit": commit.id,
        "tree": commit.tree,
        "parents": list(commit.parents),
        "author": commit.author,
        "time": datetime.fromtimestamp(commit.time, UTC).isoformat(),
        "message": commit.message,
        "notes": dict(commit.notes),
        "refs": [name.removeprefix("tag: ") for name in names.get(commit.id, [])],
    }


def diff_document(diff: Diff, meaning: Reboot | None = None) -> dict[str, Any]:
    """Paths that are not UTF-8 are given with surrogate escapes turned into `\\xNN`."""
    document: dict[str, Any] = {
        "packages": [
            {
                "name": item.name,
                "architecture": item.architecture,
                "change": item.change,
                "old_version": item.old_version,
                "new_version": item.new_version,
                "manager": item.manager,
                "changelog": [{"version": entry.version, "text": entry.text} for entry in item.changelog],
            }
            for item in diff.packages
        ],
        "files": [_file_document(item) for item in diff.files],
        "moves": [
            {"old_path": "/" + printable(item.old_path), "new_path": "/" + printable(item.new_path), "kind": item.kind}
            for item in diff.moves
        ],
        "notes": list(diff.notes),
    }
    if meaning is not None:
        document["reboot"] = reboot_document(meaning)
    return document


def _file_document(item: FileChange) -> dict[str, Any]:
    return {
        "path": "/" + printable(item.path),
        "change": item.change,
        "kind": item.kind,
        "aspects": list(item.aspects),
        "old_size_bytes": item.old_size,
        "new_size_bytes": item.new_size,
    }


def reboot_document(meaning: Reboot) -> dict[str, Any]:
    return {
        "kernel": {"old": meaning.kernel[0], "new": meaning.kernel[1], "changed": meaning.kernel_changed},
        "initramfs_changed": meaning.initramfs_changed,
        "module_files": meaning.modules,
        "firmware_files": meaning.firmware,
        "units": [{"unit": item.unit, "change": item.change} for item in meaning.units],
        "accounts": [{"kind": item.kind, "name": item.name, "change": item.change} for item in meaning.accounts],
        "privileges": [
            {"path": "/" + printable(item.path), "privilege": item.privilege, "change": item.change}
            for item in meaning.privileges
        ],
        "configuration": _changes_document(meaning.configuration),
        "programs": _changes_document(meaning.programs),
        "libraries": _changes_document(meaning.libraries),
        "other_files": len(meaning.others),
        "grown_bytes": meaning.grown_bytes,
        "grown_root_image_bytes": meaning.grown_image_bytes,
    }


def _changes_document(files: Iterable[FileChange]) -> list[dict[str, str]]:
    return [{"path": "/" + printable(item.path), "change": item.change} for item in files]


def listing_line(entry: Entry) -> str:
    """One entry of a directory, as `ls -l` writes it."""
    from koguma.images.trees import BLOCK, CHARACTER, DIRECTORY, SYMLINK

    name = printable(entry.name)
    if entry.kind == DIRECTORY:
        name += "/"
    elif entry.kind == SYMLINK:
        name += f" -> {printable(entry.target)}"
    size = ", ".join(map(str, entry.device)) if entry.kind in (CHARACTER, BLOCK) else str(entry.size)
    return f"{_mode(entry)} {entry.uid:>5} {entry.gid:>5} {size:>10} {name}"


def entry_document(entry: Entry, path: bytes) -> dict[str, Any]:
    from koguma.images.trees import FILE, KIND_NAMES

    return {
        "path": "/" + printable(path),
        "kind": KIND_NAMES[entry.kind],
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size_bytes": entry.size,
        "digest": entry.digest.hex() if entry.kind == FILE else None,
        "target": printable(entry.target) if entry.target else None,
        "xattrs": sorted(printable(name) for name, _ in entry.xattrs),
    }


def _mode(entry: Entry) -> str:
    import stat

    kinds = {"f": stat.S_IFREG, "d": stat.S_IFDIR, "l": stat.S_IFLNK, "c": stat.S_IFCHR, "b": stat.S_IFBLK}
    return stat.filemode(kinds.get(chr(entry.kind), stat.S_IFIFO) | entry.mode)
