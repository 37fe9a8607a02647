"""The redfish driver and BMCs that misbehave: each fault is an error that says what, where, and whether to try again;
none costs more than the time given.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from koguma.contracts.errors import PowerError, PowerRefused, PowerTimeout, PowerUnreachable, Unsupported
from koguma.contracts.management import BootChoice, BootDevice
from koguma.contracts.power import Access
from koguma.drivers.power import open_management, open_power
from koguma.drivers.power.redfish.address import place_of
from koguma.model.states import PowerState
from tests.contract.redfish_bmc import PASSWORD, SYSTEM, RedfishBmc, certificate, fingerprint


@pytest.fixture(scope="module")
def running() -> Iterator[RedfishBmc]:
    bmc = RedfishBmc()
    yield bmc
    bmc.close()


@pytest.fixture
def bmc(running: RedfishBmc) -> RedfishBmc:
    running.restore()
    return running


# --- addresses and certificates


@pytest.mark.parametrize(
    ("address", "port", "url", "system"),
    [
        ("bmc1.example.org", None, "https://bmc1.example.org", None),
        ("192.0.2.7", 8443, "https://192.0.2.7:8443", None),
        ("redfish://192.0.2.7:8443/redfish/v1/Systems/1/", None, "https://192.0.2.7:8443", SYSTEM),
        ("redfish+http://[::1]:8000", None, "http://[::1]:8000", None),
        ("https://bmc1?tls=any", None, "https://bmc1", None),
    ],
)
def test_an_address_is_a_host_or_a_url(address: str, port: int | None, url: str, system: str | None) -> None:
    place = place_of(Access("redfish", address, port=port))
    assert (place.url, place.system) == (url, system)


@pytest.mark.parametrize(
    ("options", "verify", "system"),
    [
        ({}, True, None),
        ({"redfish_verify_ca": False}, False, None),
        ({"redfish_verify_ca": "false", "redfish_system_id": SYSTEM}, False, SYSTEM),
        ({"redfish_verify_ca": "True"}, True, None),
        ({"redfish_verify_ca": "/etc/koguma/ca.pem"}, "/etc/koguma/ca.pem", None),
    ],
)
def test_ironics_words_fill_what_an_address_leaves_open(
    options: dict[str, object], verify: bool | str, system: str | None
) -> None:
    place = place_of(Access("redfish", "https://bmc1/", options=options))
    assert (place.verify, place.system) == (verify, system)
    said = place_of(Access("redfish", f"https://bmc1/redfish/v1/Systems/9?tls=sha256:{'0' * 64}", options=options))
    assert (said.fingerprint, said.system) == ("0" * 64, "/redfish/v1/Systems/9")


@pytest.mark.parametrize("options", [{"redfish_verify_ca": "ca.pem"}, {"redfish_system_id": "/etc/passwd"}])
def test_words_of_ironics_that_mean_nothing_are_refused_for_good(options: dict[str, object]) -> None:
    with pytest.raises(PowerRefused, match="address must be"):
        place_of(Access("redfish", "https://bmc1", options=options))


@pytest.mark.parametrize(
    "address",
    [
        "", "redfish://", "ftp://bmc1", "redfish://u:p@bmc1", "redfish://bmc1/etc/passwd", "redfish://bmc1:99999",
        "redfish://bmc1?tls=sha256:12", "redfish://bmc1?tls=no", "redfish://bmc1?verify=no", "a b", "bmc1\nHost: x",
    ],
)  # fmt: skip
def test_an_address_of_another_form_is_refused_for_good(address: str) -> None:
    with pytest.raises(PowerRefused, match="address must be") as caught:
        open_power(Access("redfish", address)).get_power_state(timeout_s=1)
    assert str(caught.value).isprintable()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(files: tuple[Path, Path]) -> Iterator[RedfishBmc]:
    bmc = RedfishBmc(files)
    yield bmc
    bmc.close()


def test_certificate_one_that_nobody_vouches_for_is_refused_for_good(secure: RedfishBmc) -> None:
    with pytest.raises(PowerRefused, match=r"not trusted.*tls=sha256:FINGERPRINT") as caught:
        open_power(secure.access).get_power_state(timeout_s=10)
    assert not caught.value.retry
    assert secure.requests == []


def test_certificate_the_one_whose_fingerprint_is_on_record_is_trusted(
    secure: RedfishBmc, files: tuple[Path, Path]
) -> None:
    address = f"{secure.access.address}?tls=sha256:{fingerprint(files[0])}"
    access = replace(secure.access, address=address)
    assert open_power(access).get_power_state(timeout_s=10) is PowerState.OFF


def test_certificate_another_ones_fingerprint_is_refused_for_good(secure: RedfishBmc) -> None:
    secure.restore()
    access = replace(secure.access, address=f"{secure.access.address}?tls=sha256:{'ab' * 32}")
    with pytest.raises(PowerRefused, match="not trusted") as caught:
        open_power(access).get_power_state(timeout_s=10)
    assert not caught.value.retry
    assert secure.requests == []


def test_certificate_the_one_of_an_authority_on_record_is_trusted(secure: RedfishBmc, files: tuple[Path, Path]) -> None:
    access = replace(secure.access, address=f"{secure.access.address}?tls=ca:{files[0]}")
    assert open_power(access).get_power_state(timeout_s=10) is PowerState.OFF


def test_certificate_any_is_taken_when_the_address_says_so(secure: RedfishBmc) -> None:
    access = replace(secure.access, address=f"{secure.access.address}?tls=any")
    assert open_power(access).get_power_state(timeout_s=10) is PowerState.OFF


def test_a_bmc_that_speaks_no_tls_may_do_later(bmc: RedfishBmc) -> None:
    access = replace(bmc.access, address=bmc.access.address.replace("redfish+http", "redfish"))
    with pytest.raises(PowerUnreachable) as caught:
        open_power(access).get_power_state(timeout_s=10)
    assert caught.value.retry


# --- faults


def test_a_wrong_password_is_refused_for_good_and_shown_nowhere(bmc: RedfishBmc) -> None:
    with pytest.raises(PowerRefused, match="refused user 'koguma'") as caught:
        open_power(replace(bmc.access, password="wrong-one")).get_power_state(timeout_s=10)
    assert not caught.value.retry
    assert "wrong-one" not in str(caught.value)
    assert PASSWORD not in repr(bmc.access)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, PowerUnreachable),
        (503, PowerUnreachable),
        (409, PowerUnreachable),
        (429, PowerUnreachable),
        (403, PowerRefused),
        (404, PowerRefused),
        (400, PowerRefused),
        (405, Unsupported),
        (501, Unsupported),
    ],
)
def test_a_status_says_whether_to_try_again(bmc: RedfishBmc, status: int, kind: type[PowerError]) -> None:
    body = json.dumps({"error": {"message": "no\x1b[31m!"}}).encode()
    bmc.fault = lambda path: (status, body) if path == SYSTEM else None
    started = time.monotonic()
    with pytest.raises(kind, match=f"HTTP {status}.*BMC 127.0.0.1:{bmc.port}") as caught:
        open_power(bmc.access).get_power_state(timeout_s=10)
    assert type(caught.value) is kind
    assert str(caught.value).isprintable()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("where", ["/redfish/v1", "/redfish/v1/Systems", SYSTEM])
@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b"42", b"{}", b'{"Systems": []}', b'{"Members": 3}', b'{"PowerState": "Perhaps"}',
     b"\xff\xfe\x00", b'"' + b"a" * 100_000, b"[" * 50_000],
    ids=range(12),
)  # fmt: skip
def test_garbage_is_an_error_in_printable_words_and_worth_a_retry(bmc: RedfishBmc, where: str, body: bytes) -> None:
    bmc.fault = lambda path: (200, body) if path == where else None
    with pytest.raises((PowerUnreachable, PowerRefused)) as caught:
        open_power(bmc.access).get_power_state(timeout_s=10)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert f"127.0.0.1:{bmc.port}" in str(caught.value)
    assert caught.value.retry or "systems needs one" in str(caught.value)


@pytest.mark.parametrize("state", [None, "Perhaps", 7, [], {}])
def test_a_power_state_that_is_none_is_not_believed(bmc: RedfishBmc, state: object) -> None:
    broken = {**(bmc.get(SYSTEM) or {}), "PowerState": state}
    bmc.fault = lambda path: (200, json.dumps(broken).encode()) if path == SYSTEM else None
    with pytest.raises(PowerUnreachable) as caught:
        open_power(bmc.access).get_power_state(timeout_s=10)
    assert caught.value.retry


def test_a_bmc_that_hangs_costs_no_more_than_the_time_given(bmc: RedfishBmc) -> None:
    gone = threading.Event()
    bmc.fault = lambda path: (200, b"{}") if path == SYSTEM and gone.wait(20) else None
    started = time.monotonic()
    with pytest.raises(PowerUnreachable, match="within 1 s") as caught:
        open_power(bmc.access).get_power_state(timeout_s=1)
    gone.set()
    assert caught.value.retry
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("drip", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"])
def test_a_bmc_that_drips_costs_no_more_than_the_time_given(drip: bytes) -> None:
    """A byte now and then keeps any socket's own time-out from passing."""
    with _dripping(drip) as port:
        started = time.monotonic()
        with pytest.raises(PowerUnreachable) as caught:
            open_power(Access("redfish", f"redfish+http://127.0.0.1:{port}")).get_power_state(timeout_s=1)
        assert caught.value.retry
        assert time.monotonic() - started < 4


def test_an_endless_answer_is_cut(bmc: RedfishBmc) -> None:
    bmc.fault = lambda path: (200, b" " * (9 << 20))
    with pytest.raises(PowerUnreachable, match="8388608 bytes"):
        open_power(bmc.access).get_power_state(timeout_s=10)


def test_a_closed_port_is_worth_a_retry() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(PowerUnreachable) as caught:
        open_power(Access("redfish", f"redfish+http://127.0.0.1:{port}")).get_power_state(timeout_s=5)
    assert caught.value.retry


def test_a_bmc_sends_us_to_nobody_else(bmc: RedfishBmc) -> None:
    """The password of the BMC, and our place in the network, are not for others."""
    visits: list[str] = []
    other = RedfishBmc()
    try:
        other.fault = visits.append  # type: ignore[assignment]
        elsewhere = {"Members": [{"@odata.id": f"http://127.0.0.1:{other.port}{SYSTEM}"}]}
        bmc.fault = lambda path: (200, json.dumps(elsewhere).encode()) if path == "/redfish/v1/Systems" else None
        with pytest.raises(PowerUnreachable, match="only to itself"):
            open_power(bmc.access).get_power_state(timeout_s=5)
    finally:
        other.close()
    assert visits == []


def test_power_is_read_again_when_a_question_fails_meanwhile(bmc: RedfishBmc) -> None:
    answers = iter([None, (503, b"{}"), (503, b"{}"), (503, b"{}")])
    bmc.fault = lambda path: next(answers, None) if path == SYSTEM else None
    open_power(bmc.access).set_power_state(PowerState.ON, timeout_s=10)
    assert bmc.state is PowerState.ON
    assert bmc.resets == ["On"]


def test_a_bmc_of_several_systems_needs_one_in_its_address(bmc: RedfishBmc) -> None:
    two = {"Members": [{"@odata.id": SYSTEM}, {"@odata.id": "/redfish/v1/Systems/2"}]}
    bmc.fault = lambda path: (200, json.dumps(two).encode()) if path == "/redfish/v1/Systems" else None
    with pytest.raises(PowerRefused, match="2 systems needs one in its address"):
        open_power(bmc.access).get_power_state(timeout_s=5)
    access = replace(bmc.access, address=f"{bmc.access.address}{SYSTEM}")
    assert open_power(access).get_power_state(timeout_s=5) is PowerState.OFF


def test_a_reset_the_bmc_does_not_know_is_unsupported(bmc: RedfishBmc) -> None:
    bmc.state = PowerState.ON
    bmc.resets_known = ["On", "ForceOff"]
    with pytest.raises(Unsupported, match=r"Nmi.*ForceOff, On"):
        open_management(bmc.access).inject_nmi(timeout_s=5)
    assert bmc.resets == []


def test_an_older_bmc_is_told_force_on(bmc: RedfishBmc) -> None:
    bmc.resets_known = ["ForceOn", "ForceOff"]
    open_power(bmc.access).set_power_state(PowerState.ON, timeout_s=5)
    assert bmc.resets == ["ForceOn"]


def test_a_boot_device_that_is_taken_and_forgotten_is_found_out(bmc: RedfishBmc) -> None:
    factory = dict(bmc.boot)

    def forget(path: str) -> None:
        bmc.boot = dict(factory)

    bmc.fault = forget  # type: ignore[assignment]
    with pytest.raises(PowerTimeout, match="must read back as pxe within 2 s, it is None") as caught:
        open_management(bmc.access).set_boot(BootChoice(BootDevice.NETWORK), timeout_s=2)
    assert caught.value.retry


class _dripping:  # noqa: N801 - used as a function
    """A server that sends its first words, and then one byte each 0.2 s."""

    def __init__(self, first: bytes) -> None:
        self.first = first
        self.stopped = threading.Event()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> int:
        self.thread.start()
        return int(self.server.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.server.close()
        self.thread.join(5)

    def _serve(self) -> None:
        connection, _ = self.server.accept()
        with connection:
            try:
                connection.sendall(self.first)
                while not self.stopped.wait(0.2):
                    connection.sendall(b"a")
            except OSError:
                pass
