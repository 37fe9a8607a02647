"""Text files merge by lines, with GNU diff3; where both sides changed the same lines, markers show both."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from koguma.images.errors import ToolError
from koguma.images.merging.conflicts import Content, Disagreement, Problem
from koguma.images.tools import last_words

TEXT_MAX_BYTES = 8 * 1024 * 1024
_LOOKED_AT_BYTES = 8192
_MARKERS = [re.compile(pattern, re.MULTILINE) for pattern in (rb"^<<<<<<< ", rb"^=======$", rb"^>>>>>>> ")]
"""In the order in which they stand around a conflict."""


def is_text(content: bytes) -> bool:
    """Whether a file merges by lines: not too long, and no NUL among its first bytes, as git decides."""
    return len(content) <= TEXT_MAX_BYTES and b"\0" not in content[:_LOOKED_AT_BYTES]


def has_markers(content: bytes) -> bool:
    """Whether a conflict's markers are still in a file, be it long or with NULs: the merge of texts may be either."""
    at = 0
    for marker in _MARKERS:
        found = marker.search(content, at)
        if found is None:
            return False
        at = found.end()
    return True


def merge_text(base: bytes | None, ours: bytes, theirs: bytes, names: tuple[str, str]) -> Content:
    """Merge by lines; `names` stand behind the markers. Raises ToolError when diff3 is missing or fails."""
    whole = _ends_line(base or b"\n"), _ends_line(ours), _ends_line(theirs)
    with tempfile.TemporaryDirectory(prefix="koguma-merge-") as folder:
        files = [Path(folder) / name for name in ("ours", "base", "theirs")]
        for file, content in zip(files, (ours, base or b"", theirs), strict=True):
            file.write_bytes(content if _ends_line(content) else content + b"\n")
        merged, conflict = _diff3(files, names)
    ends_line = whole[2] if whole[1] == whole[0] else whole[1]
    if conflict:
        return Content(merged, (Disagreement(Problem.TEXT, "changed lines", "changed lines"),))
    return Content(merged if ends_line else merged.removesuffix(b"\n"))


def _ends_line(content: bytes) -> bool:
    return not content or content.endswith(b"\n")


def _diff3(files: list[Path], names: tuple[str, str]) -> tuple[bytes, bool]:
    tool = shutil.which("diff3")
    if tool is None:
        raise ToolError("a merge of text files needs diff3, it was not found on PATH (package diffutils)")
    labels = ["-L", names[0], "-L", "base", "-L", names[1]]
    command = [tool, "--text", "--merge", "-E", *labels, *map(str, files)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=600)
    if done.returncode not in (0, 1):
        raise ToolError(f"diff3 failed with status {done.returncode}: {last_words(done.stderr)}")
    return done.stdout, done.returncode == 1
