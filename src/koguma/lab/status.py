"""What is there of a lab, looked up, never assumed."""

from __future__ import annotations

from dataclasses import dataclass

from koguma.lab import netns
from koguma.lab.lab import Lab
from koguma.lab.plan import Machine


@dataclass(frozen=True)
class MachineStatus:
    """One chassis."""

    name: str
    uuid: str
    firmware: str
    bmc_address: str
    bmc_reachable: bool
    power: str
    """`on`, `off`, or `unknown` when the BMC does not answer."""
    qemu_pid: int | None
    console_socket: str
    console_log: str
    macs: tuple[str, ...]
    lldp_ports: tuple[str, ...]
    """The switch ports its network cards are cabled to, whose names the cards hear over LLDP."""


@dataclass(frozen=True)
class LabStatus:
    """The whole lab."""

    name: str
    home: str
    switch_running: bool
    lldp_running: bool
    controller_running: bool
    """The namespace exists and has the provisioning and BMC interfaces."""
    nfs_running: bool
    koguma_running: bool
    koguma_healthy: bool
    ports: dict[str, int | None]
    """Switch ports and their VLAN tags."""
    machines: tuple[MachineStatus, ...]


def look(lab: Lab) -> LabStatus:
    """The lab as it is now."""
    switch_running = lab.switch.running()
    has_site = lab.site is not None
    return LabStatus(
        name=lab.plan.name,
        home=str(lab.plan.home),
        switch_running=switch_running,
        lldp_running=lab.switch.lldp_running(),
        controller_running=_controller_running(lab),
        nfs_running=has_site and lab.nfs.running(),
        koguma_running=has_site and lab.control_plane.running(),
        koguma_healthy=has_site and lab.control_plane.api.healthy(),
        ports=lab.switch.ports() if switch_running else {},
        machines=tuple(_machine(lab, machine) for machine in lab.plan.machines),
    )


def _machine(lab: Lab, machine: Machine) -> MachineStatus:
    bmc = lab.bmc(machine)
    is_on = bmc.power_is_on_or_none() if bmc.running() else None
    record = lab.processes.running(machine.name)
    return MachineStatus(
        name=machine.name,
        uuid=machine.uuid,
        firmware=machine.hardware.firmware.value,
        bmc_address=bmc.address(),
        bmc_reachable=is_on is not None,
        power={True: "on", False: "off", None: "unknown"}[is_on],
        qemu_pid=record.pid if record else None,
        console_socket=str(machine.console_socket),
        console_log=str(machine.console_log),
        macs=tuple(nic.mac for nic in machine.nics),
        lldp_ports=tuple(nic.switch_port for nic in machine.nics),
    )


def _controller_running(lab: Lab) -> bool:
    namespace = lab.plan.controller_namespace
    return netns.exists(namespace) and all(netns.has_link(namespace, link) for link in ("prov", "bmc"))
