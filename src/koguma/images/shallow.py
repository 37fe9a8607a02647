"""Commits whose parents were left out on purpose: the file `shallow` of a repository, one id per line.

Everything that follows parents treats them as first commits (`Repository.commit` gives them without parents); their
bytes, and so their ids, stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from koguma.images.commits import is_id
from koguma.images.errors import CorruptError
from koguma.images.files import locked, write_atomically

FILE_NAME = "shallow"


def read_shallow(repository: Path) -> frozenset[str]:
    """The ids; a reader may do this at any time, without a lock. Raises CorruptError."""
    try:
        lines = (repository / FILE_NAME).read_text(encoding="ascii", errors="replace").split()
    except FileNotFoundError:
        return frozenset()
    if not all(is_id(line) for line in lines):
        raise CorruptError(f"shallow commits must be ids of 64 hex digits, one per line ({repository / FILE_NAME})")
    return frozenset(lines)


def change_shallow(repository: Path, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> frozenset[str]:
    """Note commits whose parents are left out, and those whose parents came; returns what holds now."""
    with locked(repository / "locks" / "shallow", timeout_s=60, what="the list of shallow commits"):
        before = read_shallow(repository)
        after = (before | set(add)) - set(remove)
        if after != before:
            write_atomically(repository / FILE_NAME, "".join(f"{item}\n" for item in sorted(after)).encode())
    return frozenset(after)
