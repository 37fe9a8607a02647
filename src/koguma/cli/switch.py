"""`koguma switch`: the switches that nodes are cabled to, and what their ports were put into."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from koguma.cli.client import ApiOption, Client
from koguma.cli.errors import UsageFault
from koguma.cli.output import JsonOption, print_json, print_pairs, print_table, short_time

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The switches that nodes are cabled to.",
)

Name = Annotated[str, typer.Argument(help="The switch's name; what it calls itself in LLDP, or see --chassis.")]
Username = Annotated[str | None, typer.Option(help="Its account.")]
PasswordFile = Annotated[
    str | None, typer.Option("--password-file", help="A file with the account's password; - reads standard input.")
]
KeyFile = Annotated[
    str | None, typer.Option("--private-key-file", help="A file with an OpenSSH private key, instead of a password.")
]
HostKey = Annotated[str | None, typer.Option(help="What its SSH server must prove to be, like `ssh-ed25519 AAAA…`.")]
Port = Annotated[int | None, typer.Option(help="Its SSH port.")]
Chassis = Annotated[
    str | None, typer.Option(help="What LLDP or `local_link_connection` calls it, where that is not its name.")
]
ParkingVlan = Annotated[int | None, typer.Option(help="The VLAN of ports that are in no network; it leads nowhere.")]


@app.command("list")
def list_switches(api: ApiOption = None, as_json: JsonOption = False) -> None:
    """All switches."""
    switches = Client(api).get("switches")
    if as_json:
        print_json(switches)
        return
    rows = [
        (item["name"], item["driver"], item["address"], item["chassis"] or item["name"], item["parking_vlan"])
        for item in switches
    ]
    print_table(("name", "driver", "address", "chassis", "parking"), rows, "no switches: koguma switch create")


@app.command()
def show(name: Name, api: ApiOption = None, as_json: JsonOption = False) -> None:
    """One switch. Its secrets are not shown."""
    _show(Client(api).get("switches", name), as_json)


@app.command()
def create(
    name: Name,
    driver: Annotated[str, typer.Option(help="ovs, eos, nxos, junos, sonic, cumulus or fake.")],
    address: Annotated[str, typer.Option(help="A host; for ovs unix:PATH or tcp:HOST:PORT.")],
    username: Username = None,
    password_file: PasswordFile = None,
    private_key_file: KeyFile = None,
    host_key: HostKey = None,
    port: Port = None,
    chassis: Chassis = None,
    parking_vlan: ParkingVlan = None,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a switch on record: from then on the ports of nodes that are cabled to it follow their state."""
    body = _body(username, password_file, private_key_file, host_key, port, chassis, parking_vlan)
    _show(Client(api).post("switches", body={"name": name, "driver": driver, "address": address, **body}), as_json)


@app.command("set")
def set_switch(
    name: Name,
    driver: Annotated[str | None, typer.Option(help="ovs, eos, nxos, junos, sonic, cumulus or fake.")] = None,
    address: Annotated[str | None, typer.Option(help="A host; for ovs unix:PATH or tcp:HOST:PORT.")] = None,
    username: Username = None,
    password_file: PasswordFile = None,
    private_key_file: KeyFile = None,
    host_key: HostKey = None,
    port: Port = None,
    chassis: Chassis = None,
    parking_vlan: ParkingVlan = None,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a switch."""
    body = _body(username, password_file, private_key_file, host_key, port, chassis, parking_vlan)
    body |= {key: value for key, value in (("driver", driver), ("address", address)) if value is not None}
    if not body:
        raise UsageFault("say what to change; `koguma switch set --help` lists what can be")
    _show(Client(api).patch("switches", name, body=body), as_json)


@app.command()
def delete(name: Name, api: ApiOption = None) -> None:
    """Forget a switch that has no port of a node."""
    Client(api).delete("switches", name)


@app.command()
def ports(name: Name, api: ApiOption = None, as_json: JsonOption = False) -> None:
    """What Koguma put its ports into."""
    items = Client(api).get("switches", name, "ports")
    if as_json:
        print_json(items)
        return
    rows = [
        (
            item["port"],
            item["network"],
            item["untagged"] or "",
            item["tagged"],
            item["bond"] or "",
            item["node"] or "a node that was forgotten",
            short_time(item["written_at"]) if item["written_at"] else "being written",
        )
        for item in items
    ]
    print_table(("port", "network", "untagged", "tagged", "bond", "node", "since (UTC)"), rows, "no port was set yet")


def _show(switch: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(switch)
    else:
        print_pairs([(key.replace("_", " "), value) for key, value in switch.items()])


def _body(
    username: str | None,
    password_file: str | None,
    private_key_file: str | None,
    host_key: str | None,
    port: int | None,
    chassis: str | None,
    parking_vlan: int | None,
) -> dict[str, Any]:
    """The keys that were given."""
    values = {
        "username": username,
        "password": _secret(password_file).strip("\n") if password_file is not None else None,
        "private_key": _secret(private_key_file) if private_key_file is not None else None,
        "host_key": host_key,
        "port": port,
        "chassis": chassis,
        "parking_vlan": parking_vlan,
    }
    return {key: value for key, value in values.items() if value is not None}


def _secret(path: str) -> str:
    if path == "-":
        return sys.stdin.read()
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageFault(f"the file must be readable: {error.strerror} ({path})") from None
