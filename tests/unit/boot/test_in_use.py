from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from koguma.boot.in_use import announce
from koguma.images.pins import labels_in_use
from koguma.model.snapshot import BootPlan, Once, Snapshot, SnapshotNode

NODE = SnapshotNode(
    uuid="11111111-2222-4333-8444-555555555501",
    name="node1",
    serial="S1",
    provision_state="active",
    flavor="compute",
    boot=BootPlan(label="compute"),
)


def test_the_repository_is_told_every_label_that_a_machine_boots_by(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    other = replace(NODE, name="node2", boot=BootPlan(label="next", once=Once("1", "3f2a91bbccdd")))
    announce(Snapshot(nodes=(NODE, other)), tmp_path)
    assert labels_in_use(tmp_path) == {"compute", "next", "3f2a91bbccdd"}

    announce(Snapshot(nodes=(NODE,)), tmp_path)
    assert labels_in_use(tmp_path) == {"compute"}


def test_a_site_that_was_never_heard_of_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    announce(Snapshot(nodes=(NODE,)), tmp_path)
    announce(Snapshot(), tmp_path)

    assert labels_in_use(tmp_path) == {"compute"}


def test_a_repository_that_is_not_there_stops_nothing(tmp_path: Path) -> None:
    announce(Snapshot(nodes=(NODE,)), tmp_path / "none")

    assert not (tmp_path / "none").exists()
