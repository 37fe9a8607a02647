"""DHCP configuration: what dnsmasq itself accepts, and what it says of a node."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from koguma.boot.dnsmasq import DhcpSettings, configuration, reservations, without_stale
from koguma.model.snapshot import SnapshotNetwork

from .conftest import URL, node, snapshot


@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed")
def test_dnsmasq_accepts_the_configuration(tmp_path: Path) -> None:
    settings = DhcpSettings("prov", URL, tmp_path)
    for name in ("hosts", "tftp"):
        (tmp_path / name).mkdir()
    networks = [
        *snapshot().networks,
        SnapshotNetwork("racks", "provisioning", 101, "10.78.0.0/22", dns_servers=("10.78.0.1", "10.78.0.2"), mtu=9000),
    ]
    path = tmp_path / "dnsmasq.conf"
    path.write_text(configuration(settings, networks))
    tested = subprocess.run(["dnsmasq", "--test", f"--conf-file={path}"], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr


def test_unknown_machines_get_the_discovery_range_and_known_ones_do_not() -> None:
    text = configuration(DhcpSettings("prov", URL, Path("/x")), snapshot().networks)
    assert "dhcp-range=set:provisioning,10.77.0.200,10.77.0.250,255.255.255.0,1h\n" in text
    without = SnapshotNetwork("closed", "provisioning", 1, "10.9.0.0/24")
    assert "dhcp-range=set:closed,10.9.0.0,static,255.255.255.0" in configuration(
        DhcpSettings("prov", URL, Path("/x")), [without]
    )


def test_every_known_mac_has_its_fixed_address() -> None:
    assert reservations(snapshot(node(2), node(1))) == (
        "52:54:00:00:00:01,10.77.0.11,node-1\n52:54:00:00:00:02,10.77.0.12,node-2\n"
    )


def test_firmware_that_boots_over_http_is_offered_the_loader_by_its_address() -> None:
    text = configuration(DhcpSettings("prov", URL, Path("/x")), snapshot().networks)
    assert f"dhcp-boot=tag:httpboot,{URL}/loaders/ipxe.efi\n" in text
    assert "dhcp-option-force=tag:httpboot,60,HTTPClient\n" in text


def test_lease_of_a_dead_machine_does_not_keep_its_address_from_the_one_that_has_it_now() -> None:
    dead, alive, other = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"
    stale = f"1795946682 {dead} 10.77.0.2 * *\n"
    kept = f"1795947137 {alive} 10.77.0.236 node-1 *\n1795947137 {other} 10.77.0.4 node-4 *\nduid 00:01\n"
    reserved = f"{dead},10.77.0.3,node-2\n{alive},10.77.0.2,node-1\n{other},10.77.0.4,node-4\n"
    assert without_stale(stale + kept, reserved) == kept
    assert without_stale(kept, reserved) == kept
