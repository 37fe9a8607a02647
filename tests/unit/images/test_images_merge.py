"""Merges, cherry-picks and reverts of commits that need no edit session: what they make of branches and of history."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from koguma.images.errors import EditError, MergeError
from koguma.images.merge import FastForward, Outcome, Result, combine, merge
from koguma.images.merging.acls import ACCESS_ACL
from koguma.images.refs import RefKind
from koguma.images.replay import cherry_pick, revert
from koguma.images.repository import Repository
from koguma.images.sessions import pending_edits
from koguma.images.signatures import verify_commit
from tests.unit.images.making import listing, make_acl, make_tree, set_acl

LINES = "".join(f"{number}\n" for number in range(10))


class History:
    """A repository whose commits are said as the files they change; None removes one."""

    def __init__(self, repository: Repository, folder: Path) -> None:
        self.repository = repository
        self._folder = folder
        self._count = 0

    def commit(self, branch: str, files: dict[str, str | None], *, start: str | None = None, message: str = "m") -> str:
        if start and self.repository.refs.get(RefKind.BRANCH, branch) is None:
            self.repository.create_branch(branch, start)
        self._count += 1
        tree = self._folder / str(self._count)
        if self.repository.refs.get(RefKind.BRANCH, branch):
            self.repository.checkout(branch, tree)
        for name, content in files.items():
            if content is None:
                (tree / name).unlink()
            else:
                make_tree(tree, {name: content})
        return self.repository.commit_tree(tree, branch, message, author=f"{branch}@test").commit.id

    def checkout(self, revision: str) -> Path:
        self._count += 1
        tree = self._folder / str(self._count)
        self.repository.checkout(revision, tree)
        return tree

    def files(self, revision: str) -> dict[str, str]:
        found = listing(self.checkout(revision))
        return {name: content.decode() for name, (mode, content) in found.items() if not mode & 0o40000}


@pytest.fixture
def history(repository: Repository, tmp_path: Path) -> History:
    history = History(repository, tmp_path)
    history.commit("main", {"a": LINES, "b": "b\n", "c": "c\n"}, message="start")
    return history


def test_changes_of_two_branches_are_in_their_merge_which_has_both_as_parents(history: History) -> None:
    ours = history.commit("main", {"a": LINES.replace("1", "one"), "new": "ours\n"})
    theirs = history.commit("other", {"a": LINES.replace("8", "eight"), "b": None}, start="main~1")

    outcome = merge(history.repository, "other", "main")

    assert outcome.result is Result.COMMITTED
    assert history.repository.resolve("main").parents == (ours, theirs)
    assert history.repository.resolve("main").message == "Merge branch 'other' into main"
    assert history.files("main") == {
        "a": LINES.replace("1", "one").replace("8", "eight"),
        "c": "c\n",
        "new": "ours\n",
    }
    assert merge(history.repository, "other", "main").result is Result.UP_TO_DATE


def test_a_branch_that_is_behind_moves_and_no_commit_is_made(history: History) -> None:
    theirs = history.commit("other", {"new": "x"}, start="main")

    outcome = merge(history.repository, "other", "main")

    assert outcome.result is Result.FAST_FORWARD
    assert history.repository.resolve("main").id == theirs
    assert history.repository.reflog("main")[0].reason == "merge other: fast-forward"


def test_a_commit_is_made_for_a_branch_that_is_behind_when_it_is_asked_for(history: History) -> None:
    ours, theirs = history.repository.resolve("main").id, history.commit("other", {"new": "x"}, start="main")

    outcome = merge(history.repository, "other", "main", fast_forward=FastForward.NEVER, message="joined")

    assert (outcome.commit.parents, outcome.commit.message) == ((ours, theirs), "joined")
    assert outcome.commit.tree == history.repository.resolve("other").tree


def test_branches_that_both_have_commits_are_no_fast_forward(history: History) -> None:
    history.commit("other", {"new": "x"}, start="main")
    ours = history.commit("main", {"new2": "x"})

    with pytest.raises(MergeError, match="fast-forward"):
        merge(history.repository, "other", "main", fast_forward=FastForward.ONLY)
    assert history.repository.resolve("main").id == ours


def test_histories_without_a_common_past_are_merged_only_when_it_is_said(history: History) -> None:
    history.commit("else", {"z": "z"})

    with pytest.raises(MergeError, match="--allow-unrelated"):
        merge(history.repository, "else", "main")
    assert merge(history.repository, "else", "main", unrelated=True).result is Result.COMMITTED
    assert set(history.files("main")) == {"a", "b", "c", "z"}


def test_a_conflict_without_root_changes_nothing_and_says_what_it_needs(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.commit("other", {"b": "theirs\n"}, start="main")
    ours = history.commit("main", {"b": "ours\n"})
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(EditError, match="root"):
        merge(history.repository, "other", "main")

    assert history.repository.resolve("main").id == ours
    assert pending_edits(history.repository) == []


@pytest.mark.parametrize(("ours", "theirs"), [("", "theirs\n"), ("ours\n", "")])
def test_a_file_that_one_side_added_empty_and_the_other_with_lines_is_a_conflict(
    history: History, monkeypatch: pytest.MonkeyPatch, ours: str, theirs: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    history.commit("other", {"new": theirs}, start="main")
    history.commit("main", {"new": ours})

    with pytest.raises(EditError, match=r"1 conflicts.*/new"):
        merge(history.repository, "other", "main")


def test_after_a_criss_cross_what_both_sides_resolved_alike_is_no_conflict(history: History) -> None:
    _criss_cross(history, "main", "other", {"b": "agreed\n"}, {"b": "agreed\n"})
    history.commit("main", {"new-main": ""})
    history.commit("other", {"new-other": ""})

    outcome = merge(history.repository, "other", "main")

    assert outcome.result is Result.COMMITTED
    assert history.files("main")["b"] == "agreed\n"
    assert {"new-main", "new-other", "x", "y"} <= set(history.files("main"))


def test_after_a_criss_cross_what_the_sides_resolved_differently_is_asked_for_again(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking one of the two bases for the common past would take one side's resolution for no change at all."""
    _criss_cross(history, "main", "other", {"b": "from main\n"}, {"b": "from other\n"})
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(EditError, match=r"1 conflicts.*/b"):
        merge(history.repository, "other", "main")


def _criss_cross(
    history: History, left: str, right: str, resolved_left: dict[str, str | None], resolved_right: dict[str, str | None]
) -> None:
    """Both branches change b, then each merges the other's commit and resolves b in its way."""
    repository = history.repository
    history.commit(right, {"b": "from other\n", "y": "y"}, start=left)
    history.commit(left, {"b": "from main\n", "x": "x"})
    tips = repository.resolve(left), repository.resolve(right)
    for branch, resolved in ((left, resolved_left), (right, resolved_right)):
        history.commit(branch, {**resolved, "x": "x", "y": "y"})
        mine = tips[0] if branch == left else tips[1]
        other = tips[1] if branch == left else tips[0]
        with repository.objects.writing() as writer:
            tree = bytes.fromhex(repository.resolve(branch).tree)
            joined = repository.add_commit(writer, tree, [mine.id, other.id], f"merge into {branch}")
        repository.refs.update(
            RefKind.BRANCH, branch, joined.id, old=repository.resolve(branch).id, author="test", reason="merged"
        )


def test_a_picked_commit_brings_its_change_its_author_and_its_message(history: History) -> None:
    history.commit("other", {"unwanted": "x"}, start="main")
    picked = history.commit("other", {"a": LINES.replace("3", "three")}, message="three is a word")
    history.commit("main", {"a": LINES.replace("9", "nine")})

    (outcome,) = cherry_pick(history.repository, ["other"], "main")

    assert (outcome.commit.message, outcome.commit.author) == ("three is a word", "other@test")
    assert outcome.commit.notes == {"cherry-pick": picked}
    assert len(outcome.commit.parents) == 1
    assert history.files("main")["a"] == LINES.replace("3", "three").replace("9", "nine")
    assert "unwanted" not in history.files("main")


def test_a_range_is_picked_commit_by_commit_oldest_first(history: History) -> None:
    for number in range(3):
        history.commit("other", {f"new{number}": "", "count": str(number)}, start="main", message=f"number {number}")
    history.commit("main", {"mine": ""})

    outcomes = cherry_pick(history.repository, ["main..other"], "main")

    assert [item.result for item in outcomes] == [Result.COMMITTED] * 3
    assert [item.message for item in history.repository.log("main")][:3] == ["number 2", "number 1", "number 0"]
    assert history.files("main")["count"] == "2"


def test_a_row_with_a_commit_that_cannot_be_picked_or_undone_changes_nothing(history: History) -> None:
    ours = history.repository.resolve("main").id
    history.commit("other", {"new": "1"}, start="main")
    history.commit("side", {"side": "1"}, start="main")
    merge(history.repository, "side", "other")
    history.commit("other", {"new": "2"})

    with pytest.raises(MergeError, match="is a merge"):
        cherry_pick(history.repository, ["other~2", "other~1", "other"], "main")
    assert history.repository.resolve("main").id == ours
    with pytest.raises(MergeError, match="without a parent"):
        revert(history.repository, ["other", ours], "other")
    assert history.repository.resolve("other").message == "m"


def test_a_row_that_is_ended_in_its_midst_leaves_the_branch_where_it_was(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = history.repository.resolve("main").id
    for number in range(3):
        history.commit("other", {"new": str(number)}, start="main")
    made: list[Outcome] = []

    def killed(*words: Any, **options: Any) -> Outcome:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(combine(*words, **options))
        return made[-1]

    monkeypatch.setattr("koguma.images.replay.combine", killed)

    with pytest.raises(KeyboardInterrupt):
        cherry_pick(history.repository, ["main..other"], "main")

    assert [item.result for item in made] == [Result.COMMITTED] * 2
    assert history.repository.resolve("main").id == ours
    monkeypatch.undo()
    assert len(cherry_pick(history.repository, ["main..other"], "main")) == 3
    assert history.files("main")["new"] == "2"
    assert history.repository.reflog("main")[0].old == ours


def test_every_commit_of_a_row_is_signed(history: History) -> None:
    for number in range(3):
        history.commit("other", {"new": str(number)}, start="main")

    outcomes = cherry_pick(history.repository, ["main..other"], "main")

    assert [len(verify_commit(history.repository, item.commit.id).valid) for item in outcomes] == [1, 1, 1]


def test_picking_what_is_there_already_makes_no_commit(history: History) -> None:
    history.commit("other", {"new": "x"}, start="main")
    ours = history.commit("main", {"new": "x", "mine": ""})

    (outcome,) = cherry_pick(history.repository, ["other"], "main")

    assert (outcome.result, history.repository.resolve("main").id) == (Result.UNCHANGED, ours)


def test_a_revert_undoes_one_commit_and_keeps_what_came_after(history: History) -> None:
    bad = history.commit("main", {"a": LINES.replace("3", "three"), "c": None, "new": "x"}, message="bad idea")
    history.commit("main", {"a": LINES.replace("3", "three").replace("9", "nine")})

    (outcome,) = revert(history.repository, [bad[:12]], "main")

    assert outcome.commit.subject == 'Revert "bad idea"'
    assert bad in outcome.commit.message
    assert history.files("main") == {"a": LINES.replace("9", "nine"), "b": "b\n", "c": "c\n"}


def test_a_revert_of_a_revert_is_the_change_again(history: History) -> None:
    changed = history.repository.resolve(history.commit("main", {"b": None, "c": "new\n"}))
    revert(history.repository, ["main"], "main")

    (outcome,) = revert(history.repository, ["main"], "main")

    assert outcome.commit.tree == changed.tree


def test_a_merge_is_undone_against_the_parent_that_is_said(history: History) -> None:
    history.commit("other", {"theirs": ""}, start="main")
    ours = history.repository.resolve(history.commit("main", {"mine": ""}))
    merge(history.repository, "other", "main")

    with pytest.raises(MergeError, match="--mainline"):
        revert(history.repository, ["main"], "main")
    with pytest.raises(MergeError, match="1 to 2"):
        revert(history.repository, ["main"], "main", mainline=3)
    (outcome,) = revert(history.repository, ["main"], "main", mainline=1)

    assert outcome.commit.tree == ours.tree


def test_the_first_commit_cannot_be_undone(history: History) -> None:
    with pytest.raises(MergeError, match="without a parent"):
        revert(history.repository, ["main"], "main")


def test_hard_links_are_whole_after_a_merge_and_a_checkout(history: History, tmp_path: Path) -> None:
    repository = history.repository
    tree = make_tree(tmp_path / "linked", {"x/b": "linked\n", "y": ""})
    os.link(tree / "x" / "b", tree / "x" / "c")
    base = repository.commit_tree(tree, "linked", "m").commit
    repository.create_branch("third", "linked")
    os.link(tree / "x" / "b", tree / "a")
    repository.commit_tree(tree, "third", "a third name, first in order")
    (tree / "a").unlink()
    (tree / "x" / "b").write_text("changed\n")
    repository.commit_tree(tree, "linked", "changed")

    assert merge(repository, "third", "linked").result is Result.COMMITTED

    repository.checkout("linked", tmp_path / "out")
    assert (tmp_path / "out" / "a").read_text() == "changed\n"
    assert (tmp_path / "out" / "a").stat().st_nlink == 3
    fresh = Repository.init(tmp_path / "fresh").commit_tree(tmp_path / "out", "main", "m").commit
    assert fresh.tree == repository.resolve("linked").tree != base.tree


EDITOR = "auto\n/usr/bin/editor\neditor.1\n/usr/share/man/editor.1\n\n"
NANO, ED = "/bin/nano\n40\n/usr/share/man/nano.1\n", "/bin/ed\n-100\n\n"
VIM = "/usr/bin/vim\n30\n/usr/share/man/vim.1\n"


def _link(tree: Path, name: str, target: str) -> None:
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).unlink(missing_ok=True)
    (tree / name).symlink_to(target)


def _alternatives(tree: Path, *choices: str, best: str, manual: str) -> Path:
    make_tree(
        tree, {"var/lib/dpkg/alternatives/editor": EDITOR + "".join(choices) + "\n", f"usr/share/man/{manual}": ""}
    )
    _link(tree, "etc/alternatives/editor", best)
    _link(tree, "etc/alternatives/editor.1", f"/usr/share/man/{manual}")
    _link(tree, "usr/bin/editor", "/etc/alternatives/editor")
    _link(tree, "usr/share/man/editor.1", "/etc/alternatives/editor.1")
    return tree


def test_the_links_of_alternatives_follow_from_the_choices_of_both_sides(
    repository: Repository, tmp_path: Path
) -> None:
    """Here vim came, there nano went, which was the best: the best of what is left is what the links lead to."""
    repository.commit_tree(_alternatives(tmp_path / "base", ED, NANO, best="/bin/nano", manual="nano.1"), "main", "m")
    repository.create_branch("other", "main")
    ours = _alternatives(tmp_path / "ours", ED, NANO, VIM, best="/bin/nano", manual="nano.1")
    repository.commit_tree(make_tree(ours, {"usr/share/man/vim.1": ""}), "main", "vim came")
    theirs = make_tree(tmp_path / "theirs", {"var/lib/dpkg/alternatives/editor": EDITOR + ED + "\n"})
    _link(theirs, "etc/alternatives/editor", "/bin/ed")
    _link(theirs, "usr/bin/editor", "/etc/alternatives/editor")
    repository.commit_tree(theirs, "other", "nano went")

    outcome = merge(repository, "other", "main")

    assert outcome.conflicts == ()
    repository.checkout("main", tmp_path / "out")
    links = {
        name: str((tmp_path / "out" / name).readlink())
        for name in ("etc/alternatives/editor", "etc/alternatives/editor.1")
    }
    assert links == {"etc/alternatives/editor": "/usr/bin/vim", "etc/alternatives/editor.1": "/usr/share/man/vim.1"}
    assert str((tmp_path / "out" / "usr/share/man/editor.1").readlink()) == "/etc/alternatives/editor.1"
    assert not (tmp_path / "out" / "usr/share/man/nano.1").exists()


AUTO, MANUAL = "auto\n/usr/bin/x\n\n", "manual\n/usr/bin/x\n\n"
X1, X2, X3 = "/opt/x1\n10\n", "/opt/x2\n20\n", "/opt/x3\n30\n"


def _x(history: History, branch: str, database: str, target: str) -> None:
    """Commit a name of update-alternatives and what its link leads to."""
    history.commit(branch, {"var/lib/dpkg/alternatives/x": database + "\n"}, start="main")
    tree = history.checkout(branch)
    _link(tree, "etc/alternatives/x", target)
    _link(tree, "usr/bin/x", "/etc/alternatives/x")
    history.repository.commit_tree(tree, branch, "m")


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "chosen"),
    [
        ((AUTO + X1, "/opt/x1"), (AUTO + X1 + X2, "/opt/x2"), (MANUAL + X1, "/opt/x1"), "/opt/x1"),
        ((AUTO + X1 + X2, "/opt/x2"), (AUTO + X1 + X2 + X3, "/opt/x3"), (MANUAL + X1 + X2, "/opt/x1"), "/opt/x1"),
        ((MANUAL + X1 + X2, "/opt/x1"), (AUTO + X1 + X2, "/opt/x2"), (MANUAL + X1 + X2 + X3, "/opt/x1"), "/opt/x3"),
    ],
)
def test_what_an_administrator_chose_among_alternatives_is_what_the_link_leads_to(
    history: History, base: tuple[str, str], ours: tuple[str, str], theirs: tuple[str, str], chosen: str
) -> None:
    for branch, state in (("main", base), ("other", theirs), ("swapped", theirs), ("main", ours)):
        _x(history, branch, *state)
    history.repository.create_branch("ours", "main")

    assert merge(history.repository, "other", "main").conflicts == ()
    assert merge(history.repository, "ours", "swapped").conflicts == ()

    for branch in ("main", "swapped"):
        assert str((history.checkout(branch) / "etc/alternatives/x").readlink()) == chosen
    assert history.repository.resolve("main").tree == history.repository.resolve("swapped").tree


@pytest.mark.parametrize(
    ("base", "ours", "theirs"),
    [
        ((AUTO + X1 + X2, "/opt/x2"), (AUTO + X2, "/opt/x2"), (MANUAL + X1 + X2, "/opt/x1")),
        ((AUTO + X1 + X2, "/opt/x2"), (MANUAL + X1 + X2, "/opt/x2"), (MANUAL + X1 + X2 + X3, "/opt/x1")),
        ((MANUAL + X1 + X2, "/opt/x1"), (AUTO + X1 + X2, "/opt/x2"), (MANUAL + X1 + X2 + X3, "/opt/x3")),
    ],
)
def test_alternatives_that_the_sides_chose_differently_or_removed_are_a_conflict(
    history: History,
    monkeypatch: pytest.MonkeyPatch,
    base: tuple[str, str],
    ours: tuple[str, str],
    theirs: tuple[str, str],
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for branch, state in (("main", base), ("other", theirs), ("main", ours)):
        _x(history, branch, *state)

    with pytest.raises(EditError, match="first: /var/lib/dpkg/alternatives/x"):
        merge(history.repository, "other", "main")


def test_a_damaged_database_is_a_conflict_and_no_exception(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    status = "var/lib/dpkg/status"
    history.commit("main", {status: "Package: a\nVersion: 1\n"})
    history.commit("other", {status: "Package: a\nVersion: 1\n\nPackage: b\nVersion: 1\n"}, start="main")
    history.commit("main", {status: "\0 this is no status file\n"})

    with pytest.raises(EditError, match=r"1 conflicts.*var/lib/dpkg/status"):
        merge(history.repository, "other", "main")


def test_an_acl_of_one_side_and_the_mode_of_the_other_are_both_there_after_a_checkout(history: History) -> None:
    history.repository.create_branch("other", "main")
    ours, theirs = history.checkout("main"), history.checkout("other")
    (ours / "b").chmod(0o755)
    set_acl(theirs / "b", make_acl(6, 4, 4))  # which is 0644, as before
    history.repository.commit_tree(ours, "main", "m")
    history.repository.commit_tree(theirs, "other", "m")

    merge(history.repository, "other", "main")

    merged = history.checkout("main") / "b"
    assert merged.stat().st_mode & 0o777 == 0o755
    assert os.getxattr(merged, ACCESS_ACL) == make_acl(7, 5, 5)


def test_what_was_compiled_of_a_side_is_stale_beside_the_merged_source(history: History) -> None:
    """Same size, and the later of the two times: the compiled file of that side would pass for the merged source's."""
    lines = "A = 1\n\n\n\n\nB = 1\n"
    for branch, source, mtime_s in (
        ("main", lines, 1_700_000_000),
        ("other", lines.replace("B = 1", "B = 9"), 1_700_001_000),
        ("swapped", lines.replace("B = 1", "B = 9"), 1_700_001_000),
        ("main", lines.replace("A = 1", "A = 2"), 1_700_002_000),
    ):
        history.commit(branch, {"m.py": source, "__pycache__/m.cpython-311.pyc": f"{mtime_s}"}, start="main")
        tree = history.checkout(branch)
        os.utime(tree / "m.py", (mtime_s, mtime_s))
        history.repository.commit_tree(tree, branch, "m")
    history.repository.create_branch("ours", "main")

    merge(history.repository, "other", "main")
    merge(history.repository, "ours", "swapped")

    for branch in ("main", "swapped"):
        assert (history.checkout(branch) / "m.py").stat().st_mtime_ns == 1_700_002_001 * 10**9


def test_caches_and_logs_are_decided_by_rule_and_told(history: History) -> None:
    history.commit("main", {"var/log/dpkg.log": "0\n", "var/cache/x/index": "0\n"})
    history.commit("other", {"var/log/dpkg.log": "0\ntheirs\n", "var/cache/x/index": None}, start="main")
    history.commit("main", {"var/log/dpkg.log": "0\nours\n", "var/cache/x/index": "\0ours"})

    outcome = merge(history.repository, "other", "main")

    assert {item.path for item in outcome.notes} == {b"var/log/dpkg.log", b"var/cache/x/index"}
    assert history.files("main")["var/log/dpkg.log"] == "0\nours\ntheirs\n"
    assert history.files("main")["var/cache/x/index"] == "\0ours"
