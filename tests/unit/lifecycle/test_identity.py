"""Which node a machine is: by UUID, serial and MACs together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koguma.lifecycle.errors import IdentityConflict, NotAcceptedNow
from koguma.lifecycle.identity import OPEN_STATES, Known, reject_unless_open, which_node
from koguma.model.states import ProvisionState

A = Known("uuid-a", "SERIAL-A", frozenset({"mac-a1", "mac-a2"}))
B = Known("uuid-b", "", frozenset({"mac-b"}))


def test_a_machine_with_nothing_in_common_is_new() -> None:
    assert which_node("uuid-c", "SERIAL-C", ["mac-c"], [A, B]) is None


def test_a_machine_with_all_its_identifiers_is_its_node() -> None:
    assert which_node("uuid-a", "SERIAL-A", ["mac-a1", "mac-a2"], [A, B]) is A


def test_a_machine_with_a_new_nic_is_its_node() -> None:
    assert which_node("uuid-a", "SERIAL-A", ["mac-new"], [A]) is A
    assert which_node("uuid-a", "", ["mac-a1", "mac-new"], [A]) is A


@pytest.mark.parametrize(
    ("uuid", "serial", "macs", "value"),
    [
        ("uuid-c", "SERIAL-C", ["mac-a1"], "mac-a1"),
        ("uuid-c", "SERIAL-A", ["mac-c"], "SERIAL-A"),
        ("uuid-a", "SERIAL-X", ["mac-a1"], "uuid-a"),
        ("uuid-b", "", ["mac-x"], "uuid-b"),
        ("uuid-a", "SERIAL-A", ["mac-a1", "mac-b"], "mac-b"),
    ],
)
def test_identifiers_that_do_not_fit_together_are_a_conflict_that_names_the_value(
    uuid: str, serial: str, macs: list[str], value: str
) -> None:
    with pytest.raises(IdentityConflict) as caught:
        which_node(uuid, serial, macs, [A, B])
    assert value in str(caught.value)
    others = {"uuid-a", "uuid-b", "SERIAL-A", "mac-a1", "mac-a2", "mac-b"} - {uuid, serial, *macs}
    assert not [secret for secret in others if secret in str(caught.value)]


def test_only_open_states_let_a_registration_change_the_bmc() -> None:
    for state in ProvisionState:
        if state in OPEN_STATES:
            assert reject_unless_open(state, changes_bmc=True)
        else:
            assert not reject_unless_open(state, changes_bmc=False)
            with pytest.raises(NotAcceptedNow, match=state.value):
                reject_unless_open(state, changes_bmc=True)


_few = st.sampled_from("abcde")


@given(
    st.lists(st.tuples(_few, st.sampled_from(["", "1", "2", "3"]), st.frozensets(_few, min_size=1)), max_size=12),
)
def test_whatever_registers_no_identifier_ever_belongs_to_two_nodes(
    machines: list[tuple[str, str, frozenset[str]]],
) -> None:
    nodes: dict[str, Known] = {}
    for uuid, serial, macs in machines:
        try:
            match = which_node(uuid, serial, sorted(macs), list(nodes.values()))
        except IdentityConflict:
            continue
        nodes[uuid] = Known(uuid, serial or (match.serial if match else ""), macs)
        serials = [node.serial for node in nodes.values() if node.serial]
        addresses = [mac for node in nodes.values() for mac in node.macs]
        assert len(serials) == len(set(serials))
        assert len(addresses) == len(set(addresses))
