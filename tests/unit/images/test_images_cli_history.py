"""The commands that look at history, as a person says them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from koguma.cli.program import app
from koguma.errors import KogumaError
from koguma.images.repository import Repository
from tests.unit.images.making import DPKG_STATUS, commit_graph, make_tree

Say = Callable[..., str]


@pytest.fixture
def say(repository: Repository) -> Say:
    """Runs words of `koguma image`; standard output, or the error that `main` would print."""

    def run(*words: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, ["image", "--repo", str(repository.path), *words])
        if isinstance(result.exception, KogumaError):
            raise result.exception
        assert result.exit_code == status, result.output
        return result.stdout_bytes.decode("utf-8", "surrogateescape")

    return run


@pytest.fixture
def story(repository: Repository, tmp_path: Path) -> Repository:
    """Two commits on main: a changed text, an upgraded package, a service, a binary."""
    status = "var/lib/dpkg/status"
    tree = make_tree(
        tmp_path / "tree", {"etc/motd": "one\ntwo\n", status: DPKG_STATUS.format(name="tree", version="1")}
    )
    repository.commit_tree(tree, "main", "first", author="ann")
    make_tree(tree, {"etc/motd": "one\n2\n", status: DPKG_STATUS.format(name="tree", version="2"), "bin/x": b"\0\xff"})
    make_tree(tree, {"usr/lib/systemd/system/a.service": "[Unit]\n"})
    repository.commit_tree(tree, "main", "second\n\nwith a body", author="ben")
    return repository


def test_a_diff_tells_packages_files_and_what_a_reboot_means(story: Repository, say: Say) -> None:
    text = say("diff", "main~1", "main")

    assert "upgraded   tree:amd64 1 -> 2\n" in text
    assert "A /bin/x\n" in text
    assert "M /etc/motd (content)\n" in text
    assert text.endswith(
        "A reboot means:\n"
        "  service       a.service added\n"
        "  configuration /etc/motd changed\n"
        "  other files   1 added, 1 changed\n"
        "  root          +7 bytes unpacked\n"
    )
    assert say("diff", "main~1..main", "--reboot").startswith("A reboot means:\n  service")
    assert say("diff", "HEAD^").startswith("upgraded   tree")


def test_a_diff_has_the_forms_git_has(story: Repository, say: Say) -> None:
    assert say("diff", "main~1", "main", "--name-only", "--", "etc", "bin") == "/bin\n/bin/x\n/etc/motd\n"
    assert say("diff", "main~1", "main", "-p", "--", "etc") == say("diff", "main~1..main", "--patch", "--", "/etc")
    assert "-two\n+2\n" in say("diff", "main~1", "main", "-p", "--", "etc")
    assert " /etc/motd" in say("diff", "main~1", "main", "--stat")
    assert "|     2 +-\n" in say("diff", "main~1", "main", "--stat", "--", "etc")
    assert "Bin 0 -> 2 bytes" in say("diff", "main~1", "main", "--stat", "--", "bin")
    assert say("diff", "main~1", "main", "--shortstat", "--", "etc") == (
        "0 packages; files: 0 added, 0 removed, 1 changed; -2 bytes\n"
    )


def test_a_diff_for_programs_keeps_its_keys_and_tells_more(story: Repository, say: Say) -> None:
    document = json.loads(say("diff", "main~1", "main", "--json"))

    (package,) = document["packages"]
    assert {"name": "tree", "change": "upgraded", "old_version": "1", "new_version": "2"}.items() <= package.items()
    assert (package["manager"], package["changelog"]) == ("dpkg", [])
    assert {"path": "/etc/motd", "change": "changed", "aspects": ["content"]}.items() <= document["files"][2].items()
    assert document["reboot"]["units"] == [{"unit": "a.service", "change": "added"}]
    assert document["moves"] == []


def test_log_takes_what_gits_takes(story: Repository, say: Say) -> None:
    def subjects(*words: str) -> list[str]:
        return [item["message"].split("\n")[0] for item in json.loads(say("log", "--json", *words))]

    assert subjects() == ["second", "first"]
    assert subjects("--author", "^a") == ["first"]
    assert subjects("--grep", "body$") == ["second"]
    assert subjects("--since", "1 hour ago") == ["second", "first"]
    assert subjects("--until", "yesterday") == []
    assert subjects("main~1..") == ["second"]
    assert subjects("--reverse", "-n1", "--all") == ["second"]
    assert subjects("--", "bin") == ["second"]
    assert subjects("main", "--", "etc/motd") == ["second", "first"]
    assert subjects("main~1", "--", "bin") == []
    assert "+2\n" in say("log", "-p", "--", "etc/motd")
    assert say("log", "--oneline", "--stat", "-n1", "--", "bin").endswith(
        "files: 2 added, 0 removed, 0 changed; +2 bytes\n\n"
    )


def test_log_draws_the_graph(repository: Repository, say: Say) -> None:
    ids = commit_graph(repository, {"a": "", "b": "a", "c": "a", "d": "bc"})

    assert say("log", "--graph", "--oneline", ":/d") == (
        f"*   {ids['d'][:12]} (of-d) d\n|\\\n| * {ids['c'][:12]} c\n* | {ids['b'][:12]} b\n|/\n* {ids['a'][:12]} a\n"
    )
    lines = say("log", "--graph", ids["d"]).splitlines()
    assert lines[:3] == [
        f"*   commit {ids['d']} (of-d)",
        f"|\\  Merge:  {ids['b'][:12]} {ids['c'][:12]}",
        "| | Author: me <me@example.org>",
    ]
    with pytest.raises(KogumaError, match="--graph draws commits alone"):
        say("log", "--graph", "-p", ids["d"])


def test_show_prints_a_file_byte_by_byte_and_lists_a_directory(story: Repository, say: Say) -> None:
    assert say("show", "main:bin/x") == "\0\udcff"
    assert say("show", "main~1:/etc/motd") == "one\ntwo\n"
    listing = say("show", ":")
    assert [line.split()[-1] for line in listing.splitlines()] == ["bin/", "etc/", "usr/", "var/"]
    assert listing.startswith("drwxr-xr-x ")
    document = json.loads(say("show", "main:etc", "--json"))
    assert [(item["path"], item["kind"], item["size_bytes"]) for item in document] == [("/etc/motd", "file", 6)]
    with pytest.raises(KogumaError, match="there is no /etc/x in"):
        say("show", "main:etc/x")


def test_blame_and_grep_answer(story: Repository, say: Say) -> None:
    second, first = story.log("main")

    lines = say("blame", "etc/motd").splitlines()
    assert [(line[:12], line.split(") ")[1]) for line in lines] == [(first.short_id, "one"), (second.short_id, "2")]
    document: dict[str, Any] = json.loads(say("blame", "etc", "--json"))
    assert [(item["path"], item["commit"]) for item in document["entries"]] == [("/etc/motd", second.id)]
    assert say("grep", "-n", "^2", "--", "etc") == "/etc/motd:2:2\n"
    assert say("grep", "two", "main~1", "main") == "main~1:/etc/motd:two\n"
    assert say("grep", "-l", "-F", "Unit]") == "/usr/lib/systemd/system/a.service\n"
    assert say("grep", "nowhere", status=1) == ""


def test_merge_base_and_ranges_with_three_dots(repository: Repository, say: Say) -> None:
    files = {"a": {"f": "1"}, "b": {"f": "1", "g": "1"}, "c": {"f": "2"}}
    ids = commit_graph(repository, {"a": "", "b": "a", "c": "a"}, files)

    assert say("merge-base", ids["b"], ids["c"]) == ids["a"] + "\n"
    assert say("diff", f"{ids['b']}...{ids['c']}", "--name-only") == "/f\n"
    assert say("diff", f"{ids['b']}..{ids['c']}", "--name-only") == "/f\n/g\n"


def test_a_search_by_hand_leads_to_the_first_bad_commit(repository: Repository, say: Say) -> None:
    ids = commit_graph(repository, {"a": "", "b": "a", "c": "b", "d": "c"})

    assert say("bisect", "start", ids["d"], ids["a"]) == f"{ids['c']} c\n"
    assert say("bisect", "good", ids["b"]) == f"{ids['c']} c\n"
    assert say("bisect", "bad") == f"{ids['c']} is the first bad commit: c\n"
    assert [line.split()[0] for line in say("bisect", "log").splitlines()] == ["bad", "good", "good", "bad"]
    assert say("bisect", "reset") == "the search is over\n"
    with pytest.raises(KogumaError, match="no search is under way"):
        say("bisect", "good")


def test_a_path_said_without_dashes_is_told_how_to_say_it(story: Repository, say: Say) -> None:
    with pytest.raises(KogumaError, match="if it is a path, say it after two dashes: -- etc/motd"):
        say("log", "etc/motd")


def test_help_has_every_command_of_history(say: Say) -> None:
    text = say("help")

    for command in ("log", "show", "diff", "blame", "grep", "bisect", "merge-base", "reflog"):
        assert f"\n  {command} " in text
    assert "[-- PATH...]" in say("help", "diff")
