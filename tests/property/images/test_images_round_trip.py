# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH114, PTH123, PTH211 - names are bytes that no Path can hold
"""Random trees with every kind of file go through the repository and come back; rsync, which knows nothing of us,
compares.

The overlay properties change a tree through a real overlayfs and hold the commit of its upper layer against a commit of
the whole merged tree: both must give the same id.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koguma.images.draft import Folder, store_root
from koguma.images.export import export
from koguma.images.hashing import FileHasher
from koguma.images.overlay import apply_upper
from koguma.images.repository import Repository

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and mounts need root"),
    pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed"),
]
seeds = st.integers(0, 2**32)
few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


class Gardener:
    """Grows and changes random trees; the same seed does the same."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def grow(self, folder: bytes, depth: int = 0) -> None:
        for _ in range(self._random.randint(0 if depth else 3, 6)):
            path = folder + b"/" + self._name()
            if os.path.lexists(path):
                continue
            if depth < 3 and self._random.random() < 0.35:
                os.mkdir(path)
                self.grow(path, depth + 1)
            else:
                self._make(path, folder)
            self._decorate(path)

    def change(self, top: bytes) -> None:
        for _ in range(self._random.randint(1, 8)):
            folders, others = self._everything(top)
            action = self._random.choice(["grow", "remove", "prune", "replace", "rename", "decorate", "link", "kind"])
            if action == "grow":
                self.grow(self._random.choice(folders), depth=2)
            elif action == "prune" and len(folders) > 1:
                shutil.rmtree(self._random.choice(folders[1:]))
            elif others:
                self._change_one(action, self._random.choice(others), self._random.choice(folders))

    def _change_one(self, action: str, path: bytes, folder: bytes) -> None:
        regular = stat.S_ISREG(os.lstat(path).st_mode)
        target = folder + b"/" + self._name()
        if action == "remove":
            os.unlink(path)
        elif action == "replace" and regular:
            with open(path, "ab") as file:
                file.write(b"more")
        elif action == "rename" and not os.path.lexists(target):
            os.rename(path, target)
        elif action == "decorate":
            self._decorate(path)
        elif action == "link" and regular and not os.path.lexists(target):
            os.link(path, target)
        elif action == "kind":
            os.unlink(path)
            os.mkdir(path)
            self.grow(path, depth=3)

    def _everything(self, top: bytes) -> tuple[list[bytes], list[bytes]]:
        folders, others = [top], []
        for folder, below, files in os.walk(top):
            for name in sorted(below + files):
                path = folder + b"/" + name
                (folders if stat.S_ISDIR(os.lstat(path).st_mode) else others).append(path)
        return folders, others

    def _name(self) -> bytes:
        odd = self._random.choice([b"", b"\xff\xfe", b" ", b"\n", b"%2F", b"~", b"'\"$"])
        return odd + b"%x" % self._random.randrange(4096) + b"n" * self._random.choice([0, 0, 0, 90, 200])

    def _make(self, path: bytes, folder: bytes) -> None:
        kind = self._random.choice(["file"] * 5 + ["sparse", "symlink", "fifo", "device", "hard"])
        siblings = [item.path for item in os.scandir(folder) if item.is_file(follow_symlinks=False)]
        if kind == "symlink":
            os.symlink(self._random.choice([b"x", b"/etc/passwd", b"../" * 60, b"\xff" * 150]), path)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            os.mknod(
                path,
                self._random.choice([stat.S_IFCHR, stat.S_IFBLK]) | 0o600,
                os.makedev(1, self._random.randrange(1, 300)),
            )
        elif kind == "hard" and siblings:
            os.link(self._random.choice(siblings), path, follow_symlinks=False)
        else:
            self._write(path, sparse=kind == "sparse")

    def _write(self, path: bytes, *, sparse: bool) -> None:
        with open(path, "wb") as file:
            file.write(self._random.randbytes(self._random.choice([0, 1, 63, 64, 5000, 100_000])))
            if sparse:
                file.truncate(self._random.randrange(1 << 20))

    def _decorate(self, path: bytes) -> None:
        link = os.path.islink(path)
        if self._random.random() < 0.5:
            os.chown(
                path, self._random.choice([0, 1000, 3_000_000]), self._random.choice([0, 5]), follow_symlinks=False
            )
        if not link and self._random.random() < 0.5:
            os.chmod(path, self._random.choice([0o4755, 0o2711, 0o1777, 0o000, 0o640]))
        if not link and stat.S_ISREG(os.lstat(path).st_mode) and self._random.random() < 0.3:
            os.setxattr(path, "user.note", self._random.randbytes(20))
            os.setxattr(path, "trusted.note", b"")
        os.utime(path, ns=(0, self._random.randrange(2 * 10**18)), follow_symlinks=False)


def _grow(folder: Path, seed: int) -> Gardener:
    folder.mkdir()
    gardener = Gardener(seed)
    gardener.grow(os.fsencode(folder))
    return gardener


def differences(left: Path, right: Path, *options: str) -> str:
    """What rsync would do to make the right directory like the left one: nothing, when they are equal."""
    command = ["rsync", "-aHAX", "-n", "--delete", "-c", "--itemize-changes", *options, f"{left}/", f"{right}/"]
    return subprocess.run(command, capture_output=True, text=True, check=True, errors="replace").stdout


@contextmanager
def _mounted(*arguments: str) -> Iterator[None]:
    subprocess.run(["mount", *arguments], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", arguments[-1]], check=True)


@few
@given(seeds)
def test_a_commit_checks_out_as_it_was(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    base = tmp_path_factory.mktemp("trip")
    _grow(base / "tree", seed)
    repository = Repository.init(base / "repository")
    repository.commit_tree(base / "tree", "main", "m", keep_times=True)

    repository.checkout("main", base / "out")

    assert differences(base / "tree", base / "out") == ""


@few
@given(seeds)
def test_an_exported_squashfs_holds_the_tree_as_it_was(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    base = tmp_path_factory.mktemp("trip")
    _grow(base / "tree", seed)
    (base / "tree").chmod(0o751)
    repository = Repository.init(base / "repository")
    commit = repository.commit_tree(base / "tree", "main", "m").commit
    for name in ("one", "two"):
        export(
            repository.objects,
            commit.tree,
            repository.root(commit),
            "squashfs",
            base / name,
            base / "repository" / "tmp",
        )
    (base / "mnt").mkdir()

    with _mounted("-t", "squashfs", "-o", "loop,ro", str(base / "one"), str(base / "mnt")):
        assert differences(base / "tree", base / "mnt", "--no-times") == ""
    assert (base / "one").read_bytes() == (base / "two").read_bytes()


@few
@given(seeds)
def test_the_stat_cache_changes_nothing_but_the_time_taken(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    base = tmp_path_factory.mktemp("trip")
    gardener = _grow(base / "tree", seed)
    repository = Repository.init(base / "repository")
    for number in range(3):
        cached = repository.commit_tree(base / "tree", "main", "m").commit.tree
        fresh = Repository.init(base / f"fresh{number}").commit_tree(base / "tree", "main", "m").commit.tree
        assert cached == fresh
        gardener.change(os.fsencode(base / "tree"))


@few
@given(seeds)
def test_the_upper_layer_of_an_overlay_says_all_that_changed(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    base = tmp_path_factory.mktemp("trip")
    gardener = _grow(base / "lower", seed)
    for name in ("upper", "work", "merged"):
        (base / name).mkdir()
    shutil.copystat(base / "lower", base / "upper")
    repository = Repository.init(base / "repository")
    lower = repository.commit_tree(base / "lower", "main", "m").commit
    layers = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work,redirect_dir=off,metacopy=off,index=off"

    with _mounted("-t", "overlay", "-o", layers, "overlay", str(base / "merged")):
        gardener.change(os.fsencode(base / "merged"))
    with _mounted("-t", "overlay", "-o", layers, "overlay", str(base / "merged")):
        merged = Repository.init(base / "whole").commit_tree(base / "merged", "main", "m").commit

    draft = Folder(repository.root(lower), repository.objects.read)
    with repository.objects.writing() as writer:
        with FileHasher(writer) as hasher:
            apply_upper(os.fsencode(base / "upper"), draft, hasher)
        assert store_root(draft, writer).hex() == merged.tree
