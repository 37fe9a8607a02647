from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koguma.model import names
from koguma.model.errors import InvalidValue


@pytest.mark.parametrize("name", ["node-1", "a", "web.rack-2", "0a", "a" * 63])
def test_host_names_by_the_rules_are_kept(name: str) -> None:
    assert names.host_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a_b", "a..b", ".a", "a" * 64, "a.b" * 30, "ä", "a\n", "a b", "a/b"]
)
def test_other_host_names_are_refused_with_the_rule_and_the_value(name: str) -> None:
    with pytest.raises(InvalidValue, match="must be a host name"):
        names.host_name(name)


def test_macs_come_out_in_one_form() -> None:
    assert names.mac(" 52-54-00-AB-CD-EF ") == "52:54:00:ab:cd:ef"


@pytest.mark.parametrize(
    "text", ["", "52:54:00:ab:cd", "01:00:5e:00:00:01", "00:00:00:00:00:00", "52:54:00:ab:cd:eg", "x" * 999]
)
def test_what_is_no_stations_mac_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        names.mac(text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "text",
    [
        "00000000-0000-0000-0000-000000000000",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "not-a-uuid",
        "12345678123456781234567812345678",
        "{12345678-1234-5678-1234-567812345678}",
    ],
)
def test_uuids_that_identify_nothing_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        names.machine_uuid(text)


@pytest.mark.parametrize(
    "text",
    ["", "0", " To Be Filled By O.E.M. ", "Not Specified", "None", "000000", "Default string", "0123456789", "xx-xx"],
)
def test_placeholder_serials_identify_nothing(text: str) -> None:
    assert names.serial(text) == ""


def test_a_real_serial_is_kept() -> None:
    assert names.serial(" CZ3208K1 ") == "CZ3208K1"


@pytest.mark.parametrize("text", ["", "../x", "a..b", "-x", "a//b", "a/", "a b", "a\nb"])
def test_what_cannot_be_a_label_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        names.boot_label(text)


@given(st.text(max_size=300))
def test_whatever_comes_in_is_either_normal_or_refused(text: str) -> None:
    for rule in (names.host_name, names.mac, names.machine_uuid, names.boot_label):
        try:
            normal = rule(text)
        except InvalidValue:
            continue
        assert rule(normal) == normal
        assert normal.isprintable()
