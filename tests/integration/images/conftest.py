"""A real, if tiny, root for edits: a shell and a few tools of this machine with the libraries they need."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.images.making import make_tree

TOOLS = ("sh", "cat", "ls", "mkdir", "rm", "mv", "ln", "touch", "chmod", "chown", "sleep", "stat", "id")


@pytest.fixture(scope="session")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_tree(
        tmp_path_factory.mktemp("small") / "root",
        {"etc/motd": "hello\n", "etc/old": "x", "opt/d/a": "1", "opt/d/b": "2"},
    )
    for name in ("usr/sbin", "usr/bin", "proc", "sys", "dev", "run", "tmp", "root"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "bin").symlink_to("usr/bin")
    for tool in TOOLS:
        source = shutil.which(tool)
        assert source
        shutil.copy(source, root / "usr/bin" / tool)
        linked = subprocess.run(["ldd", source], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(", linked):
            target = root / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
    return root
