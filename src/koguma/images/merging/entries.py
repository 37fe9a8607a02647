"""One path, three entries: merges content, mode, owner, extended attributes and the rest, each by itself.

Hard links are merged afterwards, over the whole tree (`links`); the link ids that leave here mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from koguma.images.merging.acls import ACCESS_ACL, follow_mode
from koguma.images.merging.conflicts import Disagreement, Problem
from koguma.images.merging.keyed import differ, merge_tables, pick
from koguma.images.trees import BLOCK, CHARACTER, FILE, SYMLINK, Entry

MergeFile = Callable[[Entry | None, Entry, Entry], tuple[Entry, list[Disagreement]]]
"""(base, ours, theirs) -> an entry with the content that files with different contents get, and what did not merge."""


def same_file(left: Entry | None, right: Entry | None) -> bool:
    """Whether two entries are equal but for which names are links to them."""
    if left is None or right is None:
        return left is right
    return left == right or left._replace(link=b"") == right._replace(link=b"")


def merge_entries(
    base: Entry | None, ours: Entry, theirs: Entry, merge_file: MergeFile
) -> tuple[Entry, list[Disagreement]]:
    """Merge entries of one kind. A base of another kind counts as none."""
    base = base if base and base.kind == ours.kind else None
    merged, disagreements = _merge_attributes(base, ours, theirs)
    if ours.kind == FILE:
        content, found = _merge_file(base, ours, theirs, merge_file)
        merged = merged._replace(size=content.size, digest=content.digest, mtime_ns=content.mtime_ns)
        return merged, disagreements + found
    if ours.kind == SYMLINK:
        merged = merged._replace(target=_aspect(base, ours, theirs, "target", Problem.TARGET, disagreements, _text))
    elif ours.kind in (CHARACTER, BLOCK):
        numbers = lambda value: "{}:{}".format(*value)  # noqa: E731 - a word for a value
        merged = merged._replace(device=_aspect(base, ours, theirs, "device", Problem.DEVICE, disagreements, numbers))
    return merged, disagreements


def merge_directories(base: Entry | None, ours: Entry, theirs: Entry) -> tuple[Entry, list[Disagreement]]:
    """Merge the attributes of two directories; what is in them is not looked at."""
    return _merge_attributes(base if base and base.kind == ours.kind else None, ours, theirs)


def attributes(entry: Entry) -> tuple[Any, ...]:
    """What a directory has of its own. Its time is not among it: that tells of the names in it."""
    return entry.kind, entry.mode, entry.uid, entry.gid, entry.xattrs


def _merge_attributes(base: Entry | None, ours: Entry, theirs: Entry) -> tuple[Entry, list[Disagreement]]:
    disagreements: list[Disagreement] = []
    mode = _aspect(base, ours, theirs, "mode", Problem.MODE, disagreements, lambda value: f"{value:04o}")
    owners = [(entry.uid, entry.gid) if entry else None for entry in (base, ours, theirs)]
    if differ(*owners):
        told = ["set it to {}:{}".format(*owner) for owner in owners[1:] if owner]
        disagreements.append(Disagreement(Problem.OWNER, told[0], told[1]))
    uid, gid = pick(*owners) or (ours.uid, ours.gid)
    merged = ours._replace(
        mode=mode,
        uid=uid,
        gid=gid,
        mtime_ns=_time(base, ours, theirs),
        xattrs=_xattrs(base, ours, theirs, disagreements),
    )
    if all(_mode_and_acl(merged) != _mode_and_acl(side) for side in (ours, theirs)):
        merged = follow_mode(merged)  # one side's mode, the other's ACL: a checkout sets the ACL last
    return merged, disagreements


def _mode_and_acl(entry: Entry) -> tuple[int, bytes | None]:
    return entry.mode, dict(entry.xattrs).get(ACCESS_ACL)


def _aspect(
    base: Entry | None,
    ours: Entry,
    theirs: Entry,
    name: str,
    problem: Problem,
    disagreements: list[Disagreement],
    word: Callable[[Any], str],
) -> Any:
    values = [getattr(entry, name) if entry else None for entry in (base, ours, theirs)]
    if differ(*values):
        disagreements.append(Disagreement(problem, f"set it to {word(values[1])}", f"set it to {word(values[2])}"))
    return pick(*values)


def _time(base: Entry | None, ours: Entry, theirs: Entry) -> int | None:
    """A time is nobody's decision: where both sides have a new one it is the later one."""
    if base is not None and not differ(base.mtime_ns, ours.mtime_ns, theirs.mtime_ns):
        return pick(base.mtime_ns, ours.mtime_ns, theirs.mtime_ns)
    times = [entry.mtime_ns for entry in (ours, theirs) if entry.mtime_ns is not None]
    return max(times, default=None)


def _xattrs(
    base: Entry | None, ours: Entry, theirs: Entry, disagreements: list[Disagreement]
) -> tuple[tuple[bytes, bytes], ...]:
    if ours.xattrs == theirs.xattrs:
        return ours.xattrs

    def decide(name: bytes, _before: bytes | None, left: bytes | None, right: bytes | None) -> bytes | None:
        told = ["removed it" if value is None else "changed it" for value in (left, right)]
        disagreements.append(Disagreement(Problem.XATTRS, told[0], told[1], subject=_text(name)))
        return left

    return tuple(
        sorted(merge_tables(dict(base.xattrs if base else ()), dict(ours.xattrs), dict(theirs.xattrs), decide).items())
    )


def _merge_file(
    base: Entry | None, ours: Entry, theirs: Entry, merge_file: MergeFile
) -> tuple[Entry, list[Disagreement]]:
    """The entry whose content and time count; a time goes with the content it belongs to."""
    if ours.digest == theirs.digest:
        return ours._replace(mtime_ns=_time(base, ours, theirs)), []
    if base is not None and base.digest == ours.digest:
        return theirs, []
    if base is not None and base.digest == theirs.digest:
        return ours, []
    return merge_file(base, ours, theirs)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
