"""blame, grep and the files of commits."""

from __future__ import annotations

from pathlib import Path

import pytest

from koguma.images.blame import blame_entries, blame_lines
from koguma.images.errors import RevisionError
from koguma.images.grep import Searcher, compile_pattern
from koguma.images.lookup import find_path
from koguma.images.pathspec import PathSpec
from koguma.images.repository import Repository
from tests.unit.images.making import commit_graph, make_tree
from tests.unit.images.withgit import Git

PARENTS = {"a": "", "b": "a", "c": "a", "d": "bc", "e": "d"}
TEXTS = {
    "a": {"f": "1\n2\n3\n4\n5\n"},
    "b": {"f": "1\nB\n3\n4\n5\n"},
    "c": {"f": "1\n2\n3\n4\nC\nnew\n"},
    "d": {"f": "1\nB\n3\n4\nC\nnew\n"},
    "e": {"f": "top\n1\nB\n4\nC\nnew", "other": "x"},
}


def blamed(repository: Repository, start: str, path: bytes) -> list[tuple[str, int, bytes]]:
    lines = blame_lines(repository.commit, repository.objects.read, repository.root, start, path)
    assert lines is not None
    return [(line.commit.subject, line.original, line.content) for line in lines]


def test_each_line_is_blamed_on_the_commit_git_blames(repository: Repository, tmp_path: Path) -> None:
    ids = commit_graph(repository, PARENTS, TEXTS)
    git = Git(tmp_path / "git", PARENTS, TEXTS)
    names = {git("rev-parse", f"at-{name}")[0]: name for name in PARENTS}

    for name in PARENTS:
        words = [line.split() for line in git("blame", "--porcelain", f"at-{name}", "--", "f") if line[:40] in names]
        expected = [(names[word[0]], int(word[1])) for word in words]
        assert [(subject, number) for subject, number, _ in blamed(repository, ids[name], b"f")] == expected
    assert b"".join(content for _, _, content in blamed(repository, ids["e"], b"f")) == TEXTS["e"]["f"].encode()


def test_an_entry_of_a_directory_is_blamed_on_its_last_change(repository: Repository) -> None:
    parents = {"a": "", "b": "a", "c": "a", "d": "bc"}
    files = {
        "a": {"etc/x": "1", "etc/y": "1", "etc/s/z": "1"},
        "b": {"etc/x": "2", "etc/y": "1", "etc/s/z": "1"},
        "c": {"etc/x": "1", "etc/y": "1", "etc/s/z": "2"},
        "d": {"etc/x": "2", "etc/y": "1", "etc/s/z": "2"},
    }
    ids = commit_graph(repository, parents, files)

    found = blame_entries(repository.commit, repository.objects.read, repository.root, ids["d"], b"etc")

    assert [(item.path, item.commit.subject) for item in found] == [
        (b"etc/s", "c"),
        (b"etc/x", "b"),
        (b"etc/y", "a"),
    ]


def test_a_binary_file_is_blamed_as_a_whole(repository: Repository) -> None:
    ids = commit_graph(repository, {"a": "", "b": "a"}, {"a": {"f": "\0a"}, "b": {"f": "\0b"}})
    arguments = (repository.commit, repository.objects.read, repository.root, ids["b"], b"f")

    assert blame_lines(*arguments) is None
    assert [(item.path, item.commit.subject) for item in blame_entries(*arguments)] == [(b"f", "b")]


def test_a_path_that_is_not_there_cannot_be_blamed(repository: Repository) -> None:
    ids = commit_graph(repository, {"a": ""})

    with pytest.raises(RevisionError, match=r"there is no /nowhere in .*koguma image log -- PATH"):
        blame_lines(repository.commit, repository.objects.read, repository.root, ids["a"], b"nowhere")


@pytest.fixture
def searched(repository: Repository, tmp_path: Path) -> Repository:
    files: dict[str, str | bytes] = {
        "etc/ssh/sshd_config": "Port 22\nPermitRootLogin no\n#Port 23",
        "etc/copy": "Port 22\nPermitRootLogin no\n#Port 23",
        "etc/latin": "Stra\xdfe port\n".encode("latin-1"),
        "bin/tool": b"\0\x7fPort 22\n",
        "usr/empty": "",
        "usr/other": "important\n\n\nreport\n",
    }
    repository.commit_tree(make_tree(tmp_path / "tree", files), "main", "m")
    return repository


def found(repository: Repository, pattern: str, paths: list[str] | None = None, **options: bool) -> dict[str, object]:
    how = {key: options.pop(key) for key in ("text", "first") if key in options}
    searcher = Searcher(repository.objects, compile_pattern(pattern, **options), **how)
    hits = searcher.search(repository.root(repository.resolve("HEAD")), PathSpec(paths or []))
    return {hit.path.decode(): "binary" if hit.binary else hit.lines for hit in hits}


PORTS = ((1, b"Port 22"), (3, b"#Port 23"))


def test_lines_of_files_are_found_without_a_checkout(searched: Repository) -> None:
    assert found(searched, "Port") == {"bin/tool": "binary", "etc/copy": PORTS, "etc/ssh/sshd_config": PORTS}
    assert found(searched, "^Port", ["etc/ssh"]) == {"etc/ssh/sshd_config": ((1, b"Port 22"),)}
    assert found(searched, "port$", ignore_case=True) == {
        "etc/latin": ((1, b"Stra\xdfe port"),),
        "usr/other": ((4, b"report"),),
    }
    assert found(searched, "port", words=True) == {"etc/latin": ((1, b"Stra\xdfe port"),)}
    assert found(searched, "port.", fixed=True) == {}
    assert found(searched, "Port", ["bin"], text=True) == {"bin/tool": ((1, b"\0\x7fPort 22"),)}
    assert found(searched, "Port", ["etc/copy"], first=True) == {"etc/copy": PORTS[:1]}


def test_a_pattern_matches_within_a_line_only(searched: Repository) -> None:
    assert found(searched, r"important\s+report") == {}
    assert found(searched, r"^\s*$", ["usr/other"]) == {"usr/other": ((2, b""), (3, b""))}


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(RevisionError, match="a pattern must be a regular expression"):
        compile_pattern("(")


def test_a_file_of_a_commit_is_found_through_links(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"usr/bin/dash": "shell", "etc/motd": "x"})
    (tree / "bin").symlink_to("usr/bin")
    (tree / "usr" / "bin" / "sh").symlink_to("dash")
    (tree / "lost").symlink_to("/nowhere")
    repository.commit_tree(tree, "main", "m")
    commit = repository.resolve("main")

    assert find_path(repository, commit, "/bin/sh")[0] == b"usr/bin/dash"
    assert find_path(repository, commit, "")[1].digest == repository.root(commit).digest
    for path, message in (
        ("lost", "link to '/nowhere'"),
        ("etc/mott", "did you mean etc/motd"),
        ("a/b", "there is no /a/b"),
    ):
        with pytest.raises(RevisionError, match=message):
            find_path(repository, commit, path)
