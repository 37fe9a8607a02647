"""Registration: what an unknown machine says of itself, checked as hostile input is.

Every text is bounded and printable, every list is bounded, identifiers come out in their normal form. Unknown keys are
dropped, so an older server accepts a newer stage 1.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from koguma.model import names
from koguma.model.errors import InvalidValue


def _printable(text: str) -> str:
    """Vendors put odd bytes into their tables: they become spaces, so that nothing stored can break a line or a
    terminal.
    """
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _checked(rule: Any) -> Any:
    def check(text: str) -> str:
        try:
            return str(rule(text))
        except InvalidValue as error:
            raise ValueError(str(error)) from None

    return check


def _ip(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"must be an IP address, got {names.shown(text)}") from None


def _none_when_empty(value: Any) -> Any:
    return None if value == "" else value


Text = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
Word = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/-]*$")]
Mac = Annotated[str, Field(max_length=32), AfterValidator(_checked(names.mac))]
Uuid = Annotated[str, Field(max_length=64), AfterValidator(_checked(names.machine_uuid))]
Serial = Annotated[str, Field(max_length=128), AfterValidator(_printable), AfterValidator(names.serial)]
Address = Annotated[str, Field(max_length=64), AfterValidator(_ip)]
Size = Annotated[int, Field(ge=0, le=2**60)]


class Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Cpu(Part):
    model: Text = ""
    count: int = Field(default=1, ge=1, le=65536)
    sockets: int = Field(default=1, ge=1, le=1024)


class Disk(Part):
    name: Word
    size_bytes: Size
    model: Text | None = None
    serial: Text | None = None
    rotational: bool | None = None


class Lldp(Part):
    chassis: Text | None = None
    port: Text | None = None
    mgmt_address: Annotated[Address | None, BeforeValidator(_none_when_empty)] = None


class RegisteredPort(Part):
    name: Word
    mac: Mac
    driver: Text | None = None
    link: bool | None = None
    speed_mbps: int | None = Field(default=None, ge=-1, le=10_000_000)
    boot: bool = False
    lldp: Lldp | None = None


class RegisteredBmc(Part):
    address: Address
    mac: Annotated[Mac | None, BeforeValidator(_none_when_empty)] = None
    username: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$")]
    password: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$", repr=False)]
    driver: Literal["ipmi", "redfish", "fake"] = "ipmi"

    @model_validator(mode="after")
    def _address_is_somewhere(self) -> Self:
        address = ipaddress.ip_address(self.address)
        if address.is_unspecified or address.is_multicast or address.is_loopback or address.is_link_local:
            raise ValueError(f"a BMC must have a unicast address of its own, got {self.address}")
        return self


class Registration(Part):
    uuid: Uuid
    serial: Serial = ""
    manufacturer: Text = ""
    product: Text = ""
    bios_version: Text = ""
    firmware: Literal["bios", "uefi"] = "bios"
    architecture: Literal["x86_64", "aarch64"] = "x86_64"
    cpu: Cpu = Cpu()
    memory_bytes: Size = 0
    disks: Annotated[tuple[Disk, ...], Field(max_length=512)] = ()
    ports: Annotated[tuple[RegisteredPort, ...], Field(min_length=1, max_length=128)]
    bmc: RegisteredBmc | None = None
    remote_address: Annotated[Address | None, BeforeValidator(_none_when_empty)] = None

    @model_validator(mode="after")
    def _ports_are_distinct(self) -> Self:
        macs = [port.mac for port in self.ports]
        if twice := next((mac for mac in macs if macs.count(mac) > 1), None):
            raise ValueError(f"a MAC address belongs to one port, {twice} is given twice")
        if sum(port.boot for port in self.ports) > 1:
            raise ValueError("a machine boots from one port, several are marked so")
        return self

    @property
    def macs(self) -> tuple[str, ...]:
        return tuple(port.mac for port in self.ports)

    @property
    def inventory(self) -> dict[str, Any]:
        """What is kept of the hardware, as JSON."""
        return self.model_dump(mode="json", include={"bios_version", "cpu", "memory_bytes", "disks"})


def parse(document: Any) -> Registration:
    """Raises InvalidValue that names the first keys at fault."""
    try:
        return Registration.model_validate(document)
    except ValidationError as error:
        raise InvalidValue(explain(error)) from None


def explain(error: ValidationError, limit: int = 3) -> str:
    """The first few faults as rule, value, place."""
    faults = error.errors(include_url=False, include_context=False)
    shown = []
    for fault in faults[:limit]:
        place = ".".join(names.shown(part)[1:-1] if isinstance(part, str) else str(part) for part in fault["loc"])
        rule = fault["msg"].removeprefix("Value error, ")
        # A value that is a whole table says nothing in a message, and a password must not be in one.
        plain = isinstance(fault["input"], str | int | float) and "password" not in place
        value = f", got {names.shown(fault['input'])}" if plain and "got " not in rule else ""
        shown.append(f"{rule}{value} ({place or 'document'})")
    more = f"; and {len(faults) - limit} more" if len(faults) > limit else ""
    return "; ".join(shown) + more
