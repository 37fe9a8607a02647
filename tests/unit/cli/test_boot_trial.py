"""Commits tried by booting a machine: the API is a fake that keeps what a node would, the repository is real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koguma.cli.errors import Failed
from koguma.cli.image import boottrial
from koguma.cli.image.boottrial import BAD, CANNOT_BE_TRIED, BootTrial
from koguma.images.repository import Repository
from tests.unit.images.making import make_bootable_tree, make_tree


class FakeApi:
    """One node: a reboot makes a record of a boot of the label for one boot, else of its usual one."""

    def __init__(self, repository: Repository, broken: set[str]) -> None:
        self.repository = repository
        self.broken = broken
        self.node: dict[str, Any] = {"name": "node1", "provision_state": "active", "target_power_state": None}
        self.once: str | None = None
        self.boots: list[dict[str, Any]] = []
        self.asked: list[str] = []

    def get(self, *path: str, **query: Any) -> Any:
        return self.boots[:1] if path[-1] == "boots" else dict(self.node)

    def put(self, *path: str, body: dict[str, Any]) -> Any:
        if path[-1] == "boot":
            assert body["once"]
            self.once = body["label"]
        else:
            self.asked.append(body["target"])
            labels = {item.name: item.commit for item in self.repository.labels()}
            commit = labels[self.once or "main"]
            outcome = "failed" if commit in self.broken else "succeeded"
            record = {"id": str(len(self.boots)), "outcome": outcome, "reason": "no init", "commit": commit}
            self.boots.insert(0, {**record, "label": self.once or "main"})
            self.once = None
        return dict(self.node)


@pytest.fixture
def commits(tmp_path: Path) -> tuple[Repository, list[Any]]:
    repository = Repository.init(tmp_path / "repository")
    made = []
    for number in range(3):
        tree = make_bootable_tree(tmp_path / "tree", package=f"1.{number}")
        made.append(repository.commit_tree(tree, "main", f"commit {number}").commit)
    return repository, made


Trial = Callable[..., tuple[FakeApi, BootTrial]]


@pytest.fixture
def trial(commits: tuple[Repository, list[Any]], monkeypatch: pytest.MonkeyPatch) -> Trial:
    repository, _ = commits

    def make(
        broken: set[str], command: list[str] | None = None, ssh: list[int] | None = None
    ) -> tuple[FakeApi, BootTrial]:
        api = FakeApi(repository, broken)
        monkeypatch.setattr(boottrial, "Client", lambda _: api)
        monkeypatch.setattr(boottrial, "run_over_ssh", lambda *_: (ssh or [0]).pop(0))
        monkeypatch.setattr(boottrial, "POLL_S", 0)
        return api, BootTrial(repository, "node1", command or [], timeout_s=5, api=None, say=lambda _: None)

    return make


def test_a_commit_is_good_when_the_machine_boots_it_and_bad_when_not(
    commits: tuple[Repository, list[Any]], trial: Trial
) -> None:
    _, made = commits
    api, machine = trial({made[1].id})

    with machine:
        assert machine.run(made[0]) == 0
        assert machine.run(made[1]) == BAD

    assert [boot["label"] for boot in api.boots[::-1]] == [made[0].short_id, made[1].short_id, "main"]
    assert api.asked == ["reboot", "reboot", "cycle"]  # what hangs is not asked


def test_the_commands_status_on_the_machine_is_the_trials(
    commits: tuple[Repository, list[Any]], trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boottrial.time, "sleep", lambda _: None)
    _, made = commits
    _, machine = trial(set(), ["true"], [255, 255, 7])

    with machine:
        assert machine.run(made[0]) == 7


def test_a_commit_that_cannot_be_booted_cannot_be_tried_and_no_machine_is_touched(
    commits: tuple[Repository, list[Any]], trial: Trial, tmp_path: Path
) -> None:
    repository, _ = commits
    unbootable = repository.commit_tree(make_tree(tmp_path / "other", {"a": "1"}), "other", "m").commit
    api, machine = trial(set())

    with machine:
        assert machine.run(unbootable) == CANNOT_BE_TRIED

    assert api.boots == []


def test_a_commit_without_a_label_gets_a_tag_for_the_time_of_the_search(
    commits: tuple[Repository, list[Any]], trial: Trial
) -> None:
    repository, made = commits
    repository.move_branch("main", made[1].id)
    api, machine = trial(set())

    with machine:
        assert machine.run(made[2]) == 0
        assert repository.refs.find(f"bisect/{made[2].short_id}")

    assert api.boots[1]["commit"] == made[2].id
    assert repository.refs.find(f"bisect/{made[2].short_id}") is None


def test_a_machine_that_is_not_in_use_is_refused(commits: tuple[Repository, list[Any]], trial: Trial) -> None:
    api, machine = trial(set())
    api.node["provision_state"] = "available"

    with pytest.raises(Failed, match="koguma node deploy node1"), machine:
        pass
