"""The IPMI power driver: runs ipmitool, one process for each question, and believes only what it can read.

The password goes through the environment of that process (`-E`), never through its arguments, which every user of the
machine can read.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable

from koguma.contracts.errors import PowerRefused, PowerTimeout, PowerUnreachable
from koguma.contracts.power import Access
from koguma.model.states import PowerState

POLL_S = 0.5
SESSION_RETRIES = 2
SESSION_TIMEOUT_S = 2
CALL_TIMEOUT_S = 12.0
"""One ipmitool process: its own retries, and a margin for a BMC that answers slowly."""

_REFUSALS = re.compile(
    r"password|authentication|invalid user|unauthorized name|insufficient privilege|RAKP|invalid role|cipher suite|"
    r"not supported in present state|invalid command|HMAC|invalid parameter|Invalid data field",
    re.IGNORECASE,
)
"""What ipmitool says when the BMC answered and said no: trying again changes nothing."""

_NOISE = re.compile(r"Loading IANA|IANA PEN|Get HPM|Running Get VSO|Invalid completion code received|Discovered IPMB")
"""What `-v` says on every call. Without `-v`, ipmitool does not tell a wrong password from a BMC that is away."""

CIPHER_SUITES = ("17", "3")
"""SHA-256 where the BMC has it, else SHA-1, which every IPMI 2.0 BMC has. Left to itself, ipmitool asks the BMC first,
which costs seconds on those that do not answer that question.
"""

_SUITE_REFUSED = re.compile(
    r"authentication algorithm|integrity algorithm|confidentiality algorithm|cipher suite", re.I
)

_suites: dict[str, str] = {}
"""The suite that a BMC, by address, last accepted: asked first the next time."""

_STATE = re.compile(r"Chassis Power is (on|off)\b", re.IGNORECASE)


class _SuiteRefused(PowerRefused):
    """The BMC does not know the cipher suite; an older one may do."""


class IpmiPower:
    """The power of the machine behind one BMC."""

    def __init__(
        self,
        access: Access,
        program: str = "ipmitool",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._access = access
        self._program = program
        self._clock = clock
        self._sleep = sleep

    def get_power_state(self, *, timeout_s: float) -> PowerState:
        output = self._run(["chassis", "power", "status"], timeout_s)
        match = _STATE.search(output)
        if match is None:
            raise PowerUnreachable(
                f"the BMC must say that power is on or off, it said {_printable(output)[:120]!r} ({self._place})"
            )
        return PowerState.ON if match[1].lower() == "on" else PowerState.OFF

    def set_power_state(self, target: PowerState, *, timeout_s: float) -> None:
        deadline = self._clock() + timeout_s
        state = self.get_power_state(timeout_s=timeout_s)
        if state is target:
            return
        self._run(["chassis", "power", "on" if target is PowerState.ON else "off"], self._left(deadline))
        while True:
            try:
                state = self.get_power_state(timeout_s=self._left(deadline))
            except PowerUnreachable:
                # A question cut short by the deadline says nothing of the BMC: what it said last counts.
                if self._clock() + POLL_S < deadline:
                    raise
            if state is target:
                return
            if self._clock() + POLL_S >= deadline:
                raise PowerTimeout(
                    f"the power must be {target.value!r} within {timeout_s:g} s, it is {state.value!r} ({self._place})"
                )
            self._sleep(POLL_S)

    def request_shutdown(self, *, timeout_s: float) -> None:
        self._run(["chassis", "power", "soft"], timeout_s)

    @property
    def _place(self) -> str:
        return f"BMC {self._access.address}"

    def _left(self, deadline: float) -> float:
        return max(deadline - self._clock(), 0.1)

    def _run(self, command: list[str], timeout_s: float) -> str:
        """ipmitool's output. Raises PowerUnreachable or PowerRefused."""
        deadline = self._clock() + timeout_s
        known = _suites.get(self._access.address)
        suites = (known, *(suite for suite in CIPHER_SUITES if suite != known)) if known else CIPHER_SUITES
        for suite in suites[:-1]:
            try:
                return self._run_with(suite, command, self._left(deadline))
            except _SuiteRefused:
                continue
        return self._run_with(suites[-1], command, self._left(deadline))

    def _run_with(self, suite: str, command: list[str], timeout_s: float) -> str:
        limit_s = min(timeout_s, CALL_TIMEOUT_S)
        try:
            process = subprocess.run(
                [self._program, *self._connection(), "-C", suite, *command],
                env={**os.environ, "IPMI_PASSWORD": self._access.password, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PowerUnreachable(f"the BMC must answer within {limit_s:g} s ({self._place})") from None
        except OSError as error:
            raise PowerUnreachable(f"{self._program} must be installed on the worker: {error.strerror}") from None
        output, said = (stream.decode("utf-8", "replace") for stream in (process.stdout, process.stderr))
        if process.returncode == 0:
            _suites[self._access.address] = suite
            return output
        said = "; ".join(line for line in said.splitlines() if line.strip() and not _NOISE.match(line))
        words = _printable(said)[:200] or f"exit status {process.returncode}"
        if _SUITE_REFUSED.search(said):
            raise _SuiteRefused(f"the BMC has no cipher suite {suite}: {words} ({self._place})")
        if _REFUSALS.search(said):
            raise PowerRefused(f"the BMC refused {' '.join(command)!r}: {words} ({self._place})")
        raise PowerUnreachable(f"the BMC did not do {' '.join(command)!r}: {words} ({self._place})")

    def _connection(self) -> list[str]:
        access = self._access
        port = ["-p", str(access.port)] if access.port else []
        user = ["-U", access.username] if access.username else []
        return [
            "-I", "lanplus", "-H", access.address, *port, *user, "-E",
            "-R", str(SESSION_RETRIES), "-N", str(SESSION_TIMEOUT_S), "-L", "OPERATOR", "-v",
        ]  # fmt: skip


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text).strip()
