"""What the lab tells Koguma and reads from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from koguma.lab.control_plane import (
    ControlPlane,
    Site,
    lab_environment,
    names_in_snapshot,
    networks_of,
    postmasters,
    target_from_snapshot,
)
from koguma.lab.errors import LabError
from koguma.lab.lab import plan_of
from koguma.lab.processes import Processes
from koguma.lab.ssh import Target, run_on, ssh_command

PLAN = plan_of("lab", Path("/srv/k/lab"), 2)
KEY = "ssh-ed25519 AAAAC3Nz host"


def site(tmp_path: Path) -> Site:
    return Site(
        state_dir=tmp_path,
        repository=tmp_path / "images",
        nfs_dir=tmp_path / "nfs",
        api="127.0.0.1:1",
        program=Path("/nonexistent/koguma"),
    )


def plane(tmp_path: Path) -> ControlPlane:
    return ControlPlane(PLAN, site(tmp_path), Processes(tmp_path / "lab"))


def snapshot(tmp_path: Path, **changes: object) -> Path:
    node = {
        "uuid": PLAN.machines[0].uuid,
        "name": "node-1",
        "ports": [
            {"mac": "52:54:00:00:00:01", "network": "tenant", "address": None, "boot": False},
            {"mac": "52:54:00:00:00:02", "network": "provisioning", "address": "10.77.0.11", "boot": True},
        ],
        "detail": {"ssh_host_keys": {"ssh_host_ed25519_key": "PRIVATE", "ssh_host_ed25519_key.pub": KEY}},
        **changes,
    }
    path = tmp_path / "boot" / "snapshot.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": "koguma-snapshot/1", "nodes": [node]}))
    return path


def test_what_builds_images_is_the_lab_s_and_ended_with_it(tmp_path: Path) -> None:
    program = tmp_path / "koguma"
    program.write_text(f"#!/bin/sh\nsleep 300 >/dev/null 2>&1 &\necho $! >{tmp_path}/pid\n")
    program.chmod(0o755)
    processes = Processes(tmp_path / "lab")
    ControlPlane(PLAN, replace(site(tmp_path), program=program), processes).build(["image", "build"])
    pid = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{pid}").exists()
    processes.stop_all()
    assert not Path(f"/proc/{pid}/exe").exists()


def test_koguma_runs_in_the_controller_s_namespace() -> None:
    environ = lab_environment(PLAN, site(Path("/srv/k")))
    assert environ["KOGUMA_BOOT_NAMESPACE"] == environ["KOGUMA_WORKER_NAMESPACE"] == "lab-ctl"
    assert environ["KOGUMA_BOOT_URL"] == "http://10.77.0.1:8080"
    assert environ["KOGUMA_BOOT_NFS"] == "10.77.0.1:/koguma"


def test_the_discovery_range_is_part_of_the_provisioning_network_only() -> None:
    provisioning, *others = networks_of(PLAN)
    assert provisioning["discovery_start"] == "10.77.0.200"
    assert provisioning["discovery_end"] == "10.77.0.250"
    assert not any("discovery_start" in network for network in others)


def test_an_empty_repository_needs_init_stage_1_and_the_compute_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "compute.toml").touch()
    monkeypatch.chdir(tmp_path)
    assert [command[3] for command in plane(tmp_path).missing_images()] == ["init", "build-stage1", "build"]


def test_what_a_repository_has_is_not_built_again(tmp_path: Path) -> None:
    boot = tmp_path / "images" / "boot"
    (tmp_path / "images" / "keys").mkdir(parents=True)
    (tmp_path / "images" / "keys" / "signing.pem").touch()
    (boot / "stage1" / "current").mkdir(parents=True)
    (boot / "labels.json").write_text('{"format": "koguma-labels/1", "labels": {"compute": {}}}')
    assert plane(tmp_path).missing_images() == []


def test_a_node_is_found_in_the_snapshot_when_the_api_is_down(tmp_path: Path) -> None:
    snapshot(tmp_path)
    target = plane(tmp_path).ssh_target(PLAN.machines[0])
    assert target == Target("node1", "10.77.0.11", (KEY,))


def test_a_private_host_key_is_never_taken_for_a_public_one(tmp_path: Path) -> None:
    assert target_from_snapshot(snapshot(tmp_path), PLAN.machines[0], PLAN).host_keys == (KEY,)


def test_a_machine_the_snapshot_does_not_know_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="knows node2"):
        target_from_snapshot(snapshot(tmp_path), PLAN.machines[1], PLAN)


def test_a_node_without_a_provisioning_address_cannot_be_reached(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no address"):
        target_from_snapshot(snapshot(tmp_path, ports=[]), PLAN.machines[0], PLAN)


def test_a_damaged_snapshot_knows_nobody(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    path.write_text('{"nodes": [')
    assert names_in_snapshot(path) == {}


def test_a_machine_answers_to_koguma_s_name_for_it_too(tmp_path: Path) -> None:
    snapshot(tmp_path, name="rack7-a")
    assert plane(tmp_path).machine_named("rack7-a").name == "node1"
    assert plane(tmp_path).machine_named("node2").name == "node2"
    with pytest.raises(LabError, match="no machine 'rack9'"):
        plane(tmp_path).machine_named("rack9")


def test_a_lock_file_of_a_dead_postgresql_names_nobody(tmp_path: Path) -> None:
    (tmp_path / "postgresql").mkdir()
    (tmp_path / "postgresql" / "postmaster.pid").write_text("1\n/elsewhere\n")
    assert postmasters(tmp_path) == []


def test_one_word_is_a_shell_command_and_several_are_a_program_with_arguments() -> None:
    target = Target("node1", "10.77.0.11", (KEY,))
    path = Path("/k")
    assert ssh_command("lab-ctl", target, path, path, ["a; b"])[-1] == "a; b"
    assert ssh_command("lab-ctl", target, path, path, ["echo", "a b"])[-1] == "echo 'a b'"
    assert ssh_command("lab-ctl", target, path, path)[-1] == "root@10.77.0.11"


def test_ssh_accepts_no_key_it_was_not_told() -> None:
    words = ssh_command("lab-ctl", Target("node1", "10.77.0.11", (KEY,)), Path("/k"), Path("/h"), [])
    assert "StrictHostKeyChecking=yes" in words


def test_a_node_without_a_known_host_key_is_not_connected_to(tmp_path: Path) -> None:
    key = tmp_path / "operator"
    key.touch()
    with pytest.raises(LabError, match="no SSH host key"):
        run_on("lab-ctl", Target("node1", "10.77.0.11", ()), key, tmp_path, ["true"])
