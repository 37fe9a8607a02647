"""Runs a command in a commit's tree as in a container, and throws away whatever it changed.

The same namespaces and mounts as an edit has, over the same root image, with an upper layer that is removed afterwards.
Services do not start; /proc, /dev, the network and name servers work.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from koguma.images.aid import prepare_aid
from koguma.images.checkout import apply_attributes
from koguma.images.commits import Commit
from koguma.images.edit import run_in
from koguma.images.errors import EditError
from koguma.images.files import remove_tree
from koguma.images.repository import Repository
from koguma.images.views import source


def run_in_image(repository: Repository, commit: Commit, command: Sequence[str]) -> int:
    """Run a command in the commit's tree; returns its exit status. Nothing of what it changes is kept."""
    if os.geteuid() != 0:
        raise EditError(f"a run in an image needs root for its mounts, got user id {os.geteuid()}")
    folder = Path(tempfile.mkdtemp(prefix="trial-", dir=repository.path / "tmp"))
    try:
        for name in ("upper", "work", "mnt"):
            (folder / name).mkdir()
        root = repository.root(commit)
        apply_attributes(os.fsencode(folder / "upper"), root)
        prepare_aid(repository.objects.read, root, folder)
        return run_in(folder, partial(source, repository, commit.tree), None, command)
    finally:
        remove_tree(folder)
