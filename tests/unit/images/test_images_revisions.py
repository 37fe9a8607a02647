from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from koguma.images import revisions
from koguma.images.dates import parse_time
from koguma.images.errors import RevisionError
from koguma.images.refs import RefKind
from koguma.images.repository import Repository
from tests.unit.images.making import commit_graph, make_tree

NOW = datetime(2026, 11, 20, 12, 30).astimezone().timestamp()
DAY = 86_400


@pytest.fixture
def forked(repository: Repository) -> Repository:
    """a - b - c on `main`, b - d on `side`, and `main` merged both: m."""
    commit_graph(repository, {"a": "", "b": "a", "c": "b", "d": "b", "m": "cd"})
    ids = {commit.subject: commit.id for commit in repository.log(":/m")}
    repository.create_branch("main", ids["m"])
    repository.create_branch("side", ids["d"])
    return repository


def test_a_revision_of_when_a_branch_was_lost_leads_to_no_commit(forked: Repository) -> None:
    moved = forked.move_branch("side", "main").commit
    (forked.path / "refs/heads/side").unlink()
    forked.create_branch("side", moved)

    assert [forked.resolve(f"side@{{{number}}}").subject for number in (0, 2, 3)] == ["m", "m", "d"]
    with pytest.raises(RevisionError, match=r"at 'side@\{1\}' there was none: the ref was lost"):
        forked.resolve("side@{1}")


@pytest.mark.parametrize(
    ("expression", "subject"),
    [
        ("main", "m"), ("HEAD", "m"), ("@", "m"), ("main^", "c"), ("main^2", "d"), ("HEAD^2~1", "b"), ("@~2", "b"),
        ("main^0", "m"), ("main~0", "m"), ("main^2^", "b"), ("heads/side", "d"), ("refs/heads/side", "d"),
        ("main@{0}", "m"), ("@{0}~1", "c"), (":/c", "c"), ("main@{now}", "m"),
    ],
)  # fmt: skip
def test_expressions_lead_where_gits_do(forked: Repository, expression: str, subject: str) -> None:
    assert forked.resolve(expression).subject == subject


@pytest.mark.parametrize(
    ("expressions", "subjects"),
    [
        (["main"], "mcdba"), (["side..main"], "mc"), (["main..side"], ""), (["side...main^"], "cd"), (["..side"], ""),
        (["main", "^side"], "mc"), (["side", "main^"], "cdba"), (["main~1...side"], "cd"),
    ],
)  # fmt: skip
def test_ranges_select_what_gits_do(forked: Repository, expressions: list[str], subjects: str) -> None:
    assert sorted(item.subject for item in forked.log(expressions)) == sorted(subjects)


def test_a_branch_has_a_past(repository: Repository, tmp_path: Path) -> None:
    clock = [1_790_000_000.0]
    repository.refs._now = lambda: clock[0]
    for number in range(3):
        repository.commit_tree(make_tree(tmp_path / str(number), {"x": str(number)}), "main", f"c{number}")
        clock[0] += DAY
    moment = datetime.fromtimestamp(1_790_000_000 + DAY + 60).astimezone().isoformat()

    assert repository.resolve(f"main@{{{moment}}}").subject == "c1"
    assert repository.resolve("@{2}").subject == "c0"
    with pytest.raises(RevisionError, match=r"goes back to .* is before that; see: koguma image reflog main"):
        repository.resolve("main@{2020-01-01}")
    with pytest.raises(RevisionError, match=r"has 3 entries, got @\{3\}; see: koguma image reflog main"):
        repository.resolve("main@{3}")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("mian", "did you mean 'main'"),
        ("main~9", "goes past the first one"),
        ("main^3", "asks for parent 3 of [0-9a-f]{12}, which has 2"),
        ("main@{", "a revision is NAME"),
        ("main~1@{1}", "must follow the name directly"),
        ("main@{soon}", "a time is a date such as"),
        (":/nowhere", "koguma image log --grep"),
        ("ab", "at least 4 digits"),
        ("0123456789", "koguma image log lists commits"),
    ],
)
def test_an_expression_that_leads_nowhere_says_what_would(forked: Repository, expression: str, message: str) -> None:
    with pytest.raises(RevisionError, match=message):
        forked.resolve(expression)


def test_an_abbreviation_of_several_commits_lists_them(repository: Repository) -> None:
    class Store:
        """Two commits whose ids begin alike; real ones would take minutes to find."""

        ids = (bytes.fromhex("abcd" + "1" * 60), bytes.fromhex("abcd" + "2" * 60))

        def ids_with_prefix(self, text: str) -> set[bytes]:
            return {item for item in self.ids if item.hex().startswith(text)}

        def describe(self, object_id: bytes) -> object:
            return type("Stored", (), {"kind": ord("c")})

        def contains(self, object_id: bytes) -> bool:
            return False

    with pytest.raises(RevisionError, match=r"'abcd' fits 2: abcd1{8}, abcd2{8}"):
        revisions.resolve("abcd", repository.refs, Store(), repository.commit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HEAD:etc/motd", ("HEAD", "etc/motd")), (":etc", ("HEAD", "etc")), ("a:", ("a", "")), ("a", None),
        ("main@{12:30}:x", ("main@{12:30}", "x")), (":/text", None), ("a:b:c", ("a", "b:c")),
    ],
)  # fmt: skip
def test_a_path_stands_after_the_colon(text: str, expected: tuple[str, str] | None) -> None:
    assert revisions.split_path(text) == expected


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone().timestamp())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", int(NOW)), ("today", at("2026-11-20")), ("yesterday", at("2026-11-19")),
        ("3 days ago", int(NOW) - 3 * DAY),
        ("2.weeks.ago", int(NOW) - 14 * DAY), ("an hour ago", int(NOW) - 3600), ("last week", int(NOW) - 7 * DAY),
        ("2026-11-01", at("2026-11-01")), ("2026-11-01 14:30", at("2026-11-01 14:30")), ("@1790000000", 1_790_000_000),
        ("2026-11-01T00:00:00+00:00", 1_793_491_200),
    ],
)  # fmt: skip
def test_times_are_read_as_people_say_them(text: str, expected: int) -> None:
    assert parse_time(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "9999999999999 days", "tomorrow's"])
def test_what_is_no_time_is_refused(text: str) -> None:
    if text == "9999999999999 days":
        assert parse_time(text, NOW) == 0
        return
    with pytest.raises(RevisionError, match="a time is a date such as"):
        parse_time(text, NOW)


def test_a_remote_tracking_ref_is_named_with_its_remote(forked: Repository) -> None:
    if not any(kind.value == "remotes" for kind in RefKind):
        pytest.skip("this repository has no remote-tracking refs")
    kind = RefKind("remotes")
    target = forked.resolve("side").id
    folder = forked.path / "refs" / "remotes"
    folder.mkdir(parents=True, exist_ok=True)
    path = forked.refs._path(kind, "site/main")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(target + "\n")

    assert forked.resolve("site/main").id == target
    assert forked.resolve("remotes/site/main").id == target
