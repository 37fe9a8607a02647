"""What must keep its boot artifact whatever the policy says: commits an operator pinned, labels that machines use.

Owns `pins/` of a repository, one file per pinned commit, and reads `boot/in-use/`, where whoever serves labels says
which ones its machines boot by (both drawn in FORMAT.md). Which commits these lead to `in_use` finds.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from koguma.images.commits import is_id
from koguma.images.errors import PolicyError
from koguma.images.files import sync_directory, write_atomically


def pin(repository: Path, commit: str, words: str) -> None:
    """Pin a commit; `words` are what the operator called it by."""
    (repository / "pins").mkdir(mode=0o755, exist_ok=True)
    write_atomically(repository / "pins" / commit, words.encode() + b"\n")


def unpin(repository: Path, words: str, commit: str | None) -> str:
    """Take a pin away, found by the words it was set with, or the commit they mean now. Returns the commit."""
    for pinned, said in pins(repository).items():
        if words == said or pinned == commit or (len(words) >= 7 and pinned.startswith(words)):
            (repository / "pins" / pinned).unlink(missing_ok=True)
            sync_directory(repository / "pins")
            return pinned
    raise PolicyError(f"there is no pin {words!r}; koguma image labels says what is pinned")


def pins(repository: Path) -> dict[str, str]:
    """Pinned commits and what they were called when they were pinned."""
    found = {}
    for path in sorted((repository / "pins").glob("*")):
        if is_id(path.name):
            found[path.name] = path.read_text(encoding="utf-8", errors="replace").strip()
    return found


def announce_use(repository: Path, holder: str, labels: list[str]) -> None:
    """Say which labels a boot service's machines boot by; replaces what this holder said before."""
    folder = repository / "boot" / "in-use"
    folder.mkdir(mode=0o755, exist_ok=True)
    path = folder / f"{holder}.json"
    data = json.dumps({"labels": sorted(set(labels))}).encode() + b"\n"
    if not path.exists() or path.read_bytes() != data:
        write_atomically(path, data)


def labels_in_use(repository: Path) -> set[str]:
    """Every label that any boot service said its machines boot by. Raises PolicyError when that cannot be read."""
    found: set[str] = set()
    for path in (repository / "boot" / "in-use").glob("*.json"):
        try:
            labels = json.loads(path.read_bytes())["labels"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            # Nothing may expire by half a list.
            raise PolicyError(f"what is in use must be readable: {error} ({os.fspath(path)})") from None
        if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
            raise PolicyError(f"what is in use must be a list of labels, it is none ({os.fspath(path)})")
        found.update(labels)
    return found
