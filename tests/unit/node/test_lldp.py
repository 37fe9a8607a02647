from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from koguma_stage1.lldp import announcement, parse_frame

HEAD = bytes.fromhex("0180c200000e 525400000001 88cc")


def tlv(kind: int, value: bytes) -> bytes:
    return (kind << 9 | len(value)).to_bytes(2, "big") + value


def test_a_switch_is_named_by_its_system_name_and_port() -> None:
    frame = HEAD + tlv(1, b"\x04" + bytes.fromhex("525400aabbcc")) + tlv(2, b"\x05node1-eth0") + tlv(3, b"\0x")
    frame += tlv(5, b"lab-switch") + tlv(8, b"\x05\x01\x0a\x4d\x00\x01" + b"\x02\0\0\0\x01\0") + tlv(0, b"")
    assert parse_frame(frame) == {"chassis": "lab-switch", "port": "node1-eth0", "mgmt_address": "10.77.0.1"}


def test_a_switch_without_a_name_is_known_by_its_mac() -> None:
    frame = (
        HEAD + tlv(1, b"\x04" + bytes.fromhex("525400aabbcc")) + tlv(2, b"\x07Gi1/0/7") + tlv(3, b"\0x") + tlv(0, b"")
    )
    assert parse_frame(frame) == {"chassis": "52:54:00:aa:bb:cc", "port": "Gi1/0/7", "mgmt_address": None}


def test_control_characters_of_a_hostile_neighbour_do_not_get_through() -> None:
    frame = HEAD + tlv(1, b"\x07x") + tlv(2, b"\x05a\x1b[2J\nb") + tlv(5, b"s\0w") + tlv(0, b"")
    assert parse_frame(frame) == {"chassis": "s?w", "port": "a?[2J?b", "mgmt_address": None}


@pytest.mark.parametrize("frame", [b"", HEAD, HEAD + tlv(1, b"\x07x"), b"\xff" * 64, HEAD + b"\x02\xff\x01"])
def test_an_incomplete_frame_is_no_neighbour(frame: bytes) -> None:
    assert parse_frame(frame) is None


@given(st.binary(max_size=300))
def test_no_frame_whatever_breaks_the_parser(payload: bytes) -> None:
    found = parse_frame(HEAD + payload)
    assert found is None or (found["chassis"].isprintable() and found["port"].isprintable())


def test_what_stage_1_says_is_a_frame_it_would_understand() -> None:
    mac = bytes.fromhex("525400000001")
    assert parse_frame(announcement(mac)) == {"chassis": mac.hex(":"), "port": mac.hex(":"), "mgmt_address": None}
    assert len(announcement(mac)) >= 60
