# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma node`: machines. Everything goes through the API, except `ssh`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from koguma.cli.client import ApiAway, ApiOption, Client
from koguma.cli.errors import Failed, UsageFault
from koguma.cli.flavor import json_value
from koguma.cli.output import (
    JsonOption,
    duration,
    print_json,
    print_pairs,
    print_table,
    progress,
    short_time,
)
from koguma.errors import KogumaError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Machines: list, show, power, boot.",
)

POLL_S = 0.5
RESTING = frozenset(
    {"enroll", "manageable", "available", "active", "rescue", "error", "deploy hold", "clean hold", "service hold"}
)


def complete_node(incomplete: str) -> list[str]:
    """Names for the shell; none when the API is away."""
    try:
        return [node["name"] for node in Client(None).get("nodes") if node["name"].startswith(incomplete)]
    except KogumaError:
        return []


Name = Annotated[str, typer.Argument(help="The node's name or UUID.", autocompletion=complete_node)]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done; status 1 when it failed.")]
TimeoutOption = Annotated[float, typer.Option(help="How long to wait, in seconds.")]


@app.command("list")
def list_nodes(
    state: Annotated[str | None, typer.Option(help="Only nodes in this provision state.")] = None,
    flavor: Annotated[str | None, typer.Option(help="Only nodes of this flavor.")] = None,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """All nodes."""
    nodes = Client(api).get_all("nodes", provision_state=state, flavor=flavor)
    if as_json:
        print_json(nodes)
        return
    rows = [
        (
            node["name"],
            node["provision_state"],
            node["power_state"].removeprefix("power "),
            node["flavor"],
            node["label"],
            (node["commit"] or "")[:12],
            node["addresses"],
            node["status"] or node["status_code"].lower().replace("_", " "),
        )
        for node in nodes
    ]
    columns = ("name", "state", "power", "flavor", "label", "commit", "addresses", "status")
    print_table(columns, rows, "no nodes yet: power on a machine on the provisioning network")


@app.command()
def show(name: Name, api: ApiOption = None, as_json: JsonOption = False) -> None:
    """One node, with its hardware and cabling."""
    node = Client(api).get("nodes", name)
    if as_json:
        print_json(node)
        return
    plain = [
        "name", "uuid", "serial", "manufacturer", "product", "provision_state", "power_state", "status_code", "status",
        "last_error", "reason_not_bootable", "maintenance", "flavor", "label", "commit", "installed_at", "addresses",
        "bmc_address", "firmware", "kexec", "last_seen",
    ]  # fmt: skip
    pairs = [(key.replace("_", " "), node[key]) for key in plain]
    hardware = node["inventory"]
    pairs.append(("CPUs", hardware.get("cpu", {}).get("count")))
    pairs.append(("memory", _gib(hardware.get("memory_bytes"))))
    if memory := node["memory"]:
        pairs.append(("memory available", _gib(memory.get("available_bytes"))))
    if mirror := node["mirror"]:
        pairs.append(("mirror of the root", f"{mirror['working']} of {mirror['disks']} disks work"))
    pairs.extend((f"disk {disk['name']}", _gib(disk["size_bytes"])) for disk in hardware.get("disks", []))
    for port in node["ports"]:
        lldp = port["lldp"] or {}
        cable = f" <- {lldp.get('chassis')} {lldp.get('port')}" if lldp else ""
        pairs.append((f"port {port['name']}", f"{port['interface']} {port['mac']} {port['address'] or ''}{cable}"))
    pairs.extend((f"VLAN of {item['network']}", item["address"]) for item in node["vlan_addresses"])
    print_pairs(pairs)


@app.command()
def boots(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """The node's boots, newest first, each with its phases."""
    records = Client(api).get("nodes", name, "boots", limit=limit)
    if as_json:
        print_json(records)
        return
    rows = [
        (
            short_time(boot["started_at"]),
            boot["outcome"],
            boot["label"],
            (boot["commit"] or "")[:12],
            duration(boot["duration_s"]),
            " ".join(f"{phase['name']} {duration(phase['duration_s']) or '…'}" for phase in boot["phases"]),
            boot["reason"],
        )
        for boot in records
    ]
    print_table(("started (UTC)", "outcome", "label", "commit", "took", "phases", "reason"), rows, "no boots yet")


@app.command()
def history(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """The steps that were run for the node, newest first."""
    steps = Client(api).get("nodes", name, "history", limit=limit)
    if as_json:
        print_json(steps)
        return
    rows = [
        (short_time(step["started_at"]), step["flow"], step["step"], step["outcome"], step["reason"]) for step in steps
    ]
    print_table(("started (UTC)", "flow", "step", "outcome", "reason"), rows, "nothing was done yet")


@app.command()
def power(
    name: Name,
    action: Annotated[
        Literal["status", "on", "off", "soft-off", "cycle", "reboot"],
        typer.Argument(help="off and cycle cut the power; soft-off and reboot ask the operating system first."),
    ] = "status",
    wait: WaitOption = False,
    timeout: TimeoutOption = 300,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show or change a node's power."""
    client = Client(api)
    if action == "status":
        node = client.get("nodes", name)
    else:
        node = client.put("nodes", name, "power", body={"target": action.replace("-", " ")})
        if wait:
            node = _wait(client, name, f"power {action}", timeout, lambda seen: seen["target_power_state"] is None)
            if node["status_code"].endswith("_TIMED_OUT") or node["status_code"].startswith("BMC_"):
                raise Failed(f"power {action} failed: {node['last_error']} (node {node['name']})")
    if as_json:
        print_json(node)
    else:
        print(node["power_state"] if action == "status" or wait else f"power {action} is under way")


@app.command()
def boot(
    name: Name,
    label: Annotated[str | None, typer.Option(help="What to boot: a branch, a tag or a commit.")] = None,
    once: Annotated[bool, typer.Option("--once", help="For the next boot only.")] = False,
    clear: Annotated[bool, typer.Option("--clear", help="Boot the flavor's label again.")] = False,
    reboot: Annotated[bool, typer.Option("--reboot/--no-reboot", help="Reboot an active node now.")] = True,
    wait: WaitOption = False,
    timeout: TimeoutOption = 900,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set what a node boots, and reboot it into that."""
    if (label is None) != clear:
        raise UsageFault("say what to boot with --label, or --clear to boot the flavor's label again")
    client = Client(api)
    before = _newest_boot(client, name)
    node = client.put("nodes", name, "boot", body={"label": label, "once": once, "reboot": reboot})
    if wait and reboot and node["provision_state"] == "active":
        record = _wait_for_boot(client, name, before, timeout)
        if record["outcome"] != "succeeded":
            raise Failed(f"the boot {record['outcome']}: {record['reason']} (node {node['name']})")
        node = client.get("nodes", name)
    if as_json:
        print_json(node)
    else:
        print(f"{node['name']} boots {label or node['label']}{' once' if once else ''}")


@app.command("set-flavor")
def set_flavor(
    name: Name,
    flavor: Annotated[str, typer.Argument(help="The flavor's name.")],
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a node another flavor; it boots that at its next boot."""
    _print_node(Client(api).patch("nodes", name, body={"flavor": flavor}), as_json)


@app.command("set")
def set_node(
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", help="Rename it.")] = None,
    kexec: Annotated[bool | None, typer.Option("--kexec/--no-kexec", help="Whether stage 1 uses kexec.")] = None,
    maintenance: Annotated[
        bool | None, typer.Option("--maintenance/--no-maintenance", help="In maintenance it is left alone.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why it is in maintenance.")] = None,
    variables: Annotated[str | None, typer.Option(help="Values for templates: JSON, or @FILE.")] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="What it is handed over to instead of its flavor's networks; '' for none. Repeatable."),
    ] = None,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a node."""
    values = {
        "name": new_name,
        "kexec": kexec,
        "maintenance": maintenance,
        "maintenance_reason": "" if maintenance is False and reason is None else reason,
        "variables": json_value(variables, "--variables") if variables is not None else None,
        "networks": [text for text in network if text] if network is not None else None,
    }
    body = {key: value for key, value in values.items() if value is not None}
    if not body:
        raise UsageFault("say what to change; `koguma node set --help` lists what can be")
    _print_node(Client(api).patch("nodes", name, body=body), as_json)


@app.command("set-bmc")
def set_bmc(
    name: Name,
    driver: Annotated[Literal["ipmi", "redfish"], typer.Option(help="What the BMC speaks.")],
    address: Annotated[str, typer.Option(help="HOST, HOST:PORT, or redfish://HOST[:PORT][?tls=sha256:…|ca:FILE|any].")],
    username: Annotated[str, typer.Option(help="Its account.")],
    password_file: Annotated[
        typer.FileText | None,
        typer.Option(help="Holds the account's password; - for standard input. Else it is asked for."),
    ] = None,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell where a node's BMC is, where its machine cannot. A node on its way to work goes on then."""
    password = password_file.read().rstrip("\n") if password_file else typer.prompt("Password", hide_input=True)
    bmc = {"driver": driver, "address": address, "username": username, "password": password}
    _print_node(Client(api).patch("nodes", name, body={"bmc": bmc}), as_json)


@app.command()
def manage(
    name: Name,
    wait: WaitOption = False,
    timeout: TimeoutOption = 300,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a node's BMC: enroll to manageable."""
    _provision(name, "manage", "manageable", wait, timeout, api, as_json)


@app.command()
def provide(
    name: Name,
    wait: WaitOption = False,
    timeout: TimeoutOption = 900,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Offer a node for use: manageable to available."""
    _provision(name, "provide", "available", wait, timeout, api, as_json)


@app.command()
def deploy(
    name: Name,
    wait: WaitOption = False,
    timeout: TimeoutOption = 1800,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a node to use: available to active."""
    _provision(name, "active", "active", wait, timeout, api, as_json)


@app.command()
def rebuild(
    name: Name,
    wait: WaitOption = False,
    timeout: TimeoutOption = 1800,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Deploy a node anew."""
    _provision(name, "rebuild", "active", wait, timeout, api, as_json)


@app.command()
def undeploy(
    name: Name,
    wait: WaitOption = False,
    timeout: TimeoutOption = 900,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a node's use: it is powered off and available again."""
    _provision(name, "deleted", "available", wait, timeout, api, as_json)


@app.command()
def rescue(
    name: Name,
    password_file: Annotated[
        typer.FileText | None,
        typer.Option(help="Password of the user `rescue`; - for standard input. Keys work without."),
    ] = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = 1800,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Boot a node into a rescue shell on the network."""
    password = password_file.read().rstrip("\n") if password_file else None
    more = {"rescue_password": password} if password else {}
    _provision(name, "rescue", "rescue", wait, timeout, api, as_json, **more)


@app.command()
def unrescue(
    name: Name,
    wait: WaitOption = False,
    timeout: TimeoutOption = 1800,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Boot a node back from rescue."""
    _provision(name, "unrescue", "active", wait, timeout, api, as_json)


@app.command()
def replace(
    name: Name,
    with_node: Annotated[
        str | None, typer.Option("--with", help="The node that takes its place; otherwise any spare of its flavor.")
    ] = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = 1800,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put another machine in a node's place, with its name, keys, addresses and volume; the old one is set aside."""
    client = Client(api)
    node = client.post("nodes", name, "replacement", body={"with_node": with_node})
    if wait:
        # The name goes over to the other machine, whose deployment is waited for under it.
        node = _wait_for_state(client, node["name"], "replace", "active", timeout)
    _print_node(node, as_json)


@app.command()
def abort(name: Name, api: ApiOption = None, as_json: JsonOption = False) -> None:
    """Stop waiting for a machine's call-back."""
    _provision(name, "abort", "", wait=False, timeout=0, api=api, as_json=as_json)


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, and delete a node in use too.")] = False,
    api: ApiOption = None,
) -> None:
    """Forget a node. A machine that is powered on again registers as a new one."""
    client = Client(api)
    if not yes:
        node = client.get("nodes", name)
        if not sys.stdin.isatty():
            raise UsageFault(f"to forget {node['name']} ({node['provision_state']}) without being asked, say --yes")
        typer.confirm(f"Forget {node['name']}, which is {node['provision_state']}?", abort=True)
    client.delete("nodes", name, force="true" if yes else None)


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def ssh(
    name: Name,
    command: Annotated[list[str] | None, typer.Argument(help="What to run there; otherwise a shell.")] = None,
    user: Annotated[str, typer.Option(help="The user on the node.")] = "root",
    api: ApiOption = None,
) -> None:
    """Log in to a node with the operator's key, or run a command there; its exit status is this one's."""
    from koguma.cli.ssh import run

    words = command or []
    # The dashes end this program's words; after the first of them, the parser takes what follows as it stands.
    sys.exit(run(Client(api).get("nodes", name), user, words[1:] if words[:1] == ["--"] else words))


def _provision(
    name: str, target: str, wanted: str, wait: bool, timeout: float, api: str | None, as_json: bool, **more: str
) -> None:
    client = Client(api)
    node = client.put("nodes", name, "provision", body={"target": target, **more})
    if wait:
        node = _wait_for_state(client, name, target, wanted, timeout)
    _print_node(node, as_json)


def _wait_for_state(client: Client, name: str, title: str, wanted: str, timeout_s: float) -> dict[str, Any]:
    """The node once nothing is under way. Raises Failed when it rests in another state."""
    node = _wait(client, name, title, timeout_s, _rests)
    if node["provision_state"] != wanted:
        raise Failed(f"the node is {node['provision_state']!r}: {node['last_error']} (node {node['name']})")
    return node


def _rests(node: dict[str, Any]) -> bool:
    """Whether nothing is under way: a state at rest, or a failure."""
    state = node["provision_state"]
    return node["target_provision_state"] is None and (state in RESTING or state.endswith("failed"))


def _wait(
    client: Client, name: str, title: str, timeout_s: float, done: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The node once it is done. Raises Failed at the deadline. An API that restarts meanwhile is waited for."""
    deadline = time.monotonic() + timeout_s
    with progress(f"{name} {title}") as tell:
        while True:
            try:
                node: dict[str, Any] = client.get("nodes", name)
                if done(node):
                    return node
                tell(f"{node['provision_state']}, {node['status'] or node['status_code']}")
            except ApiAway:
                tell("the API does not answer")
            if time.monotonic() > deadline:
                raise Failed(f"not done within {timeout_s:g} s (node {name})")
            time.sleep(POLL_S)


def _wait_for_boot(client: Client, name: str, before: str | None, timeout_s: float) -> dict[str, Any]:
    record: dict[str, Any] = {}

    def ended(_: dict[str, Any]) -> bool:
        newest = client.get("nodes", name, "boots", limit=1)
        if newest and newest[0]["id"] != before:
            record.update(newest[0])
        return bool(record.get("outcome", "running") != "running")

    _wait(client, name, "boot", timeout_s, ended)
    return record


def _newest_boot(client: Client, name: str) -> str | None:
    newest = client.get("nodes", name, "boots", limit=1)
    return newest[0]["id"] if newest else None


def _print_node(node: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(node)
    else:
        print(f"{node['name']} is {node['provision_state']}, flavor {node['flavor'] or 'none'}")


def _gib(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / (1 << 30):.1f} GiB"
