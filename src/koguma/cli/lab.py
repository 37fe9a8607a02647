"""`koguma lab`: the virtual datacentre on this machine."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from koguma import config as configuration
from koguma.config import Config
from koguma.lab import enrolment, machine, status
from koguma.lab.bmc import PowerAction
from koguma.lab.control_plane import Site
from koguma.lab.enrolment import NodeView
from koguma.lab.errors import LabError
from koguma.lab.lab import Lab, plan_of
from koguma.lab.plan import DISKS_MAX, BmcKind, Hardware, fair_cpus
from koguma.lab.ssh import run_on

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="The virtual datacentre: a switch, BMCs and machines.",
)

NODES = 3
DEADLINE_S = 900.0

NodeArgument = Annotated[str, typer.Argument(help="A machine: node1, node2, …, or the name Koguma gave it.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="koguma.toml; otherwise $KOGUMA_CONFIG, ./koguma.toml, /etc/koguma/…")
]


@app.command()
def up(
    nodes: Annotated[
        int | None, typer.Option(min=1, max=99, help=f"How many machines [default: those there are, else {NODES}].")
    ] = None,
    uefi: Annotated[bool, typer.Option("--uefi", help="New machines have UEFI firmware instead of BIOS.")] = False,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="Processors of a new machine [default: 2, or 1 where cores are few].")
    ] = None,
    memory: Annotated[int, typer.Option(min=64, help="MiB of memory of a new machine.")] = Hardware.memory_mib,
    disk: Annotated[int, typer.Option(min=0, help="GiB of each disk of a new machine; 0: none.")] = Hardware.disk_gib,
    disks: Annotated[int, typer.Option(min=1, max=DISKS_MAX, help="How many such disks it has.")] = Hardware.disks,
    bmc: Annotated[BmcKind, typer.Option(help="What the BMC of a new machine speaks.")] = Hardware.bmc,
    pxe: Annotated[bool, typer.Option(help="The firmware of a new machine can boot from the network.")] = Hardware.pxe,
    wait: Annotated[bool, typer.Option(help="Wait until every node is active.")] = True,
    deadline: Annotated[float, typer.Option(min=1, help="Seconds to wait for that.")] = DEADLINE_S,
    as_json: Annotated[bool, typer.Option("--json", help="Print the nodes as JSON.")] = False,
    config_path: ConfigOption = None,
) -> None:
    """Bring up the switch, Koguma and the machines, and wait until every node is active. What runs already stays."""
    config = configuration.load(config_path)
    nodes = nodes or len(lab_of(config, config_path).plan.machines) or NODES
    cpus = cpus or fair_cpus(nodes, os.cpu_count() or 1)
    hardware = Hardware(cpus=cpus, memory_mib=memory, disk_gib=disk, disks=disks, bmc=bmc, pxe=pxe)
    lab = lab_of(config, config_path, nodes, uefi=uefi, hardware=hardware)
    out = Console(stderr=as_json)
    with out.status("switch and cabling"):
        lab.network_up()
    out.print(f"switch and cabling of {len(lab.plan.machines)} machines: up")
    with out.status("Koguma"):
        lab.koguma_up()
    out.print(f"Koguma: up, API at {lab.control_plane.api.url}")
    for command in lab.control_plane.missing_images():
        out.print(f"koguma {' '.join(command)}")
        lab.control_plane.build(command)
    with out.status("BMCs and power"):
        powered_on = lab.machines_up()
    out.print("BMCs: up, every machine powered on")
    if not wait:
        return
    outcome = _watch(lab, deadline, out, powered_on)
    _print_nodes(outcome.views, as_json)
    _print_addresses(lab, out)
    if not outcome.all_active:
        late = [f"{view.machine} ({view.provision_state}, {view.status})" for view in outcome.views if not view.active]
        raise LabError(f"every node must be active within {deadline:g} s, not so: {'; '.join(late)}")


@app.command()
def down(config_path: ConfigOption = None) -> None:
    """Remove the lab: processes, namespaces, cables, sockets. Logs, BMC memories and images stay."""
    _lab(config_path).down()


@app.command(name="status")
def show_status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False, config_path: ConfigOption = None
) -> None:
    """Show the switch, the controller and every machine."""
    found = status.look(_lab(config_path))
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    out = _wide()
    parts = {
        "switch": found.switch_running,
        "LLDP": found.lldp_running,
        "controller": found.controller_running,
        "NFS": found.nfs_running,
        "Koguma": found.koguma_running,
        "API": found.koguma_healthy,
    }
    out.print(f"lab {found.name}: " + ", ".join(f"{name} {'up' if there else 'down'}" for name, there in parts.items()))
    table = Table("machine", "BMC", "reachable", "power", "firmware", "QEMU", "LLDP", "console log")
    for one in found.machines:
        table.add_row(
            one.name,
            one.bmc_address,
            "yes" if one.bmc_reachable else "no",
            one.power,
            one.firmware,
            str(one.qemu_pid or ""),
            " ".join(one.lldp_ports),
            one.console_log,
        )
    out.print(table)


@app.command()
def console(node: NodeArgument, config_path: ConfigOption = None) -> None:
    """Join a machine's serial console; Ctrl-] leaves it."""
    lab = _lab(config_path)
    print("Ctrl-] leaves the console", file=sys.stderr)
    machine.attach_console(lab.control_plane.machine_named(node), sys.stdin.fileno(), sys.stdout.fileno())


@app.command()
def power(
    node: NodeArgument,
    action: Annotated[PowerAction, typer.Argument(help="What its BMC is asked to do.")],
    config_path: ConfigOption = None,
) -> None:
    """Power a machine through its BMC's factory account, behind Koguma's back."""
    lab = _lab(config_path)
    lab.bmc(lab.control_plane.machine_named(node)).power(action)


@app.command(context_settings={"ignore_unknown_options": True})
def ssh(
    node: NodeArgument,
    command: Annotated[list[str] | None, typer.Argument(help="A command; without one, a shell.")] = None,
    config_path: ConfigOption = None,
) -> None:
    """Run a command on a node and return its exit status."""
    config = configuration.load(config_path)
    lab = lab_of(config, config_path)
    plane = lab.control_plane
    target = plane.ssh_target(plane.machine_named(node))
    key = config.secrets_dir / "operator"
    raise typer.Exit(run_on(lab.plan.controller_namespace, target, key, lab.plan.run_dir, command or []))


def lab_of(
    config: Config,
    config_path: Path | None = None,
    nodes: int = 0,
    *,
    uefi: bool = False,
    hardware: Hardware | None = None,
) -> Lab:
    """The lab of a configuration, with the machines it has and, if those are fewer than asked, new ones."""
    environ = {"KOGUMA_CONFIG": str(config_path.absolute())} if config_path else {}
    site = Site(
        state_dir=config.state_dir,
        repository=config.repository,
        nfs_dir=config.nfs_dir,
        api=config.api.listen,
        program=Path(sys.executable).with_name("koguma"),
        environ=environ,
    )
    return Lab(plan_of(config.lab.name, config.state_dir / "lab", nodes, uefi=uefi, hardware=hardware), site)


def _lab(config_path: Path | None) -> Lab:
    return lab_of(configuration.load(config_path), config_path)


def _watch(lab: Lab, deadline_s: float, out: Console, powered_on: dict[str, datetime]) -> enrolment.Outcome:
    """Wait, with a live table on a terminal and one line per change elsewhere."""
    if not out.is_terminal:
        return _watch_plainly(lab, deadline_s, out, powered_on)
    with Live(console=out, refresh_per_second=4) as live:

        def show(views: tuple[NodeView, ...], elapsed_s: float) -> None:
            live.update(_progress(views, elapsed_s))

        return enrolment.wait_until_active(lab, deadline_s, show, powered_on)


def _watch_plainly(lab: Lab, deadline_s: float, out: Console, powered_on: dict[str, datetime]) -> enrolment.Outcome:
    seen: dict[str, str] = {}

    def show(views: tuple[NodeView, ...], elapsed_s: float) -> None:
        for view in views:
            line = "  ".join(text for text in (view.machine, view.provision_state, view.phase, view.status) if text)
            if seen.get(view.machine) != line:
                seen[view.machine] = line
                out.print(f"{elapsed_s:6.1f} s  {line}", highlight=False, markup=False, soft_wrap=True)

    return enrolment.wait_until_active(lab, deadline_s, show, powered_on)


def _progress(views: tuple[NodeView, ...], elapsed_s: float) -> Table:
    table = Table("machine", "node", "state", "phase", "boot", "", title=f"{elapsed_s:.0f} s")
    for view in views:
        table.add_row(view.machine, view.name, view.provision_state, view.phase, _seconds(view.boot_s), view.status)
    return table


def _print_nodes(views: tuple[NodeView, ...], as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(view) for view in views], indent=2))
        return
    table = Table("machine", "node", "uuid", "state", "flavor", "label", "commit", "boot", "addresses", "BMC")
    for view in views:
        table.add_row(
            view.machine,
            view.name,
            view.uuid,
            view.provision_state,
            view.flavor,
            view.label,
            view.commit[:12],
            _seconds(view.boot_s),
            " ".join(view.addresses),
            view.bmc_address,
        )
    _wide().print(table)


def _print_addresses(lab: Lab, out: Console) -> None:
    first = lab.plan.machines[0].name
    out.print(f"API       {lab.control_plane.api.url}", highlight=False)
    out.print(f"console   koguma lab console {first}", highlight=False)
    out.print(f"ssh       koguma lab ssh {first}", highlight=False)
    out.print(f"logs      {lab.plan.logs_dir}", highlight=False)


def _wide() -> Console:
    """Standard output; a table that goes to a file or a program must not lose a column to a narrow screen."""
    return Console(width=None if sys.stdout.isatty() else 200)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"
