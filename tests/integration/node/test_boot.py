"""Real machines boot the real stage 1 and stage 2; what counts is what the machines themselves report."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from artifact import COMMIT, write_manifest
from bootserver import UUID, BootServer, Fault
from machine import Lab

from koguma.images.signing import create_keys

pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]
BOOT_TIMEOUT_S = 400.0
STAGE1_TIMEOUT_S = 200.0


def artifact(server: BootServer) -> Path:
    return server.artifacts / COMMIT


def refusal(server: BootServer, phase: str, timeout_s: float = STAGE1_TIMEOUT_S) -> str:
    return str(server.wait_for_phase(phase, "failed", timeout_s)["reason"])


def test_an_unknown_machine_registers_and_powers_itself_off(server: BootServer, lab: Lab) -> None:
    machine = lab.start(
        "register", "-device", "virtio-blk-pci,drive=d,serial=D1", "-drive", "if=none,id=d,driver=null-co,size=1M"
    )
    told = server.wait_for(lambda name, _: name == "register", STAGE1_TIMEOUT_S)
    machine.wait_for_power_off(60)
    assert (told["uuid"], told["serial"], told["manufacturer"], told["firmware"]) == (UUID, "KG-0001", "Koguma", "bios")
    assert told["cpu"]["count"] == 2
    assert told["memory_bytes"] == 2560 * 1024**2
    assert told["bmc"] is None
    assert [(port["driver"], port["boot"], port["link"]) for port in told["ports"]] == [("virtio_net", True, True)]
    assert [(disk["size_bytes"], disk["serial"]) for disk in told["disks"]] == [(1024**2, "D1")]
    expected = ["stage1 started", "stage1 succeeded", "register started", "register", "register succeeded"]
    assert server.spoken() == expected


def test_a_refused_machine_says_why_and_powers_itself_off(server: BootServer, lab: Lab) -> None:
    server.register_status = 409
    machine = lab.start("register")
    assert "a serial belongs to one node" in refusal(server, "register")
    machine.wait_for_power_off(90)
    assert "a serial belongs to one node" in machine.console()


def test_a_known_machine_boots_into_memory_and_reports(server: BootServer, lab: Lab) -> None:
    server.unavailable_times = 2
    machine = lab.start("boot")
    installed = server.wait_for(lambda name, _: name == "installed", BOOT_TIMEOUT_S)
    said = machine.wait_for_console("KOGUMA-TEST end", 120).rpartition("KOGUMA-TEST mounts")[2]
    phases = [name for name in server.spoken() if " " in name]
    expected = ["stage1", "profile", "verify", "kexec", "root", "render", "userspace"]
    told = [f"{phase} {state}" for phase in expected for state in ("started", "succeeded")]
    told.remove("userspace started")  # it starts where render ends
    assert phases == told
    for fact in (
        "koguma-root / overlay", "/run/koguma/lower squashfs ro", "koguma-image /run/koguma/image tmpfs",
        "10.0.2.16 node-2.lab.koguma node-2", "my_ip = 10.0.2.15", UUID.replace("-", ""), "700 /run/koguma",
        "600 /run/koguma/boot.env", "600 /root/.ssh/authorized_keys", "boot=koguma console=ttyS0 quiet",
    ):  # fmt: skip
        assert fact in said
    assert "koguma.token" not in said
    assert "/dev/vd" not in said
    memory = installed["memory"]
    assert memory["image_bytes"] >= (artifact(server) / "root.squashfs").stat().st_size
    assert memory["overlay_size_bytes"] == server.profile["overlay_size_bytes"]
    assert 0 < memory["overlay_used_bytes"] < memory["overlay_size_bytes"]
    assert 0 < memory["available_bytes"] < memory["total_bytes"]
    server.members = {"members": [{"name": "node-3", "address": "10.0.2.17", "flavor": "c"}], "members_revision": "r2"}
    server.wait_for(lambda name, _: name == "members", 90)
    _print_timings(server, machine.started)


@pytest.mark.parametrize("part", ["kernel", "initrd"])
def test_a_flipped_byte_of_kernel_or_initramfs_is_refused_before_kexec(server: BootServer, lab: Lab, part: str) -> None:
    server.faults[part] = Fault(flip_at=1_000_003)
    machine = lab.start("boot")
    reason = refusal(server, "verify")
    assert reason.startswith(f"{part}: SHA-256 must be ")
    assert reason.endswith(f"({server.profile['artifact_url']}{part})")
    machine.wait_for_power_off(60)
    assert reason in machine.console()
    assert "kexec started" not in server.spoken()


def test_a_flipped_byte_of_the_root_image_is_never_mounted(server: BootServer, lab: Lab) -> None:
    server.faults["root.squashfs"] = Fault(flip_at=5_000_001)
    machine = lab.start("boot")
    reason = refusal(server, "root", BOOT_TIMEOUT_S)
    assert reason.startswith("root.squashfs: SHA-256 must be ")
    machine.wait_for_power_off(60)
    assert reason in machine.console()
    assert "installed" not in server.spoken()
    assert "userspace started" not in server.spoken()


def test_a_manifest_signed_by_another_key_is_refused(server: BootServer, lab: Lab, tmp_path: Path) -> None:
    create_keys(tmp_path / "other-keys")
    for name in ("manifest.json", "manifest.sig"):
        (artifact(server) / name).unlink()
    write_manifest(artifact(server), COMMIT, "6.1.0", tmp_path / "other-keys")
    machine = lab.start("boot")
    assert refusal(server, "verify").startswith("manifest.json: must be signed by a trusted key (")
    machine.wait_for_power_off(60)
    assert "kexec started" not in server.spoken()


def test_a_manifest_of_another_commit_is_refused(server: BootServer, lab: Lab) -> None:
    server.profile["commit"] = "d" * 64
    lab.start("boot")
    assert refusal(server, "verify").startswith(f"manifest.json: commit must be {'d' * 64}, got '{COMMIT}'")


def test_an_initramfs_that_stays_truncated_is_refused(server: BootServer, lab: Lab) -> None:
    server.faults["initrd"] = Fault(cut_at=1_000_000)
    lab.start("boot")
    size = (artifact(server) / "initrd").stat().st_size
    assert refusal(server, "verify").startswith(f"initrd: size must be {size} bytes, got 1000000 bytes")
    assert server.ranges == ["initrd bytes=1000000-"] * 2


def test_a_root_image_that_breaks_off_once_is_resumed_and_boots(server: BootServer, lab: Lab) -> None:
    server.faults["root.squashfs"] = Fault(cut_at=20_000_000, times=1)
    lab.start("boot")
    server.wait_for_phase("root", "succeeded", BOOT_TIMEOUT_S)
    assert server.ranges == ["root.squashfs bytes=20000000-"]


def test_a_root_image_larger_than_memory_is_refused_with_both_figures(
    server: BootServer, lab: Lab, repository: Path
) -> None:
    for name in ("manifest.json", "manifest.sig"):
        (artifact(server) / name).unlink()
    write_manifest(artifact(server), COMMIT, "6.1.0", repository / "keys", root_size_bytes=8 * 1024**3)
    lab.start("boot")
    reason = refusal(server, "root", BOOT_TIMEOUT_S)
    assert reason.startswith(f"root.squashfs: {8 * 1024**3} bytes of memory are needed, ")


def test_a_template_that_fails_is_named_and_the_machine_never_says_installed(server: BootServer, lab: Lab) -> None:
    server.detail["templates"][0]["source"] = "/etc/none.tpl"
    machine = lab.start("boot")
    assert "/etc/none.tpl" in refusal(server, "render", BOOT_TIMEOUT_S)
    machine.wait_for_console("KOGUMA-TEST end", BOOT_TIMEOUT_S)
    assert "installed" not in server.spoken()


def test_a_machine_without_an_answer_gives_up_and_reboots(server: BootServer, lab: Lab) -> None:
    server.profile["root_method"] = "disk"
    machine = lab.start("boot")
    assert "root_method must be ram or nfs, got 'disk'" in refusal(server, "profile")
    machine.wait_for_power_off(60)


def _print_timings(server: BootServer, started: float) -> None:
    for at, name, body in server.requests:
        if name in ("phase", "installed"):
            said = f"{body.get('phase', name)} {body.get('state', '')}"
            _say(f"{at - started:7.2f} s after power-on, uptime {body['uptime_s']:6.2f} s: {said}")
    _say(f"ended at {time.monotonic() - started:.1f} s")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
