"""Network namespaces and the links between them.

Owns the calls to `ip` and the few system calls it lacks. Knows nothing of switches, machines or BMCs.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from koguma.lab.command import run
from koguma.lab.errors import CommandError, LabError

RUN_DIR = Path("/run/netns")
CLONE_NEWNET = 0x40000000
SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM = 0x17
ETHERNET_MTU = 1500

_libc = ctypes.CDLL(None, use_errno=True)


def exists(name: str) -> bool:
    return (RUN_DIR / name).exists()


def identity(name: str) -> int | None:
    """A number that tells this namespace from another of the same name; None if there is none of this name."""
    try:
        return (RUN_DIR / name).stat().st_ino
    except OSError:
        return None


def create(name: str) -> None:
    """Make a namespace with its loopback up and no IPv6, whose chatter nobody in the lab wants."""
    run(["ip", "netns", "add", name])
    with inside(name):
        for scope in ("all", "default"):
            knob = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
            if knob.exists():
                knob.write_text("1", encoding="ascii")
    run(["ip", "-n", name, "link", "set", "lo", "up"])


def delete(name: str) -> None:
    """Remove a namespace and with it every link that has an end in it. Harmless when there is none.

    A file that was made by a half-done `ip netns add` and is no mount point goes as well.
    """
    path = RUN_DIR / name
    if path.exists():
        with contextlib.suppress(CommandError):
            run(["ip", "netns", "delete", name])
        path.unlink(missing_ok=True)


def pids(name: str) -> list[int]:
    """The processes inside a namespace."""
    if not exists(name):
        return []
    try:
        return [int(word) for word in run(["ip", "netns", "pids", name]).split()]
    except CommandError:
        return []  # the name is not a namespace: a half-done creation has no processes


def argv_in(name: str, argv: Sequence[str]) -> list[str]:
    """A command line that runs another one inside a namespace."""
    return ["ip", "netns", "exec", name, *argv]


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """The calling thread is inside a namespace for the length of the block; other threads are not."""
    home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(RUN_DIR / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(target, name)
        finally:
            os.close(target)
        try:
            yield
        finally:
            _setns(home, "the caller's own")
    finally:
        os.close(home)


def has_link(namespace: str, link: str) -> bool:
    with inside(namespace):
        return any(name == link for _, name in socket.if_nameindex())


def add_veth(
    switch: str, port: str, namespace: str, link: str, mac: str | None = None, *, mtu: int = ETHERNET_MTU
) -> None:
    """A cable between a switch port and an interface, both up, with checksums computed in full on either end.

    The userspace switch forwards what it reads from the wire: a checksum left for hardware to fill in would reach
    the other end unfilled.
    """
    if has_link(switch, port) and has_link(namespace, link):
        return
    remove_link(switch, port)
    remove_link(namespace, link)
    address = ["address", mac] if mac else []
    run(["ip", "-n", namespace, "link", "add", link, *address, "type", "veth", "peer", "name", port, "netns", switch])
    for where, name in ((switch, port), (namespace, link)):
        _checksum_in_software(where, name)
        run(["ip", "-n", where, "link", "set", name, "mtu", str(mtu), "up"])


def add_tap(switch: str, port: str, *, mtu: int = ETHERNET_MTU) -> None:
    """A cable whose far end a machine may hold: without a machine it has no carrier."""
    if not has_link(switch, port):
        run(["ip", "-n", switch, "tuntap", "add", "dev", port, "mode", "tap"])
    run(["ip", "-n", switch, "link", "set", port, "mtu", str(mtu), "up"])


def remove_link(namespace: str, link: str) -> None:
    if has_link(namespace, link):
        run(["ip", "-n", namespace, "link", "delete", link])


def set_address(namespace: str, link: str, cidr: str) -> None:
    run(["ip", "-n", namespace, "address", "replace", cidr, "dev", link])


def set_ipv6_address(namespace: str, link: str, cidr: str) -> None:
    """Switch IPv6 on for one link and give it an address, usable at once: nobody else could have the same."""
    with inside(namespace):
        knobs = Path(f"/proc/sys/net/ipv6/conf/{link}")
        if not knobs.exists():
            return  # a kernel without IPv6
        (knobs / "accept_dad").write_text("0", encoding="ascii")
        (knobs / "disable_ipv6").write_text("0", encoding="ascii")
    run(["ip", "-n", namespace, "-6", "address", "replace", cidr, "dev", link, "nodad"])


def _setns(descriptor: int, name: str) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise LabError(f"a network namespace cannot be entered: {os.strerror(ctypes.get_errno())} ({name})")


def _checksum_in_software(namespace: str, link: str) -> None:
    value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP", link.encode(), ctypes.addressof(value))
    with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, SIOCETHTOOL, request)
