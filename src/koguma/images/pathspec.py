"""Paths on a command line that limit what is looked at: `etc`, `/etc/ssh`, `usr/lib/*/libc.so*`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from fnmatch import translate

from koguma.images.errors import RevisionError

_GLOB = re.compile(rb"[*?\[]")


class PathSpec:
    """A set of patterns. A plain one covers itself and everything below; `*` in a glob covers slashes too, as git's."""

    def __init__(self, patterns: Iterable[str | bytes] = ()) -> None:
        raw = [os.fsencode(pattern) for pattern in patterns]
        if b"" in raw:
            raise RevisionError("a path may not be empty; . means all")
        cleaned = [b"/".join(part for part in item.split(b"/") if part not in (b"", b".")) for item in raw]
        self.plain = tuple(item for item in cleaned if not _GLOB.search(item))
        self._globs = [re.compile(os.fsencode(translate(os.fsdecode(item)))) for item in cleaned if _GLOB.search(item)]
        self._starts = [_GLOB.split(item, maxsplit=1)[0] for item in cleaned if _GLOB.search(item)]

    def __bool__(self) -> bool:
        return bool(self.plain or self._globs)

    def covers(self, path: bytes) -> bool:
        """Whether a path is meant; every path is when there are no patterns."""
        if not self:
            return True
        if any(not item or path == item or path.startswith(item + b"/") for item in self.plain):
            return True
        return any(glob.match(path) for glob in self._globs)

    def leads_to(self, directory: bytes) -> bool:
        """Whether something in or below a directory may be meant: nobody needs to open the others."""
        if not self or self.covers(directory):
            return True
        below = directory + b"/" if directory else b""
        if any(item.startswith(below) for item in self.plain):
            return True
        return any(start.startswith(below) or below.startswith(start) for start in self._starts)
