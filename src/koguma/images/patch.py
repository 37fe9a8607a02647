"""The text form of changes, file by file: what `git apply` and `patch -p1` understand, and lines about the rest.

Owners and extended attributes have no place in git's form; they stand in lines before a file's part that begin with
`#`, which both programs skip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from koguma.images.diff import FileChange
from koguma.images.textdiff import is_binary, split_lines, unified
from koguma.images.trees import DIRECTORY, FILE, SYMLINK, Entry, Read

TEXT_MAX_BYTES = 16 * 1024 * 1024
"""Larger files are told as binary ones: nobody reads their lines."""
_NOTHING = b"/dev/null"


def patch(read: Read, changes: Iterable[FileChange]) -> Iterator[bytes]:
    """The lines of a patch; directories and device nodes are told, but cannot be patched."""
    for change in changes:
        if change.old and change.new and change.old.kind != change.new.kind:
            yield from _file(read, change.path, change.old, None)
            yield from _file(read, change.path, None, change.new)
        else:
            yield from _file(read, change.path, change.old, change.new)


def line_counts(read: Read, change: FileChange) -> tuple[int, int] | None:
    """Lines added and removed of one change; None for what is not text."""
    contents = [_content(read, entry) for entry in (change.old, change.new)]
    if any(content is None for content in contents):
        return None
    old, new = (split_lines(content or b"") for content in contents)
    if any(is_binary(content or b"") for content in contents):
        return None
    lines = [line[:1] for line in unified(old, new, 0)]
    return lines.count(b"+"), lines.count(b"-")


def _file(read: Read, path: bytes, old: Entry | None, new: Entry | None) -> Iterator[bytes]:
    entry = new or old
    if entry is None:
        return
    yield from _aside(path, old, new)
    if entry.kind not in (FILE, SYMLINK):
        if old is None or new is None:
            what = "directory" if entry.kind == DIRECTORY else "node"
            yield b"# " + (b"new " if new else b"removed ") + what.encode() + b" /" + quoted(path) + b"\n"
        return
    if old and new and (_git_mode(old), old.digest, old.target) == (_git_mode(new), new.digest, new.target):
        return
    yield b"diff --git " + quoted(b"a/" + path) + b" " + quoted(b"b/" + path) + b"\n"
    yield from _modes(old, new)
    before, after = _content(read, old), _content(read, new)
    if before == after and before is not None:
        return
    names = (quoted(b"a/" + path) if old else _NOTHING), (quoted(b"b/" + path) if new else _NOTHING)
    if before is None or after is None or is_binary(before) or is_binary(after):
        yield b"Binary files " + names[0] + b" and " + names[1] + b" differ\n"
        return
    yield b"--- " + names[0] + b"\n+++ " + names[1] + b"\n"
    yield from unified(split_lines(before), split_lines(after))


def _aside(path: bytes, old: Entry | None, new: Entry | None) -> Iterator[bytes]:
    if old is None or new is None:
        return
    place = b" /" + quoted(path) + b"\n"
    if (old.uid, old.gid) != (new.uid, new.gid):
        yield f"# owner {old.uid}:{old.gid} -> {new.uid}:{new.gid}".encode() + place
    if old.mode != new.mode and (new.kind != FILE or (old.mode ^ new.mode) & ~0o111):
        yield f"# mode {old.mode:04o} -> {new.mode:04o}".encode() + place
    if old.xattrs != new.xattrs:
        before, after = dict(old.xattrs), dict(new.xattrs)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        yield b"# extended attributes " + b", ".join(map(quoted, changed)) + place


def _modes(old: Entry | None, new: Entry | None) -> Iterator[bytes]:
    if old is None and new is not None:
        yield f"new file mode {_git_mode(new)}\n".encode()
    elif new is None and old is not None:
        yield f"deleted file mode {_git_mode(old)}\n".encode()
    elif old and new and _git_mode(old) != _git_mode(new):
        yield f"old mode {_git_mode(old)}\nnew mode {_git_mode(new)}\n".encode()


def _git_mode(entry: Entry) -> str:
    if entry.kind == SYMLINK:
        return "120000"
    return "100755" if entry.mode & 0o100 else "100644"


def _content(read: Read, entry: Entry | None) -> bytes | None:
    """What a patch compares; None for what is too large or is no text by its kind."""
    if entry is None:
        return b""
    if entry.kind == SYMLINK:
        return entry.target
    if entry.kind != FILE or entry.size > TEXT_MAX_BYTES:
        return None
    return read(entry.digest) if entry.size else b""


def quoted(name: bytes) -> bytes:
    """A name as git writes it: in quotes with escapes where it holds what could break a line or a terminal."""
    if all((33 <= byte < 127 and byte not in b'"\\') or byte == 32 for byte in name):
        return name
    out = b"".join(
        b"\\" + bytes([byte]) if byte in b'"\\' else bytes([byte]) if 32 <= byte < 127 else b"\\%03o" % byte
        for byte in name
    )
    return b'"' + out + b'"'
