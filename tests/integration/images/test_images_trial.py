"""Commands in a commit's tree as in a container, for `bisect run --in-image`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from koguma.images.bisect import Bisection
from koguma.images.repository import Repository
from koguma.images.trial import run_in_image
from tests.unit.images.making import make_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="a trial needs root for its mounts")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A shell of this machine with the libraries it needs."""
    root = make_tree(tmp_path / "root", {"etc/number": "0"})
    for name in ("usr/sbin", "usr/bin", "proc", "sys", "dev", "run", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "bin").symlink_to("usr/bin")
    shell = shutil.which("sh")
    assert shell
    shutil.copy(shell, root / "usr/bin/sh")
    linked = subprocess.run(["ldd", shell], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(/\S+) \(", linked):
        (root / library.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library.lstrip("/"))
    return root


@pytest.fixture
def repository(tmp_path: Path, root: Path) -> Repository:
    repository = Repository.init(tmp_path / "repository")
    for number in range(6):
        (root / "etc" / "number").write_text(str(number))
        repository.commit_tree(root, "main", f"commit {number}")
    return repository


def test_what_a_trial_changes_is_gone_and_its_status_is_told(repository: Repository) -> None:
    commit = repository.resolve("main~2")

    assert run_in_image(repository, commit, ["sh", "-c", "echo 9 > /etc/number; read n < /etc/number; exit $n"]) == 9
    assert run_in_image(repository, commit, ["sh", "-c", "read n < /etc/number; exit $n"]) == 3
    assert list((repository.path / "tmp").iterdir()) == []
    assert str(repository.path) not in Path("/proc/mounts").read_text()


def test_a_command_in_the_image_finds_the_first_bad_commit(repository: Repository) -> None:
    image = [sys.executable, "-m", "koguma", "image", "--repo", str(repository.path), "bisect"]
    subprocess.run([*image, "start", "main", "main~5"], check=True, capture_output=True)

    done = subprocess.run(
        [*image, "run", "--in-image", "sh", "-c", "read n < /etc/number; [ $n -lt 4 ]"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip

    assert done.stdout.endswith("is the first bad commit: commit 4\n")
    assert Bisection(repository).step().trial is None
