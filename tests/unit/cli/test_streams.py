"""The command line as a process whose streams are closed, full, of another character set, and that is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from koguma.images.objects import COMMIT
from koguma.images.refs import RefKind
from koguma.images.repository import Repository
from tests.unit.images.making import make_tree

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository.init(tmp_path / "repository")
    repository.commit_tree(make_tree(tmp_path / "tree", {"etc/motd": "hello"}), "main", "x → y")
    return repository


@pytest.fixture
def run(repository: Repository) -> Run:
    def run(words: str, redirected: str = "", **environ: str) -> subprocess.CompletedProcess[bytes]:
        """What a shell makes of `koguma image WORDS REDIRECTED`."""
        command = f'exec "$0" -m koguma image --repo "$1" {words} {redirected}'
        return subprocess.run(
            ["bash", "-c", command, sys.executable, repository.path],
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | environ,
            capture_output=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.parametrize("words", ["log", "show", "log --json", "show HEAD:etc/motd", "help"])
def test_a_full_output_is_one_line_and_a_failure(run: Run, words: str) -> None:
    done = run(words, ">/dev/full")

    assert done.returncode == 1
    assert done.stderr == b"koguma: the system refused: No space left on device\n"


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full"])
def test_who_takes_no_words_gets_the_commit_nevertheless(
    run: Run, repository: Repository, tmp_path: Path, redirected: str
) -> None:
    done = run(f"commit -b other -m second {tmp_path / 'tree'}", redirected)

    assert done.returncode == 0
    assert done.stdout.decode().strip() == repository.resolve("other").id


def test_no_file_is_opened_in_the_place_of_a_closed_stream(run: Run, repository: Repository, tmp_path: Path) -> None:
    for text in ("2", "3"):
        (tmp_path / "tree/etc/motd").write_text(text)
        repository.commit_tree(tmp_path / "tree", "main", text)
    run("bisect start HEAD HEAD~2")
    run("bisect run sh -c 'echo POLLUTION; exit 0'", ">&- 2>&-")

    assert not [path for path in repository.path.rglob("*") if path.is_file() and b"POLLUTION" in path.read_bytes()]


@pytest.mark.parametrize("words", ["log", "show HEAD:etc/motd", "grep hello", "diff HEAD HEAD -p"])
def test_a_closed_output_is_no_failure(run: Run, words: str) -> None:
    done = run(words, ">&-")

    assert (done.returncode, done.stderr) == (0, b"")


def test_what_the_locale_cannot_write_is_escaped(run: Run) -> None:
    assert rb"x \u2192 y" in run("log --oneline", PYTHONIOENCODING="iso-8859-1").stdout


@pytest.mark.parametrize("words", ["log $'\\xff'", "commit -m $'caf\\xe9' --author $'x\\xff' -b new .", "rm .."])
def test_a_word_that_is_no_text_is_one_line_and_a_failure(run: Run, words: str) -> None:
    done = run(words)

    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert done.stderr.startswith(b"koguma: ")


def test_an_error_is_one_line_whatever_is_in_the_names(run: Run) -> None:
    done = run("show $'HEAD:etc/\\n\\e[31m'")

    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"\x1b" not in done.stderr


def test_what_strangers_write_into_commits_does_nothing_to_a_terminal(run: Run, repository: Repository) -> None:
    mine = repository.resolve("main")
    theirs = mine._replace(author="a\x9bb", message="msg \x1b]0;pwn\x07 red\n\n\x1b[2Jbody")
    with repository.objects.writing() as writer:
        commit = writer.add(COMMIT, theirs.to_bytes()).hex()
        writer.finish()
        repository.refs.update(RefKind.BRANCH, "evil", commit, old=None, author="me", reason="fetched \x1b[2J")
    repository.refs.set_head("evil")

    for words in ("log", "log --oneline", "log --graph", "show", "branch", "status", "reflog", "blame etc/motd"):
        assert not {0x1B, 0x07, 0x9B} & set(run(words).stdout.decode().encode("utf-32-le")), words
    assert rb"msg \x1b]0;pwn\x07 red" in run("log --oneline").stdout


def test_what_is_not_ours_to_read_is_one_line(repository: Repository) -> None:
    without_rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = [*without_rights, sys.executable, "-m", "koguma", "image", "--repo", str(repository.path), "log"]
    (repository.path / "packs").chmod(0)
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    (repository.path / "packs").chmod(0o700)

    assert b"Permission denied" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_an_interrupted_command_says_nothing(repository: Repository, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slow")
    command = [
        sys.executable,
        "-m",
        "koguma",
        "image",
        "--repo",
        str(repository.path),
        "import",
        str(tmp_path / "slow"),
    ]
    with subprocess.Popen(
        [*command, "-b", "new", "-m", "m"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        descriptor = os.open(tmp_path / "slow", os.O_WRONLY)  # waits until the command reads
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
        os.close(descriptor)

    assert (running.returncode, out, err) == (130, b"", b"")
