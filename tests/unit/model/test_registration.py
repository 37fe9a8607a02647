"""What a machine says of itself is hostile until it has passed here."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koguma.model import registration
from koguma.model.errors import InvalidValue
from tests.unit.factories import machine


def test_a_whole_registration_is_taken_in_normal_form() -> None:
    document = machine(1, serial=" To be filled by O.E.M. ")
    document["ports"][0]["mac"] = "52-54-00-00-01-00"
    document["something_newer"] = {"x": 1}
    taken = registration.parse(document)
    assert taken.macs == ("52:54:00:00:01:00",)
    assert taken.serial == ""
    assert "password" not in str(taken.inventory)
    assert "secret-1" not in repr(taken)


def _with(path: str, value: Any) -> dict[str, Any]:
    document: Any = machine(1)
    place = document
    *way, last = path.split(".")
    for part in way:
        place = place[int(part) if part.isdigit() else part]
    place[int(last) if last.isdigit() else last] = value
    return dict(document)


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("uuid", "00000000-0000-0000-0000-000000000000", "only zeros"),
        ("uuid", "../../etc/passwd", "8-4-4-4-12"),
        ("uuid", None, "valid string"),
        ("serial", "x" * 129, "at most 128"),
        ("ports", [], "at least 1"),
        (
            "ports",
            [{"name": "e", "mac": f"52:54:00:00:{n // 256:02x}:{n % 256:02x}"} for n in range(129)],
            "at most 128",
        ),
        ("ports.0.mac", "ff:ff:ff:ff:ff:ff", "one station"),
        ("ports.0.name", "../x", "pattern"),
        ("ports.0.lldp", "text", "Lldp"),
        ("memory_bytes", -1, "greater than"),
        ("memory_bytes", 10**30, "less than"),
        ("memory_bytes", "NaN", "integer"),
        ("disks", [{"name": "sda", "size_bytes": 1}] * 513, "at most 512"),
        ("firmware", "coreboot", "bios"),
        ("bmc.address", "0.0.0.0", "unicast"),
        ("bmc.address", "127.0.0.1", "unicast"),
        ("bmc.address", "bmc.example; rm -rf /", "IP address"),
        ("bmc.username", "-x", "pattern"),
        ("bmc.password", "", "at least 1"),
        ("bmc.password", "a\nb", "pattern"),
        ("bmc.driver", "../../evil", "ipmi"),
        ("remote_address", "x", "IP address"),
    ],
)
def test_values_against_the_rules_are_refused_with_their_place(path: str, value: Any, rule: str) -> None:
    with pytest.raises(InvalidValue, match=rule) as caught:
        registration.parse(_with(path, value))
    assert path.rpartition(".")[2].rstrip("0123456789.") in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_refused_password_is_not_repeated() -> None:
    with pytest.raises(InvalidValue) as caught:
        registration.parse(_with("bmc.password", "very secret \n thing"))
    assert "very secret" not in str(caught.value)


def test_the_same_mac_twice_and_two_boot_ports_are_refused() -> None:
    port = machine(1)["ports"][0]
    with pytest.raises(InvalidValue, match="given twice"):
        registration.parse(machine(1, ports=[port, {**port, "boot": False}]))
    with pytest.raises(InvalidValue, match="boots from one port"):
        registration.parse(machine(1, ports=[port, {**port, "mac": "52:54:00:00:01:01"}]))


def test_control_characters_of_vendors_become_spaces() -> None:
    taken = registration.parse(machine(1, product="Evil\x1b[31m\nname\x00"))
    assert taken.product == "Evil [31m name"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


@given(_json, st.sampled_from(sorted(machine(1))))
def test_any_json_in_any_place_is_taken_or_refused_but_never_a_crash(value: Any, key: str) -> None:
    for document in (value, machine(1, **{key: value})):
        with contextlib.suppress(InvalidValue):
            registration.parse(document)
