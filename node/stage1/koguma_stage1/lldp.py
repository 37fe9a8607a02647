"""LLDP neighbours: hears what the switches say on every NIC, and speaks once so that they answer at once.

A switch repeats itself only every 30 seconds, but one that hears a new neighbour speaks within a second
(IEEE 802.1AB, fast start). lldpd is not used because its libraries are more than the rest of stage 1
(docs/decisions/node-lldp.md). A frame comes from whoever is on the wire: it is parsed as hostile.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from pathlib import Path
from typing import Any

from koguma_node.console import say

ETHER_TYPE = 0x88CC
GROUP = bytes.fromhex("0180c200000e")
"""The nearest bridge: frames to this address do not pass a switch."""
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP = 1
PACKET_MR_MULTICAST = 0
FRAME_BYTES_MAX = 2048
TTL_S = 30
TEXT_MAX = 255
CHASSIS_ID, PORT_ID, TTL, SYSTEM_NAME, MANAGEMENT_ADDRESS = 1, 2, 3, 5, 8
MAC_SUBTYPES = {CHASSIS_ID: 4, PORT_ID: 3}
ADDRESS_SUBTYPES = {CHASSIS_ID: 5, PORT_ID: 4}
IPV4, IPV6 = 1, 2


class Listener:
    """Open one early and collect late: the kernel keeps what arrives meanwhile."""

    def __init__(self, nics: dict[str, str]) -> None:
        """`nics` maps the names of NICs to their MACs. A NIC that cannot be listened on is left out."""
        self._sockets: dict[str, socket.socket] = {}
        for name, mac in nics.items():
            try:
                self._sockets[name] = _open(name, bytes.fromhex(mac.replace(":", "")))
            except (OSError, ValueError) as error:
                say(f"no LLDP on {name}: {error}")

    def collect(self, wait_s: float) -> dict[str, dict[str, Any]]:
        """By NIC: chassis, port, mgmt_address. Ends when every NIC with a link has heard one, or after wait_s."""
        end = time.monotonic() + wait_s
        found: dict[str, dict[str, Any]] = {}
        with selectors.DefaultSelector() as selector:
            for name, opened in self._sockets.items():
                selector.register(opened, selectors.EVENT_READ, name)
            while (left := end - time.monotonic()) > 0 and not self._linked() <= found.keys():
                for key, _ in selector.select(min(left, 0.5)):
                    neighbour = _receive(self._sockets[key.data])
                    if neighbour is not None:
                        found[key.data] = neighbour
        return found

    def close(self) -> None:
        for opened in self._sockets.values():
            opened.close()

    def _linked(self) -> set[str]:
        return {name for name in self._sockets if _has_link(name)}


def parse_frame(frame: bytes) -> dict[str, Any] | None:
    """What a whole Ethernet frame says of its sender; None when it is not a complete LLDP frame."""
    if len(frame) < 14 or frame[12:14] != ETHER_TYPE.to_bytes(2, "big"):
        return None
    values = _tlvs(frame[14:])
    chassis = values.get(SYSTEM_NAME, b"").decode("utf-8", "replace") or _identifier(
        CHASSIS_ID, values.get(CHASSIS_ID, b"")
    )
    port = _identifier(PORT_ID, values.get(PORT_ID, b""))
    if not chassis or not port:
        return None
    address = _management_address(values.get(MANAGEMENT_ADDRESS, b""))
    return {"chassis": _printable(chassis), "port": _printable(port), "mgmt_address": address}


def announcement(mac: bytes) -> bytes:
    """The frame that tells the switch a new neighbour is there: its MAC as chassis and port."""
    parts = [
        _tlv(CHASSIS_ID, bytes([MAC_SUBTYPES[CHASSIS_ID]]) + mac),
        _tlv(PORT_ID, bytes([MAC_SUBTYPES[PORT_ID]]) + mac),
        _tlv(TTL, TTL_S.to_bytes(2, "big")),
        _tlv(0, b""),
    ]
    return (GROUP + mac + ETHER_TYPE.to_bytes(2, "big") + b"".join(parts)).ljust(60, b"\0")


def _open(name: str, mac: bytes) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHER_TYPE))
    try:
        opened.bind((name, ETHER_TYPE))
        membership = struct.pack("iHH8s", socket.if_nametoindex(name), PACKET_MR_MULTICAST, len(GROUP), GROUP)
        opened.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)
        opened.setblocking(False)
        if _has_link(name):
            opened.send(announcement(mac))
    except OSError:
        opened.close()
        raise
    return opened


def _receive(opened: socket.socket) -> dict[str, Any] | None:
    try:
        frame, origin = opened.recvfrom(FRAME_BYTES_MAX)
    except OSError:
        return None
    return None if origin[2] == socket.PACKET_OUTGOING else parse_frame(frame)


def _has_link(name: str) -> bool:
    try:
        return Path(f"/sys/class/net/{name}/carrier").read_text(encoding="ascii").strip() == "1"
    except OSError:  # the NIC is down
        return False


def _tlvs(data: bytes) -> dict[int, bytes]:
    """The first value of each type. Seven bits of type, nine of length; what is cut short ends the frame."""
    found: dict[int, bytes] = {}
    position = 0
    while position + 2 <= len(data):
        head = int.from_bytes(data[position : position + 2], "big")
        kind, length = head >> 9, head & 0x1FF
        value = data[position + 2 : position + 2 + length]
        if kind == 0 or len(value) < length:
            break
        found.setdefault(kind, value)
        position += 2 + length
    return found


def _tlv(kind: int, value: bytes) -> bytes:
    return (kind << 9 | len(value)).to_bytes(2, "big") + value


def _identifier(kind: int, value: bytes) -> str:
    """A chassis or port id: its first byte says whether a MAC, an address or text follows."""
    subtype, content = value[:1], value[1:]
    if subtype == bytes([MAC_SUBTYPES[kind]]) and len(content) == 6:
        return content.hex(":")
    if subtype == bytes([ADDRESS_SUBTYPES[kind]]):
        return _address(content) or ""
    return content.decode("utf-8", "replace")


def _management_address(value: bytes) -> str | None:
    """One byte of length, then the address with its family."""
    return _address(value[1 : 1 + value[0]]) if value else None


def _address(value: bytes) -> str | None:
    family, content = value[:1], value[1:]
    if family == bytes([IPV4]) and len(content) == 4:
        return socket.inet_ntop(socket.AF_INET, content)
    if family == bytes([IPV6]) and len(content) == 16:
        return socket.inet_ntop(socket.AF_INET6, content)
    return None


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:TEXT_MAX]
