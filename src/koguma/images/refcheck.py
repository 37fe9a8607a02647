"""Verifies what names commits: refs, their logs, HEAD, the list of shallow commits, pending edits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from koguma.images.commits import is_id
from koguma.images.condemned import read_condemned
from koguma.images.errors import CorruptError, RefError, StorageError
from koguma.images.refs import NO_COMMIT, RefKind, check_ref_name, head_bytes, is_ref_name, parse_log_line
from koguma.images.repository import Repository


@dataclass(frozen=True, slots=True)
class Named:
    """A ref as it was read."""

    place: str
    """For messages: `branch main`."""
    commit: bytes


def read_refs(repository: Repository) -> tuple[list[Named], list[str]]:
    """Every ref that can be read, and what is wrong with refs, logs and HEAD.

    Holds the lock of the refs meanwhile, but for a repository that may only be read: that is looked at as it is.
    """
    named: list[Named] = []
    problems: list[str] = []
    with ExitStack() as stack:
        with suppress(StorageError):
            stack.enter_context(repository.refs.lock())
        for folder in sorted(path for path in (repository.path / "refs").rglob("*") if path.is_dir()):
            if folder.parent.parent == repository.path / "refs":
                problems.append(f"a ref must be a file, got a directory ({folder})")
            for file in sorted(item for item in folder.iterdir() if item.is_file() and not item.name.startswith(".")):
                found = _read_ref(repository.path, file, problems)
                named += [found] if found else []
        problems += _check_lost_refs(repository.path)
        problems += _check_head(repository.path)
    return named, problems


def check_state(repository: Repository) -> Iterator[str]:
    """What is wrong with other small files that name commits or packs."""
    for session in sorted((repository.path / "edit").glob("*/session.json")):
        try:
            document = json.loads(session.read_bytes())
            ids = [value for key, value in document.items() if key in ("base", "committed") and value is not None]
        except (OSError, ValueError, AttributeError) as error:
            yield f"a pending edit must have a readable session.json: {error} ({session})"
            continue
        for item in ids:
            if not is_id(item) or not repository.objects.readable(bytes.fromhex(item)):
                yield f"a pending edit must name commits that are stored, got {str(item)[:80]!r} ({session})"
    try:
        read_condemned(repository.path / "packs")
    except CorruptError as error:
        yield str(error)
    shallow = repository.path / "shallow"
    if shallow.exists():
        lines = shallow.read_bytes().split(b"\n")
        if lines[-1] or not all(is_id(line.decode(errors="replace")) for line in lines[:-1]):
            yield f"the list of shallow commits must have one id per line ({shallow})"


def _read_ref(path: Path, file: Path, problems: list[str]) -> Named | None:
    kind = file.relative_to(path / "refs").parts[0]
    word = next((item.word for item in RefKind if item.value == kind), kind)
    place = f"{word} {unquote(file.name)}"
    data = file.read_bytes()
    text = data.decode(errors="replace")
    if not text.endswith("\n") or not is_id(text[:-1]):
        problems.append(f"a ref must hold an id of 64 hex digits and a line's end, got {data[:80]!r} ({place})")
        return None
    if quote(unquote(file.name), safe="") != file.name:
        problems.append(f"a ref's file must be called as its name is quoted, got {file.name!r} ({file})")
    try:
        check_ref_name(unquote(file.name), RefKind.REMOTE if kind == RefKind.REMOTE.value else RefKind.BRANCH)
    except RefError as error:
        problems.append(f"{error} ({file})")
    log = path / "logs" / file.relative_to(path / "refs")
    if log.exists():
        problems += _check_log(log, text[:-1], place)
    elif kind in ("heads", "tags"):
        problems.append(f"a {word} must have a log ({place})")
    return Named(place, bytes.fromhex(text[:-1]))


def _check_log(log: Path, current: str, place: str) -> Iterator[str]:
    """Whole lines, each beginning where the one before it ended, the last or the last but one leading to the ref."""
    *lines, rest = log.read_bytes().split(b"\n")
    before = None
    changes = []
    for number, line in enumerate(lines, 1):
        change = parse_log_line(line, strict=True)
        if change is None:
            yield f"a line of a log must match its checksum (line {number} of the log of {place})"
        elif before not in (None, change.old):
            yield f"a line of a log must begin where the one before it ended (line {number} of the log of {place})"
        before = change.new if change else None
        changes.append(change)
    last = [change.new for change in changes[-2:] if change]
    if current not in last:
        yield f"a log must end with the commit its ref names (log of {place})"
    elif rest and changes[-1] and changes[-1].new == current and f" {current} ".encode() in rest:
        yield f"a log must end with a whole line (log of {place})"


def _check_lost_refs(path: Path) -> Iterator[str]:
    """A log that ends with a ref's move while the ref is gone: a removal is logged, too, and a creation or a renaming
    that is logged may not have happened."""
    for kind in RefKind:
        folder = path / "logs" / kind.value
        for log in sorted(folder.iterdir()) if folder.is_dir() else ():
            if log.name.startswith(".") or (path / "refs" / kind.value / log.name).exists():
                continue
            changes = [parse_log_line(line) for line in log.read_bytes().split(b"\n")[:-1]]
            last = changes[-1] if changes else None
            if last and NO_COMMIT not in (last.old, last.new) and last.old != last.new:
                name = unquote(log.name)
                yield (
                    f"{kind.word} {name} is gone and its log is not, it was at {last.new}; bring it back with:"
                    f" koguma image {kind.word} {name} {last.new[:12]}, or remove the log ({log})"
                )


def _check_head(path: Path) -> Iterator[str]:
    try:
        data = (path / "HEAD").read_bytes()
    except OSError as error:
        yield f"HEAD must be readable: {error.strerror}"
        return
    name = data.partition(b"\n")[0].removeprefix(b"branch ").decode(errors="replace")
    if data != head_bytes(name) or not is_ref_name(name):
        yield f"HEAD must be a branch's name and its checksum, got {data[:120]!r}; koguma image switch BRANCH writes it"
