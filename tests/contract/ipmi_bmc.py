"""A real IPMI BMC for tests: OpenIPMI's `ipmi_sim` on loopback, whose machine is a file that says whether its power is
on.
"""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

from koguma.contracts.power import Access
from koguma.drivers.power.ipmi.driver import IpmiPower
from koguma.model.states import PowerState

USER, PASSWORD = "koguma", "s3cretpw1"

CHASSIS = """#!/bin/sh
# ipmi_sim asks: <this> DEVICE get power | set power 0|1 | set shutdown 1
dir={directory}
shift
op=$1; shift
while [ -n "$1" ]; do
    case "$op $1" in
        "get power") echo "power:$(cat $dir/power)";;
        "get boot") echo "boot:$(cat $dir/boot 2>/dev/null || echo none)";;
        "get "*) echo "$1:0";;
        "set power") [ -e $dir/stuck ] || echo "$2" > $dir/power; shift;;
        "set shutdown") [ -e $dir/stuck ] || echo 0 > $dir/power; shift;;
        "set boot") echo "$2" > $dir/boot; shift;;
        "set reset") echo reset >> $dir/resets; shift;;
        "set "*) shift;;
    esac
    shift
done
"""

CONFIG = """name "test"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "{directory}/chassis 0x20"
  user 1 false "" "" user 10 none md2 md5 straight
  user 2 true "{user}" "{password}" admin 10 none md2 md5 straight
"""

EMULATION = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
mc_enable 0x20
"""


class IpmiBmc:
    """Starts at construction; `close` ends the process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = _free_udp_port()
        self.state = PowerState.OFF
        (directory / "chassis").write_text(CHASSIS.format(directory=directory))
        (directory / "chassis").chmod(0o755)
        (directory / "lan.conf").write_text(
            CONFIG.format(port=self.port, directory=directory, user=USER, password=PASSWORD)
        )
        (directory / "commands.emu").write_text(EMULATION)
        (directory / "state").mkdir()
        with (directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "ipmi_sim",
                    *("-c", str(directory / "lan.conf"), "-f", str(directory / "commands.emu")),
                    *("-s", str(directory / "state"), "-n"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait_until_it_answers()

    @property
    def access(self) -> Access:
        return Access("ipmi", "127.0.0.1", USER, PASSWORD, self.port)

    @property
    def state(self) -> PowerState:
        return PowerState.ON if (self.directory / "power").read_text().strip() == "1" else PowerState.OFF

    @state.setter
    def state(self, state: PowerState) -> None:
        (self.directory / "power").write_text("1\n" if state is PowerState.ON else "0\n")

    @property
    def stuck(self) -> bool:
        return (self.directory / "stuck").exists()

    @stuck.setter
    def stuck(self, stuck: bool) -> None:
        if stuck:
            (self.directory / "stuck").touch()
        else:
            (self.directory / "stuck").unlink(missing_ok=True)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 15
        while True:
            try:
                IpmiPower(self.access).get_power_state(timeout_s=5)
            except Exception:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.1)
            else:
                return


def _free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
