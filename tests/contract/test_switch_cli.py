"""Switches with a command line that misbehave, and what each vendor's dialect must do beside the contract."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import paramiko
import pytest

from koguma.contracts.errors import SwitchDiffers, SwitchError, SwitchRefused, SwitchUnreachable
from koguma.contracts.switches import Bond, PortVlans
from koguma.drivers.switch import open_switch
from koguma.drivers.switch.netmiko.cumulus.dialect import Cumulus as CumulusDialect
from koguma.drivers.switch.netmiko.dialect import chunked, parse_ranges
from koguma.drivers.switch.netmiko.host_key import offered_host_key
from koguma.drivers.switch.netmiko.industry import sections, vlans_of
from tests.contract.benches import access_to, command_line
from tests.contract.cli_industry import Eos, Nxos
from tests.contract.cli_junos import Junos
from tests.contract.cli_shells import Cumulus, Sonic
from tests.contract.ssh_switch import SshSwitch

LIMIT_S = 60.0


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[SshSwitch]:
    server = SshSwitch(command_line(getattr(request, "param", "eos")))
    yield server
    server.close()


def on(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("server", names, indirect=True)


# --- trust and login


def test_nothing_is_sent_to_a_switch_whose_host_key_is_not_on_record(server: SshSwitch) -> None:
    stranger = paramiko.ECDSAKey.generate()
    for host_key in ("", f"{stranger.get_name()} {stranger.get_base64()}"):
        access = replace(access_to(server, "eos"), host_key=host_key)
        with pytest.raises(SwitchRefused, match="host key") as caught:
            open_switch(access).observe(timeout_s=LIMIT_S)
        assert not caught.value.retry
    assert server.logins == 0


def test_the_host_key_that_a_switch_offers_is_the_one_to_put_on_record(server: SshSwitch) -> None:
    assert offered_host_key("127.0.0.1", server.port) == server.host_key
    with pytest.raises(SwitchUnreachable):
        offered_host_key("127.0.0.1", _closed_port(), timeout_s=2)


def test_a_wrong_password_is_refused_for_good_and_shown_nowhere(server: SshSwitch) -> None:
    access = replace(access_to(server, "eos"), password="wrong-one")
    with pytest.raises(SwitchRefused, match="refused user 'koguma'") as caught:
        open_switch(access).observe(timeout_s=LIMIT_S)
    assert not caught.value.retry
    assert "wrong-one" not in str(caught.value)


def test_a_private_key_opens_a_switch_without_a_password(server: SshSwitch) -> None:
    key = paramiko.RSAKey.generate(2048)
    text = io.StringIO()
    key.write_private_key(text)
    access = replace(access_to(server, "eos"), password="", private_key=text.getvalue())
    with pytest.raises(SwitchRefused):
        open_switch(access).observe(timeout_s=LIMIT_S)
    server.client_key = key
    assert open_switch(access).observe(timeout_s=LIMIT_S).ports
    with pytest.raises(SwitchRefused, match="OpenSSH key"):
        open_switch(replace(access, private_key="nonsense")).observe(timeout_s=LIMIT_S)


# --- time


def test_a_switch_that_stops_answering_costs_no_more_than_the_time_given(server: SshSwitch) -> None:
    server.mute = True
    started = time.monotonic()
    with pytest.raises(SwitchUnreachable, match="within 3 s") as caught:
        open_switch(access_to(server, "eos")).observe(timeout_s=3)
    assert caught.value.retry
    assert time.monotonic() - started < 8


def test_a_switch_that_never_greets_costs_no_more_than_the_time_given(server: SshSwitch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        access = replace(access_to(server, "eos"), port=silent.getsockname()[1])
        started = time.monotonic()
        with pytest.raises(SwitchUnreachable) as caught:
            open_switch(access).observe(timeout_s=2)
        assert caught.value.retry
        assert time.monotonic() - started < 7


def test_a_closed_port_is_worth_a_retry(server: SshSwitch) -> None:
    with pytest.raises(SwitchUnreachable) as caught:
        open_switch(replace(access_to(server, "eos"), port=_closed_port())).observe(timeout_s=5)
    assert caught.value.retry


def test_no_thread_stays_behind(server: SshSwitch) -> None:
    open_switch(access_to(server, "eos")).observe(timeout_s=LIMIT_S)
    deadline = time.monotonic() + 10
    while any(isinstance(thread, threading.Timer) for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- writes


@on("eos", "nxos", "junos", "sonic", "cumulus")
def test_a_change_is_saved_so_that_it_outlives_a_reload(server: SshSwitch, request: pytest.FixtureRequest) -> None:
    line = server.command_line
    open_switch(access_to(server, request.node.callspec.params["server"])).set_port(
        line.ports[0], PortVlans.access(120), timeout_s=LIMIT_S
    )
    if isinstance(line, Eos | Nxos):
        assert line.saved == line.running
    elif isinstance(line, Sonic):
        assert line.saved == line.tables
    elif isinstance(line, Cumulus):
        assert line.saved == line.applied
    else:
        assert isinstance(line, Junos)  # a commit is all it needs
        assert any("members koguma-120" in each for each in line.running)


@on("nxos", "sonic")
def test_a_port_is_at_no_moment_in_a_vlan_of_nobodys_choice(server: SshSwitch, request: pytest.FixtureRequest) -> None:
    """Where each command takes effect at once. A trunk that allows all by default would be such a moment."""
    line = server.command_line
    assert isinstance(line, Nxos | Sonic)
    driver = open_switch(access_to(server, request.node.callspec.params["server"]))
    one, two = line.ports[:2]
    for port in (one, two):
        driver.set_port(port, PortVlans.access(10), timeout_s=LIMIT_S)
    before = {10}
    for vlans in (PortVlans.trunk((20, 21), native=30), PortVlans.trunk((40,)), PortVlans.access(50)):
        line.exposed[one] = set()
        driver.set_port(one, vlans, timeout_s=LIMIT_S)
        assert line.exposed[one] <= before | set(vlans.every)
        before = set(vlans.every)
    line.exposed[one], line.exposed[two] = set(), set()
    driver.set_bond(Bond(3, (one, two), PortVlans.access(60)), timeout_s=LIMIT_S)
    driver.remove_bond(3, PortVlans.access(70), timeout_s=LIMIT_S)
    assert line.exposed[one] | line.exposed[two] <= {50, 10, 60, 70}


def test_a_refused_line_leaves_an_eos_switch_as_it_was(server: SshSwitch) -> None:
    line = server.command_line
    assert isinstance(line, Eos)
    before = line.running
    line.interface_command = lambda *_: "% Unavailable command (not supported on this hardware platform)\n"  # type: ignore[method-assign]
    with pytest.raises(SwitchRefused, match=r"'switchport'.*not supported") as caught:
        open_switch(access_to(server, "eos")).set_port("Ethernet1", PortVlans.access(120), timeout_s=LIMIT_S)
    assert not caught.value.retry
    assert line.running == before
    assert server.commands[-1] == "abort"


@on("junos")
def test_a_configuration_that_somebody_else_edits_is_worth_a_retry(server: SshSwitch) -> None:
    line = server.command_line
    assert isinstance(line, Junos)
    line.locked = True
    driver = open_switch(access_to(server, "junos"))
    with pytest.raises(SwitchUnreachable, match="locked by") as caught:
        driver.set_port("ge-0/0/0", PortVlans.access(120), timeout_s=LIMIT_S)
    assert caught.value.retry
    line.locked = False
    assert driver.set_port("ge-0/0/0", PortVlans.access(120), timeout_s=LIMIT_S)


@on("junos")
def test_vlans_keep_the_names_they_have(server: SshSwitch) -> None:
    line = server.command_line
    assert isinstance(line, Junos)
    line.running.append("vlans storage vlan-id 120")
    open_switch(access_to(server, "junos")).set_port("ge-0/0/0", PortVlans.access(120), timeout_s=LIMIT_S)
    assert "interfaces ge-0/0/0 unit 0 family ethernet-switching vlan members storage" in line.running


@on("sonic")
def test_what_a_switch_says_to_a_refused_command_is_in_the_error(server: SshSwitch) -> None:
    line = server.command_line
    assert isinstance(line, Sonic)
    line.tables["VLAN"] = {}
    line._vlan_member = lambda *_: "Ethernet0 is a router interface!\x1b[31m"  # type: ignore[method-assign]
    with pytest.raises(SwitchRefused, match="is a router interface") as caught:
        open_switch(access_to(server, "sonic")).set_port("Ethernet0", PortVlans.access(120), timeout_s=LIMIT_S)
    assert str(caught.value).isprintable()


@on("sonic-modes")
def test_newer_sonic_ports_have_a_mode_that_must_fit(server: SshSwitch) -> None:
    line = server.command_line
    assert isinstance(line, Sonic)
    driver = open_switch(access_to(server, "sonic"))
    for vlans in (
        PortVlans.access(10),
        PortVlans.trunk((20, 21), native=10),
        PortVlans.trunk((20,)),
        PortVlans.access(20),
    ):
        assert driver.set_port("Ethernet0", vlans, timeout_s=LIMIT_S)
    assert line.tables["PORT"]["Ethernet0"]["mode"] == "access"
    bond = Bond(3, ("Ethernet0", "Ethernet4"), PortVlans.trunk((20, 30)))
    assert driver.set_bond(bond, timeout_s=LIMIT_S)
    assert driver.remove_bond(3, PortVlans.access(40), timeout_s=LIMIT_S)
    assert line.tables["PORTCHANNEL"] == {}


@on("cumulus")
def test_a_refused_revision_is_not_left_pending(server: SshSwitch) -> None:
    line = server.command_line
    assert isinstance(line, Cumulus)
    line._reason_not_valid = lambda _: "conflict"  # type: ignore[method-assign]
    with pytest.raises(SwitchRefused, match="conflict"):
        open_switch(access_to(server, "cumulus")).set_port("swp1", PortVlans.access(120), timeout_s=LIMIT_S)
    assert line.pending is None


def test_a_switch_that_takes_commands_and_forgets_them_is_found_out(server: SshSwitch) -> None:
    line = server.command_line
    assert isinstance(line, Eos)
    line.interface_command = lambda *_: ""  # type: ignore[method-assign]
    with pytest.raises(SwitchDiffers, match="must read back as VLAN 120 untagged, it is VLAN 1 untagged") as caught:
        open_switch(access_to(server, "eos")).set_port("Ethernet1", PortVlans.access(120), timeout_s=LIMIT_S)
    assert caught.value.retry


def test_a_bond_that_somebody_else_made_is_left_alone(server: SshSwitch) -> None:
    line = server.command_line
    assert isinstance(line, Eos)
    line.show_interfaces = lambda: (  # type: ignore[method-assign]
        "interface Port-Channel2000\ninterface Ethernet1\n   channel-group 2000 mode active\n"
        "interface Ethernet2\n   channel-group 7 mode on\ninterface Ethernet3\n"
    )
    driver = open_switch(access_to(server, "eos"))
    for port in ("Ethernet1", "Ethernet2"):
        with pytest.raises(SwitchRefused, match="somebody else made"):
            driver.set_port(port, PortVlans.access(120), timeout_s=LIMIT_S)
    with pytest.raises(SwitchRefused, match="somebody else made"):
        driver.set_bond(Bond(1, ("Ethernet1", "Ethernet3"), PortVlans.access(120)), timeout_s=LIMIT_S)


@on("sonic", "cumulus")
@pytest.mark.parametrize("answer", ["", "{", "[]", "42", '{"PORT": 3}', "\x1b[31m??"])
def test_a_configuration_that_is_none_is_worth_a_retry(
    server: SshSwitch, request: pytest.FixtureRequest, answer: str
) -> None:
    line = server.command_line
    assert isinstance(line, Sonic | Cumulus)
    line.program = lambda _: (answer, 0)  # type: ignore[method-assign, assignment]
    with pytest.raises(SwitchError) as caught:
        open_switch(access_to(server, request.node.callspec.params["server"])).observe(timeout_s=LIMIT_S)
    assert caught.value.retry
    assert str(caught.value).isprintable()


# --- reading


@pytest.mark.parametrize(
    ("lines", "vlans"),
    [
        ([], PortVlans.access(1)),
        (["no switchport", "ip address 192.0.2.1/24"], None),
        (["switchport mode trunk"], PortVlans.trunk(range(2, 4095), native=1)),
        (["switchport mode trunk", "switchport trunk allowed vlan none"], None),
        (["switchport mode trunk", "switchport trunk allowed vlan 5,7-9"], PortVlans.trunk((5, 7, 8, 9))),
        (
            [
                "switchport trunk native vlan 7",
                "switchport trunk allowed vlan 5",
                "switchport trunk allowed vlan add 7-8",
                "switchport mode trunk",
            ],
            PortVlans.trunk((5, 8), native=7),
        ),
        (["switchport mode dot1q-tunnel"], None),
        (["switchport trunk allowed vlan 9", "switchport access vlan 4"], PortVlans.access(4)),
    ],
)
def test_lines_of_an_interface_are_read_with_their_defaults(lines: list[str], vlans: PortVlans | None) -> None:
    assert vlans_of(lines) == vlans


def test_sections_end_where_they_end() -> None:
    text = "interface Ethernet1\n   switchport access vlan 4\n!\ninterface Ethernet2\nrouter bgp 1\n   shutdown\n"
    assert sections(text) == {"Ethernet1": ["switchport access vlan 4"], "Ethernet2": []}


def test_nvue_keys_name_several_interfaces() -> None:
    from koguma.drivers.switch.netmiko.cumulus.dialect import _names

    assert list(_names("swp1-3,7,bond2")) == ["swp1", "swp2", "swp3", "swp7", "bond2"]
    assert list(_names("swp1s0-1")) == ["swp1s0", "swp1s1"]
    assert CumulusDialect().enter() == ()


def test_long_lists_of_vlans_are_split_before_the_line_ends() -> None:
    vlans = tuple(range(2, 2000, 3))
    texts = chunked(vlans, 200)
    assert len(texts) > 5
    assert all(len(text) <= 200 for text in texts)
    assert tuple(vlan for text in texts for vlan in parse_ranges(text)) == vlans


def _closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
