"""Rows to values of the model and back. No queries but those that make the choice of related rows explicit
(`WITH_ALL`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from koguma.db.models import BootRow, FlavorRow, NetworkRow, NodeRow, PortRow, StepRow, WorkRow
from koguma.model.boot_record import BootRecord, Outcome, Phase
from koguma.model.flavor import Flavor, RootMethod, Template
from koguma.model.layout import Access, Bond, BondMode, Layout, Vlan
from koguma.model.network import Network, Purpose
from koguma.model.node import Bmc, Installed, Node, Once, Port, Vif, VlanAddress
from koguma.model.operation import Operation, StepRecord
from koguma.model.root_disks import RootDisks, root_disks
from koguma.model.states import PowerState, ProvisionState, StatusCode
from koguma.model.subnet import Reservation, Subnet


def node_of(row: NodeRow) -> Node:
    pulse = getattr(row, "pulse", None)
    return Node(
        uuid=str(row.uuid),
        name=row.name,
        serial=row.serial,
        manufacturer=row.manufacturer,
        product=row.product,
        architecture=row.architecture,
        firmware=row.firmware,
        provision_state=ProvisionState(row.provision_state),
        target_provision_state=ProvisionState(row.target_provision_state) if row.target_provision_state else None,
        goal=ProvisionState(row.goal) if row.goal else None,
        power_state=PowerState(row.power_state),
        target_power_state=PowerState(row.target_power_state) if row.target_power_state else None,
        status_code=StatusCode(row.status_code),
        status=row.status,
        last_error=row.last_error,
        maintenance=row.maintenance,
        maintenance_reason=row.maintenance_reason,
        flavor=row.flavor.name if row.flavor else None,
        label=row.label,
        once=Once(row.once_id, row.once_label or "") if row.once_id else None,
        kexec=row.kexec,
        bmc=bmc_of(row),
        ports=tuple(port_of(port) for port in row.ports.all()),
        vifs=tuple(Vif(item["id"], item.get("port_uuid")) for item in row.vifs),
        vlan_addresses=tuple(
            VlanAddress(given.network.name, given.address)
            for given in row.vlan_addresses.all()
            if given.released_at is None
        ),
        inventory=row.inventory,
        variables=row.variables,
        ssh_host_public_key=row.ssh_host_public_key,
        installed=_installed_of(row),
        memory=pulse.memory if pulse else None,
        mirror=pulse.mirror if pulse else None,
        last_seen=pulse.last_seen if pulse else None,
        registered_at=row.registered_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        version=row.version,
        interfaces=row.interfaces,
        driver_info=row.driver_info,
        resource_class=row.resource_class,
        traits=tuple(row.traits),
        instance_uuid=str(row.instance_uuid) if row.instance_uuid else None,
        protected=row.protected,
        retired=row.retired,
        automated_clean=row.automated_clean,
        disable_power_off=row.disable_power_off,
        inspection_error=row.inspection_error,
        disk_wish=row.disk_wish,
        disk_image=row.disk_image,
        disk_used=row.disk_used,
    )


def bmc_of(row: NodeRow) -> Bmc | None:
    if not row.bmc_driver:
        return None
    return Bmc(driver=row.bmc_driver, address=row.bmc_address, username=row.bmc_username, mac=row.bmc_mac)


def _installed_of(row: NodeRow) -> Installed | None:
    if row.installed_at is None:
        return None
    return Installed(label=row.installed_label, commit=row.installed_commit, at=row.installed_at)


def port_of(row: PortRow) -> Port:
    given = getattr(row, "address", None)
    return Port(
        mac=row.mac,
        name=row.name,
        driver=row.driver,
        boot=row.boot,
        link=row.link,
        speed_mbps=row.speed_mbps,
        lldp=row.lldp,
        uuid=str(row.uuid),
        local_link=row.local_link_connection,
        network=given.network.name if given else None,
        address=given.address if given else None,
    )


def root_disks_of(row: NodeRow, flavor: Flavor) -> RootDisks:
    """Raises BadRootDisks."""
    hints = row.instance_info.get("root_device") or row.properties.get("root_device")
    return root_disks(hints, row.target_raid_config, flavor.requirements)


def flavor_of(row: FlavorRow) -> Flavor:
    return Flavor(
        name=row.name,
        label=row.label,
        root_method=RootMethod(row.root_method),
        kernel_args=row.kernel_args,
        overlay_size_bytes=row.overlay_size_bytes,
        templates=tuple(Template(**item) for item in row.templates),
        variables=row.variables,
        requirements=row.requirements,
        layout=layout_of(row.bonds, row.vlans, row.networks),
        version=row.version,
    )


def flavor_columns(flavor: Flavor) -> dict[str, Any]:
    return {
        "label": flavor.label,
        "root_method": flavor.root_method.value,
        "kernel_args": flavor.kernel_args,
        "overlay_size_bytes": flavor.overlay_size_bytes,
        "templates": [vars(template) for template in flavor.templates],
        "variables": flavor.variables,
        "requirements": flavor.requirements,
        **layout_json(flavor.layout),
    }


def layout_of(
    bonds: Iterable[Mapping[str, Any]], vlans: Iterable[Mapping[str, Any]], networks: Iterable[Mapping[str, Any]]
) -> Layout:
    return Layout(
        bonds=tuple(Bond(item["name"], BondMode(item["mode"]), tuple(item["interfaces"])) for item in bonds),
        vlans=tuple(Vlan(item["network"], item["interface"]) for item in vlans),
        networks=tuple(Access(item["network"], item["interface"]) for item in networks),
    )


def layout_json(layout: Layout) -> dict[str, list[dict[str, Any]]]:
    """`bonds`, `vlans` and `networks`, as they are stored and as the API shows them."""
    return {
        "bonds": [
            {"name": bond.name, "mode": bond.mode.value, "interfaces": list(bond.interfaces)} for bond in layout.bonds
        ],
        "vlans": [dict(vars(vlan)) for vlan in layout.vlans],
        "networks": [dict(vars(access)) for access in layout.networks],
    }


def network_of(row: NetworkRow) -> Network:
    return Network(
        name=row.name,
        purpose=Purpose(row.purpose),
        vlan=row.vlan,
        subnet=row.subnet,
        gateway=row.gateway,
        discovery_start=row.discovery_start,
        discovery_end=row.discovery_end,
        reserved=tuple(reservation_of(item) for item in row.reserved),
        dns_servers=tuple(row.dns_servers),
        ntp_servers=tuple(row.ntp_servers),
        domain=row.domain,
        mtu=row.mtu,
        version=row.version,
        ranges=tuple(row.ranges),
        more_subnets=tuple(Subnet(item["subnet"], item["gateway"], tuple(item["ranges"])) for item in row.more_subnets),
    )


def reservation_of(item: str | Mapping[str, Any]) -> Reservation:
    """Of a span alone, or of its document."""
    return Reservation(item) if isinstance(item, str) else Reservation(item["range"], item["reason"], item["node"])


def reservation_json(item: Reservation) -> dict[str, Any]:
    return {"range": item.span, "reason": item.reason, "node": item.node}


def subnet_json(subnet: Subnet) -> dict[str, Any]:
    return {"subnet": subnet.cidr, "gateway": subnet.gateway, "ranges": list(subnet.ranges)}


def network_columns(network: Network) -> dict[str, Any]:
    columns = {key: value for key, value in vars(network).items() if key not in ("name", "version")}
    columns["purpose"] = network.purpose.value
    for key in ("ranges", "dns_servers", "ntp_servers"):
        columns[key] = list(columns[key])
    columns["reserved"] = [reservation_json(item) for item in network.reserved]
    columns["more_subnets"] = [subnet_json(subnet) for subnet in network.more_subnets]
    return columns


def node_columns(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of the fields that the lifecycle changes."""
    columns: dict[str, Any] = {}
    for field, value in changes.items():
        if field == "once":
            columns.update(once_id=value.id if value else None, once_label=value.label if value else None)
        elif field == "installed":
            columns.update(
                installed_label=value.label if value else None,
                installed_commit=value.commit if value else None,
                installed_at=value.at if value else None,
            )
        elif field == "instance":
            columns.update(instance_uuid=None, instance_name=None, instance_info={}, rescue_password_hash="")
        elif field == "asked_step":
            columns["asked_step"] = value or {}
        elif field == "rescue_password":
            columns["rescue_password_hash"] = ""
        elif field in _LIFECYCLE_FIELDS:
            columns[field] = getattr(value, "value", value)
        else:
            raise KeyError(f"the lifecycle does not change {field!r} of a node")
    return columns


_LIFECYCLE_FIELDS = frozenset(
    {
        "provision_state",
        "target_provision_state",
        "goal",
        "power_state",
        "target_power_state",
        "status_code",
        "status",
        "last_error",
        "label",
        "inspection_error",
        "inspection_started_at",
        "inspection_finished_at",
        "disk_wish",
        "disk_image",
        "disk_used",
    }
)


def operation_of(row: WorkRow) -> Operation | None:
    if row.operation_id is None or row.started_at is None:
        return None
    return Operation(
        id=row.operation_id,
        flow=row.flow,
        step=row.step,
        started_at=row.started_at,
        step_started_at=row.step_started_at,
        tries=row.tries,
        attempt=row.attempt,
        data=row.data,
        slot=row.slot,
    )


def operation_columns(operation: Operation | None) -> dict[str, Any]:
    if operation is None:
        return {
            "operation_id": None,
            "flow": "",
            "step": "",
            "started_at": None,
            "step_started_at": None,
            "tries": 0,
            "attempt": 1,
            "data": {},
            "slot": "",
        }
    columns = dict(vars(operation))
    columns["operation_id"] = columns.pop("id")
    return columns


def step_of(row: StepRow) -> StepRecord:
    return StepRecord(
        operation=row.operation,
        flow=row.flow,
        step=row.step,
        attempt=row.attempt,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outcome=row.outcome,
        reason=row.reason,
    )


def boot_of(row: BootRow) -> BootRecord:
    return BootRecord(
        boot_id=row.boot_id,
        started_at=row.started_at,
        outcome=Outcome(row.outcome),
        mode=row.mode,
        label=row.label,
        commit=row.commit,
        phases=tuple(phase_of(item) for item in row.phases),
        finished_at=row.finished_at,
        duration_s=row.duration_s,
        reason=row.reason,
        memory=row.memory,
    )


def boot_columns(record: BootRecord) -> dict[str, Any]:
    columns = dict(vars(record))
    columns.pop("boot_id")
    columns["outcome"] = record.outcome.value
    columns["phases"] = [phase_json(phase) for phase in record.phases]
    return columns


def phase_of(item: Mapping[str, Any]) -> Phase:
    return Phase(
        name=item["name"],
        started_at=datetime.fromisoformat(item["started_at"]),
        outcome=Outcome(item["outcome"]),
        duration_s=item["duration_s"],
        reason=item["reason"],
    )


def phase_json(phase: Phase) -> dict[str, Any]:
    return {
        "name": phase.name,
        "started_at": phase.started_at.isoformat(),
        "duration_s": phase.duration_s,
        "outcome": phase.outcome.value,
        "reason": phase.reason,
    }
