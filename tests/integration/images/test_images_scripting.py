"""The interface that others script against, to the letter: words, last lines, exit status, one line when it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="owners and edits need root")]
Image = Callable[..., "subprocess.CompletedProcess[str]"]
ID = re.compile(r"[0-9a-f]{64}")


@pytest.fixture
def image(tmp_path: Path) -> Image:
    def run(*arguments: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "koguma", "image", "--repo", tmp_path / "repository", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == status, done.stderr
        return done

    return run


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    last = done.stdout.splitlines()[-1]
    assert ID.fullmatch(last)
    return last


@pytest.fixture
def tree(small_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_root, tmp_path / "tree", symlinks=True))


def test_every_command_of_the_interface(image: Image, tree: Path, tmp_path: Path) -> None:
    image("init")
    first = _last_line(image("commit", "-b", "compute", "-m", "first", tree))
    (tree / "etc/motd").write_text("second\n")
    second = _last_line(image("commit", "-b", "compute", "-m", "second", tree))

    assert "M /etc/motd (content)" in image("diff", first, second).stdout
    document = json.loads(image("diff", first[:12], "compute", "--json").stdout)
    assert [(item["path"], item["change"]) for item in document["files"]] == [("/etc/motd", "changed")]
    assert "0 problems" in image("fsck").stdout
    image("checkout", first, tmp_path / "out")
    assert (tmp_path / "out/etc/motd").read_text() == "hello\n"
    for form in ("squashfs", "erofs"):
        image("export", "compute", "--format", form, "-o", tmp_path / form)
        assert _mounted(tmp_path / form, form, tmp_path / "mnt") == "second\n"
    image("branch", "next", "compute~1")
    image("branch", "also")
    log = json.loads(image("log", "compute", "--json").stdout)
    assert [item["commit"] for item in log] == [second, first]
    assert [item["commit"] for item in json.loads(image("log", "next", "--json").stdout)] == [first]
    assert [item["commit"] for item in json.loads(image("log", "also", "--json").stdout)] == [second, first]
    assert image("edit", "next", "--", "sh", "-c", "echo edited >/etc/motd; exit 7", status=7).stdout == ""
    third = _last_line(image("commit", "-b", "next", "-m", "the pending edit"))
    assert image("show", f"{third}:/etc/motd").stdout == "edited\n"


def _mounted(file: Path, form: str, place: Path) -> str:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", form, "-o", "loop,ro", file, place], check=True)
    try:
        return (place / "etc/motd").read_text()
    finally:
        subprocess.run(["umount", place], check=True)


def test_an_unchanged_tree_prints_the_commit_that_is_there(image: Image, tree: Path) -> None:
    image("init")
    first = _last_line(image("commit", "-b", "main", "-m", "first", tree))

    again = image("commit", "-b", "main", "-m", "again", tree)

    assert again.stdout.split() == [first]
    assert "nothing changed" in again.stderr


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("log", "nope"), 1, "there is no branch, tag or commit 'nope'; koguma image branch lists"),
        (("diff", "main", "main~5"), 1, "goes past the first one"),
        (("diff",), 1, "koguma image diff A B"),
        (("checkout", "main"), 1, "koguma image switch main"),
        (("checkout", "main", "/proc"), 1, "a checkout needs a new or empty directory, got '/proc'"),
        (("export", "main", "-o", "/nowhere/x"), 1, "/nowhere/"),
        (("export", "main", "--format", "ext4", "-o", "/nowhere/x"), 1, "'ext4'"),
        (("branch", "a..b"), 1, "'a..b'"),
        (("branch", "main"), 1, "exists already; to have another: koguma image branch -f main HEAD"),
        (("commit", "-b", "main", "-m", "m", "/nowhere"), 1, "/nowhere"),
        (("commit", "-b", "main", "-m", "m"), 1, "koguma image edit main"),
        (("edit", "nope", "--", "true"), 1, "there is none named 'nope'; koguma image branch lists"),
        (("show", "main@{9}"), 1, "koguma image reflog main"),
        (("show", "main:/etc/nope"), 1, "/etc/nope"),
        (("merge", "--abort"), 1, "koguma image status"),
        (("comit",), 2, "did you mean 'commit'?"),
        (("reset", "--hard"), 2, "koguma image branch -f BRANCH REV"),
        (("log", "--grahp"), 2, "--grahp"),
    ],
)
def test_what_fails_is_one_line_with_the_rule_the_value_and_what_to_do(
    image: Image, tree: Path, words: tuple[str, ...], status: int, says: str
) -> None:
    image("init")
    image("commit", "-b", "main", "-m", "first", tree)

    failed = image(*words, status=status)

    assert failed.stdout == ""
    assert failed.stderr.startswith("koguma: ")
    assert failed.stderr.count("\n") == 1, failed.stderr
    assert says in failed.stderr


def test_who_knows_git_finds_what_they_expect(image: Image, tree: Path) -> None:
    image("init")
    ids = []
    for number in range(3):
        (tree / "etc/motd").write_text(f"{number}\n")
        ids.append(_last_line(image("commit", "-m", f"number {number}", tree)))

    assert image("log", "-2", "--oneline").stdout.splitlines() == [
        f"{ids[2][:12]} (HEAD -> main) number 2",
        f"{ids[1][:12]} number 1",
    ]
    for text, number in (("HEAD~2", 0), ("main@{1}", 1), ("HEAD^", 1), (ids[1][:7], 1), ("@", 2)):
        assert image("log", "-1", text, "--json").stdout.count(ids[number]) == 1, text
    assert [item["commit"] for item in json.loads(image("log", "HEAD~2..HEAD", "--json").stdout)] == ids[:0:-1]
    image("tag", "v1", "HEAD~1")
    image("tag", "-d", "v1")
    image("branch", "next")
    gone = image("branch", "-D", "next")
    assert gone.stderr == f"bring it back with: koguma image branch next {ids[2][:12]}\n"
    assert image("-h").stdout == image("help").stdout == image("--help").stdout
    assert "Start a repository:" in image("help").stdout
    assert "koguma image commit [OPTIONS] [tree]" in image("help", "commit").stdout
