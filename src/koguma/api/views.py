"""Values of the model as the JSON of the native API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from koguma.db.rows import layout_json, phase_json, reservation_json, subnet_json
from koguma.lifecycle.steps import reason_not_bootable
from koguma.model.boot_record import BootRecord
from koguma.model.flavor import Flavor
from koguma.model.layout import interface_names, layout_for, reason_not_fitting
from koguma.model.network import Network
from koguma.model.node import Node
from koguma.model.operation import StepRecord
from koguma.model.switch import Placement


def node_json(node: Node, flavor: Flavor | None) -> dict[str, Any]:
    """Everything an operator may know of a node; no secret is part of it. `flavor` is the node's."""
    installed = node.installed
    interfaces = interface_names(node.ports)
    return {
        "uuid": node.uuid,
        "name": node.name,
        "serial": node.serial,
        "manufacturer": node.manufacturer,
        "product": node.product,
        "architecture": node.architecture,
        "firmware": node.firmware,
        "provision_state": node.provision_state.value,
        "target_provision_state": _value(node.target_provision_state),
        "goal": _value(node.goal),
        "power_state": node.power_state.value,
        "target_power_state": _value(node.target_power_state),
        "status_code": node.status_code.value,
        "status": node.status,
        "last_error": node.last_error,
        "maintenance": node.maintenance,
        "maintenance_reason": node.maintenance_reason,
        "flavor": node.flavor,
        "label": node.label or (flavor.label if flavor else None),
        "label_override": node.label,
        "once": {"id": node.once.id, "label": node.once.label} if node.once else None,
        "kexec": node.kexec,
        "commit": installed.commit if installed else None,
        "installed_label": installed.label if installed else None,
        "installed_at": _time(installed.at if installed else None),
        "addresses": list(node.addresses),
        "bmc_address": node.bmc.address if node.bmc else None,
        "bmc": {"driver": node.bmc.driver, "username": node.bmc.username, "mac": node.bmc.mac} if node.bmc else None,
        "networks": [vif.network for vif in node.vifs],
        "vlan_addresses": [dict(vars(item)) for item in node.vlan_addresses],
        "reason_not_bootable": _reason_not_bootable(node, flavor),
        "ports": [{**vars(port), "interface": interfaces[port.mac]} for port in node.ports],
        "inventory": node.inventory,
        "variables": node.variables,
        "ssh_host_public_keys": [node.ssh_host_public_key] if node.ssh_host_public_key else [],
        "memory": node.memory,
        "mirror": node.mirror,
        "last_seen": _time(node.last_seen),
        "registered_at": _time(node.registered_at),
        "created_at": _time(node.created_at),
        "updated_at": _time(node.updated_at),
        "version": node.version,
    }


def boot_json(boot: BootRecord) -> dict[str, Any]:
    return {
        "id": boot.boot_id,
        "mode": boot.mode,
        "outcome": boot.outcome.value,
        "reason": boot.reason,
        "label": boot.label,
        "commit": boot.commit,
        "started_at": _time(boot.started_at),
        "finished_at": _time(boot.finished_at),
        "duration_s": boot.duration_s,
        "phases": [phase_json(phase) for phase in boot.phases],
        "memory": boot.memory,
    }


def step_json(step: StepRecord) -> dict[str, Any]:
    return {**vars(step), "started_at": _time(step.started_at), "finished_at": _time(step.finished_at)}


def flavor_json(flavor: Flavor) -> dict[str, Any]:
    return {
        **{key: value for key, value in vars(flavor).items() if key != "layout"},
        "root_method": flavor.root_method.value,
        "templates": [dict(vars(template)) for template in flavor.templates],
        **layout_json(flavor.layout),
    }


def network_json(network: Network) -> dict[str, Any]:
    lists = {key: list(getattr(network, key)) for key in ("ranges", "dns_servers", "ntp_servers")}
    return {
        **vars(network),
        **lists,
        "purpose": network.purpose.value,
        "reserved": [reservation_json(item) for item in network.reserved],
        "more_subnets": [subnet_json(subnet) for subnet in network.more_subnets],
    }


def placement_json(item: Placement) -> dict[str, Any]:
    return {**vars(item), "tagged": list(item.tagged), "written_at": _time(item.written_at)}


def _reason_not_bootable(node: Node, flavor: Flavor | None) -> str | None:
    """As the node's and the flavor's records stand now, whether or not a boot has been tried."""
    reason = reason_not_bootable(node, flavor)
    if reason or flavor is None:
        return reason
    return reason_not_fitting(layout_for(node, flavor.layout), node)


def _value(member: Any) -> Any:
    return member.value if member is not None else None


def _time(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
