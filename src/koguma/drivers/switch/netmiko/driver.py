"""The switch driver of every dialect: read, compare, write, read back."""

from __future__ import annotations

from koguma.contracts.errors import SwitchDiffers, SwitchUnreachable
from koguma.contracts.switches import (
    Bond,
    Observed,
    PortVlans,
    SwitchAccess,
    require_free_members,
    require_free_port,
)
from koguma.drivers.switch.netmiko.dialect import Dialect, State
from koguma.drivers.switch.netmiko.session import Session


class CliSwitch:
    """Each call is an SSH session of its own."""

    def __init__(self, access: SwitchAccess, dialect: Dialect) -> None:
        self._access = access
        self._dialect = dialect

    def observe(self, *, timeout_s: float) -> Observed:
        with Session(self._access, self._dialect, timeout_s) as session:
            return self._read(session).observed

    def set_port(self, port: str, vlans: PortVlans, *, timeout_s: float) -> bool:
        with Session(self._access, self._dialect, timeout_s) as session:
            state = self._read(session)
            require_free_port(state.observed, port, session.where)
            if state.observed.ports[port] == vlans:
                return False
            session.change(self._dialect.port_commands(state, port, vlans))
            now = self._read(session).observed.ports.get(port)
            if now != vlans:
                raise SwitchDiffers(f"port {port} must read back as {vlans}, it is {now} ({session.where})")
            return True

    def set_bond(self, bond: Bond, *, timeout_s: float) -> bool:
        with Session(self._access, self._dialect, timeout_s) as session:
            state = self._read(session)
            require_free_members(state.observed, bond, session.where)
            if state.observed.bonds.get(bond.number) == bond:
                return False
            session.change(self._dialect.bond_commands(state, bond))
            now = self._read(session).observed.bonds.get(bond.number)
            if now != bond:
                wanted = f"{', '.join(bond.members)} with {bond.vlans}"
                raise SwitchDiffers(f"bond {bond.number} must read back as {wanted}, it is {now} ({session.where})")
            return True

    def remove_bond(self, number: int, vlans: PortVlans, *, timeout_s: float) -> bool:
        with Session(self._access, self._dialect, timeout_s) as session:
            state = self._read(session)
            bond = state.observed.bonds.get(number)
            if bond is None:
                return False
            session.change(self._dialect.unbond_commands(state, bond, vlans))
            now = self._read(session).observed
            if number in now.bonds or any(now.ports.get(port) != vlans for port in bond.members):
                raise SwitchDiffers(
                    f"bond {number} must be gone and {', '.join(bond.members)} in {vlans}, it reads back differently"
                    f" ({session.where})"
                )
            return True

    def _read(self, session: Session) -> State:
        try:
            return self._dialect.read(session.ask)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise SwitchUnreachable(
                f"the switch's configuration must be as its vendor writes it, it is not: {type(error).__name__}"
                f" {str(error)[:120]!r} ({session.where})"
            ) from None
