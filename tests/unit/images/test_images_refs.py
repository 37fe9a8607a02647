from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from koguma.images import refs as refs_module
from koguma.images.errors import EditError, RefError, RefMovedError, StorageError
from koguma.images.fsck import fsck
from koguma.images.refs import NO_COMMIT, RefKind, Refs, check_ref_name, head_bytes
from koguma.images.repository import Repository
from koguma.images.sessions import Session, begin
from tests.unit.images.making import make_tree

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


def test_a_damaged_last_line_of_a_log_costs_that_line_alone(refs: Refs, tmp_path: Path) -> None:
    values = [digit * 64 for digit in "abcde"]
    for old, new in zip([None, *values], values, strict=False):
        _set(refs, "compute", new, old=old)
    log = tmp_path / "logs" / "heads" / "compute"
    *lines, last = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines) + last.replace(b"because", b"bec?use"))

    expected = [*reversed(values)]
    assert [item.new for item in refs.log(RefKind.BRANCH, "compute")] == expected
    _set(refs, "compute", A, old=values[-1])
    changes = refs.log(RefKind.BRANCH, "compute")
    assert [item.new for item in changes] == [A, *expected]
    assert [item.old for item in changes] == [*expected, NO_COMMIT]
    assert changes[1].reason == "lines of the log were damaged"


def test_a_branch_that_is_brought_back_goes_on_with_its_log(refs: Refs, tmp_path: Path) -> None:
    _set(refs, "compute", A)
    _set(refs, "compute", B, old=A)
    (tmp_path / "refs" / "heads" / "compute").unlink()
    _set(refs, "compute", B)

    changes = refs.log(RefKind.BRANCH, "compute")
    assert [item.new for item in changes] == [B, NO_COMMIT, B, A]
    assert changes[1].reason == "the ref was lost"


def test_a_creation_that_did_not_happen_is_forgotten(refs: Refs, tmp_path: Path) -> None:
    _set(refs, "compute", A)
    (tmp_path / "refs" / "heads" / "compute").unlink()
    _set(refs, "compute", B)

    assert [item.new for item in refs.log(RefKind.BRANCH, "compute")] == [B]


def test_a_removed_branch_can_be_made_again(refs: Refs) -> None:
    _set(refs, "compute", A)
    with pytest.raises(RefMovedError):
        refs.delete(RefKind.BRANCH, "compute", old=B)
    refs.delete(RefKind.BRANCH, "compute", old=A)

    assert refs.find("compute") is None
    _set(refs, "compute", B)
    assert [item.new for item in refs.log(RefKind.BRANCH, "compute")] == [B]


def test_what_is_no_ref_is_refused_and_not_a_traceback(refs: Refs, tmp_path: Path) -> None:
    (tmp_path / "refs/heads/odd").write_bytes(b"\xe9" * 64 + b"\n")
    (tmp_path / "refs/heads/folder").mkdir()

    with pytest.raises(RefError, match=r"must hold a commit id .* \(branch odd\)"):
        refs.get(RefKind.BRANCH, "odd")
    with pytest.raises(RefError, match=r"must be a file that can be read: Is a directory \(branch folder\)"):
        refs.get(RefKind.BRANCH, "folder")
    with pytest.raises(RefError):
        refs.all()


@pytest.mark.parametrize("damaged", [b"branch ma\xe9n\n00000000\n", b"branch main\n00000000\n"])
def test_a_damaged_head_names_no_branch_and_is_replaced(refs: Refs, tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "HEAD").write_bytes(damaged)

    assert refs.find(refs.head()) is None
    refs.set_head("main")
    assert (tmp_path / "HEAD").read_bytes() == head_bytes("main")


def test_what_cannot_be_locked_is_said_in_a_sentence(refs: Refs, tmp_path: Path) -> None:
    (tmp_path / "locks").rmdir()

    with pytest.raises(StorageError, match=r"locking the refs needs files .*locks/refs"):
        _set(refs, "compute", A)


def test_a_damaged_ref_is_reported_and_not_taken_for_absent(refs: Refs, tmp_path: Path) -> None:
    (tmp_path / "refs" / "heads" / "compute").write_text("nonsense")

    with pytest.raises(RefError, match="must hold a commit id"):
        refs.get(RefKind.BRANCH, "compute")


def test_the_branch_that_head_is_may_not_be_removed(repository: Repository, tmp_path: Path) -> None:
    repository.commit_tree(make_tree(tmp_path / "tree", {"a": "1"}), "main", "first")
    repository.create_branch("other")

    with pytest.raises(
        RefError, match=r"HEAD is branch 'main', which may not be removed; .* koguma image switch BRANCH"
    ):
        repository.remove("main")
    repository.refs.set_head("other")
    repository.remove("main")
    assert [ref.name for ref in repository.refs.all()] == ["other"]


def test_a_renamed_branch_has_its_log_and_is_head_still(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"a": "1"})
    first = repository.commit_tree(tree, "main", "first").commit
    second = repository.commit_tree(make_tree(tree, {"a": "2"}), "main", "second").commit
    repository.create_branch("other")
    repository.create_tag("v1")
    moved: list[None] = []
    repository.refs.changed = lambda: moved.append(None)

    assert repository.rename_branch("main", "feature/x").commit == second.id

    assert repository.refs.head() == "feature/x"
    assert [change.new for change in repository.reflog("feature/x")] == [second.id, second.id, first.id]
    assert repository.reflog("feature/x")[0].reason == "renamed from main"
    assert repository.refs.find("main") is None
    assert not (repository.path / "logs/heads/main").exists()
    assert moved == [None], "labels follow"
    assert fsck(repository).problems == ()
    repository.rename_branch("other", "another")
    assert repository.refs.head() == "feature/x"
    for name in ("another", "v1", "feature/x"):
        with pytest.raises(RefError, match=f"named {name!r} exists already"):
            repository.rename_branch("feature/x", name)
    with pytest.raises(RefError, match="there is no branch named 'main'"):
        repository.rename_branch("main", "new")
    with pytest.raises(RefError, match=r"may not contain '\.\.'"):
        repository.rename_branch("another", "a..b")


@pytest.mark.parametrize("branch", ["main", "new"])
def test_a_branch_with_a_pending_edit_is_not_renamed(repository: Repository, tmp_path: Path, branch: str) -> None:
    commit = repository.commit_tree(make_tree(tmp_path / "tree", {"a": "1"}), "main", "first").commit
    begin(repository, branch, Session(commit.id))

    with pytest.raises(EditError, match=f"{branch!r} has one"):
        repository.rename_branch("main", "new")
    assert repository.resolve("main") == commit


def test_a_renaming_that_is_killed_loses_no_name_of_the_commit(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repository.commit_tree(make_tree(tmp_path / "tree", {"a": "1"}), "main", "first").commit
    done = 0

    def counted(change: Callable[..., object]) -> Callable[..., object]:
        def killed_or_done(*arguments: object, **named: object) -> object:
            nonlocal done
            if done == at:
                raise KeyboardInterrupt
            done += 1
            return change(*arguments, **named)

        return killed_or_done

    for at in range(20):
        shutil.copytree(repository.path, tmp_path / "copy")
        with Repository.open(tmp_path / "copy") as copy, monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            done = 0
            for place, name in ((refs_module, "write_atomically"), (refs_module, "write_all"), (Path, "unlink")):
                patch.setattr(place, name, counted(getattr(place, name)))
            copy.rename_branch("main", "new")
            assert at == 6, "every step was the last one once"
            break
        with Repository.open(tmp_path / "copy") as copy:
            assert {ref.commit for ref in copy.refs.all()} == {commit.id}
            assert copy.resolve("HEAD") == commit
            assert fsck(copy).problems == ()
            if copy.refs.find("new") is None:
                assert copy.rename_branch("main", "new").commit == commit.id
        shutil.rmtree(tmp_path / "copy")
    assert done == 6
