"""`koguma flavor`: what machines of a role boot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from koguma.cli.client import ApiError, ApiOption, Client
from koguma.cli.errors import UsageFault
from koguma.cli.output import JsonOption, print_json, print_pairs, print_table

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="What machines of a role boot.",
)

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

Name = Annotated[str, typer.Argument(help="The flavor's name.")]
Label = Annotated[str | None, typer.Option(help="What it boots: a branch, a tag or a commit.")]
RootMethod = Annotated[
    Literal["ram", "nfs", "iscsi", "disk"] | None, typer.Option(help="Where the root file system lives.")
]
KernelArgs = Annotated[str | None, typer.Option(help="Kernel arguments.")]
OverlaySize = Annotated[
    str | None, typer.Option(help="Limit of the writable layer in memory, like 1G; 0: half of the memory.")
]
Templates = Annotated[
    list[str] | None, typer.Option("--template", help="SOURCE:TARGET[:MODE[:UNIT TO RELOAD]], both absolute paths.")
]
Variables = Annotated[str | None, typer.Option(help="Values for templates: JSON, or @FILE.")]
Requirements = Annotated[
    str | None, typer.Option(help="What a machine must have: JSON with memory_bytes, cpu_count, architecture.")
]

Bonds = Annotated[
    list[str] | None,
    typer.Option("--bond", help="NAME:MODE:INTERFACES, like bond0:802.3ad:eth0,eth1; '' for none. Repeatable."),
]
Vlans = Annotated[
    list[str] | None,
    typer.Option("--vlan", help="NETWORK@INTERFACE: that network, tagged, on a NIC or bond; '' for none. Repeatable."),
]
Networks = Annotated[
    list[str] | None,
    typer.Option(
        "--network",
        help="NETWORK[@INTERFACE]: what its nodes are handed over to, on eth0 or another NIC or bond; '' for none. "
        "Repeatable.",
    ),
]


@app.command("list")
def list_flavors(api: ApiOption = None, as_json: JsonOption = False) -> None:
    """All flavors."""
    flavors = Client(api).get("flavors")
    if as_json:
        print_json(flavors)
        return
    rows = [
        (item["name"], item["label"], item["root_method"], item["kernel_args"], item["overlay_size_bytes"] or "half")
        for item in flavors
    ]
    print_table(("name", "label", "root", "kernel arguments", "overlay"), rows, "no flavors: koguma flavor create")


@app.command()
def show(name: Name, api: ApiOption = None, as_json: JsonOption = False) -> None:
    """One flavor."""
    _show(Client(api).get("flavors", name), as_json)


@app.command()
def create(
    name: Name,
    label: Label = None,
    root_method: RootMethod = None,
    kernel_args: KernelArgs = None,
    overlay_size: OverlaySize = None,
    template: Templates = None,
    variables: Variables = None,
    requirements: Requirements = None,
    bond: Bonds = None,
    vlan: Vlans = None,
    network: Networks = None,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a flavor; its label is its name where none is given. Harmless when it exists with these values."""
    client = Client(api)
    body = _body(label, root_method, kernel_args, overlay_size, template, variables, requirements, bond, vlan, network)
    try:
        flavor = client.post("flavors", body={"name": name, **body})
    except ApiError as error:
        if error.status != 409:
            raise
        flavor = client.get("flavors", name)
        if any(flavor[key] != value for key, value in body.items()):
            raise UsageFault(
                f"the flavor exists with other values; change it with `koguma flavor set {name}`"
            ) from None
    _show(flavor, as_json)


@app.command("set")
def set_flavor(
    name: Name,
    label: Label = None,
    root_method: RootMethod = None,
    kernel_args: KernelArgs = None,
    overlay_size: OverlaySize = None,
    template: Templates = None,
    variables: Variables = None,
    requirements: Requirements = None,
    bond: Bonds = None,
    vlan: Vlans = None,
    network: Networks = None,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a flavor. Its nodes boot what it says at their next boot."""
    body = _body(label, root_method, kernel_args, overlay_size, template, variables, requirements, bond, vlan, network)
    _show(Client(api).patch("flavors", name, body=body), as_json)


@app.command()
def delete(name: Name, api: ApiOption = None) -> None:
    """Delete a flavor that no node has."""
    Client(api).delete("flavors", name)


def _show(flavor: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(flavor)
    else:
        shown = {
            **flavor,
            "bonds": [f"{item['name']}:{item['mode']}:{','.join(item['interfaces'])}" for item in flavor["bonds"]],
            **{
                key: [f"{item['network']}@{item['interface']}" for item in flavor[key]] for key in ("vlans", "networks")
            },
        }
        print_pairs([(key.replace("_", " "), value) for key, value in shown.items()])


def _body(
    label: str | None,
    root_method: str | None,
    kernel_args: str | None,
    overlay_size: str | None,
    templates: list[str] | None,
    variables: str | None,
    requirements: str | None,
    bonds: list[str] | None,
    vlans: list[str] | None,
    networks: list[str] | None,
) -> dict[str, Any]:
    """The keys that were given."""
    values = {
        "label": label,
        "root_method": root_method,
        "kernel_args": kernel_args,
        "overlay_size_bytes": size_bytes(overlay_size) if overlay_size is not None else None,
        "templates": [_template(text) for text in templates] if templates else None,
        "variables": json_value(variables, "--variables") if variables is not None else None,
        "requirements": json_value(requirements, "--requirements") if requirements is not None else None,
        "bonds": [_bond(text) for text in bonds if text] if bonds is not None else None,
        "vlans": [_vlan(text) for text in vlans if text] if vlans is not None else None,
        "networks": [_access(text) for text in networks if text] if networks is not None else None,
    }
    return {key: value for key, value in values.items() if value is not None}


def _template(text: str) -> dict[str, Any]:
    source, _, rest = text.partition(":")
    target, _, rest = rest.partition(":")
    mode, _, reload = rest.partition(":")
    if not (source.startswith("/") and target.startswith("/")):
        raise UsageFault(f"a template must be SOURCE:TARGET[:MODE[:UNIT]] with absolute paths, got {text!r}")
    return {"source": source, "target": target, "mode": mode or "0644", "reload": reload or None}


def _bond(text: str) -> dict[str, Any]:
    name, _, rest = text.partition(":")
    mode, _, nics = rest.partition(":")
    interfaces = [nic.strip() for nic in nics.split(",") if nic.strip()]
    if not (name and mode and interfaces):
        raise UsageFault(f"a bond must be NAME:MODE:INTERFACES like bond0:802.3ad:eth0,eth1, got {text!r}")
    return {"name": name, "mode": mode, "interfaces": interfaces}


def _vlan(text: str) -> dict[str, Any]:
    network, _, interface = text.partition("@")
    if not (network and interface):
        raise UsageFault(f"a VLAN must be NETWORK@INTERFACE like storage@bond0, got {text!r}")
    return {"network": network, "interface": interface}


def _access(text: str) -> dict[str, Any]:
    network, _, interface = text.partition("@")
    return {"network": network, "interface": interface or "eth0"}


def size_bytes(text: str) -> int:
    """`1G` in bytes. Raises UsageFault."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if not number.isdigit() or unit not in _UNITS:
        raise UsageFault(f"a size must be a number with K, M, G or T, got {text!r}")
    return int(number) * _UNITS[unit]


def json_value(text: str, option: str) -> Any:
    """JSON, or that of the file after `@`. Raises UsageFault."""
    try:
        return json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise UsageFault(f"{option} must be JSON or @FILE with JSON: {error}") from None
