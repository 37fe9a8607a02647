"""What a machine does once it has said `installed` and is handed over to its networks."""

from __future__ import annotations

from pathlib import Path

from koguma_stage2 import handover, network, places

MAC = "52:54:00:00:00:01"
NIC = {"mac": MAC, "name": "eth0", "mtu": 1500, "vlan": None, "parent": None, "bond": None}
BOOT = {**NIC, "addresses": ["10.77.0.2/24"], "gateway": "10.77.0.1"}
AFTER = {**NIC, "addresses": ["10.90.1.1/24", "fd00:301::2/64"], "gateway": "10.90.1.254", "gateway6": "fd00:301::1"}


def boot_file(root: Path, name: str) -> Path:
    return root / places.NETWORKD[1:] / f"10-koguma-{name}"


def test_networkd_gets_addresses_and_gateways_of_both_families() -> None:
    (content,) = network.networkd_files({"interfaces": [AFTER], "dns_servers": ["fd00:301::53"]}).values()
    for line in ("Address=10.90.1.1/24", "Address=fd00:301::2/64", "Gateway=10.90.1.254", "Gateway=fd00:301::1",
                 "DNS=fd00:301::53"):  # fmt: skip
        assert f"\n{line}\n" in content


def test_a_machine_leaves_the_provisioning_network_with_every_trace_of_it(tmp_path: Path) -> None:
    detail = {
        "hostname": "n1",
        "members": [{"name": "n2", "address": "10.77.0.3"}],
        "interfaces": [BOOT],
        "dns_servers": ["10.77.0.1"],
        "handover": {"interfaces": [AFTER], "bonds": [], "vlans": [], "dns_servers": ["10.90.1.53"]},
    }
    boot_file(tmp_path, "vlan7.netdev").parent.mkdir(parents=True)
    boot_file(tmp_path, "vlan7.netdev").write_text("of the boot")
    for path, content in network.networkd_files(detail).items():
        (tmp_path / path[1:]).write_text(content)
    ran: list[list[str]] = []
    assert handover.take_networks(tmp_path, detail, lambda command: ran.append(command) or "") == []
    assert ran == [["ip", "address", "flush", "dev", "eth0", "scope", "global"], ["networkctl", "reload"]]
    assert "10.77.0.2" not in boot_file(tmp_path, "eth0.network").read_text()
    assert not boot_file(tmp_path, "vlan7.netdev").exists()
    hosts, resolver = ((tmp_path / path[1:]).read_text() for path in (places.HOSTS, places.RESOLV_CONF))
    assert ("10.90.1.1 n1\n" in hosts, "n2" in hosts, "10.77" in hosts + resolver) == (True, False, False)
    assert "nameserver 10.90.1.53\n" in resolver
    assert (tmp_path / places.HANDED_OVER[1:]).exists()


def test_a_machine_without_a_hand_over_changes_nothing(tmp_path: Path) -> None:
    assert handover.take_networks(tmp_path, {"interfaces": [BOOT], "handover": None}) == []
    assert list(tmp_path.iterdir()) == []


def test_what_went_wrong_is_told(tmp_path: Path) -> None:
    detail = {"hostname": "n1", "interfaces": [BOOT], "handover": {"interfaces": [AFTER]}}
    said = handover.take_networks(tmp_path, detail, lambda command: f"{command[0]}: no")
    assert said == ["ip: no", "networkctl: no"]
