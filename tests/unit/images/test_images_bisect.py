from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koguma.images.bisect import BisectError, Bisection, State, Verdict, next_step, tell, verdict_of_status
from koguma.images.commits import Commit
from koguma.images.history import ancestors, is_ancestor
from koguma.images.repository import Repository
from tests.unit.images.making import commit_graph, make_tree

TRIALS_OF_64 = 6


def line(count: int) -> dict[str, Commit]:
    names = [f"{number:03}" for number in range(count)]
    return {
        name: Commit(name, tuple(names[max(0, number - 1) : number]), "me", number, name, id=name)
        for number, name in enumerate(names)
    }


def searched(commits: dict[str, Commit], bad: str, good: list[str], first_bad: str) -> tuple[str | None, int]:
    """What a search finds when everything that holds `first_bad` is broken, and how many trials it took."""
    state = State(bad, tuple(good))
    for trials in range(len(commits) + 1):
        step = next_step(commits.__getitem__, state)
        if step.trial is None:
            return (step.found.id if step.found else None), trials
        broken = is_ancestor(commits.__getitem__, first_bad, step.trial.id)
        state = tell(commits.__getitem__, state, step.trial, Verdict.BAD if broken else Verdict.GOOD)
    raise AssertionError("the search does not end")


@pytest.mark.parametrize("planted", range(1, 65))
def test_any_of_64_commits_is_found_in_at_most_six_trials(planted: int) -> None:
    commits = line(65)

    found, trials = searched(commits, "064", ["000"], f"{planted:03}")

    assert found == f"{planted:03}"
    assert trials <= TRIALS_OF_64


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[str, Commit], str, str]:
    """A history with merges that one commit began, its head, and the commit that broke it."""
    commits = {"00": Commit("00", (), "me", 0, "00", id="00")}
    for number in range(1, draw(st.integers(2, 20))):
        parents = draw(st.lists(st.sampled_from(sorted(commits)), min_size=1, max_size=2, unique=True))
        name = f"{number:02}"
        commits[name] = Commit(name, tuple(parents), "me", number, name, id=name)
    head = max(commits)
    suspects = sorted(set(ancestors(commits.__getitem__, [head])) - {"00"})
    return commits, head, draw(st.sampled_from(suspects))


@given(histories())
def test_the_first_bad_commit_of_any_history_is_found(history: tuple[dict[str, Commit], str, str]) -> None:
    commits, head, planted = history

    assert searched(commits, head, ["00"], planted)[0] == planted


@given(histories(), st.data())
def test_skipped_commits_never_hide_the_first_bad_one(
    history: tuple[dict[str, Commit], str, str], data: st.DataObject
) -> None:
    commits, head, planted = history
    read = commits.__getitem__
    skipped = data.draw(st.sets(st.sampled_from(sorted(commits))))
    state = State(head, ("00",), tuple(skipped - {head, "00"}))

    while (step := next_step(read, state)).trial is not None:
        assert step.trial.id not in state.skipped
        verdict = Verdict.BAD if is_ancestor(read, planted, step.trial.id) else Verdict.GOOD
        state = tell(read, state, step.trial, verdict)

    assert planted in {item.id for item in step.suspects}


def test_a_good_commit_beside_the_bad_one_asks_for_where_they_parted_first() -> None:
    commits = {
        name: Commit(name, tuple(parents), "me", number, name, id=name)
        for number, (name, parents) in enumerate({"a": "", "b": "a", "c": "b", "d": "b", "e": "d"}.items())
    }
    state = State("e", ("c",))

    step = next_step(commits.__getitem__, state)
    assert step.trial is commits["b"]
    state = tell(commits.__getitem__, state, commits["b"], Verdict.GOOD)
    assert next_step(commits.__getitem__, state).trial is commits["d"]
    with pytest.raises(BisectError, match="may not be bad"):
        tell(commits.__getitem__, state, commits["a"], Verdict.BAD)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0, Verdict.GOOD),
        (1, Verdict.BAD),
        (124, Verdict.BAD),
        (125, Verdict.SKIP),
        (127, Verdict.BAD),
        (128, None),
        (-9, None),
    ],
)
def test_exit_statuses_mean_what_git_bisect_run_takes_them_for(status: int, verdict: Verdict | None) -> None:
    assert verdict_of_status(status) is verdict


@pytest.fixture
def begun(repository: Repository) -> tuple[Repository, dict[str, str]]:
    ids = commit_graph(repository, {"a": "", "b": "a", "c": "b", "d": "c", "e": "d"})
    Bisection(repository).start(ids["e"], [ids["a"]])
    return repository, ids


def test_a_search_goes_on_in_another_process(begun: tuple[Repository, dict[str, str]]) -> None:
    repository, ids = begun

    step = Bisection(Repository.open(repository.path)).step()
    assert step.trial is not None
    assert step.trial.id == ids["c"]
    assert Bisection(Repository.open(repository.path)).tell(Verdict.BAD).trial is not None
    step = Bisection(Repository.open(repository.path)).tell(Verdict.BAD)
    assert step.found is not None
    assert step.found.subject == "b"
    assert [(item.verdict, item.subject) for item in Bisection(repository).state().log] == [
        ("bad", "e"), ("good", "a"), ("bad", "c"), ("bad", "b"),
    ]  # fmt: skip


def test_a_search_says_how_to_begin_when_none_is_under_way(repository: Repository) -> None:
    with pytest.raises(BisectError, match="koguma image bisect start BAD GOOD"):
        Bisection(repository).step()


def test_a_damaged_search_says_how_to_drop_it(begun: tuple[Repository, dict[str, str]]) -> None:
    repository, _ = begun
    (repository.path / "bisect.json").write_text('{"bad": "x", "good": [], "skipped": [], "log": []}')

    with pytest.raises(BisectError, match="koguma image bisect reset"):
        Bisection(repository).step()
    assert Bisection(repository).reset()


def test_good_and_bad_the_wrong_way_round_are_refused_and_nothing_is_begun(repository: Repository) -> None:
    ids = commit_graph(repository, {"a": "", "b": "a"})

    with pytest.raises(BisectError, match="wrong way round"):
        Bisection(repository).start(ids["a"], [ids["b"]])
    assert not (repository.path / "bisect.json").exists()


def test_a_trial_that_ends_the_search_leaves_it_to_go_on(begun: tuple[Repository, dict[str, str]]) -> None:
    repository, ids = begun

    with pytest.raises(BisectError, match=r"got 130 .* go on with: koguma image bisect run"):
        Bisection(repository).run(lambda _: 130, lambda _: None)
    step = Bisection(repository).run(lambda commit: int(commit.subject >= "d"), lambda _: None)
    assert step.found is not None
    assert step.found.id == ids["d"]


def test_only_one_process_works_on_a_search(begun: tuple[Repository, dict[str, str]]) -> None:
    repository, _ = begun

    with (
        Bisection(repository).alone(),
        pytest.raises(BisectError, match="by another process"),
        Bisection(repository).alone(),
    ):
        pass


def plant(repository: Repository, tmp_path: Path, count: int, planted: int) -> list[str]:
    """Commits on main, of which those from `planted` on hold a file `broken`."""
    ids = []
    for number in range(count):
        files: dict[str, str | bytes] = {"etc/number": str(number)}
        if number >= planted:
            files["etc/broken"] = "yes"
        ids.append(repository.commit_tree(make_tree(tmp_path / "tree", files), "main", f"commit {number}").commit.id)
    return ids


def test_a_script_finds_the_planted_commit_among_64_in_six_runs(repository: Repository, tmp_path: Path) -> None:
    planted = random.Random(7).randrange(1, 64)
    ids = plant(repository, tmp_path, 64, planted)
    log = tmp_path / "tried"
    script = (
        f'echo "$KOGUMA_COMMIT $KOGUMA_LABEL" >> {log};'
        f' ! {sys.executable} -m koguma image --repo "$KOGUMA_REPO" show "$KOGUMA_COMMIT:etc/broken" >/dev/null 2>&1'
    )
    image = [sys.executable, "-m", "koguma", "image", "--repo", str(repository.path), "bisect"]
    subprocess.run([*image, "start", "main", ids[0]], check=True, capture_output=True)

    done = subprocess.run([*image, "run", "--json", "/bin/sh", "-c", script], check=True, capture_output=True)

    assert json.loads(done.stdout)["first_bad"] == ids[planted]
    tried = log.read_text().splitlines()
    assert len(tried) <= TRIALS_OF_64
    assert all(line.split()[1] == line[:12] for line in tried)
