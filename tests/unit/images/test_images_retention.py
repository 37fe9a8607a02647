from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from koguma.images.commits import TIME_MAX_S, Commit
from koguma.images.policy import LabelPolicy
from koguma.images.refs import Ref, RefKind
from koguma.images.retention import Found, plan_retention

DAY_S = 86400
NOW = 1_790_000_000
MIB = 1024 * 1024


def _id(number: int) -> str:
    return f"{number:064x}"


def _found(ages_days: list[int], **more: object) -> Found:
    """A branch `main` whose commits, newest first, are so old; commit n is the n-th."""
    commits = [
        Commit(id=_id(number), tree=_id(number), parents=(), author="a", time=NOW - age * DAY_S, message="m", notes={})
        for number, age in enumerate(ages_days)
    ]
    return Found(refs=[Ref("main", RefKind.BRANCH, _id(0))], histories={_id(0): commits}, **more)  # type: ignore[arg-type]


def _kept(policy: LabelPolicy, found: Found) -> set[int]:
    return {int(item, 16) for item in plan_retention(policy, found, NOW).kept}


def test_the_newest_of_a_branch_and_what_is_young_stay() -> None:
    policy = LabelPolicy(keep_commits_per_branch=2, keep_days=10)

    assert _kept(policy, _found([50, 60, 70, 80])) == {0, 1}
    assert _kept(policy, _found([1, 5, 9, 11])) == {0, 1, 2}
    plan = plan_retention(policy, _found([1, 5, 9, 11]), NOW)
    assert plan.kept[_id(2)].until == NOW - 9 * DAY_S + 10 * DAY_S
    assert plan.kept[_id(0)].why == "branch main"
    assert plan.expired[_id(3)] == "it is older than 10 days and not one of the newest 2 of a branch"


def test_until_when_a_commit_stays_is_a_time_however_long_that_is() -> None:
    plan = plan_retention(LabelPolicy(keep_commits_per_branch=0, keep_days=10**12), _found([1, 2]), NOW)

    assert plan.kept[_id(1)].until == TIME_MAX_S


def test_heads_pins_and_what_is_in_use_stay_however_old_they_are() -> None:
    policy = LabelPolicy(keep_commits_per_branch=0, keep_days=0)
    found = _found([50, 60, 70, 80, 90], pinned=[_id(2), _id(77)], in_use={_id(4): "label x of a machine"})

    assert _kept(policy, found) == {0, 2, 4, 77}
    assert all(item.for_good for item in plan_retention(policy, found, NOW).kept.values())


def test_a_tag_keeps_its_commit_and_not_the_ones_before_it() -> None:
    found = _found([50, 60])
    tagged = Found(refs=[Ref("v1", RefKind.TAG, _id(0))], histories=found.histories)

    assert _kept(LabelPolicy(keep_commits_per_branch=10, keep_days=0), tagged) == {0}


def test_beyond_the_budget_the_oldest_go_first_but_never_what_stays_for_good() -> None:
    sizes = {_id(number): 40 * MIB for number in range(4)}
    policy = LabelPolicy(keep_days=100, budget_mib=100)

    assert _kept(policy, _found([1, 2, 3, 4], sizes=sizes)) == {0, 1}
    assert _kept(policy, _found([1, 2, 3, 4], sizes=sizes, pinned=[_id(3)])) == {0, 3}
    assert _kept(LabelPolicy(budget_mib=1), _found([1, 2, 3, 4], sizes=sizes)) == {0}


def test_what_went_for_want_of_space_does_not_come_back_by_itself() -> None:
    policy = LabelPolicy(budget_mib=100)
    found = _found([1, 2], sizes={_id(0): 60 * MIB}, evicted={_id(1): 100})
    plan = plan_retention(policy, found, NOW)

    assert set(plan.kept) == {_id(0)}
    assert plan.evicted == {_id(1)}
    assert plan.expired[_id(1)] == "artifacts may take 100 MiB and it was the oldest"
    assert _kept(policy, _found([1, 2], evicted={_id(1): 100}, pinned=[_id(1)])) == {0, 1}


def test_what_went_for_want_of_space_comes_back_when_there_is_more() -> None:
    found = _found([1, 2], sizes={_id(0): 60 * MIB}, evicted={_id(1): 100})

    assert _kept(LabelPolicy(budget_mib=None), found) == {0, 1}
    assert _kept(LabelPolicy(budget_mib=101), found) == {0, 1}
    assert _kept(LabelPolicy(budget_mib=70), found) == {0}


@given(
    ages=st.lists(st.integers(0, 100), min_size=1, max_size=12).map(sorted),
    newest=st.integers(0, 5),
    days=st.integers(0, 60),
    budget=st.one_of(st.none(), st.integers(0, 300)),
    pinned=st.sets(st.integers(0, 11)),
)
def test_a_plan_decides_on_every_commit_and_planning_again_changes_nothing(
    ages: list[int], newest: int, days: int, budget: int | None, pinned: set[int]
) -> None:
    policy = LabelPolicy(keep_commits_per_branch=newest, keep_days=days, budget_mib=budget)
    pins = [_id(number) for number in pinned if number < len(ages)]
    sizes = {_id(number): 30 * MIB for number in range(len(ages))}
    plan = plan_retention(policy, _found(ages, pinned=pins, sizes=sizes), NOW)

    assert plan.kept.keys() | plan.expired.keys() == {_id(number) for number in range(len(ages))}
    assert not plan.kept.keys() & plan.expired.keys()
    assert {_id(0), *pins} <= plan.kept.keys()
    left = {item: sizes[item] for item in plan.kept}
    noted = dict.fromkeys(plan.evicted, budget)
    again = plan_retention(policy, _found(ages, pinned=pins, sizes=left, evicted=noted), NOW)
    assert (again.kept, again.evicted) == (plan.kept, plan.evicted)
    soft = [item for item, reason in plan.kept.items() if not reason.for_good]
    if budget is not None and soft:
        assert sum(left.values()) <= budget * MIB


def test_a_commit_is_young_until_its_last_second_is_over() -> None:
    found = _found([0, 1])
    policy = LabelPolicy(keep_commits_per_branch=0, keep_days=1)

    assert set(plan_retention(policy, found, NOW - 1).kept) == {_id(0), _id(1)}
    assert set(plan_retention(policy, found, NOW).kept) == {_id(0)}
