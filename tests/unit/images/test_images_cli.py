"""The command line as a whole process: what it prints where, and its exit status."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from koguma.images.repository import Repository
from tests.unit.images.making import make_bootable_tree, make_tree

Image = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def image(tmp_path: Path) -> Image:
    def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "koguma", "image", "--repo", str(tmp_path / "repository"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == status, done.stderr
        return done

    return run


def test_a_day_with_the_command_line(image: Image, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"etc/motd": "hello"})
    image("init")
    first = image("commit", "-b", "compute", "-m", "first", str(tree)).stdout.split()[-1]
    image("branch", "next", "compute")
    (tree / "etc" / "motd").write_text("changed")
    committed = image("commit", "-b", "next", "-m", "second", str(tree))

    assert len(committed.stdout.split()) == 1
    assert "no label: a bootable tree needs a kernel" in committed.stderr
    log = json.loads(image("log", "next", "--json").stdout)
    assert [(item["message"], item["refs"]) for item in log] == [("second", ["next"]), ("first", ["compute"])]
    assert log[1]["commit"] == first
    diff = json.loads(image("diff", "compute", "next", "--json").stdout)
    assert [(item["path"], item["change"]) for item in diff["files"]] == [("/etc/motd", "changed")]
    image("checkout", "compute", str(tmp_path / "out"))
    assert (tmp_path / "out" / "etc" / "motd").read_text() == "hello"
    assert "0 problems" in image("fsck").stdout
    image("switch", "compute")
    assert image("rm", "next").stdout.startswith("branch next was ")


def test_an_error_is_one_line_that_says_what_to_do_next(image: Image, tmp_path: Path) -> None:
    failed = image("log", status=1)

    assert failed.stdout == ""
    assert failed.stderr.count("\n") == 1
    assert "koguma image --repo" in failed.stderr


def test_commit_without_a_tree_or_an_edit_says_how_to_begin_one(image: Image, tmp_path: Path) -> None:
    image("init")

    assert "koguma image edit compute" in image("commit", "-b", "compute", "-m", "m", status=1).stderr


def test_names_that_are_not_text_are_printed_safely(image: Image, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": ""})
    image("init")
    image("commit", "-b", "main", "-m", "first", str(tree))
    (tree / "\udcff\x1b[31m").write_text("")
    image("commit", "-b", "main", "-m", "second", str(tree))

    assert "A /\\xff\\x1b[31m\n" in image("show").stdout


def test_a_commit_that_changes_nothing_makes_the_label_that_is_missing(image: Image, tmp_path: Path) -> None:
    tree = make_bootable_tree(tmp_path / "tree")
    image("init")
    commit = image("commit", "-b", "main", "-m", "first", str(tree)).stdout.strip()
    boot = tmp_path / "repository" / "boot"
    published = (boot / "labels.json").stat()

    def again() -> None:
        assert image("commit", "-b", "main", "-m", "again", str(tree)).stdout.strip() == commit

    again()
    assert (boot / "labels.json").stat() == published

    shutil.rmtree(boot / "artifacts" / commit)
    again()
    assert (boot / "artifacts" / commit / "root.squashfs").exists()

    (boot / "labels.json").write_text('{"format": "koguma-labels/1", "labels": {}}')
    again()
    assert sorted(json.loads((boot / "labels.json").read_text())["labels"]) == [commit[:12], "main"]


def test_whether_a_label_may_be_there_is_asked_again_under_a_policy(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "repository") as repository:
        commit = repository.commit_tree(make_bootable_tree(tmp_path / "tree"), "main", "m").commit.id
        assert not repository.is_labelled(commit)
        repository.update_labels()
        assert repository.is_labelled(commit)
        repository.create_branch("other")
        assert repository.is_labelled(commit)
        (repository.path / "policy.toml").write_text('[signatures]\nrequire_signed = ["*"]\n')
        assert not repository.is_labelled(commit)


def test_labels_of_a_long_history_are_told_without_a_line_for_each_that_expired(image: Image, tmp_path: Path) -> None:
    with Repository.init(tmp_path / "repository") as repository:
        (repository.path / "policy.toml").write_text("[labels]\nkeep_commits_per_branch = 1\nkeep_days = 0\n")
        for number in range(14):
            tree = make_tree(tmp_path / "tree", {"etc/motd": str(number)})
            repository.commit_tree(tree, "main", f"number {number}", remember=False)

    said = image("labels").stdout.splitlines()

    assert said[-1] == "4 more commits have no label; --json lists them"
    assert sum("has no label" in line for line in said) == 10
    assert len(json.loads(image("labels", "--json").stdout)["unlabelled"]) == 14
