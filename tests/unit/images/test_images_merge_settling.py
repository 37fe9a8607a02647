"""Conflicts in the layer of an edit, without its mounts: what they leave there, and what taking a side makes of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from koguma.images.edit import commit_edit
from koguma.images.errors import EditError
from koguma.images.merge import Outcome, Result, merge
from koguma.images.merging.acls import ACCESS_ACL
from koguma.images.replay import abort, cherry_pick
from koguma.images.repository import Repository
from koguma.images.resolving import open_conflicts, resolve
from koguma.images.sessions import pending_edits
from koguma.images.status import status
from koguma.images.trees import CHARACTER, Entry, lookup
from tests.unit.images.making import make_acl, make_tree, set_acl

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="a layer is laid out as root")]
Change = Callable[[Path], object]


class Sides:
    """A repository with a commit, and what the branches `main` (ours) and `other` (theirs) make of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.repository = Repository.init(folder / "repository")
        self.upper = self.repository.path / "edit" / "main" / "upper"

    def merge(self, base: Change, ours: Change, theirs: Change, *, keep_times: tuple[str, ...] = ()) -> Outcome:
        for branch, change in (("main", base), ("other", theirs), ("main", ours)):
            tree = self._folder / f"{branch}-{change is base}"
            if change is base:
                tree.mkdir()
            else:
                self.repository.checkout("main", tree)
            change(tree)
            which = "ours" if change is ours else "theirs" if change is theirs else "base"
            self.repository.commit_tree(tree, branch, "m", keep_times=which in keep_times)
            if change is base:
                self.repository.create_branch("other", "main")
        return merge(self.repository, "other", "main")

    def entry(self, path: str) -> Entry | None:
        root = self.repository.root(self.repository.resolve("main"))
        return lookup(self.repository.objects.read, root, path.encode())

    def commit(self) -> dict[str, str]:
        """Commit the session; the files by name, and what hangs together in the letters of their names."""
        commit_edit(self.repository, "main")
        out = self._folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        self.repository.checkout("main", out)
        return {str(path.relative_to(out)): path.read_text() for path in sorted(out.rglob("*")) if path.is_file()}

    def inode(self, name: str) -> int:
        return (self._folder / "out" / name).stat().st_ino


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return Sides(tmp_path)


def _files(**files: str | bytes) -> Change:
    return lambda tree: make_tree(tree, {name.replace("__", "/"): content for name, content in files.items()})


def _problems(outcome: Outcome) -> list[tuple[str, str]]:
    return [(item.path.decode(), item.problem.value) for item in outcome.conflicts]


def test_a_text_that_conflicts_over_more_than_a_text_may_have_is_not_committed_with_its_markers(sides: Sides) -> None:
    texts = [b"".join(b"%d %s\n" % (number, word * 10_000) for number in range(500)) for word in (b"b", b"o", b"t")]

    outcome = sides.merge(*(_files(f=text) for text in texts))

    assert (outcome.result, _problems(outcome)) == (Result.CONFLICTS, [("f", "text")])


def test_a_text_whose_merge_has_a_nul_near_its_start_is_not_committed_with_its_markers(sides: Sides) -> None:
    head = [b"%d %s\n" % (number, b"x" * 100) for number in range(170)]
    tail = b"\0\n" + b"y\n" * 20

    outcome = sides.merge(
        _files(f=b"".join(head) + tail + b"end\n"),
        _files(f=b"".join(head[80:]) + tail + b"ours\n"),
        _files(f=b"".join(head[:85] + head[160:]) + tail + b"theirs\n"),
    )

    assert (outcome.result, _problems(outcome)) == (Result.CONFLICTS, [("f", "text")])


def test_text_that_a_command_of_the_image_took_the_markers_from_waits_for_somebody_who_looked_at_it(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_markers_away(*_: object) -> None:
        (sides.upper / "f").write_text("made\n")

    monkeypatch.setattr("koguma.images.merge._rebuild", take_markers_away)

    outcome = sides.merge(_files(f="b\n"), _files(f="ours\n"), _files(f="theirs\n"))

    assert (outcome.result, _problems(outcome)) == (Result.CONFLICTS, [("f", "text")])
    assert sides.commit() == {"f": "made\n"}


@pytest.mark.parametrize("take", ["ours", "theirs", "base"])
def test_of_a_directory_only_what_is_disputed_of_its_attributes_is_taken(sides: Sides, take: str) -> None:
    owners = {"base": 0, "ours": 1, "theirs": 2}
    modes = {"base": 0o755, "ours": 0o700, "theirs": 0o750}

    def side(name: str) -> Change:
        def change(tree: Path) -> None:
            make_tree(tree, {f"d/{name}": name, "d/both": "x"})
            os.chown(tree / "d", owners[name], 0)
            (tree / "d").chmod(modes[name])
            os.setxattr(tree / "d", "user.x", name.encode())

        return change

    outcome = sides.merge(side("base"), side("ours"), side("theirs"))
    assert _problems(outcome) == [("d", "mode"), ("d", "owner"), ("d", "xattrs")]
    resolve(sides.repository, "main", [b"d"], take=take)

    assert sides.commit() == {"d/base": "base", "d/both": "x", "d/ours": "ours", "d/theirs": "theirs"}
    entry = sides.entry("d")
    assert entry is not None
    assert (entry.mode, entry.uid, entry.xattrs) == (modes[take], owners[take], ((b"user.x", take.encode()),))


def test_the_mode_of_a_file_is_taken_and_its_merged_content_and_its_links_stay(sides: Sides) -> None:
    def side(mode: int, *, content: str, linked: bool = False) -> Change:
        def change(tree: Path) -> None:
            make_tree(tree, {"f": content})
            if linked:
                (tree / "g").unlink(missing_ok=True)
                (tree / "g").hardlink_to(tree / "f")
            (tree / "f").chmod(mode)

        return change

    lines = "1\n2\n3\n4\n5\n"
    outcome = sides.merge(
        side(0o644, content=lines, linked=True),
        side(0o600, content=lines.replace("1", "ours"), linked=True),
        side(0o640, content=lines, linked=True),
    )
    assert _problems(outcome) == [("f", "mode"), ("g", "mode")]
    resolve(sides.repository, "main", [b"f", b"g"], take="theirs")

    assert sides.commit() == {"f": "ours\n2\n3\n4\n5\n", "g": "ours\n2\n3\n4\n5\n"}
    assert sides.inode("f") == sides.inode("g")
    entry = sides.entry("f")
    assert entry is not None
    assert entry.mode == 0o640


def test_the_mode_of_the_root_directory_is_settled_like_any_other(sides: Sides) -> None:
    def side(name: str, mode: int) -> Change:
        return lambda tree: make_tree(tree, {name: "x"}).chmod(mode)

    outcome = sides.merge(side("f", 0o755), side("ours", 0o700), side("theirs", 0o750))
    assert _problems(outcome) == [("", "mode")]

    resolve(sides.repository, "main", [b"/"], take="theirs")

    assert status(sides.repository, "main").open_conflicts == ()
    assert sides.commit() == {"f": "x", "ours": "x", "theirs": "x"}
    assert sides.repository.root(sides.repository.resolve("main")).mode == 0o750


def test_an_attribute_of_what_the_edit_removed_cannot_be_taken(sides: Sides) -> None:
    def side(mode: int) -> Change:
        return lambda tree: (make_tree(tree, {"f": "x"}) / "f").chmod(mode)

    sides.merge(side(0o644), side(0o600), side(0o640))
    os.mknod(sides.upper / "f", 0o020000, os.makedev(0, 0))

    with pytest.raises(EditError, match="must be there"):
        resolve(sides.repository, "main", [b"f"], take="theirs")
    assert [item.path for item in open_conflicts(sides.repository, "main")] == [b"f"]


def test_an_acl_that_theirs_removed_does_not_come_back_when_a_merge_goes_through_an_edit(sides: Sides) -> None:
    def with_acl(tree: Path) -> None:
        make_tree(tree, {"f": "x", "t": "b\n"})
        set_acl(tree / "f", make_acl(6, 4, 4))

    sides.merge(
        with_acl,
        _files(t="ours\n"),
        lambda tree: os.removexattr(make_tree(tree, {"t": "theirs\n"}) / "f", ACCESS_ACL),
    )
    resolve(sides.repository, "main", [b"t"], take="ours")
    sides.commit()

    entry = sides.entry("f")
    assert entry is not None
    assert entry.xattrs == ()


def _linked(first: str, *others: str, content: str) -> Change:
    def change(tree: Path) -> None:
        for name in (first, *others):
            (tree / name).unlink(missing_ok=True)
        (tree / first).write_text(content)
        for name in others:
            (tree / name).hardlink_to(tree / first)

    return change


@pytest.mark.parametrize("paths", [[[b"a", b"b"]], [[b"b"], [b"a"]]])
def test_names_of_one_file_that_are_taken_from_a_side_are_one_file(sides: Sides, paths: list[list[bytes]]) -> None:
    outcome = sides.merge(*(_linked("a", "b", content=text) for text in ("base\n", "ours\n", "theirs\n")))
    assert _problems(outcome) == [("a", "text"), ("b", "text")]

    for chosen in paths:
        resolve(sides.repository, "main", chosen, take="theirs")

    assert sides.commit() == {"a": "theirs\n", "b": "theirs\n"}
    assert sides.inode("a") == sides.inode("b")


def test_a_name_that_theirs_linked_to_what_is_taken_from_there_is_a_link_to_it(sides: Sides) -> None:
    outcome = sides.merge(_files(a="base\n"), _files(a="ours\n"), _linked("a", "c", content="theirs\n"))
    assert ("a", "text") in _problems(outcome)

    resolve(sides.repository, "main", [b"a"], take="theirs")

    assert sides.commit() == {"a": "theirs\n", "c": "theirs\n"}
    assert sides.inode("a") == sides.inode("c")


@pytest.mark.parametrize(("take", "left"), [("theirs", {"f": "picked\n"}), ("base", {}), ("ours", {"f": "ours\n"})])
def test_before_the_first_commit_nothing_was_there_when_it_is_picked(
    sides: Sides, take: str, left: dict[str, str], tmp_path: Path
) -> None:
    package = "Package: {}\nStatus: install ok installed\nVersion: 1\n"
    needs = (package + "Depends: absent\n").format("x")
    breaks = (package + "Breaks: x\n").format("y")
    for branch, text, stanza in (("main", "ours\n", needs), ("other", "picked\n", breaks)):
        tree = make_tree(tmp_path / branch, {"f": text, "var/lib/dpkg/status": stanza})
        sides.repository.commit_tree(tree, branch, "m")

    (outcome,) = cherry_pick(sides.repository, ["other"], "main")

    assert _problems(outcome) == [("f", "text"), ("var/lib/dpkg/status", "depends")]
    assert len(status(sides.repository, "main").open_conflicts) == 2
    resolve(sides.repository, "main", [b"f"], take=take)
    resolve(sides.repository, "main", [b"var"])
    assert {name: text for name, text in sides.commit().items() if name == "f"} == left


def test_a_row_is_given_up_whole_when_it_was_killed_before_the_branch_moved_to_where_it_conflicts(
    sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for branch, name, text in (("main", "f", "b\n"), ("other", "g", "1"), ("other", "f", "theirs\n")):
        sides.repository.commit_tree(make_tree(tmp_path / branch, {name: text}), branch, "m")
        if branch == "main":
            shutil.copytree(tmp_path / "main", tmp_path / "other")
            sides.repository.create_branch("other", "main")
    ours = sides.repository.commit_tree(make_tree(tmp_path / "main", {"f": "ours\n"}), "main", "m").commit.id
    with monkeypatch.context() as patched:
        patched.setattr(Repository, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            cherry_pick(sides.repository, ["main~1..other"], "main")
    assert (sides.repository.resolve("main").id, pending_edits(sides.repository)) == (ours, ["main"])

    assert abort(sides.repository, "cherry-pick", "main").id == ours

    assert pending_edits(sides.repository) == []
    outcomes = cherry_pick(sides.repository, ["main~1..other"], "main")
    assert [item.result for item in outcomes] == [Result.COMMITTED, Result.CONFLICTS]
    assert sides.repository.resolve("main").parents == (ours,)
    assert abort(sides.repository, "cherry-pick", "main").id == sides.repository.resolve("main").id == ours


def test_a_character_device_0_0_comes_through_an_edit_and_is_not_taken_for_a_removed_name(sides: Sides) -> None:
    def theirs(tree: Path) -> None:
        make_tree(tree, {"t": "theirs\n"})
        os.mknod(tree / "null", 0o020600, os.makedev(0, 0))

    outcome = sides.merge(_files(t="b\n", gone="x"), lambda tree: make_tree(tree, {"t": "ours\n"}), theirs)
    assert _problems(outcome) == [("t", "text")]
    resolve(sides.repository, "main", [b"t"], take="ours")
    changes = status(sides.repository, "main").changes
    assert changes is not None
    assert [item.path for item in changes.files] == [b"null"]
    sides.commit()

    entry = sides.entry("null")
    assert entry is not None
    assert (entry.kind, entry.device) == (CHARACTER, (0, 0))


def test_a_character_device_0_0_is_not_taken_from_a_side_and_nothing_is_changed(sides: Sides) -> None:
    def theirs(tree: Path) -> None:
        (tree / "d").unlink()
        (tree / "d").mkdir()
        os.mknod(tree / "d" / "null", 0o020600, os.makedev(0, 0))

    sides.merge(_files(d="b\n"), _files(d="ours\n"), theirs)

    with pytest.raises(EditError, match=r"0:0.*'d/null'"):
        resolve(sides.repository, "main", [b"d"], take="theirs")
    assert list(sides.upper.iterdir()) == []


def test_a_side_is_taken_also_in_a_directory_that_the_edit_replaced(sides: Sides) -> None:
    sides.merge(_files(d__f="b\n", d__g="g\n"), _files(d__f="ours\n"), _files(d__f="theirs\n"))
    shutil.rmtree(sides.upper / "d")
    (sides.upper / "d").mkdir()
    os.setxattr(sides.upper / "d", "trusted.overlay.opaque", b"y")

    resolve(sides.repository, "main", [b"d/f"], take="ours")

    assert sides.commit() == {"d/f": "ours\n"}


@pytest.mark.parametrize("timed", [("theirs",), ("ours",), ("ours", "theirs")])
def test_an_edit_gives_the_times_that_a_merge_without_a_conflict_gives(sides: Sides, timed: tuple[str, ...]) -> None:
    def theirs(tree: Path) -> None:
        make_tree(tree, {"t": "theirs\n", "d/new": "x"})
        os.utime(tree / "d" / "new", ns=(0, 1_234_567_890_123_456_789))
        os.utime(tree / "t", ns=(0, 1_234_567_890_000_000_000))
        os.utime(tree / "d", ns=(0, 1_234_567_890_987_654_321))

    sides.merge(_files(t="b\n"), _files(t="ours\n"), theirs, keep_times=timed)
    resolve(sides.repository, "main", [b"t"], take="theirs")
    sides.commit()

    entries = [sides.entry(name) for name in ("d/new", "t", "d")]
    wanted = [1_234_567_890_123_456_789, 1_234_567_890_000_000_000, 1_234_567_890_987_654_321]
    assert [entry and entry.mtime_ns for entry in entries] == (wanted if "theirs" in timed else [None] * 3)


def test_a_file_with_markers_that_was_moved_keeps_its_conflict_open_and_is_told(sides: Sides) -> None:
    sides.merge(_files(f="b\n"), _files(f="ours\n"), _files(f="theirs\n"))
    (sides.upper / "d").mkdir()
    (sides.upper / "f").rename(sides.upper / "d" / "moved")
    os.mknod(sides.upper / "f", 0o020000, os.makedev(0, 0))

    with pytest.raises(EditError, match=r"1 are open.*markers in /d/moved"):
        commit_edit(sides.repository, "main")
    with pytest.raises(EditError, match=r"still has conflict markers.*in /d/moved"):
        resolve(sides.repository, "main", [b"f"])
    (sides.upper / "d" / "moved").write_text("both\n")
    with pytest.raises(EditError, match="1 are open"):
        commit_edit(sides.repository, "main")
    resolve(sides.repository, "main", [b"f"])

    assert sides.commit() == {"d/moved": "both\n"}
