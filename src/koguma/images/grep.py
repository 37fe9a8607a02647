"""Searches the contents of a commit's files without checking it out.

A content is searched once, however many paths and commits have it. Reading and decompressing release the interpreter's
lock, so threads use all cores.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from koguma.images.errors import RevisionError
from koguma.images.objects import ObjectStore
from koguma.images.pathspec import PathSpec
from koguma.images.textdiff import is_binary
from koguma.images.trees import DIRECTORY, FILE, Entry, Read, decode

TEXT_MAX_BYTES = 64 * 1024 * 1024
"""Larger files are not searched line by line; they count as binary ones."""
_IN_FLIGHT_MAX = 64

Found = tuple[tuple[int, bytes], ...]
"""Numbers, from 1, and contents of matching lines."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A file with matching lines. `lines` is empty for a binary file, which matches or not as a whole."""

    path: bytes
    lines: Found
    binary: bool = False


def compile_pattern(
    pattern: str, *, fixed: bool = False, ignore_case: bool = False, words: bool = False
) -> re.Pattern[bytes]:
    """A regular expression over bytes, a line at a time. Raises RevisionError."""
    text = re.escape(pattern) if fixed else pattern
    if words:
        text = rf"(?<!\w)(?:{text})(?!\w)"
    try:
        return re.compile(text.encode("utf-8", "surrogateescape"), re.MULTILINE | (re.IGNORECASE if ignore_case else 0))
    except re.error as error:
        raise RevisionError(
            f"a pattern must be a regular expression, or say --fixed-strings: {error}, got {pattern!r}"
        ) from None


class Searcher:
    """One search over one or more trees of a store."""

    def __init__(
        self, store: ObjectStore, pattern: re.Pattern[bytes], *, text: bool = False, first: bool = False
    ) -> None:
        """`text` searches binary files as if they were text; `first` stops at the first matching line of a file."""
        self._store = store
        self._pattern = pattern
        self._text = text
        self._first = first
        self._known: dict[bytes, Future[tuple[Found, bool]]] = {}

    def search(self, root: Entry, paths: PathSpec | None = None) -> Iterator[Hit]:
        """Files of a tree that match, in order of their paths."""
        files = _files(self._store.read, root, paths or PathSpec())
        with ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="grep") as pool:
            yield from self._hits(pool, files)

    def _hits(self, pool: ThreadPoolExecutor, files: Iterable[tuple[bytes, Entry]]) -> Iterator[Hit]:
        waiting: list[tuple[bytes, Future[tuple[Found, bool]]]] = []
        try:
            for path, entry in files:
                if entry.digest not in self._known:
                    self._known[entry.digest] = pool.submit(self._look, entry)
                waiting.append((path, self._known[entry.digest]))
                if len(waiting) >= _IN_FLIGHT_MAX:
                    yield from _hit(*waiting.pop(0))
            for path, future in waiting:
                yield from _hit(path, future)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _look(self, entry: Entry) -> tuple[Found, bool]:
        if entry.size > TEXT_MAX_BYTES:
            return (), any(self._pattern.search(piece) for piece in self._store.chunks(entry.digest))
        content = self._store.read(entry.digest)
        if not self._text and is_binary(content):
            return (), self._pattern.search(content) is not None
        return tuple(self._lines(content)), False

    def _lines(self, content: bytes) -> Iterator[tuple[int, bytes]]:
        """Matching lines. The whole is searched at once: most files have no match, and few have many."""
        number, counted = 1, 0
        match = self._pattern.search(content)
        while match and (match.start() < len(content) or not content.endswith(b"\n")):  # no line is behind the last end
            start = content.rfind(b"\n", 0, match.start()) + 1
            end = content.find(b"\n", match.start())
            end = len(content) if end < 0 else end
            line = content[start:end]
            # The pattern may have matched over an end of line (`\s`); then it must match within the line, too.
            if match.end() <= end or self._pattern.search(line):
                number += content.count(b"\n", counted, start)
                counted = start
                yield number, line
                if self._first:
                    return
            match = self._pattern.search(content, end + 1) if end < len(content) - 1 else None


def _hit(path: bytes, future: Future[tuple[Found, bool]]) -> Iterator[Hit]:
    lines, binary = future.result()
    if lines or binary:
        yield Hit(path, lines, binary)


def _files(read: Read, root: Entry, paths: PathSpec) -> Iterator[tuple[bytes, Entry]]:
    """The files that the paths mean, in order."""
    stack = [(b"", iter(decode(read(root.digest))))]
    while stack:
        path, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        below = path + entry.name
        if entry.kind == DIRECTORY and paths.leads_to(below):
            stack.append((below + b"/", iter(decode(read(entry.digest)))))
        elif entry.kind == FILE and entry.size and paths.covers(below):
            yield below, entry
