"""Which commits the labels lead to that machines boot by, and where they led last: a label may be gone, its branch
removed or labels.json lost, while machines boot by it.

Owns `boot/in-use.json` (drawn in FORMAT.md), written by `labels` under its lock. Which labels are in use `pins` reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from koguma.images.commits import ABBREVIATED_DIGITS, is_id
from koguma.images.errors import ImageError
from koguma.images.files import write_atomically
from koguma.images.labelfile import Label

if TYPE_CHECKING:
    from koguma.images.repository import Repository


def remembered_use(repository: Path) -> dict[str, str]:
    """The commit each label in use led to when labels were last published. A file that is damaged tells nothing."""
    try:
        found = json.loads(_memory(repository).read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and all(map(is_id, found.values())) else {}


def remember_use(repository: Path, commits: Mapping[str, str]) -> None:
    """Have `remembered_use` give these."""
    if commits != remembered_use(repository):
        write_atomically(_memory(repository), json.dumps(commits, indent=1, sort_keys=True).encode() + b"\n")


def led_to(
    repository: Repository, name: str, published: Mapping[str, Label], remembered: Mapping[str, str]
) -> list[str]:
    """The commits a label in use leads to, or led to when that was last known; mostly one, the likeliest first."""
    said = [published[name].commit] if name in published else []
    said += [remembered[name]] if name in remembered else []
    if len(name) == ABBREVIATED_DIGITS and is_id(name.ljust(64, "0")):
        said = [commit for commit in said if commit.startswith(name)]
        if not said:
            with suppress(ImageError):
                said = [repository.resolve(name).id]
    return list(dict.fromkeys(said))


def _memory(repository: Path) -> Path:
    return repository / "boot" / "in-use.json"
