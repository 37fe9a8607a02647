"""ipmi_sim's configuration, and the LAN settings that outlive it."""

from __future__ import annotations

from pathlib import Path

import pytest

from koguma.lab import lan_settings
from koguma.lab.ipmi_bmc import configuration, factory_lan_settings
from koguma.lab.lab import plan_of

MACHINE = plan_of("lab", Path("/srv/k/lab"), 1).machines[0]


def test_the_factory_account_is_the_only_one_enabled() -> None:
    users = [line.split()[1:4] for line in configuration(MACHINE).splitlines() if line.strip().startswith("user ")]
    assert users == [["1", "false", '""'], ["2", "true", '"admin"']]


def test_a_bmc_leaves_the_factory_with_its_own_address_and_mac() -> None:
    settings = factory_lan_settings(MACHINE)
    assert settings["ip_addr"] == "10.77.8.11"
    assert settings["subnet_mask"] == "255.255.255.0"
    assert settings["mac_addr"] == MACHINE.bmc_mac
    assert settings["ip_addr_src"] == "static"


def test_no_line_of_the_configuration_is_longer_than_ipmi_sim_reads() -> None:
    deep = plan_of("lab", Path("/" + "d" * 80), 1).machines[0]
    assert max(len(line) for line in configuration(deep).splitlines()) < 1024


def test_settings_are_read_back_as_written(tmp_path: Path) -> None:
    settings = factory_lan_settings(MACHINE)
    lan_settings.write(tmp_path / "lan", settings)
    assert lan_settings.read(tmp_path / "lan") == settings


def test_a_missing_file_reads_as_defaults(tmp_path: Path) -> None:
    assert lan_settings.read(tmp_path / "lan") == lan_settings.DEFAULTS


def test_get_prints_what_ipmi_sim_parses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lan_settings.write(tmp_path / "lan", factory_lan_settings(MACHINE))
    assert lan_settings.main([str(tmp_path / "lan"), "bmc", "get", "ip_addr", "ip_addr_src"]) == 0
    assert capsys.readouterr().out == "ip_addr:10.77.8.11\nip_addr_src:static\n"


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["ip_addr_src", "dhcp"], "must be static"),
        (["ip_addr", "10.77.8.999"], "10.77.8.999"),
        (["mac_addr", "ff:ff"], "must be a MAC address"),
        (["vlan", "1"], "no such parameter"),
        (["ip_addr"], "needs a value"),
    ],
)
def test_a_wrong_setting_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], rule: str
) -> None:
    before = factory_lan_settings(MACHINE)
    lan_settings.write(tmp_path / "lan", before)
    assert lan_settings.main([str(tmp_path / "lan"), "bmc", "set", *words]) == 1
    assert rule in capsys.readouterr().out
    assert lan_settings.read(tmp_path / "lan") == before


def test_check_writes_nothing(tmp_path: Path) -> None:
    before = factory_lan_settings(MACHINE)
    lan_settings.write(tmp_path / "lan", before)
    assert lan_settings.main([str(tmp_path / "lan"), "bmc", "check", "ip_addr_src", "static"]) == 0
    assert lan_settings.main([str(tmp_path / "lan"), "bmc", "check", "ip_addr", "10.77.8.200"]) == 0
    assert lan_settings.read(tmp_path / "lan") == before
