"""What every management driver keeps: run against the fake, ipmi with a real BMC emulator, and redfish with a BMC of
ours; redfish also speaks with the emulator that others wrote. What a driver lacks, it says.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from koguma.contracts.errors import PowerRefused, UnknownDriver, Unsupported
from koguma.contracts.management import (
    BootChoice,
    BootDevice,
    BootMode,
    Capability,
    FakeMachine,
    FirmwareUpdate,
    ManagementDriver,
    Media,
    MediaKind,
    Progress,
)
from koguma.contracts.power import Access, PowerDriver
from koguma.drivers.power import open_management, open_power
from koguma.drivers.power.fake.stored import StoredMachine
from koguma.drivers.power.ipmi.management import IpmiManagement
from koguma.model.states import PowerState
from tests.contract.ipmi_bmc import IpmiBmc
from tests.contract.redfish_bmc import EmulatorBmc, RedfishBmc, certificate

LIMIT_S = 30.0


@dataclass
class Bench:
    driver: ManagementDriver
    power: PowerDriver
    lacks: frozenset[Capability] = frozenset()
    """What the emulator behind the driver does not have."""
    keeps_choices: bool = True

    def need(self, capability: Capability) -> None:
        if capability not in self.driver.capabilities or capability in self.lacks:
            pytest.skip(f"has no {capability}")


@pytest.fixture(scope="module")
def ipmi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IpmiBmc]:
    if not shutil.which("ipmi_sim") or not shutil.which("ipmitool"):
        pytest.skip("needs ipmi_sim (openipmi) and ipmitool")
    bmc = IpmiBmc(tmp_path_factory.mktemp("ipmi"))
    yield bmc
    bmc.close()


@pytest.fixture(scope="module")
def redfish() -> Iterator[RedfishBmc]:
    bmc = RedfishBmc()
    yield bmc
    bmc.close()


@pytest.fixture(params=["fake", "stored", "ipmi", "redfish"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "fake":
        fake = FakeMachine()
        return Bench(fake, fake)
    if request.param == "stored":  # power and management are two objects, as in two processes
        directory = request.getfixturevalue("tmp_path")
        return Bench(StoredMachine(directory, "node1"), StoredMachine(directory, "node1"))
    bmc = request.getfixturevalue(request.param)
    lacks: frozenset[Capability] = frozenset()
    if isinstance(bmc, RedfishBmc):
        bmc.restore()
    elif isinstance(bmc, IpmiBmc):
        bmc.state = PowerState.OFF
        lacks = frozenset({Capability.NMI})
    return Bench(open_management(bmc.access), open_power(bmc.access), lacks, isinstance(bmc, RedfishBmc))


def test_the_boot_device_is_chosen_once_and_from_now_on(bench: Bench) -> None:
    for choice in (
        BootChoice(BootDevice.DISK, True, BootMode.UEFI),
        BootChoice(BootDevice.NETWORK, False, BootMode.UEFI),
    ):
        bench.driver.set_boot(choice, timeout_s=LIMIT_S)
        if bench.keeps_choices:
            assert bench.driver.get_boot(timeout_s=LIMIT_S) == choice


def test_the_boot_mode_is_chosen_with_the_device(bench: Bench) -> None:
    if not bench.keeps_choices:
        pytest.skip("this emulator keeps the device only")
    for mode in (BootMode.BIOS, BootMode.UEFI):
        bench.driver.set_boot(BootChoice(BootDevice.NETWORK, True, mode), timeout_s=LIMIT_S)
        assert bench.driver.get_boot(timeout_s=LIMIT_S).mode is mode


def test_a_bmc_that_keeps_the_device_only_has_it(ipmi: IpmiBmc) -> None:
    """`ipmi_sim` never calls its boot flags valid."""
    for device, word in ((BootDevice.NETWORK, "pxe"), (BootDevice.DISK, "default")):
        open_management(ipmi.access).set_boot(BootChoice(device), timeout_s=LIMIT_S)
        assert (ipmi.directory / "boot").read_text() == f"{word}\n"
    (ipmi.directory / "boot").unlink()


def test_a_bmc_that_others_wrote_understands_us(tmp_path: Path) -> None:
    """The emulator of sushy-tools, over HTTPS with a certificate known by its fingerprint. It calls every choice of a
    boot device persistent, and its fake machine has neither NMI nor BIOS settings.
    """
    bmc = EmulatorBmc(tmp_path, certificate(tmp_path))
    try:
        power, management = open_power(bmc.access), open_management(bmc.access)
        power.set_power_state(PowerState.ON, timeout_s=LIMIT_S)
        management.set_boot(BootChoice(BootDevice.CDROM, True, BootMode.UEFI), timeout_s=LIMIT_S)
        assert management.get_boot(timeout_s=LIMIT_S) == BootChoice(BootDevice.CDROM, True, BootMode.UEFI)
        management.set_secure_boot(True, timeout_s=LIMIT_S)
        assert management.get_secure_boot(timeout_s=LIMIT_S)
        management.reset(timeout_s=LIMIT_S)
        with pytest.raises(Unsupported):
            management.get_bios(timeout_s=LIMIT_S)
        power.set_power_state(PowerState.OFF, timeout_s=LIMIT_S)
        assert power.get_power_state(timeout_s=LIMIT_S) is PowerState.OFF
        with pytest.raises(PowerRefused, match="refused user"):
            open_power(replace(bmc.access, password="wrong")).get_power_state(timeout_s=LIMIT_S)
    finally:
        bmc.close()


def test_a_choice_for_once_is_used_up_by_a_boot(bench: Bench) -> None:
    if not bench.keeps_choices:
        pytest.skip("this emulator keeps the device only")
    bench.driver.set_boot(BootChoice(BootDevice.NETWORK), timeout_s=LIMIT_S)
    bench.power.set_power_state(PowerState.ON, timeout_s=LIMIT_S)
    assert bench.driver.get_boot(timeout_s=LIMIT_S).device is None


def test_the_firmwares_own_order_comes_back(bench: Bench) -> None:
    if not bench.keeps_choices:
        pytest.skip("this emulator keeps the device only")
    bench.driver.set_boot(BootChoice(BootDevice.DISK, persistent=True), timeout_s=LIMIT_S)
    bench.driver.set_boot(BootChoice(None), timeout_s=LIMIT_S)
    assert bench.driver.get_boot(timeout_s=LIMIT_S).device is None


def test_a_machine_is_reset_only_when_it_is_on(bench: Bench) -> None:
    with pytest.raises(PowerRefused, match="must be on") as caught:
        bench.driver.reset(timeout_s=LIMIT_S)
    assert not caught.value.retry
    bench.power.set_power_state(PowerState.ON, timeout_s=LIMIT_S)
    bench.driver.reset(timeout_s=LIMIT_S)
    bench.power.set_power_state(PowerState.ON, timeout_s=LIMIT_S)


def test_a_power_cycle_ends_with_the_machine_on(bench: Bench) -> None:
    for state in (PowerState.ON, PowerState.OFF):
        bench.power.set_power_state(state, timeout_s=LIMIT_S)
        bench.driver.power_cycle(timeout_s=LIMIT_S)
        assert bench.power.get_power_state(timeout_s=LIMIT_S) is PowerState.ON


def test_an_nmi_needs_a_machine_that_is_on(bench: Bench) -> None:
    with pytest.raises(PowerRefused, match="must be on"):
        bench.driver.inject_nmi(timeout_s=LIMIT_S)
    bench.power.set_power_state(PowerState.ON, timeout_s=LIMIT_S)
    if Capability.NMI in bench.lacks:
        with pytest.raises(Unsupported) as caught:
            bench.driver.inject_nmi(timeout_s=LIMIT_S)
        assert not caught.value.retry
    else:
        bench.driver.inject_nmi(timeout_s=LIMIT_S)
    assert bench.power.get_power_state(timeout_s=LIMIT_S) is PowerState.ON


def test_virtual_media_is_inserted_replaced_and_ejected(bench: Bench) -> None:
    bench.need(Capability.VIRTUAL_MEDIA)
    for url in ("http://192.0.2.9/one.iso", "http://192.0.2.9/two.iso", "http://192.0.2.9/two.iso"):
        bench.driver.insert_media(MediaKind.CDROM, url, timeout_s=LIMIT_S)
        assert Media(MediaKind.CDROM, url) in bench.driver.get_media(timeout_s=LIMIT_S)
    for _ in range(2):
        bench.driver.eject_media(MediaKind.CDROM, timeout_s=LIMIT_S)
        assert all(media.url is None for media in bench.driver.get_media(timeout_s=LIMIT_S))


def test_bios_settings_wait_for_the_next_reset(bench: Bench) -> None:
    bench.need(Capability.BIOS)
    bench.driver.set_bios({"QuietBoot": False}, timeout_s=LIMIT_S)
    settings = bench.driver.get_bios(timeout_s=LIMIT_S)
    assert settings.current["QuietBoot"] is True
    assert settings.pending == {"QuietBoot": False}
    bench.power.set_power_state(PowerState.ON, timeout_s=LIMIT_S)
    settings = bench.driver.get_bios(timeout_s=LIMIT_S)
    assert settings.current["QuietBoot"] is False
    assert settings.pending == {}
    bench.driver.reset_bios(timeout_s=LIMIT_S)
    assert bench.driver.get_bios(timeout_s=LIMIT_S).pending == {"QuietBoot": True}


def test_a_bios_setting_the_firmware_lacks_is_refused_for_good(bench: Bench) -> None:
    bench.need(Capability.BIOS)
    with pytest.raises(PowerRefused, match="Nonsense") as caught:
        bench.driver.set_bios({"Nonsense": 1, "QuietBoot": False}, timeout_s=LIMIT_S)
    assert not caught.value.retry
    assert bench.driver.get_bios(timeout_s=LIMIT_S).pending == {}


def test_firmware_is_listed_with_its_versions(bench: Bench) -> None:
    bench.need(Capability.FIRMWARE)
    found = bench.driver.get_firmware(timeout_s=LIMIT_S)
    assert {item.name for item in found} == {"BIOS", "BMC"}
    assert all(item.version for item in found)


def test_firmware_is_updated_from_a_url_and_the_task_is_followed(bench: Bench) -> None:
    bench.need(Capability.FIRMWARE_UPDATE)
    task = bench.driver.start_firmware_update("https://192.0.2.9/bios.bin", timeout_s=LIMIT_S)
    assert bench.driver.get_firmware_update(task, timeout_s=LIMIT_S).progress in {Progress.RUNNING, Progress.DONE}
    with pytest.raises(PowerRefused):
        bench.driver.get_firmware_update("/redfish/v1/TaskService/TaskMonitors/99", timeout_s=LIMIT_S)


def test_a_redfish_update_says_how_far_it_is_and_how_it_ended(redfish: RedfishBmc) -> None:
    redfish.restore()
    driver = open_management(redfish.access)
    task = driver.start_firmware_update("https://192.0.2.9/bios.bin", timeout_s=LIMIT_S)
    assert redfish.asked_update == {"ImageURI": "https://192.0.2.9/bios.bin", "TransferProtocol": "HTTPS"}
    assert driver.get_firmware_update(task, timeout_s=LIMIT_S) == FirmwareUpdate(Progress.RUNNING, 40)
    redfish.update = {"Id": "1", "Name": "update", "TaskState": "Completed", "PercentComplete": 100}
    assert driver.get_firmware_update(task, timeout_s=LIMIT_S) == FirmwareUpdate(Progress.DONE, 100)
    redfish.update = {"TaskState": "Exception", "Messages": [{"Message": "bad signature"}]}
    assert driver.get_firmware_update(task, timeout_s=LIMIT_S) == FirmwareUpdate(Progress.FAILED, None, "bad signature")
    with pytest.raises(PowerRefused, match="http or https"):
        driver.start_firmware_update("file:///etc/passwd", timeout_s=LIMIT_S)


def test_secure_boot_is_switched(bench: Bench) -> None:
    bench.need(Capability.SECURE_BOOT)
    for on in (True, True, False, False):
        bench.driver.set_secure_boot(on, timeout_s=LIMIT_S)
        assert bench.driver.get_secure_boot(timeout_s=LIMIT_S) is on


@pytest.mark.parametrize(
    ("capability", "call"),
    [
        (Capability.VIRTUAL_MEDIA, lambda driver: driver.get_media(timeout_s=LIMIT_S)),
        (Capability.BIOS, lambda driver: driver.get_bios(timeout_s=LIMIT_S)),
        (Capability.FIRMWARE, lambda driver: driver.get_firmware(timeout_s=LIMIT_S)),
        (Capability.SECURE_BOOT, lambda driver: driver.get_secure_boot(timeout_s=LIMIT_S)),
    ],
)
def test_what_a_driver_does_not_name_it_refuses_as_unsupported(
    ipmi: IpmiBmc, capability: Capability, call: Callable[[ManagementDriver], object]
) -> None:
    driver = open_management(ipmi.access)
    assert capability not in driver.capabilities
    with pytest.raises(Unsupported, match=str(capability)) as caught:
        call(driver)
    assert not caught.value.retry


def test_http_boot_is_no_ipmi_boot_device(ipmi: IpmiBmc) -> None:
    with pytest.raises(Unsupported, match="uefihttp"):
        open_management(ipmi.access).set_boot(BootChoice(BootDevice.HTTP), timeout_s=LIMIT_S)


def test_a_bmc_whose_machine_takes_no_boot_device_says_unsupported(ipmi: IpmiBmc, tmp_path: Path) -> None:
    """As the simulator does when the machine behind it answers nothing of use."""
    (ipmi.directory / "boot").write_text("nonsense\n")
    try:
        with pytest.raises(Unsupported, match="boot device") as caught:
            open_management(ipmi.access).get_boot(timeout_s=LIMIT_S)
        assert not caught.value.retry
    finally:
        (ipmi.directory / "boot").unlink()


@pytest.mark.parametrize(
    ("flags", "choice"),
    [
        ("8004000000", BootChoice(BootDevice.NETWORK, False, BootMode.BIOS)),
        ("e008000000", BootChoice(BootDevice.DISK, True, BootMode.UEFI)),
        ("c014000000", BootChoice(BootDevice.CDROM, True, BootMode.BIOS)),
        ("a018000000", BootChoice(BootDevice.SETUP, False, BootMode.UEFI)),
        ("0004000000", BootChoice(None)),
        ("8000000000", BootChoice(None)),
    ],
)
def test_ipmi_boot_flags_are_read_bit_by_bit(tmp_path: Path, flags: str, choice: BootChoice) -> None:
    """What a BMC answers that keeps all of them."""
    tool = tmp_path / "ipmitool"
    tool.write_text(f"#!/bin/sh\necho Boot parameter version: 1\necho Boot parameter data: {flags}\n")
    tool.chmod(0o755)
    driver = IpmiManagement(Access("ipmi", "192.0.2.1"), program=str(tool))
    assert driver.get_boot(timeout_s=5) == choice


def test_no_driver_of_an_unknown_name_is_opened() -> None:
    for name in ("nope", "../fake", "fake.x", "", "redfish.address"):
        with pytest.raises(UnknownDriver):
            open_management(Access(name, "127.0.0.1"))


_: Callable[[Access], ManagementDriver] = open_management
