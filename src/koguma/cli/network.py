"""`koguma network`: VLANs, subnets and their purposes, and who has which address."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from koguma.cli.client import ApiError, ApiOption, Client
from koguma.cli.errors import UsageFault
from koguma.cli.output import JsonOption, print_json, print_pairs, print_table

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="VLANs, subnets and their purposes.",
)

Name = Annotated[str, typer.Argument(help="The network's name.")]
GiveFrom = Annotated[
    list[str] | None,
    typer.Option("--range", help="FIRST-LAST of the first subnet, from which addresses are given. Repeatable."),
]
MoreSubnets = Annotated[
    list[str] | None,
    typer.Option(
        "--more-subnet",
        help="SUBNET[,gateway=ADDRESS][,range=FIRST-LAST…], such as an IPv6 one; '' for none. Repeatable.",
    ),
]
AddressSpan = Annotated[str, typer.Argument(metavar="ADDRESS", help="One address, or FIRST-LAST.")]


@app.command("list")
def list_networks(api: ApiOption = None, as_json: JsonOption = False) -> None:
    """All networks."""
    networks = Client(api).get("networks")
    if as_json:
        print_json(networks)
        return
    rows = [
        (item["name"], item["purpose"], item["vlan"], _subnets(item), item["gateway"], _discovery(item), item["domain"])
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
    subnet: Annotated[str, typer.Option(help="The first subnet, like 10.77.0.0/24; IPv4 where machines boot.")],
    purpose: Annotated[
        Literal["provisioning", "tenant", "bmc", "storage"], typer.Option(help="What it is for.")
    ] = "provisioning",
    vlan: Annotated[int, typer.Option(help="The VLAN; 0: untagged.")] = 0,
    gateway: Annotated[str | None, typer.Option(help="The gateway's address.")] = None,
    discovery: Annotated[str | None, typer.Option(help="FIRST-LAST: addresses for machines nobody knows yet.")] = None,
    reserve: Annotated[
        list[str] | None, typer.Option(help="An address, or FIRST-LAST, that no port may have. Repeatable.")
    ] = None,
    give_from: GiveFrom = None,
    more_subnet: MoreSubnets = None,
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
        "reserved": [_reservation(text) for text in reserve or []],
        "ranges": give_from or [],
        "more_subnets": [_subnet(text) for text in more_subnet or []],
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
    subnet: Annotated[str | None, typer.Option(help="The first subnet, like 10.77.0.0/24.")] = None,
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
    give_from: GiveFrom = None,
    more_subnet: MoreSubnets = None,
    dns: Annotated[list[str] | None, typer.Option(help="A name server; '' for none. Repeatable.")] = None,
    ntp: Annotated[list[str] | None, typer.Option(help="A time server; '' for none. Repeatable.")] = None,
    domain: Annotated[str | None, typer.Option(help="The DNS domain of its machines; '' for the site's.")] = None,
    mtu: Annotated[int | None, typer.Option(help="The largest packet.")] = None,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a network. Its machines learn it at their next boot; an address that is given must still fit."""
    values = {"subnet": subnet, "purpose": purpose, "vlan": vlan, "domain": domain, "mtu": mtu}
    lists = {"reserved": reserve, "ranges": give_from, "dns_servers": dns, "ntp_servers": ntp}
    body: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    body |= {key: [text for text in texts if text] for key, texts in lists.items() if texts is not None}
    if more_subnet is not None:
        body["more_subnets"] = [_subnet(text) for text in more_subnet if text]
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


@app.command()
def addresses(name: Name, api: ApiOption = None, as_json: JsonOption = False) -> None:
    """Who has which address, and which are kept for whom."""
    client = Client(api)
    given, network = client.get("networks", name, "addresses"), client.get("networks", name)
    if as_json:
        print_json({"given": given, "reserved": network["reserved"]})
        return
    rows = [
        (item["address"], item["node"], item["port"] or "", "given back at its next boot" if item["released"] else "")
        for item in given
    ]
    rows += [
        (item["range"], item["node"] or "", "", f"reserved: {item['reason']}".rstrip(": "))
        for item in network["reserved"]
    ]
    print_table(("address", "node", "port", ""), rows, "no address is given or reserved")


@app.command()
def reserve(
    name: Name,
    span: AddressSpan,
    reason: Annotated[str, typer.Option(help="Why; shown to whoever asks for it.")] = "",
    node: Annotated[
        str | None, typer.Option(help="Keep it for this node, by name, or by the UUID of a machine still to come.")
    ] = None,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep addresses: from everybody, or for one node. Repeating it changes nothing."""
    body = {"range": span, "reason": reason, "node": node}
    _show(Client(api).post("networks", name, "reservations", body=body), as_json)


@app.command()
def release(name: Name, span: AddressSpan, api: ApiOption = None) -> None:
    """Keep these addresses no longer. Who has one of them keeps it."""
    Client(api).delete("networks", name, "reservations", span)


def _show(network: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(network)
    else:
        shown = {
            **network,
            "reserved": [item["range"] for item in network["reserved"]],
            "more_subnets": [item["subnet"] for item in network["more_subnets"]],
        }
        print_pairs([(key.replace("_", " "), value) for key, value in shown.items()])


def _subnets(network: dict[str, Any]) -> list[str]:
    return [network["subnet"], *(item["subnet"] for item in network["more_subnets"])]


def _reservation(text: str) -> dict[str, Any]:
    return {"range": text, "reason": "", "node": None}


def _subnet(text: str) -> dict[str, Any]:
    subnet, *settings = (part.strip() for part in text.split(","))
    document: dict[str, Any] = {"subnet": subnet, "gateway": None, "ranges": []}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key == "gateway" and value:
            document["gateway"] = value
        elif key == "range" and value:
            document["ranges"].append(value)
        else:
            raise UsageFault(f"a subnet's settings are gateway=ADDRESS and range=FIRST-LAST, got {setting!r}")
    return document


def _discovery(network: dict[str, Any]) -> str:
    return f"{network['discovery_start']}-{network['discovery_end']}" if network["discovery_start"] else ""


def _range(text: str | None) -> tuple[str | None, str | None]:
    if text is None:
        return None, None
    first, dash, last = text.partition("-")
    if not dash:
        raise UsageFault(f"a discovery range must be FIRST-LAST, got {text!r}")
    return first.strip(), last.strip()
