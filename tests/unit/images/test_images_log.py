"""Histories as git tells and draws them: git itself is the judge."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from koguma.images.commits import Commit
from koguma.images.graph import Graph
from koguma.images.history import in_order
from koguma.images.pathspec import PathSpec
from koguma.images.repository import Repository
from tests.unit.images.making import commit_graph
from tests.unit.images.withgit import Git


def drawn(parents: dict[str, str]) -> list[str]:
    """The graph of all commits, with their names."""
    commits = {
        name: Commit(name, tuple(line), "me", at, name, id=name) for at, (name, line) in enumerate(parents.items())
    }
    heads = [name for name in parents if not any(name in line for line in parents.values())]
    graph, rows = Graph(), []
    for commit in in_order(commits.__getitem__, heads, by_line=True):
        now = graph.draw(commit.id, commit.parents)
        rows += [(now.first + commit.id).rstrip(), *now.below]
    return rows


@pytest.mark.parametrize(
    "parents",
    [
        {"a": "", "b": "a", "c": "b"},
        {"a": "", "b": "a", "c": "a"},
        {"a": "", "b": "a", "c": "a", "d": "bc"},
        {"a": "", "b": "a", "c": "a", "d": "bc", "e": "d", "f": "d", "g": "ef", "h": "g"},
        {"a": "", "b": "a", "c": "a", "d": "c", "e": "bd", "f": "b", "g": "e"},
        {"a": "", "b": "a", "c": "a", "d": "a", "e": "d", "f": "c"},
        {"a": "", "b": "a", "c": "ab", "d": "a"},
        {"a": "", "b": ""},
    ],
)
def test_the_graph_is_drawn_as_git_draws_it(tmp_path: Path, parents: dict[str, str]) -> None:
    assert drawn(parents) == Git(tmp_path / "git", parents)("log", "--graph", "--all", "--format=%s")


def test_an_octopus_merge_leads_to_all_its_parents() -> None:
    assert drawn({"a": "", "b": "a", "c": "a", "d": "a", "e": "bcd"}) == [
        "*     e",
        "|\\",
        "| |\\",
        "| | * d",
        "| * | c",
        "| |/",
        "* | b",
        "|/",
        "* a",
    ]


def random_history(seed: int) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Some commits with merges, each changing some of three files or none."""
    source = random.Random(seed)
    parents: dict[str, str] = {}
    files: dict[str, dict[str, str]] = {}
    for number in range(14):
        known = list(parents)[-4:]
        line = source.sample(known, min(len(known), source.choice([1, 1, 2])))
        name = chr(97 + number)
        inherited = dict(files[source.choice(line)]) if line else {}
        for path in ("etc/x", "etc/y", "usr/z"):
            if source.random() < 0.3:
                inherited[path] = source.choice("12")
        parents[name], files[name] = "".join(line), inherited or {"only": name}
    return parents, files


@pytest.mark.parametrize("seed", range(6))
def test_the_history_of_paths_is_the_one_git_tells(repository: Repository, tmp_path: Path, seed: int) -> None:
    parents, files = random_history(seed)
    ids = commit_graph(repository, parents, files)
    git = Git(tmp_path / "git", parents, files)
    last = list(parents)[-1]

    for paths in (["etc/x"], ["etc"], ["usr/z", "etc/y"], ["*/x"]):
        told = [item.subject for item in repository.log(ids[last], PathSpec(paths))]
        assert told == git("log", "--format=%s", "--date-order", f"at-{last}", "--", *paths), paths
        limited = [item.subject for item in repository.log([ids[last], "^" + ids["c"]], PathSpec(paths))]
        assert limited == git("log", "--format=%s", "--date-order", f"at-{last}", "^at-c", "--", *paths), paths


def test_commits_that_changed_a_path_have_each_other_as_parents(repository: Repository) -> None:
    files = {"a": {"x": "1"}, "b": {"x": "1", "y": "1"}, "c": {"x": "2", "y": "1"}}
    ids = commit_graph(repository, {"a": "", "b": "a", "c": "b"}, files)

    last, first = repository.log(ids["c"], PathSpec(["x"]))

    assert (last.subject, first.subject, last.parents, first.parents) == ("c", "a", (first.id,), ())


def test_the_whole_history_comes_in_the_order_git_has_by_date(repository: Repository, tmp_path: Path) -> None:
    parents, files = random_history(99)
    ids = commit_graph(repository, parents, files)
    last = list(parents)[-1]

    told = [item.subject for item in repository.log(ids[last])]

    assert told == Git(tmp_path / "git", parents, files)("log", "--format=%s", "--date-order", f"at-{last}")
