"""Flavors and networks: the site's catalog, as the API changes it."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from koguma.db import vlan_addresses
from koguma.db.addresses import reject_conflicts, reject_taken
from koguma.db.errors import AlreadyExists, InUse, NotFound, Stale
from koguma.db.models import AddressRow, FlavorRow, NetworkRow, NodeRow
from koguma.db.rows import flavor_columns, flavor_of, network_columns, network_of
from koguma.db.wake import wake
from koguma.model import layout as layouts
from koguma.model import names
from koguma.model import network as networks
from koguma.model.flavor import Flavor
from koguma.model.network import Network
from koguma.model.subnet import Reservation


def flavors() -> list[Flavor]:
    return [flavor_of(row) for row in FlavorRow.objects.order_by("name")]


def flavor(name: str) -> Flavor:
    return flavor_of(_flavor_row(name))


def create_flavor(flavor: Flavor) -> Flavor:
    """Raises InvalidValue or AlreadyExists."""
    try:
        with transaction.atomic():
            vlan_addresses.take_turn()
            _check_flavor(flavor)
            row = FlavorRow.objects.create(name=flavor.name, **flavor_columns(flavor))
            _give_to_waiting_nodes(row)
    except IntegrityError:
        raise AlreadyExists(f"a flavor name belongs to one flavor, {flavor.name!r} exists") from None
    return flavor_of(row)


def change_flavor(flavor: Flavor, version: int | None = None) -> Flavor:
    """Raises NotFound, InvalidValue, NoFreeAddress, or Stale when `version` is not the flavor's."""
    return edit_flavor(flavor.name, lambda _: flavor, version)


def edit_flavor(name: str, edit: Callable[[Flavor], Flavor], version: int | None = None) -> Flavor:
    """Store what `edit` makes of the flavor as it is at that moment. Raises as `change_flavor` does."""
    with transaction.atomic():
        vlan_addresses.take_turn()
        row = _flavor_row(name, lock=True)
        _reject_stale(version, row.version, f"flavor {name}")
        flavor = edit(flavor_of(row))
        _check_flavor(flavor)
        FlavorRow.objects.filter(pk=row.pk).update(**flavor_columns(flavor))
        vlan_addresses.settle(NodeRow.objects.filter(flavor=row))
    return flavor_of(_flavor_row(name))


def delete_flavor(name: str) -> None:
    """Raises NotFound or InUse."""
    row = _flavor_row(name)
    try:
        row.delete()
    except ProtectedError:
        used = NodeRow.objects.filter(flavor=row).count()
        raise InUse(f"a flavor in use cannot be deleted, {used} nodes have it (flavor {name})") from None


def all_networks() -> list[Network]:
    return [network_of(row) for row in NetworkRow.objects.order_by("name")]


def network(name: str) -> Network:
    return network_of(_network_row(name))


def create_network(network: Network) -> Network:
    """Raises InvalidValue or AlreadyExists."""
    network = networks.validated(network)
    _reject_overlap(network)
    try:
        with transaction.atomic():
            row = NetworkRow.objects.create(name=network.name, **network_columns(network))
    except IntegrityError:
        raise AlreadyExists(f"a network name belongs to one network, {network.name!r} exists") from None
    return network_of(row)


def change_network(network: Network, version: int | None = None) -> Network:
    """Raises NotFound, Stale, or InvalidValue, also when an address already given would not fit any more."""
    return edit_network(network.name, lambda _: network, version)


def edit_network(name: str, edit: Callable[[Network], Network], version: int | None = None) -> Network:
    """Store what `edit` makes of the network as it is at that moment. Raises as `change_network` does."""
    with transaction.atomic():
        vlan_addresses.take_turn()
        row = _network_row(name, lock=True)
        _reject_stale(version, row.version, f"network {name}")
        network = networks.validated(edit(network_of(row)))
        reject_conflicts(network, row)
        _reject_overlap(network)
        _reject_broken_layouts(network)
        NetworkRow.objects.filter(pk=row.pk).update(**network_columns(network))
        # A family that the network has got since is given to those who are in it.
        vlan_addresses.settle(NodeRow.objects.filter(vlan_addresses__network=row).distinct())
    return network_of(_network_row(name))


def reserve(name: str, reservation: Reservation, version: int | None = None) -> Network:
    """Keep addresses of the network. Repeating it changes nothing. Raises NotFound, Stale, InvalidValue, or
    AlreadyExists when another node has one of them.
    """
    with transaction.atomic():
        vlan_addresses.take_turn()
        row = _network_row(name, lock=True)
        _reject_stale(version, row.version, f"network {name}")
        network = networks.with_reservation(network_of(row), reservation)
        reject_taken(reservation, row)
        NetworkRow.objects.filter(pk=row.pk).update(reserved=network_columns(network)["reserved"])
    return network_of(_network_row(name))


def release(name: str, span: str, version: int | None = None) -> Network:
    """Keep these addresses no longer; who has one of them keeps it. Raises NotFound or Stale."""
    with transaction.atomic():
        vlan_addresses.take_turn()
        row = _network_row(name, lock=True)
        _reject_stale(version, row.version, f"network {name}")
        network = networks.without_reservation(network_of(row), span)
        if network is None:
            raise NotFound(f"a reservation must be named as it was made, {names.shown(span)} is none (network {name})")
        NetworkRow.objects.filter(pk=row.pk).update(reserved=network_columns(network)["reserved"])
    return network_of(_network_row(name))


def delete_network(name: str) -> None:
    """Raises NotFound or InUse."""
    try:
        with transaction.atomic():
            vlan_addresses.take_turn()
            row = _network_row(name)
            if user := next((flavor.name for flavor in flavors() if _has_vlan_of(flavor, name)), None):
                raise InUse(f"a network in use cannot be deleted, flavor {user} has a VLAN of it (network {name})")
            row.delete()
    except ProtectedError:
        given = AddressRow.objects.filter(network__name=name).count()
        raise InUse(
            f"a network in use cannot be deleted, {given} of its addresses are given (network {name})"
        ) from None


def _check_flavor(flavor: Flavor) -> None:
    names.noun_name(flavor.name, "flavor name")
    names.boot_label(flavor.label)
    layouts.check(flavor.layout, {network.name: network for network in all_networks()}, f"(flavor {flavor.name})")


def _has_vlan_of(flavor: Flavor, network: str) -> bool:
    return network in flavor.layout.network_names


def _reject_broken_layouts(changed: Network) -> None:
    """Refuse a change of a network that breaks the layout of a flavor. Raises InvalidValue."""
    known = {network.name: network for network in all_networks()} | {changed.name: changed}
    for flavor in flavors():
        if _has_vlan_of(flavor, changed.name):
            layouts.check(flavor.layout, known, f"(network {changed.name}, flavor {flavor.name})")


def _flavor_row(name: str, *, lock: bool = False) -> FlavorRow:
    # no_key: nodes refer to the flavor, and need not wait because of that.
    rows = FlavorRow.objects.select_for_update(no_key=True) if lock else FlavorRow.objects.all()
    row = rows.filter(name=name).first()
    if row is None:
        raise NotFound(f"a flavor must exist with this name, got {names.shown(name)}")
    return row


def _network_row(name: str, *, lock: bool = False) -> NetworkRow:
    rows = NetworkRow.objects.select_for_update() if lock else NetworkRow.objects.all()
    row = rows.filter(name=name).first()
    if row is None:
        raise NotFound(f"a network must exist with this name, got {names.shown(name)}")
    return row


def _reject_overlap(network: Network) -> None:
    """Two networks of the site share no address, so that an address tells where a machine is."""
    for other in all_networks():
        if other.name != network.name and (shared := networks.overlap(network, other)):
            raise AlreadyExists(
                f"subnets may not overlap, {shared[0]} overlaps {shared[1]} of {other.name} (network {network.name})"
            )


def _reject_stale(seen: int | None, present: int, place: str) -> None:
    if seen is not None and seen != present:
        raise Stale(f"it has changed since version {seen}, it has {present} ({place})")


def _give_to_waiting_nodes(row: FlavorRow) -> None:
    """Machines that registered before the flavor of new nodes existed get it now, and go on."""
    if row.name != settings.KOGUMA_ENROLLMENT_FLAVOR:
        return
    for node in NodeRow.objects.filter(flavor=None, goal__isnull=False).select_for_update(no_key=True):
        NodeRow.objects.filter(pk=node.pk).update(flavor=row)
        vlan_addresses.settle(NodeRow.objects.filter(pk=node.pk))
        wake(node.pk)
