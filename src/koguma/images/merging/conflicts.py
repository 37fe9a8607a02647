"""Conflicts: where two sides want different things of one path, and how that is told, kept and settled."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Problem(Enum):
    """What two sides disagree on; the value is its name in session.json and in `--json`."""

    TEXT = "text"
    """Both changed the same lines: the file has conflict markers."""
    CONTENT = "content"
    """Both changed a file that does not merge by lines; ours was kept."""
    TYPE = "type"
    """One side has a file where the other has a directory, a link or a device; ours was kept."""
    REMOVED = "removed"
    """One side removed what the other changed; the changed one was kept."""
    MODE = "mode"
    """Both changed the permission bits; ours were kept."""
    OWNER = "owner"
    """Both changed owner or group; ours were kept."""
    XATTRS = "xattrs"
    """Both changed an extended attribute; ours was kept."""
    TARGET = "target"
    """Both changed where a symbolic link points; ours was kept."""
    DEVICE = "device"
    """Both changed a device's numbers; ours were kept."""
    LINKS = "links"
    """Names of one hard-linked file were given different contents; they are files of their own now."""
    PACKAGE = "package"
    """Both changed what is installed of one package; ours was kept."""
    DEPENDS = "depends"
    """What one side installed needs something that the other one changed or removed."""
    RECORD = "record"
    """Both changed one entry of a database that merges by entry; ours was kept."""
    ID = "id"
    """Both sides gave one user, group or subordinate id to different names; both entries were kept."""
    STALE = "stale"
    """Both sides made this file from other files; it must be made again."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A path that needs a decision."""

    path: bytes
    problem: Problem
    ours: str
    """What our side did, in words."""
    theirs: str
    subject: str = ""
    """Which entry of the file, for databases: a package, a user."""
    command: str = ""
    """A shell command that settles it when it is run in the image."""
    resolved: bool = False

    def to_json(self) -> dict[str, Any]:
        """For session.json and `--json`; a path's bytes that are not UTF-8 are surrogate escapes."""
        return {
            "path": self.path.decode("utf-8", "surrogateescape"),
            "problem": self.problem.value,
            "ours": self.ours,
            "theirs": self.theirs,
            "subject": self.subject,
            "command": self.command,
            "resolved": self.resolved,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Conflict:
        """Raises KeyError, TypeError or ValueError for anything `to_json` does not write."""
        texts = {name: str(document[name]) for name in ("ours", "theirs", "subject", "command")}
        path = str(document["path"]).encode("utf-8", "surrogateescape")
        return cls(path, Problem(document["problem"]), resolved=bool(document["resolved"]), **texts)


@dataclass(frozen=True, slots=True)
class Note:
    """A path on which both sides differed and a rule decided, without anybody being asked."""

    path: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A conflict inside one file, before it is known which file that is."""

    problem: Problem
    ours: str
    theirs: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """The outcome of merging a file's content."""

    data: bytes
    disagreements: tuple[Disagreement, ...] = ()
    agreed: bytes | None = None
    """The data without the entries that were disagreed on; None for files that have no entries."""
    note: str = ""
    """Set when a rule decided something that the sides did not agree on."""
