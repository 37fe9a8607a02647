"""`koguma network`: VLANs, subnets and their purposes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from koguma.cli.client import ApiError, ApiOption, Client
from koguma.cli.errors import UsageFault
from koguma.cli.output import JsonOption, print_json, print_pairs, print_table

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="VLANs, subnets and their purposes.")

Name = Annotated[str, typer.Argument(help="The network's name.")]


@app.command("list")
def list_networks(api: ApiOption = None, as_json: JsonOption = False) -> None:
    """All networks."""
    networks = Client(api).get("networks")
    if as_json:
        print_json(networks)
        return
    rows = [
        (item["name"], item["purpose"], item["vlan"], item["subnet"], item["gateway"], _discovery(item), item["domain"])
        for item in networks
    ]
    columns = ("name", "purpose", "VLAN", "subnet", "gateway", "discovery", "domain")
    print_table(columns, rows, "no networks: koguma network create")


@app.command()
def show(name: Name, api: ApiOption = None, as_json: JsonOption = False) -> None:
    """One network."""
    _show(Client(api).get("networks", name), as_json)


@app.command()
def create(
    name: Name,
    subnet: Annotated[str, typer.Option(help="The IPv4 subnet, like 10.77.0.0/24.")],
    purpose: Annotated[
        Literal["provisioning", "tenant", "bmc", "storage"], typer.Option(help="What it is for.")
    ] = "provisioning",
    vlan: Annotated[int, typer.Option(help="The VLAN; 0: untagged.")] = 0,
    gateway: Annotated[str | None, typer.Option(help="The gateway's address.")] = None,
    discovery: Annotated[str | None, typer.Option(help="FIRST-LAST: addresses for machines nobody knows yet.")] = None,
    reserve: Annotated[
        list[str] | None, typer.Option(help="An address, or FIRST-LAST, that no port may have. Repeatable.")
    ] = None,
    dns: Annotated[list[str] | None, typer.Option(help="A name server. Repeatable.")] = None,
    ntp: Annotated[list[str] | None, typer.Option(help="A time server. Repeatable.")] = None,
    domain: Annotated[str, typer.Option(help="The DNS domain of its machines.")] = "",
    mtu: Annotated[int, typer.Option(help="The largest packet.")] = 1500,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a network. Harmless when it exists with these values."""
    first, last = _range(discovery)
    body = {
        "subnet": subnet,
        "purpose": purpose,
        "vlan": vlan,
        "gateway": gateway,
        "discovery_start": first,
        "discovery_end": last,
        "reserved": reserve or [],
        "dns_servers": dns or [],
        "ntp_servers": ntp or [],
        "domain": domain,
        "mtu": mtu,
    }
    client = Client(api)
    try:
        network = client.post("networks", body={"name": name, **body})
    except ApiError as error:
        if error.status != 409 or name not in {item["name"] for item in client.get("networks")}:
            raise
        network = client.get("networks", name)
        if any(network[key] != value for key, value in body.items()):
            raise UsageFault(
                f"the network exists with other values; change it with `koguma network set {name}`"
            ) from None
    _show(network, as_json)


@app.command("set")
def set_network(
    name: Name,
    subnet: Annotated[str | None, typer.Option(help="The IPv4 subnet, like 10.77.0.0/24.")] = None,
    purpose: Annotated[
        Literal["provisioning", "tenant", "bmc", "storage"] | None, typer.Option(help="What it is for.")
    ] = None,
    vlan: Annotated[int | None, typer.Option(help="The VLAN; 0: untagged.")] = None,
    gateway: Annotated[str | None, typer.Option(help="The gateway's address; '' for none.")] = None,
    discovery: Annotated[
        str | None, typer.Option(help="FIRST-LAST: addresses for machines nobody knows yet; '' for none.")
    ] = None,
    reserve: Annotated[
        list[str] | None, typer.Option(help="An address, or FIRST-LAST, that no port may have; '' for none.")
    ] = None,
    dns: Annotated[list[str] | None, typer.Option(help="A name server; '' for none. Repeatable.")] = None,
    ntp: Annotated[list[str] | None, typer.Option(help="A time server; '' for none. Repeatable.")] = None,
    domain: Annotated[str | None, typer.Option(help="The DNS domain of its machines; '' for the site's.")] = None,
    mtu: Annotated[int | None, typer.Option(help="The largest packet.")] = None,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a network. Its machines learn it at their next boot; an address that is given must still fit."""
    values = {"subnet": subnet, "purpose": purpose, "vlan": vlan, "domain": domain, "mtu": mtu}
    lists = {"reserved": reserve, "dns_servers": dns, "ntp_servers": ntp}
    body: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    body |= {key: [text for text in texts if text] for key, texts in lists.items() if texts is not None}
    if gateway is not None:
        body["gateway"] = gateway or None
    if discovery is not None:
        body["discovery_start"], body["discovery_end"] = _range(discovery or None)
    if not body:
        raise UsageFault("say what to change; `koguma network set --help` lists what can be")
    _show(Client(api).patch("networks", name, body=body), as_json)


@app.command()
def delete(name: Name, api: ApiOption = None) -> None:
    """Delete a network that no port has an address of."""
    Client(api).delete("networks", name)


def _show(network: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(network)
    else:
        print_pairs([(key.replace("_", " "), value) for key, value in network.items()])


def _discovery(network: dict[str, Any]) -> str:
    return f"{network['discovery_start']}-{network['discovery_end']}" if network["discovery_start"] else ""


def _range(text: str | None) -> tuple[str | None, str | None]:
    if text is None:
        return None, None
    first, dash, last = text.partition("-")
    if not dash:
        raise UsageFault(f"a discovery range must be FIRST-LAST, got {text!r}")
    return first.strip(), last.strip()
