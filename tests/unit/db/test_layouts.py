"""From a flavor's bonds and VLANs to the files a machine writes of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from configparser import RawConfigParser
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from koguma.db import catalog, nodes, registrations, reports, snapshots
from koguma.db.errors import InUse, NoFreeAddress
from koguma.db.lifecycle_store import PostgresStore
from koguma.db.models import AddressRow, NodeRow
from koguma.lifecycle.errors import StepFailed
from koguma.model.errors import InvalidValue
from koguma.model.layout import Bond, BondMode, Layout, Vlan
from koguma.model.network import Purpose
from koguma.model.snapshot import Snapshot
from koguma.model.states import StatusCode
from tests.unit import factories
from tests.unit.db.test_registrations import in_threads

pytestmark = pytest.mark.usefixtures("db")

NODE = Path(__file__).parents[3] / "node"
BOND = Bond("bond0", BondMode.LACP, ("eth0", "eth1"))
LAYOUT = Layout((BOND,), (Vlan("storage", "bond0"),))


@pytest.fixture
def rendered(tmp_path: Path) -> Iterator[Any]:
    """Takes a node's detail as the machine does: the files of systemd-networkd, by name."""
    added = [str(NODE / "stage2"), str(NODE / "common")]
    sys.path[:0] = added
    try:
        from koguma_stage2.detail import load_detail
        from koguma_stage2.network import networkd_files

        def render(number: int = 0) -> dict[str, RawConfigParser]:
            document = snapshots.render().to_json()["nodes"][number]["detail"]
            path = tmp_path / "detail.json"
            path.write_text(json.dumps(document))
            return {Path(name).name: _parsed(text) for name, text in networkd_files(load_detail(path)).items()}

        yield render
    finally:
        sys.path[:] = [item for item in sys.path if item not in added]


def _parsed(text: str) -> RawConfigParser:
    """Repeated keys become one value of several lines, as configparser cannot hold them otherwise."""
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    seen: dict[tuple[str, str], str] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line[1:-1]
            parser.add_section(section)
        elif "=" in line:
            key, _, value = line.partition("=")
            seen[section, key] = f"{seen[section, key]}\n{value}" if (section, key) in seen else value
            parser.set(section, key, seen[section, key])
    return parser


def site(layout: Layout = LAYOUT, **changes: Any) -> None:
    factories.network(domain="lab.koguma")
    storage(**changes)
    factories.flavor(layout=layout)


def storage(name: str = "storage", **changes: Any) -> None:
    values: dict[str, Any] = {
        "purpose": Purpose.STORAGE,
        "vlan": 200,
        "subnet": "10.88.0.0/24",
        "gateway": "10.88.0.1",
        "discovery_start": None,
        "discovery_end": None,
        "mtu": 9000,
    }
    factories.network(name=name, **{**values, **changes})


def machine(number: int = 1, nics: int = 2, state: str = "active") -> NodeRow:
    ports = [
        {"name": f"ens{3 + index}", "mac": factories.mac(number, index), "boot": index == 0} for index in range(nics)
    ]
    row = factories.register(number, ports=ports)
    NodeRow.objects.filter(pk=row.pk).update(provision_state=state, goal=None)
    return row


def flavor(layout: Layout) -> None:
    catalog.change_flavor(replace(catalog.flavor("compute"), layout=layout))


def vlans(name: str = "node-1") -> dict[str, str]:
    return {item.network: item.address for item in nodes.find(name).vlan_addresses}


def test_detail_has_the_bond_with_the_boot_address_and_the_vlan_with_its_own() -> None:
    site()
    machine()
    detail = snapshots.render().nodes[0].detail
    nic = {"addresses": [], "gateway": None, "mtu": 9000, "vlan": None, "parent": None, "bond": "bond0"}
    assert detail["interfaces"] == [
        {"mac": factories.mac(1, 0), "name": "eth0", **nic},
        {"mac": factories.mac(1, 1), "name": "eth1", **nic},
    ]
    assert detail["bonds"] == [
        {
            "name": "bond0",
            "mode": "802.3ad",
            "interfaces": [factories.mac(1, 0), factories.mac(1, 1)],
            "addresses": ["10.77.0.2/24"],
            "gateway": "10.77.0.1",
            "mtu": 9000,
        }
    ]
    assert detail["vlans"] == [
        {
            "name": "vlan200",
            "parent": "bond0",
            "vlan": 200,
            "addresses": ["10.88.0.2/24"],
            "gateway": None,
            "mtu": 9000,
        }
    ]
    # Where it boots stays where it was: DHCP and the members know nothing of bonds.
    snapshot = snapshots.render()
    assert snapshot.nodes[0].addresses == {"10.77.0.2"}
    assert snapshot.members[0]["address"] == "10.77.0.2"
    assert Snapshot.from_json(json.loads(json.dumps(snapshot.to_json()))).nodes == snapshot.nodes


def test_the_machine_writes_the_bond_and_the_vlan_that_were_declared(rendered: Any) -> None:
    site()
    machine()
    files = rendered()
    for index in (0, 1):
        matching = [
            file["Network"]
            for file in files.values()
            if file.has_section("Match") and file["Match"].get("PermanentMACAddress") == factories.mac(1, index)
        ]
        assert matching
        assert all(section["Bond"] == "bond0" and "Address" not in section for section in matching)
    assert files["10-koguma-bond0.netdev"]["Bond"]["Mode"] == "802.3ad"
    bond = files["10-koguma-bond0.network"]
    assert (bond["Network"]["Address"], bond["Network"]["Gateway"]) == ("10.77.0.2/24", "10.77.0.1")
    assert (bond["Network"]["VLAN"], bond["Link"]["MTUBytes"]) == ("vlan200", "9000")
    assert files["10-koguma-vlan200.netdev"]["VLAN"]["Id"] == "200"
    vlan = files["10-koguma-vlan200.network"]["Network"]
    assert vlan["Address"] == "10.88.0.2/24"
    assert "Gateway" not in vlan


@pytest.mark.parametrize("mode", list(BondMode))
def test_the_machine_takes_every_mode(rendered: Any, mode: BondMode) -> None:
    site(Layout((Bond("b.x-1_2345678901"[:15], mode, ("eth0",)),)))
    machine(nics=1)
    assert any(file.has_section("Bond") and file["Bond"]["Mode"] == mode.value for file in rendered().values())


def test_the_boot_nic_keeps_its_address_beside_a_bond_of_others_and_with_a_vlan_on_it(rendered: Any) -> None:
    site(Layout((Bond("bond0", BondMode.ACTIVE_BACKUP, ("eth1", "eth2")),), (Vlan("storage", "eth0"),)), mtu=1500)
    machine(nics=4)
    files = rendered()
    boot = files["10-koguma-eth0.network"]["Network"]
    assert (boot["Address"], boot["VLAN"]) == ("10.77.0.2/24", "vlan200")
    assert "Address" not in files["10-koguma-bond0.network"]["Network"]
    assert "10-koguma-eth3.network" not in files  # nothing was said of it


def test_a_vlan_gives_the_default_route_when_the_boot_network_has_none(rendered: Any) -> None:
    site()
    machine()
    catalog.edit_network("provisioning", lambda network: replace(network, gateway=None))
    files = rendered()
    assert "Gateway" not in files["10-koguma-bond0.network"]["Network"]
    assert files["10-koguma-vlan200.network"]["Network"]["Gateway"] == "10.88.0.1"


def test_a_flavor_without_a_layout_renders_as_before() -> None:
    site(Layout())
    machine()
    detail = snapshots.render().nodes[0].detail
    assert [(item["name"], item["addresses"], item["bond"]) for item in detail["interfaces"]] == [
        ("eth0", ["10.77.0.2/24"], None)
    ]
    assert (detail["bonds"], detail["vlans"]) == ([], [])


def test_a_machine_without_the_nics_is_turned_away_with_the_reason_until_it_has_them() -> None:
    site()
    row = machine(nics=1)
    (node,) = snapshots.render().nodes
    reason = "bond bond0 needs eth1, the node's NICs are eth0"
    assert (node.boot.mode, node.boot.refuse_reason) == ("refuse", f"flavor compute does not fit the node: {reason}")
    assert node.detail["bonds"] == []
    with PostgresStore().claim(str(row.uuid)) as claim:
        assert claim is not None
        with pytest.raises(StepFailed, match="needs eth1") as failed:
            claim.ensure_addresses()
    assert failed.value.code is StatusCode.NOT_BOOTABLE
    NodeRow.objects.update(provision_state="enroll")
    machine(nics=2)
    assert snapshots.render().nodes[0].boot.mode == "boot"


def test_an_active_node_whose_machine_is_turned_away_says_why_until_it_boots_again() -> None:
    site()
    machine(nics=1)
    reports.apply([factories.report(1, "a" * 32, "script", mode="refuse")])
    node = nodes.find("node-1")
    assert node.status_code is StatusCode.NOT_BOOTABLE
    assert node.status.startswith("turned away: flavor compute does not fit the node: bond bond0 needs eth1")
    flavor(Layout())
    boot(1)
    assert nodes.find("node-1").status_code is StatusCode.RUNNING
    late = factories.report(1, "b" * 32, "script", at=datetime.now(UTC) - timedelta(hours=1), mode="refuse")
    flavor(LAYOUT)
    reports.apply([late])
    assert nodes.find("node-1").status_code is StatusCode.RUNNING


def test_a_change_of_a_layout_is_seen_by_the_snapshot() -> None:
    site()
    machine()
    renderer = snapshots.Renderer()
    seen = {renderer.current()[0]}
    for layout in (
        replace(LAYOUT, bonds=(replace(BOND, mode=BondMode.ACTIVE_BACKUP),)),
        replace(LAYOUT, vlans=()),
        LAYOUT,
    ):
        flavor(layout)
        revision, _ = renderer.current()
        seen.add(revision)
    assert len(seen) == 3  # the last is the first again, address included


def test_every_node_of_a_flavor_gets_its_own_address_when_the_vlan_is_declared() -> None:
    site(Layout())
    for number in (1, 2, 3):
        machine(number)
    assert vlans() == {}
    flavor(LAYOUT)
    assert [vlans(f"node-{number}") for number in (1, 2, 3)] == [{"storage": f"10.88.0.{last}"} for last in (2, 3, 4)]
    assert nodes.find("node-1").addresses == ("10.77.0.2", "10.88.0.2")


def test_an_address_of_a_vlan_stays_over_reboots_registrations_and_other_changes() -> None:
    site()
    machine(1)
    machine(2)
    nodes.delete("node-1", force=True)
    assert vlans("node-2") == {"storage": "10.88.0.3"}
    NodeRow.objects.update(provision_state="enroll")
    machine(2)
    boot(2)
    catalog.edit_flavor("compute", lambda old: replace(old, label="next", layout=replace(LAYOUT, bonds=(BOND,))))
    assert vlans("node-2") == {"storage": "10.88.0.3"}
    machine(1)
    assert vlans("node-1") == {"storage": "10.88.0.2"}  # free again since the node was deleted


def test_nodes_made_by_hand_or_waiting_for_the_flavor_get_addresses_too() -> None:
    factories.network()
    storage()
    factories.register(1)
    factories.flavor(layout=LAYOUT)
    assert vlans("node-1") == {"storage": "10.88.0.2"}
    by_hand = {"uuid": None, "name": "web", "serial": "", "flavor": "compute", "bmc": None, "ports": []}
    assert registrations.create_by_hand(by_hand).vlan_addresses[0].address == "10.88.0.3"


def test_a_node_that_runs_nothing_gives_its_address_back_at_once() -> None:
    site()
    machine(state="available")
    flavor(Layout((BOND,)))
    assert not AddressRow.objects.filter(node__isnull=False).exists()


def test_an_address_that_may_be_in_use_is_nobody_elses_before_the_machine_has_booted_without_it() -> None:
    site()
    factories.flavor(name="other")
    machine(1)
    nodes.patch("node-1", {"flavor": "other"})
    assert vlans() == {}
    machine(2)
    assert vlans("node-2") == {"storage": "10.88.0.3"}
    nodes.patch("node-1", {"flavor": "compute"})
    assert vlans("node-1") == {"storage": "10.88.0.2"}
    nodes.patch("node-1", {"flavor": "other"})
    boot(1)  # so early that it may have been told the address
    machine(3)
    assert vlans("node-3") == {"storage": "10.88.0.4"}
    AddressRow.objects.exclude(released_at=None).update(released_at=datetime.now(UTC) - timedelta(minutes=5))
    boot(1)
    machine(4)
    assert vlans("node-4") == {"storage": "10.88.0.2"}


def boot(number: int) -> None:
    identifier = f"{AddressRow.objects.count():030x}{reports.BootRow.objects.count():02x}"
    reports.apply(
        [
            factories.report(number, identifier, "script", mode="boot", label="compute", commit="c" * 64),
            factories.report(number, identifier, "installed"),
        ]
    )


def test_a_network_too_small_for_the_nodes_refuses_the_flavor_and_leaves_all_as_it_was() -> None:
    site(Layout(), subnet="10.88.0.0/30")  # one address beside the gateway
    machine(1)
    machine(2)
    with pytest.raises(NoFreeAddress, match=r"2 more need one and 1 of 10\.88\.0\.0/30 are free"):
        flavor(LAYOUT)
    assert catalog.flavor("compute").layout == Layout()
    assert vlans() == {}


def test_a_machine_that_registers_when_the_network_is_full_is_stored_and_told_why_it_does_not_boot() -> None:
    site(subnet="10.88.0.0/30")
    machine(1)
    machine(2)
    first, second = snapshots.render().nodes
    assert (first.boot.mode, second.boot.mode) == ("boot", "refuse")
    assert "needs an address of network storage, none was given" in str(second.boot.refuse_reason)
    nodes.delete("node-1", force=True)
    with PostgresStore().claim(second.uuid) as claim:
        assert claim is not None
        claim.ensure_addresses()
    assert snapshots.render().nodes[0].boot.mode == "boot"


def test_however_many_get_the_flavor_at_once_no_address_is_given_twice() -> None:
    site()
    factories.flavor(name="other")
    for number in range(1, 9):
        machine(number)
    nodes_of = [f"node-{number}" for number in range(1, 9)]
    for name in nodes_of:
        nodes.patch(name, {"flavor": "other"})
    AddressRow.objects.filter(node__isnull=False).delete()

    def change(number: int) -> str:
        if number == 8:
            flavor(replace(LAYOUT, bonds=(replace(BOND, mode=BondMode.BALANCE_RR),)))
        elif number == 9:
            nodes.delete("node-8", force=True)
        else:
            nodes.patch(nodes_of[number], {"flavor": "compute"})
        return "done"

    results = in_threads(10, change)
    # node-8 may be deleted before or after it got the flavor; nobody else fails.
    assert [str(result) for number, result in enumerate(results) if number != 7] == ["done"] * 9
    given = [vlans(name)["storage"] for name in nodes_of[:7]]
    assert len(set(given)) == 7
    assert not AddressRow.objects.filter(node__isnull=False, node__name="node-8").exists()


def test_a_network_that_a_layout_has_is_not_deleted_or_changed_under_it() -> None:
    site()
    with pytest.raises(InUse, match="flavor compute has a VLAN of it"):
        catalog.delete_network("storage")
    with pytest.raises(InvalidValue, match="have a tag, storage has none"):
        catalog.edit_network("storage", lambda network: replace(network, vlan=0))
    with pytest.raises(InvalidValue, match="provisioning network"):
        catalog.edit_network("storage", lambda network: replace(network, purpose=Purpose.PROVISIONING))
    machine()
    with pytest.raises(InvalidValue, match=r"10\.88\.0\.2 is given, and then it is outside"):
        catalog.edit_network("storage", lambda network: replace(network, subnet="10.66.0.0/24", gateway=None))
    catalog.edit_network("storage", lambda network: replace(network, vlan=201))
    assert snapshots.render().nodes[0].detail["vlans"][0]["name"] == "vlan201"
    flavor(Layout())
    NodeRow.objects.all().delete()
    catalog.delete_network("storage")


def test_a_fleet_gets_its_addresses_in_few_queries() -> None:
    site(Layout(), subnet="10.64.0.0/16", gateway=None)
    first = machine()
    NodeRow.objects.bulk_create(
        NodeRow(
            uuid=factories.machine_uuid(number), name=f"node-{number}", flavor_id=1, ssh_host_key=first.ssh_host_key
        )
        for number in range(2, 2001)
    )
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        flavor(LAYOUT)
    assert AddressRow.objects.filter(node__isnull=False).count() == 2000
    assert len(queries) <= 30
    with CaptureQueriesContext(connection) as queries:
        snapshots.render()
    assert len(queries) <= 7


def test_an_address_has_one_owner() -> None:
    from django.db import IntegrityError, transaction

    site()
    machine()
    given = AddressRow.objects.get(node__isnull=False)
    for change in ({"port_id": AddressRow.objects.get(node=None).port_id}, {"node_id": None}):
        with pytest.raises(IntegrityError, match=r"one_owner|port_id"), transaction.atomic():
            AddressRow.objects.filter(pk=given.pk).update(**change)


def test_a_snapshot_of_before_layouts_is_still_read() -> None:
    factories.network()
    factories.flavor()
    factories.register(1)
    document = json.loads(json.dumps(snapshots.render().to_json()))
    assert document["format"] == "koguma-snapshot/1"
    assert (document["nodes"][0]["detail"]["bonds"], document["nodes"][0]["detail"]["vlans"]) == ([], [])
    assert Snapshot.from_json(document).revision == document["revision"]
