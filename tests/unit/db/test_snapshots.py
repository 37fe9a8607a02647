from __future__ import annotations

import json

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from koguma.db import catalog, nodes, reports, snapshots
from koguma.db.models import NodeRow, PortRow, PulseRow, WorkRow
from koguma.model.flavor import Template
from koguma.model.snapshot import Snapshot
from tests.unit import factories

pytestmark = pytest.mark.usefixtures("db")


def test_the_snapshot_holds_all_a_boot_needs() -> None:
    factories.network(domain="lab.koguma", dns_servers=("10.77.0.1",))
    factories.flavor(
        kernel_args="console=ttyS0",
        overlay_size_bytes=1 << 30,
        templates=(Template("/etc/nova/nova.conf.tpl", "/etc/nova/nova.conf", "0640"),),
        variables={"rabbit": "a", "site": "x"},
    )
    factories.register(1)
    NodeRow.objects.update(provision_state="deploying", variables={"site": "y"})
    snapshot = snapshots.render()
    (node,) = snapshot.nodes
    assert (node.name, node.provision_state, node.boot.mode, node.boot.label) == (
        "node-1",
        "deploying",
        "boot",
        "compute",
    )
    assert (node.boot.kernel_args, node.boot.overlay_size_bytes, node.boot.kexec) == ("console=ttyS0", 1 << 30, True)
    assert node.addresses == {"10.77.0.2"}
    detail = node.detail
    assert (detail["hostname"], detail["domain"], detail["flavor"]) == ("node-1", "lab.koguma", "compute")
    assert detail["interfaces"] == [
        {
            "mac": factories.mac(1),
            "name": "eth0",
            "addresses": ["10.77.0.2/24"],
            "gateway": "10.77.0.1",
            "mtu": 1500,
            "vlan": None,
            "parent": None,
            "bond": None,
        }
    ]
    assert detail["dns_servers"] == ["10.77.0.1"]
    assert detail["ssh_authorized_keys"] == ["ssh-ed25519 AAAA operator"]
    assert detail["ssh_host_keys"]["ssh_host_ed25519_key"].startswith("-----BEGIN OPENSSH PRIVATE KEY")
    assert detail["ssh_host_keys"]["ssh_host_ed25519_key.pub"].startswith("ssh-ed25519 ")
    assert detail["variables"] == {"rabbit": "a", "site": "y"}
    assert detail["templates"][0]["mode"] == "0640"
    assert snapshot.members == ({"name": "node-1", "address": "10.77.0.2", "flavor": "compute"},)
    assert Snapshot.from_json(json.loads(json.dumps(snapshot.to_json()))).revision == snapshot.revision


@pytest.mark.parametrize(
    ("state", "mode"),
    [
        ("enroll", "register"),
        ("verifying", "register"),
        ("manageable", "refuse"),
        ("cleaning", "refuse"),
        ("available", "refuse"),
        ("deploying", "boot"),
        ("wait call-back", "boot"),
        ("active", "boot"),
        ("rescue wait", "rescue"),
        ("rescue", "rescue"),
        ("unrescuing", "boot"),
        ("deploy failed", "boot"),
        ("deleting", "refuse"),
    ],
)
def test_the_state_decides_what_a_machine_that_asks_is_told(state: str, mode: str) -> None:
    factories.flavor()
    factories.register(1)
    NodeRow.objects.update(provision_state=state)
    boot = snapshots.render().nodes[0].boot
    assert boot.mode == mode
    assert (boot.refuse_reason is None) == (mode != "refuse")


def test_heartbeats_and_progress_do_not_change_the_revision_and_wishes_do() -> None:
    factories.network()
    factories.flavor()
    factories.register(1)
    NodeRow.objects.update(provision_state="active")
    renderer = snapshots.Renderer()
    first, _ = renderer.current()
    reports.apply([factories.report(1, "b" * 32, "heartbeat", memory={"total_bytes": 1})])
    NodeRow.objects.update(status="something else", power_state="power on")
    assert renderer.current()[0] == first
    nodes.set_boot_label("node-1", "next", once=True, reboot=False)
    second, _ = renderer.current()
    assert second != first
    NodeRow.objects.all().delete()
    assert renderer.current()[0] not in (first, second)


def test_every_kind_of_change_is_seen() -> None:
    factories.network()
    flavor = factories.flavor()
    factories.register(1)
    NodeRow.objects.update(provision_state="active")
    renderer = snapshots.Renderer()
    seen = {renderer.current()[0]}
    from dataclasses import replace

    for change in (
        lambda: catalog.change_flavor(replace(flavor, kernel_args="quiet")),
        lambda: nodes.patch("node-1", {"name": "web"}),
        lambda: PortRow.objects.update(boot=False),
        lambda: catalog.change_network(replace(catalog.network("provisioning"), mtu=9000)),
        lambda: factories.register(2),
    ):
        change()
        revision, _ = renderer.current()
        assert revision not in seen
        seen.add(revision)


def test_a_fleet_is_rendered_in_few_queries_and_again_only_when_it_changed() -> None:
    factories.network(subnet="10.64.0.0/16", gateway="10.64.0.1", discovery_start=None, discovery_end=None)
    factories.flavor()
    _fleet(2000)
    renderer = snapshots.Renderer()
    with CaptureQueriesContext(connection) as queries:
        rendered = renderer.current()
    assert len(queries) <= 8
    with CaptureQueriesContext(connection) as queries:
        again = renderer.current()
    assert len(queries) == 2, "whether anything changed is asked; nothing is read and rendered again"
    assert again is rendered


def _fleet(count: int) -> None:
    factories.register(1)
    first = NodeRow.objects.get()
    rows = NodeRow.objects.bulk_create(
        NodeRow(
            uuid=factories.machine_uuid(number),
            name=f"node-{number}",
            flavor=first.flavor,
            provision_state="active",
            ssh_host_key=first.ssh_host_key,
        )
        for number in range(2, count + 1)
    )
    WorkRow.objects.bulk_create(WorkRow(node=row) for row in rows)
    PulseRow.objects.bulk_create(PulseRow(node=row) for row in rows)
    PortRow.objects.bulk_create(
        PortRow(node=row, mac=factories.mac(number), boot=True) for number, row in enumerate(rows, 2)
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO koguma_address (network_id, address, port_id)"
            " SELECT (SELECT id FROM koguma_network), host('10.64.1.0'::inet + id), id FROM koguma_port"
            " WHERE id NOT IN (SELECT port_id FROM koguma_address)"
        )
