"""A BMC that speaks IPMI: one `ipmi_sim` per chassis, on its own address of the BMC VLAN and on its machine's KCS.

It powers its machine on by running `koguma.lab.launch` and knows by that child process whether the machine is on.
Users, LAN settings and the event log are kept in its directory and outlive it, as in flash memory.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from koguma.lab import lan_settings, launch, netns
from koguma.lab.bmc import FACTORY_PASSWORD, FACTORY_USER, LINK, Account, PowerAction
from koguma.lab.command import run, wait_until
from koguma.lab.errors import CommandError
from koguma.lab.machine import KCS_PORT
from koguma.lab.plan import Machine
from koguma.lab.processes import Processes, write_atomically

CIPHER_SUITE = "3"
"""ipmi_sim does not tell its cipher suites: ipmitool must be told, or it waits for an answer for seconds."""
RMCP_PORT_HEX = ":026F"


class IpmiBmc:
    """`koguma.lab.bmc.Bmc` for ipmi_sim."""

    def __init__(self, machine: Machine, controller_namespace: str, processes: Processes) -> None:
        self._machine = machine
        self._controller = controller_namespace
        self._processes = processes
        self._name = f"{machine.name}-bmc"
        self._log = machine.home / "logs" / f"{self._name}.log"

    def up(self) -> None:
        """Ensure that the BMC has its address and answers."""
        self._write_files()
        run(netns.argv_in(self._machine.namespace, [str(self._machine.bmc_dir / "lancontrol"), "apply"]))
        directory = self._machine.bmc_dir
        record = self._processes.start(
            self._name,
            netns.argv_in(
                self._machine.namespace,
                [
                    *("ipmi_sim", "-n"),
                    *("-c", str(directory / "lan.conf")),
                    *("-f", str(directory / "commands.emu")),
                    *("-s", str(directory / "state")),
                ],
            ),
            log=self._log,
            cwd=directory,
        )

        def listens() -> bool:
            self._processes.require(self._name, self._log)
            return RMCP_PORT_HEX in Path(f"/proc/{record.pid}/net/udp").read_text(encoding="ascii")

        wait_until(f"the BMC of {self._machine.name} listening", listens, timeout_s=15)

    def running(self) -> bool:
        return self._processes.running(self._name) is not None

    def address(self) -> str:
        """Where it answers now: the factory's address, or what was set in-band since."""
        settings = lan_settings.read(self._settings_path)
        return settings["ip_addr"] if settings["ip_addr"] != lan_settings.ZERO_IP else str(self._machine.bmc_address)

    def power(self, action: PowerAction, account: Account | None = None) -> None:
        self._ipmi(["power", action.value], account)

    def power_is_on(self, account: Account | None = None) -> bool:
        return self._is_on(account, retries_max=3)

    def power_is_on_or_none(self, account: Account | None = None) -> bool | None:
        try:
            return self._is_on(account, retries_max=1)
        except CommandError:
            return None

    def credentials(self) -> None:
        """Its machine makes an account for Koguma and tells it when it registers."""

    def _is_on(self, account: Account | None, retries_max: int) -> bool:
        return self._ipmi(["power", "status"], account, retries_max).strip().endswith("on")

    def _ipmi(self, words: list[str], account: Account | None, retries_max: int = 3) -> str:
        """ipmitool over the network from the controller; the password is not on the command line."""
        user = account or Account()
        argv = ["ipmitool", "-I", "lanplus", "-C", CIPHER_SUITE, "-N", "1", "-R", str(retries_max)]
        argv += ["-H", self.address(), "-U", user.username, "-E"]
        return run(netns.argv_in(self._controller, [*argv, *words]), environ={"IPMI_PASSWORD": user.password})

    @property
    def _settings_path(self) -> Path:
        return self._machine.bmc_dir / "lan"

    def _write_files(self) -> None:
        directory = self._machine.bmc_dir
        (directory / "state").mkdir(parents=True, exist_ok=True)
        if not self._settings_path.exists():
            lan_settings.write(self._settings_path, factory_lan_settings(self._machine))
        write_atomically(directory / "lancontrol", lancontrol_script(self._settings_path), mode=0o755)
        write_atomically(directory / "power-on", power_on_script(self._machine), mode=0o755)
        write_atomically(directory / "lan.conf", configuration(self._machine))
        write_atomically(directory / "commands.emu", emulation_commands())


def factory_lan_settings(machine: Machine) -> dict[str, str]:
    return lan_settings.DEFAULTS | {
        "ip_addr": str(machine.bmc_address),
        "mac_addr": machine.bmc_mac,
        "subnet_mask": str(machine.bmc_network.netmask),
        "default_gw_ip_addr": str(machine.bmc_network[1]),
    }


def configuration(machine: Machine) -> str:
    """ipmi_sim's lan.conf. Users count at the first start only; afterwards its own state does.

    It listens on all addresses of the chassis, which are the BMC's, so that a new address works without a restart.
    """
    directory = machine.bmc_dir
    levels = "\n".join(f"    allowed_auths_{level} md5" for level in ("callback", "user", "operator", "admin"))
    return f"""\
name "{machine.namespace}"
set_working_mc 0x20
  startlan 1
    addr 0.0.0.0 623
    priv_limit admin
{levels}
    guid {machine.uuid.replace("-", "")}
    lan_config_program "{directory}/lancontrol"
  endlan
  serial 15 127.0.0.1 {KCS_PORT} codec VM
  startcmd "{directory}/power-on"
  startnow false
  poweroff_wait 3
  kill_wait 3
  user 1 false "" "" user 10 none md5
  user 2 true "{FACTORY_USER}" "{FACTORY_PASSWORD}" admin 10 none md5
"""


def emulation_commands() -> str:
    """One management controller with a watchdog sensor and an event log of a thousand entries."""
    return """\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
sensor_add 0x20 0 0 35 0x6f event-only
sensor_set_event_support 0x20 0 0 enable scanning per-state 000000000001111 000000000000000 \
000000000001111 000000000000000
mc_enable 0x20
"""


def lancontrol_script(settings: Path) -> str:
    return _script([str(Path(lan_settings.__file__)), str(settings), LINK], arguments=True)


def power_on_script(machine: Machine) -> str:
    return _script([str(Path(launch.__file__)), str(machine.machine_dir / "launch.json")], arguments=False)


def _script(words: list[str], *, arguments: bool) -> str:
    line = shlex.join([sys.executable, "-I", "-S", *words])
    return "#!/bin/sh\nexec " + line + (' "$@"' if arguments else "") + "\n"
