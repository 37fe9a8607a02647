"""Branches, tags, HEAD and their logs: names of commits that change atomically, compare-and-swap, under one lock.

Owns `refs/`, `logs/` and `HEAD` of a repository (drawn in FORMAT.md). Knows nothing of commits but that their ids have
64 hex digits. A ref is a file of its own, replaced by rename; its log line is written before, and a last log line that
does not describe the present value is one whose change did not happen.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from koguma.images.commits import as_line, is_id
from koguma.images.errors import RefError, RefMovedError
from koguma.images.files import locked, storage_errors, sync_directory, write_all, write_atomically

NO_COMMIT = "0" * 64
"""Stands for "there was none" and "there is none" in logs."""
DEFAULT_BRANCH = "main"
NAME_MAX = 100
_FILE_NAME_MAX = 255
"""Of file systems; a ref is a file whose name is the ref's, with `%2F` for a slash."""

_DAMAGED = "lines of the log were damaged"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/-]*")
_CHECKSUM = re.compile(rb"[0-9a-f]{8}\Z")
_LIKE_AN_ID = re.compile(r"[0-9a-f]{7,64}")


class RefKind(Enum):
    """What a ref is; the value is its directory below `refs/`."""

    BRANCH = "heads"
    """Moves with every commit made on it."""
    TAG = "tags"
    """Stays."""
    REMOTE = "remotes"
    """Where a branch of another repository was when it was last looked at: `<remote>/<branch>`. Yields no label."""

    @property
    def word(self) -> str:
        return self.name.lower()


class Ref(NamedTuple):
    name: str
    kind: RefKind
    commit: str


class RefChange(NamedTuple):
    """A line of a ref's log."""

    old: str
    new: str
    time: int
    author: str
    reason: str


def check_ref_name(name: str, kind: RefKind = RefKind.BRANCH) -> str:
    """Refuse names that could not be a label, a path or an expression. Raises RefError.

    Of a remote's branch, `<remote>/<branch>`, the branch's own part may be as long as here.
    """
    place = f"got {name!r}"
    own = name.partition("/")[2] if kind is RefKind.REMOTE else name
    if not _NAME.fullmatch(name) or len(own) > NAME_MAX:
        raise RefError(f"a branch or tag name must be 1 to {NAME_MAX} letters, digits and . _ + / -, {place}")
    if len(quote(name, safe="")) > _FILE_NAME_MAX:
        raise RefError(f"a branch or tag name may not have so many slashes, {place}")
    for forbidden in ("..", "//", "/."):
        if forbidden in name:
            raise RefError(f"a branch or tag name may not contain {forbidden!r}, {place}")
    if name.endswith(("/", ".", ".lock", ".tmp")):
        raise RefError(f"a branch or tag name may not end with '/', '.', '.lock' or '.tmp', {place}")
    if _LIKE_AN_ID.fullmatch(name) or name == "HEAD":
        raise RefError(f"a branch or tag name may not look like a commit id or be HEAD, {place}")
    return name


def is_ref_name(name: str) -> bool:
    try:
        return bool(check_ref_name(name))
    except RefError:
        return False


Permit = Callable[[RefKind, str, str], None]


class Refs:
    """The refs of one repository."""

    def __init__(
        self,
        repository: Path,
        now: Callable[[], float] = time.time,
        *,
        is_there: Callable[[str], bool] = lambda _: True,
        permit: Permit | None = None,
    ) -> None:
        """`is_there` says whether a commit is stored; it is asked under the lock, so that gc cannot remove it then.
        `permit` is asked before a ref moves and raises what forbids it.
        """
        self._repository = repository
        self._now = now
        self._is_there = is_there
        self._permit = permit
        self.changed: Callable[[], None] | None = None
        """Told after a branch or tag changed: the ref-update hook."""

    def create_directories(self) -> None:
        for kind in RefKind:
            for top in ("refs", "logs"):
                (self._repository / top / kind.value).mkdir(parents=True, exist_ok=True)

    def lock(self) -> AbstractContextManager[object]:
        return locked(self._repository / "locks" / "refs", timeout_s=60, what="the refs")

    def get(self, kind: RefKind, name: str) -> str | None:
        """The commit a ref names, or None."""
        if not _NAME.fullmatch(name) or len(quote(name, safe="")) > _FILE_NAME_MAX:
            return None
        try:
            text = self._path(kind, name).read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RefError(f"a ref must be a file that can be read: {error.strerror} ({kind.word} {name})") from None
        if not is_id(text):
            raise RefError(f"a ref must hold a commit id of 64 hex digits, got {text[:80]!r} ({kind.word} {name})")
        return text

    def find(self, name: str) -> Ref | None:
        """A branch or tag by its name, no two share one; else a remote's branch."""
        for kind in RefKind:
            if commit := self.get(kind, name):
                return Ref(name, kind, commit)
        return None

    def all(self) -> list[Ref]:
        """Every branch and tag, branches first, in order of their names."""
        return self._of(RefKind.BRANCH) + self._of(RefKind.TAG)

    def remotes(self) -> list[Ref]:
        """Where the branches of other repositories were, in order of their names."""
        return self._of(RefKind.REMOTE)

    def every(self) -> list[Ref]:
        """All that keeps commits: branches, tags, and branches of other repositories."""
        return self.all() + self.remotes()

    def _of(self, kind: RefKind) -> list[Ref]:
        found = []
        try:
            files = os.listdir(self._repository / "refs" / kind.value)  # noqa: PTH208 - `log` starts with this
        except FileNotFoundError:
            return []  # a repository made before there were refs of this kind
        for file in files:
            name = unquote(file)
            if not file.startswith(".") and (commit := self.get(kind, name)):
                found.append(Ref(name, kind, commit))
        return sorted(found, key=lambda ref: ref.name)

    def update(self, kind: RefKind, name: str, new: str, *, old: str | None, author: str, reason: str) -> None:
        """Set a ref that is `old` now (None: that does not exist) to `new`.

        Raises RefMovedError when it is not, RefError when the name is refused or taken by the other kind, and what
        the repository's policy forbids.
        """
        check_ref_name(name, kind)
        if self._permit:
            self._permit(kind, name, new)
        with storage_errors(f"changing {kind.word} {name!r}"), self.lock():
            if kind is RefKind.REMOTE:
                self.create_directories()  # a repository made before there were refs of this kind
            self._expect(kind, name, old)
            other = RefKind.TAG if kind is RefKind.BRANCH else RefKind.BRANCH
            if kind is not RefKind.REMOTE and self.get(other, name):
                raise RefError(
                    f"a {kind.word} may not have the name of a {other.word}: labels are by name, got {name!r}"
                )
            if not self._is_there(new):
                raise RefError(f"a {kind.word} must name a commit that is stored, got {new} ({kind.word} {name})")
            self._log(kind, name, RefChange(old or NO_COMMIT, new, int(self._now()), author, reason))
            write_atomically(self._path(kind, name), new.encode() + b"\n")
        if self.changed:
            self.changed()

    def require_free(self, name: str) -> None:
        """Raises RefError when a branch may not have this name: it is refused, or a branch or tag has it."""
        check_ref_name(name)
        for kind in (RefKind.BRANCH, RefKind.TAG):
            if commit := self.get(kind, name):
                raise RefError(f"a {kind.word} named {name!r} exists already ({commit})")

    def rename(self, old: str, new: str, *, author: str) -> Ref:
        """Give a branch another name, and HEAD, when it names it, with it.

        First all of the new name is there, then HEAD moves, then the old name goes: after a crash at least one of them
        leads to the commit, and HEAD to one that does. Raises RefError, and what the repository's policy forbids.
        """
        kind = RefKind.BRANCH
        commit = self.get(kind, old)
        if commit is None:
            raise RefError(f"there is no branch named {old!r}; koguma image branch lists them")
        if self._permit:
            self._permit(kind, new, commit)
        with storage_errors(f"renaming branch {old!r}"), self.lock():
            self._expect(kind, old, commit)
            self.require_free(new)
            renamed = RefChange(commit, commit, int(self._now()), author, f"renamed from {old}")
            log = [*joined(self._read_log(kind, old), commit, renamed.time), renamed]
            write_atomically(self._log_path(kind, new), b"".join(map(log_line, log)))
            write_atomically(self._path(kind, new), commit.encode() + b"\n")
            if self.head() == old:
                self.set_head(new)
            self._remove(kind, old, commit, f"renamed to {new}")
        if self.changed:
            self.changed()
        return Ref(new, kind, commit)

    def delete(self, kind: RefKind, name: str, *, old: str) -> None:
        """Remove a ref that is `old` now, and its log."""
        with storage_errors(f"removing {kind.word} {name!r}"), self.lock():
            self._expect(kind, name, old)
            self._remove(kind, name, old, "removed")
        if self.changed:
            self.changed()

    def _remove(self, kind: RefKind, name: str, old: str, reason: str) -> None:
        # Otherwise a log that a crash left alone would look like one whose ref was lost.
        self._log(kind, name, RefChange(old, NO_COMMIT, int(self._now()), "-", reason))
        self._path(kind, name).unlink()
        sync_directory(self._path(kind, name).parent)
        self._log_path(kind, name).unlink(missing_ok=True)

    def head(self) -> str:
        """The branch that commands mean when none is named: the one last worked on; of a damaged HEAD none."""
        try:
            text = (self._repository / "HEAD").read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return DEFAULT_BRANCH
        return text.partition("\n")[0].removeprefix("branch ")

    def set_head(self, branch: str) -> None:
        path, data = self._repository / "HEAD", head_bytes(check_ref_name(branch))
        with storage_errors("choosing a branch"):
            if not path.exists() or path.read_bytes() != data:
                write_atomically(path, data)

    def log(self, kind: RefKind, name: str) -> list[RefChange]:
        """The changes of a ref, newest first."""
        changes = self._read_log(kind, name)
        if not changes:
            return []
        return joined(changes, self.get(kind, name) or NO_COMMIT, changes[-1].time)[::-1]

    def logged_commits(self) -> Iterable[str]:
        """Every commit any log names: what `branch@{n}` may still lead to."""
        for ref in self.every():
            for change in self._read_log(ref.kind, ref.name):
                yield from (item for item in (change.old, change.new) if item != NO_COMMIT)

    def _expect(self, kind: RefKind, name: str, old: str | None) -> None:
        current = self.get(kind, name)
        if current == old:
            return
        if old is None:
            raise RefMovedError(f"a {kind.word} named {name!r} exists already ({current})")
        if current is None:
            raise RefMovedError(f"there is no {kind.word} named {name!r}")
        raise RefMovedError(f"{kind.word} {name!r} must be at {old[:12]} for this change, it is at {current[:12]} now")

    def _log(self, kind: RefKind, name: str, change: RefChange) -> None:
        path = self._log_path(kind, name)
        kept = self._read_log(kind, name)
        if not _ends_whole(path, kept) or (kept and kept[-1].new != change.old):
            write_atomically(path, b"".join(map(log_line, joined(kept, change.old, change.time))))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            write_all(descriptor, log_line(change))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _read_log(self, kind: RefKind, name: str) -> list[RefChange]:
        try:
            lines = self._log_path(kind, name).read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        return [change for line in lines[:-1] if (change := parse_log_line(line))]

    def _path(self, kind: RefKind, name: str) -> Path:
        return self._repository / "refs" / kind.value / quote(name, safe="")

    def _log_path(self, kind: RefKind, name: str) -> Path:
        return self._repository / "logs" / kind.value / quote(name, safe="")


def joined(changes: Sequence[RefChange], current: str, time: int) -> list[RefChange]:
    """The changes of a log that lead to `current`, each beginning where the one before it ended.

    A last one that was written and did not happen is left out. Where changes are missing, one of its own says so, at
    the end with this `time`: what is known of where the ref was is never thrown away.
    """
    if changes and changes[-1].new != current and changes[-1].old == current:
        changes = changes[:-1]
    found: list[RefChange] = []
    at = NO_COMMIT
    for change in changes:
        if found and change.old != at:
            found.append(RefChange(at, change.old, change.time, "-", _DAMAGED))
        found.append(change)
        at = change.new
    if at != current:
        found.append(RefChange(at, current, time, "-", _DAMAGED if current != NO_COMMIT else "the ref was lost"))
    return found


def log_line(change: RefChange) -> bytes:
    """A line of a log, with its checksum."""
    author, reason = as_line(change.author), as_line(change.reason)
    line = f"{change.old} {change.new} {change.time}\t{author}\t{reason}".encode()
    return line + b"\t%08x\n" % zlib.crc32(line)


def head_bytes(branch: str) -> bytes:
    """The content of HEAD."""
    line = f"branch {branch}\n".encode()
    return line + b"%08x\n" % zlib.crc32(line)


def _ends_whole(path: Path, kept: list[RefChange]) -> bool:
    """Whether a log can be added to as it is: it ends with a whole line that counts, or is not there."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return not kept
    last = data[:-1].rpartition(b"\n")[2]
    return data.endswith(b"\n") and bool(kept) and parse_log_line(last) == kept[-1]


def parse_log_line(line: bytes, *, strict: bool = False) -> RefChange | None:
    """A change, or None for a line that a crash cut short or a disk changed.

    Lines of early repositories have no checksum; `strict` refuses them if they may have had one.
    """
    body, _, checksum = line.rpartition(b"\t")
    if body.count(b"\t") == 2 and checksum != b"%08x" % zlib.crc32(body):
        return None
    if body.count(b"\t") == 1:
        body = b"" if strict and _CHECKSUM.search(line) else line
    fields = body.decode(errors="replace").split("\t")
    words = fields[0].split(" ")
    if len(fields) != 3 or len(words) != 3 or not is_id(words[0]) or not is_id(words[1]) or not words[2].isdigit():
        return None
    return RefChange(words[0], words[1], int(words[2]), fields[1], fields[2])
