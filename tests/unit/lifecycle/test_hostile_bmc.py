"""A BMC that hangs, lies, answers garbage or refuses: the node says so, by state, code and message. Real sockets on
loopback, the real drivers, the real executor.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from koguma.contracts.power import Access, PowerDriver
from koguma.db import nodes, power_polls
from koguma.db.lifecycle_store import PostgresStore
from koguma.db.models import NodeRow, WorkRow
from koguma.drivers.power import open_power
from koguma.lifecycle.executor import Executor
from koguma.lifecycle.policy import Policy
from koguma.model.node import Node
from koguma.model.states import PowerState, ProvisionState, StatusCode, Verb
from tests.contract.redfish_bmc import RedfishBmc
from tests.unit import factories

pytestmark = pytest.mark.usefixtures("db")

S = ProvisionState
CALL_S = 1.0


class Site:
    """One node, a worker of few and short tries, and the time between them skipped."""

    def __init__(self, access: Access) -> None:
        factories.register(1)
        self.access = access
        NodeRow.objects.update(goal=None, bmc_driver=access.driver, bmc_address=access.address)
        self.now = datetime.now(UTC)
        policy = Policy(retries_max=2, retry_delay_s=1, power_call_timeout_s=CALL_S)
        self.executor = Executor(PostgresStore(), self._open, policy, lambda: self.now)

    def _open(self, _: Access) -> PowerDriver:
        return open_power(self.access)

    def advance(self) -> Node:
        self.executor.advance(factories.machine_uuid(1))
        return nodes.find("node-1")

    def ask(self, verb: Verb) -> Node:
        nodes.request_verb("node-1", verb)
        node = self.advance()
        while WorkRow.objects.get().operation_id:
            self.now += timedelta(seconds=61)
            node = self.advance()
        return node


@pytest.fixture
def bmc() -> Iterator[RedfishBmc]:
    running = RedfishBmc()
    yield running
    running.close()


def fails(site: Site, state: ProvisionState, verb: Verb, code: StatusCode, *words: str) -> None:
    NodeRow.objects.update(provision_state=state.value)
    began = time.monotonic()
    node = site.ask(verb)
    assert node.status_code is code, (node.status_code, node.last_error)
    for word in words:
        assert word in (node.last_error or ""), node.last_error
    assert time.monotonic() - began < 12 * CALL_S + 10


def hangs(_: str) -> tuple[int, bytes]:
    time.sleep(3 * CALL_S)
    return 200, b"{}"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (hangs, StatusCode.BMC_UNREACHABLE),
        (lambda _: (200, b"\x00\xffnonsense"), StatusCode.BMC_UNREACHABLE),
        (lambda _: (200, b"[]"), StatusCode.BMC_UNREACHABLE),
        (lambda _: (503, b"{}"), StatusCode.BMC_UNREACHABLE),
        (lambda path: (401, b"{}") if path != "/redfish/v1" else None, StatusCode.BMC_REFUSED),
    ],
    ids=["hangs", "garbage", "wrong document", "unavailable", "refuses"],
)
def test_a_node_says_what_its_redfish_bmc_does(bmc: RedfishBmc, fault: Callable[[str], Any], code: StatusCode) -> None:
    bmc.fault = fault
    fails(Site(bmc.access), S.ENROLL, Verb.MANAGE, code, "BMC")
    assert nodes.find("node-1").provision_state is S.ENROLL


def test_a_node_says_that_its_bmc_lies_about_power(bmc: RedfishBmc) -> None:
    bmc.state = PowerState.ON
    bmc._reset = lambda kind: 204  # type: ignore[method-assign]
    fails(Site(bmc.access), S.MANAGEABLE, Verb.PROVIDE, StatusCode.POWER_OFF_TIMED_OUT, "power off")
    assert nodes.find("node-1").provision_state is S.CLEAN_FAILED


@pytest.fixture
def udp() -> Iterator[Callable[[bytes | None], int]]:
    """A UDP port that answers every packet with the same bytes, or never."""
    sockets: list[socket.socket] = []

    def serve(answer: bytes | None) -> int:
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind(("127.0.0.1", 0))
        sockets.append(listener)

        def run() -> None:
            while True:
                try:
                    _, sender = listener.recvfrom(2048)
                    if answer is not None:
                        listener.sendto(answer, sender)
                except OSError:
                    return

        threading.Thread(target=run, daemon=True).start()
        return int(listener.getsockname()[1])

    yield serve
    for listener in sockets:
        listener.close()


@pytest.mark.skipif(shutil.which("ipmitool") is None, reason="needs ipmitool")
@pytest.mark.parametrize("answer", [None, b"\x06\x00\xff\x07garbage" * 4], ids=["hangs", "garbage"])
def test_a_node_says_that_its_ipmi_bmc_hangs_or_talks_nonsense(
    udp: Callable[[bytes | None], int], answer: bytes | None
) -> None:
    site = Site(Access("ipmi", "127.0.0.1", "koguma", "secret", udp(answer)))
    fails(site, S.ENROLL, Verb.MANAGE, StatusCode.BMC_UNREACHABLE, "BMC 127.0.0.1")


def test_a_bmc_that_stops_answering_is_the_nodes_fault_on_record_until_it_answers_again(bmc: RedfishBmc) -> None:
    site = Site(bmc.access)
    NodeRow.objects.update(provision_state="active", status_code="RUNNING")
    WorkRow.objects.update(wake_at=None, woken=False, operation_id=None)
    bmc.state = PowerState.ON
    bmc.fault = lambda _: (503, b"{}")
    power_polls.poll(factories.machine_uuid(1), site._open)
    row = NodeRow.objects.get()
    assert (row.fault, row.status_code) == (power_polls.POWER_FAULT, "RUNNING")
    assert "its BMC does not answer" in row.status
    bmc.fault = lambda _: None
    power_polls.poll(factories.machine_uuid(1), site._open)
    row = NodeRow.objects.get()
    assert (row.fault, row.status, row.power_state) == (None, "", "power on")


def test_an_aborted_deployment_powers_a_real_machine_off(bmc: RedfishBmc) -> None:
    site = Site(bmc.access)
    NodeRow.objects.update(provision_state="wait call-back", registered_at=None)
    bmc.state = PowerState.ON
    node = nodes.request_verb("node-1", Verb.ABORT)
    assert node.provision_state is S.DEPLOY_FAILED
    node = site.advance()
    assert bmc.state is PowerState.OFF
    assert (node.provision_state, node.status_code) == (S.DEPLOY_FAILED, StatusCode.ABORTED)
    assert (node.status, node.last_error) == ("aborted by an operator", "aborted by an operator")
    assert WorkRow.objects.get().operation_id is None
