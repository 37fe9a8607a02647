from __future__ import annotations

from pathlib import Path

import pytest

from koguma.images.errors import RefError, RefMovedError
from koguma.images.refs import NO_COMMIT, RefKind, Refs, check_ref_name

A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def refs(tmp_path: Path) -> Refs:
    (tmp_path / "locks").mkdir()
    refs = Refs(tmp_path, now=lambda: 1000.0)
    refs.create_directories()
    return refs


def _set(refs: Refs, name: str, new: str, old: str | None = None, kind: RefKind = RefKind.BRANCH) -> None:
    refs.update(kind, name, new, old=old, author="me", reason="because")


def test_a_ref_changes_only_from_the_value_it_was_expected_to_have(refs: Refs) -> None:
    _set(refs, "compute", A)

    with pytest.raises(RefMovedError, match=r"must be at bbbbbbbbbbbb .* it is at aaaaaaaaaaaa now"):
        _set(refs, "compute", C, old=B)
    with pytest.raises(RefMovedError, match="exists already"):
        _set(refs, "compute", C)
    assert refs.get(RefKind.BRANCH, "compute") == A
    _set(refs, "compute", B, old=A)
    assert refs.get(RefKind.BRANCH, "compute") == B


def test_a_tag_may_not_have_the_name_of_a_branch_because_labels_are_by_name(refs: Refs) -> None:
    _set(refs, "compute", A)

    with pytest.raises(RefError, match="may not have the name of a branch"):
        _set(refs, "compute", A, kind=RefKind.TAG)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-x",
        ".x",
        "a..b",
        "a//b",
        "a/",
        "a/.b",
        "a b",
        "x" * 101,
        "HEAD",
        "deadbeef",
        "a~1",
        "a^",
        "a@{1}",
        "x.lock",
        "é",
    ],
)
def test_names_that_could_not_be_a_label_are_refused(name: str) -> None:
    with pytest.raises(RefError):
        check_ref_name(name)


@pytest.mark.parametrize("name", ["compute", "v1", "feature/x", "compute-next", "2026.11", "beef", "a_b+c"])
def test_usual_names_are_accepted_and_listed(refs: Refs, name: str) -> None:
    _set(refs, name, A)

    assert [(ref.name, ref.commit) for ref in refs.all()] == [(name, A)]


def test_the_log_of_a_branch_tells_where_it_was_newest_first(refs: Refs) -> None:
    _set(refs, "compute", A)
    _set(refs, "compute", B, old=A)

    assert [(item.old, item.new) for item in refs.log(RefKind.BRANCH, "compute")] == [(A, B), (NO_COMMIT, A)]


def test_a_log_line_whose_change_did_not_happen_is_forgotten(refs: Refs, tmp_path: Path) -> None:
    _set(refs, "compute", A)
    log = tmp_path / "logs" / "heads" / "compute"
    log.write_bytes(log.read_bytes() + f"{A} {C} 1000\tme\tinterrupted\n{A} {B} 10".encode())

    assert [item.new for item in refs.log(RefKind.BRANCH, "compute")] == [A]
    _set(refs, "compute", B, old=A)
    assert [item.new for item in refs.log(RefKind.BRANCH, "compute")] == [B, A]


def test_a_log_is_lines_without_control_characters_whoever_pushes(refs: Refs) -> None:
    refs.update(RefKind.BRANCH, "main", A, old=None, author="me\x1b[2J\ud800\n", reason="a\tb\rc\x85")

    assert [(change.author, change.reason) for change in refs.log(RefKind.BRANCH, "main")] == [("me [2J  ", "a b c ")]


def test_a_removed_branch_can_be_made_again(refs: Refs) -> None:
    _set(refs, "compute", A)
    with pytest.raises(RefMovedError):
        refs.delete(RefKind.BRANCH, "compute", old=B)
    refs.delete(RefKind.BRANCH, "compute", old=A)

    assert refs.find("compute") is None
    _set(refs, "compute", B)
    assert [item.new for item in refs.log(RefKind.BRANCH, "compute")] == [B]


def test_a_damaged_ref_is_reported_and_not_taken_for_absent(refs: Refs, tmp_path: Path) -> None:
    (tmp_path / "refs" / "heads" / "compute").write_text("nonsense")

    with pytest.raises(RefError, match="must hold a commit id"):
        refs.get(RefKind.BRANCH, "compute")
