"""Hardware types: which interfaces a driver has, which of them is the default, and what the driver must be told.

The words are Ironic's: a node has a `driver` (a hardware type) and for each kind of work an interface, which another
name can be chosen for. `diskless` hardware boots from the network into memory; `fake-hardware` is a machine that
exists on record only. Values only, no I/O: what an interface does is said by the steps of `koguma.lifecycle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

KINDS = (
    "bios", "boot", "console", "deploy", "firmware", "inspect", "management", "network", "power", "raid", "rescue",
    "storage", "vendor",
)  # fmt: skip

FAKE = "fake"
SWITCHED = "koguma"
"""The network interface whose nodes' switch ports Koguma puts into networks; `noop` and `flat` leave switches alone."""

VIRTUAL_MEDIA = "redfish-virtual-media"
"""The boot interface of machines that get iPXE as a disc from their BMC, for want of a network boot of their own."""

FAKE_HARDWARE = "fake-hardware"
NO_BMC = "manual-management"
"""How a node without a BMC is called; on record its driver is empty."""


@dataclass(frozen=True)
class HardwareType:
    """`interfaces` has, for each kind, the names that can be chosen, the default first."""

    name: str
    interfaces: Mapping[str, tuple[str, ...]]
    properties: Mapping[str, str] = field(default_factory=dict)
    """What `driver_info` may say, and what it means."""
    required: tuple[str, ...] = ()
    bmc_prefix: str = ""
    """`<prefix>_address`, `_username` and `_password` of `driver_info` are the BMC's."""

    def default(self, kind: str) -> str:
        return self.interfaces[kind][0]


def _type(
    name: str,
    changed: Mapping[str, tuple[str, ...]],
    properties: Mapping[str, str] | None = None,
    required: tuple[str, ...] = (),
    bmc_prefix: str = "",
) -> HardwareType:
    return HardwareType(name, {**_DISKLESS, **changed}, properties or {}, required, bmc_prefix)


_DISKLESS: Mapping[str, tuple[str, ...]] = {
    "bios": ("no-bios",),
    "boot": ("ipxe",),
    "console": ("no-console",),
    "deploy": ("ramdisk",),
    "firmware": ("no-firmware",),
    "inspect": ("agent", "no-inspect"),
    "management": ("noop",),
    "network": (SWITCHED, "noop", "flat"),
    "power": (FAKE,),
    "raid": ("no-raid",),
    "rescue": ("agent", "no-rescue"),
    "storage": ("noop",),
    "vendor": ("no-vendor",),
}

_DELAYS = {
    f"{FAKE}_{kind}_{what}": f"{meaning} of the fake {kind} interface. Optional."
    for kind in ("power", "deploy", "inspect", "rescue", "clean", "service")
    for what, meaning in (("delay_s", "How many seconds the work takes"), ("failure", "The error that ends the work"))
}

HARDWARE_TYPES: Mapping[str, HardwareType] = {
    hardware.name: hardware
    for hardware in (
        _type(
            FAKE_HARDWARE,
            {
                **{
                    kind: (FAKE, f"no-{kind}")
                    for kind in ("bios", "console", "firmware", "inspect", "raid", "rescue", "vendor")
                },
                **dict.fromkeys(("boot", "deploy", "management", "power"), (FAKE,)),
                "network": ("noop", "flat", SWITCHED),
                "storage": ("noop", FAKE),
            },
            _DELAYS,
        ),
        _type(
            "ipmi",
            {"management": ("ipmitool",), "power": ("ipmitool",)},
            {
                "ipmi_address": "IP address or host name of the BMC. Required.",
                "ipmi_username": "Account of the BMC. Optional.",
                "ipmi_password": "Password of the account. Optional.",
                "ipmi_port": "UDP port of the BMC. Optional.",
            },
            ("ipmi_address",),
            "ipmi",
        ),
        _type(
            "redfish",
            {"boot": ("ipxe", VIRTUAL_MEDIA), "management": ("redfish",), "power": ("redfish",)},
            {
                "redfish_address": "URL of the Redfish service. Required.",
                "redfish_system_id": "Path of the system. Optional where the service has one.",
                "redfish_username": "Account of the service. Optional.",
                "redfish_password": "Password of the account. Optional.",
                "redfish_verify_ca": "Whether its certificate is verified, or a CA's path. Optional.",
            },
            ("redfish_address",),
            "redfish",
        ),
        _type(NO_BMC, {"power": (FAKE,)}),
    )
}

_UNLISTED = _type("fake", {"power": (FAKE,), "management": (FAKE,)})
"""The fake of tests and trials: a diskless machine whose power is in memory only."""


def hardware_type(driver: str) -> HardwareType:
    """That of a driver as it is on record; unknown ones are diskless."""
    return HARDWARE_TYPES.get(driver or NO_BMC, _UNLISTED)


def effective_interface(driver: str, kind: str, chosen: Mapping[str, str]) -> str:
    return chosen.get(kind) or hardware_type(driver).default(kind)
