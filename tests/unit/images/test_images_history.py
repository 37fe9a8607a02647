from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from koguma.images.commits import Commit
from koguma.images.history import ancestors, in_order, is_ancestor, merge_base, merge_bases


def graph(**parents: str) -> dict[str, Commit]:
    """Commits named by letters, each newer than the one before; `c="ab"` was made of a and b."""
    return {
        name: Commit(name, tuple(line), "me", number, name, id=name)
        for number, (name, line) in enumerate(parents.items())
    }


FORK = graph(a="", b="a", c="b", d="b", e="d")
CRISS_CROSS = graph(a="", b="a", c="a", d="bc", e="cb")


def test_the_merge_base_is_where_two_branches_parted() -> None:
    assert merge_base(FORK.__getitem__, "c", "e") == "b"
    assert merge_base(FORK.__getitem__, "b", "e") == "b"
    assert merge_base(FORK.__getitem__, "e", "e") == "e"


def test_unrelated_histories_have_no_merge_base() -> None:
    assert merge_base(graph(a="", b="").__getitem__, "a", "b") is None


def test_a_criss_cross_has_two_merge_bases() -> None:
    assert merge_bases(CRISS_CROSS.__getitem__, "d", "e") == ["c", "b"]


def test_a_merge_comes_before_both_its_lines_and_the_fork_after_both() -> None:
    commits = graph(a="", b="a", c="a", d="b", e="dc")

    assert [item.id for item in in_order(commits.__getitem__, ["e"])] == ["e", "d", "c", "b", "a"]
    assert [item.id for item in in_order(commits.__getitem__, ["e"], by_line=True)] == ["e", "c", "d", "b", "a"]


def test_a_wrong_clock_does_not_put_a_parent_before_its_child() -> None:
    commits = {
        "a": Commit("a", (), "me", 900, "", id="a"),
        "b": Commit("b", ("a",), "me", 1, "", id="b"),
        "c": Commit("c", ("a",), "me", 500, "", id="c"),
        "d": Commit("d", ("b", "c"), "me", 2, "", id="d"),
    }

    assert [item.id for item in in_order(commits.__getitem__, ["d"])] == ["d", "c", "b", "a"]


def test_the_head_of_a_long_line_is_told_without_reading_its_end() -> None:
    read: list[str] = []

    def commit_of(commit_id: str) -> Commit:
        read.append(commit_id)
        return Commit("t", (str(int(commit_id) + 1),), "me", 0, "", id=commit_id)

    walk = in_order(commit_of, ["0"])
    assert [next(walk).id for _ in range(3)] == ["0", "1", "2"]
    assert set(read) == {"0", "1", "2"}


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Commit]:
    """Any history of up to twelve commits with up to three parents each and clocks that may be wrong."""
    commits: dict[str, Commit] = {}
    for number in range(draw(st.integers(1, 12))):
        parents = draw(st.lists(st.sampled_from(sorted(commits)), max_size=3, unique=True)) if commits else []
        name = f"{number:02}"
        commits[name] = Commit(name, tuple(parents), "me", draw(st.integers(0, 5)), name, id=name)
    return commits


@given(graphs(), st.booleans(), st.data())
def test_every_ancestor_comes_once_and_after_all_that_were_made_of_it(
    commits: dict[str, Commit], by_line: bool, data: st.DataObject
) -> None:
    starts = data.draw(st.lists(st.sampled_from(sorted(commits)), min_size=1, unique=True))

    order = [item.id for item in in_order(commits.__getitem__, starts, by_line=by_line)]

    assert sorted(order) == sorted(ancestors(commits.__getitem__, starts))
    for item in order:
        assert all(order.index(parent) > order.index(item) for parent in commits[item].parents)


@given(graphs(), st.data())
def test_a_merge_base_is_a_common_ancestor_and_no_other_common_ancestor_is_newer(
    commits: dict[str, Commit], data: st.DataObject
) -> None:
    a, b = (data.draw(st.sampled_from(sorted(commits))) for _ in "ab")
    read = commits.__getitem__
    common = ancestors(read, [a]).keys() & ancestors(read, [b]).keys()

    bases = merge_bases(read, a, b)

    assert set(bases) == {
        item for item in common if not any(item != other and is_ancestor(read, item, other) for other in common)
    }
