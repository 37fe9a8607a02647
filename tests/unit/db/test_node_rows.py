"""One node read by prepared queries is what Django reads; locks and versions."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from koguma.db import node_rows
from koguma.db.errors import NotFound, Stale
from koguma.db.models import AddressRow, NetworkRow, NodeRow
from koguma.db.prepared import Prepared
from koguma.db.rows import node_of
from tests.unit import factories
from tests.unit.db.test_registrations import in_threads

pytestmark = pytest.mark.usefixtures("db")


@pytest.fixture
def nodes() -> list[NodeRow]:
    """Two of them, so that one may be taken for the other; the first with two ports and an address on a VLAN."""
    factories.network()
    factories.flavor()
    first = factories.machine(1)["ports"][0]
    second = {**first, "name": "ens4", "mac": factories.mac(1, port=1), "boot": False}
    rows = [factories.register(1, ports=[first, second]), factories.register(2)]
    AddressRow.objects.create(node=rows[0], network=NetworkRow.objects.get(), address="10.77.0.99")
    return rows


def test_a_node_is_what_django_reads(nodes: list[NodeRow]) -> None:
    for row in node_rows.with_all(NodeRow.objects.order_by("id")):
        assert node_of(node_rows.whole(row.pk)) == node_of(row)
    assert [len(node_of(node_rows.whole(row.pk)).ports) for row in nodes] == [2, 1]
    assert node_of(node_rows.whole(nodes[0].pk)).vlan_addresses


def test_what_belongs_to_a_node_is_read_in_three_queries(nodes: list[NodeRow]) -> None:
    with CaptureQueriesContext(connection) as queries:
        row = node_rows.whole(nodes[0].pk)
        assert node_of(row).flavor == row.work.node.flavor.name
    assert len(queries) == 3


def test_a_node_without_a_flavor_has_none(nodes: list[NodeRow]) -> None:
    NodeRow.objects.update(flavor=None)
    assert node_of(node_rows.whole(nodes[0].pk)).flavor is None


@pytest.mark.parametrize("reference", ["uuid", "name"])
def test_who_locks_a_node_sees_what_the_one_before_wrote(nodes: list[NodeRow], reference: str) -> None:
    """Four count up at once, and none is lost."""

    def count_up(_: int) -> None:
        with transaction.atomic():
            row = node_rows.locked(str(getattr(nodes[0], reference)))
            row.variables = {"count": row.variables.get("count", 0) + 1}
            row.save()

    in_threads(4, count_up)
    assert NodeRow.objects.get(pk=nodes[0].pk).variables == {"count": 4}


def test_a_node_may_be_called_as_the_uuid_of_another(nodes: list[NodeRow]) -> None:
    NodeRow.objects.filter(pk=nodes[1].pk).update(name=str(nodes[0].uuid))
    with transaction.atomic():
        assert node_rows.locked(str(nodes[0].uuid)).pk == nodes[0].pk
        NodeRow.objects.filter(pk=nodes[1].pk).update(name="00000000-0000-4000-8000-0000000000ff")
        assert node_rows.locked("00000000-0000-4000-8000-0000000000ff").pk == nodes[1].pk


def test_nobody_and_an_older_version_are_refused(nodes: list[NodeRow]) -> None:
    with transaction.atomic(), pytest.raises(NotFound, match="a node must exist with this name or UUID, got 'nobody'"):
        node_rows.locked("nobody")
    with transaction.atomic(), pytest.raises(Stale, match="has changed since version 0"):
        node_rows.locked("node-1", 0)


def test_a_prepared_query_has_one_parameter() -> None:
    with pytest.raises(AssertionError, match="must have one parameter, this one has 2"):
        Prepared(lambda: NodeRow.objects.filter(pk=0, name="")).all(1)
