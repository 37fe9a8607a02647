"""The steps that put a node's switch ports into networks: named as outcomes, idempotent, read back after each write.

1. Plan (`lifecycle.cabling`) from the records as they are now.
2. Take the switch, alone; while another node has it, wait. So a switch that hangs keeps one worker's thread at most.
3. Write what differs; the driver reads back. Record each port as it was read back.
4. A switch that does not answer is asked again until the step's time is over; one that refuses fails the step.

Nodes whose network interface is not `koguma` skip all of it. docs/decisions/networks-ports-follow-the-state.md has the
reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from koguma.contracts.errors import SwitchError
from koguma.contracts.switches import Bond, Observed, PortVlans, SwitchDriver
from koguma.lifecycle import cabling
from koguma.lifecycle.cabling import Site, Wish
from koguma.lifecycle.errors import StepFailed
from koguma.lifecycle.policy import Policy
from koguma.lifecycle.steps import CLOCK_SKEW_S, Context, Done, Result, Step, Wait
from koguma.model.boot_record import Outcome
from koguma.model.layout import Layout, is_switched, layout_for
from koguma.model.states import PowerState, ProvisionState, StatusCode
from koguma.model.switch import Placement

BUSY_POLL_S = 0.5
_TRIES = "switch_tries"
_RETURNS = "returns_to_its_networks"
"""Set while a machine in use is in the provisioning network to boot."""


def ports_are_in_provisioning(state: ProvisionState | None) -> Step:
    def run(context: Context) -> Result:
        layout, site = _layout(context), _site(context)
        if state is ProvisionState.DEPLOYING:
            cabling.plan_for_use(context.node, layout, site)  # what cannot be handed over is not booted either
        return _placed(context, site, cabling.plan_for_boot(context.node, site, tenants=bool(layout.networks)))

    return Step(
        "its ports are in the provisioning network", state, run, _timeout, StatusCode.SWITCH_PORT_TIMED_OUT, is_switched
    )


def ports_are_in_their_networks(state: ProvisionState | None) -> Step:
    """Without a state: of a machine that is in use and has just installed."""

    def run(context: Context) -> Result:
        site = _site(context)
        result = _placed(context, site, cabling.plan_for_use(context.node, _layout(context), site))
        if state is None and isinstance(result, Done):
            context.changes["status_code"] = StatusCode.RUNNING
        return result

    return Step(
        "its ports are in the networks of its use", state, run, _timeout, StatusCode.SWITCH_PORT_TIMED_OUT, is_switched
    )


def attachments_are_taken_back(state: ProvisionState) -> Step:
    """Networks attached to the node are part of its use, and their addresses are others' afterwards."""

    def run(context: Context) -> Result:
        context.claim.end_attachments()
        return Done()

    return Step("its attached networks are taken back", state, run, applies=is_switched)


def machine_in_use_boots_from_provisioning() -> Step:
    """For a power action: a machine in use that is off, and elsewhere than it boots, comes to the boot service."""

    def run(context: Context) -> Result:
        layout = _layout(context)
        if context.node.provision_state is not ProvisionState.ACTIVE or not cabling.must_move(layout):
            return Done()
        if not context.data.get(_RETURNS) and context.observed_power() is PowerState.ON:
            return Done()
        context.data[_RETURNS] = True
        site = _site(context)
        return _placed(context, site, cabling.plan_for_boot(context.node, site, tenants=bool(layout.networks)))

    return Step(
        "its ports are in the provisioning network, to boot",
        None,
        run,
        _timeout,
        StatusCode.SWITCH_PORT_TIMED_OUT,
        is_switched,
    )


def machine_in_use_has_booted() -> Step:
    """For a power action: a machine that goes back has installed. One that does not stays where it boots from."""

    def run(context: Context) -> Result:
        if not context.data.get(_RETURNS):
            return Done()
        powered_on_at = context.time("powered_on_at") or context.step_started_at
        boots = context.claim.boots_since(powered_on_at - timedelta(seconds=CLOCK_SKEW_S))
        if any(boot.outcome is Outcome.SUCCEEDED and boot.mode in ("boot", "direct") for boot in boots):
            return Done()
        if (context.now - powered_on_at).total_seconds() > context.policy.boot_timeout_s:
            raise StepFailed(
                StatusCode.BOOT_TIMED_OUT,
                f"not installed within {context.policy.boot_timeout_s:g} s of power-on; it stays in provisioning",
            )
        return Wait(StatusCode.WAITING_FOR_INSTALLED, "booting, in the provisioning network", 5.0)

    return Step("the machine has installed, where it goes back", None, run, applies=is_switched)


def machine_in_use_is_in_its_networks() -> Step:
    def run(context: Context) -> Result:
        if not context.data.get(_RETURNS):
            return Done()
        site = _site(context)
        result = _placed(context, site, cabling.plan_for_use(context.node, _layout(context), site))
        if isinstance(result, Done):
            context.changes["status_code"] = StatusCode.RUNNING  # nobody will hear a heartbeat of it
        return result

    return Step(
        "its ports are in the networks of its use, again",
        None,
        run,
        _timeout,
        StatusCode.SWITCH_PORT_TIMED_OUT,
        is_switched,
    )


def _layout(context: Context) -> Layout:
    flavor = context.claim.flavor()
    return layout_for(context.node, flavor.layout if flavor else Layout())


def _site(context: Context) -> Site:
    claim = context.claim
    switches = claim.switches()
    return Site(claim.networks(), switches, claim.placements() if switches else ())


def _placed(context: Context, site: Site, wishes: list[Wish]) -> Result:
    for name in dict.fromkeys(wish.switch for wish in wishes):
        if wait := _placed_on(context, site, name, [wish for wish in wishes if wish.switch == name]):
            return wait
    context.data.pop(_TRIES, None)
    return Done()


def _placed_on(context: Context, site: Site, name: str, wishes: list[Wish]) -> Wait | None:
    """All that is wished of one switch. None when it is so."""
    code = StatusCode.WAITING_FOR_SWITCH_PORT
    try:
        with context.claim.switch(name) as driver:
            if driver is None:
                return Wait(code, f"switch {name} serves another node", BUSY_POLL_S)
            _write(context, _Alone(driver, context.policy.switch_call_timeout_s), site, wishes)
    except SwitchError as error:
        if not error.retry:
            raise StepFailed(StatusCode.SWITCH_REFUSED, str(error)) from error
        tries = context.data.get(_TRIES, 0) + 1
        context.data[_TRIES] = tries
        return Wait(code, f"switch {name}, try {tries}: {error}", context.policy.backoff_s(tries))
    return None


@dataclass(frozen=True)
class _Alone:
    """A switch that nobody else writes to meanwhile."""

    driver: SwitchDriver
    timeout_s: float

    def observe(self) -> Observed:
        return self.driver.observe(timeout_s=self.timeout_s)

    def set_port(self, port: str, vlans: PortVlans) -> None:
        self.driver.set_port(port, vlans, timeout_s=self.timeout_s)

    def set_bond(self, bond: Bond) -> None:
        self.driver.set_bond(bond, timeout_s=self.timeout_s)

    def remove_bond(self, number: int, vlans: PortVlans) -> None:
        self.driver.remove_bond(number, vlans, timeout_s=self.timeout_s)


def _write(context: Context, switch: _Alone, site: Site, wishes: list[Wish]) -> None:
    observed = switch.observe()
    ours = {item.bond for item in site.placements if item.switch == wishes[0].switch and item.bond}
    parking = PortVlans.access(site.switch(wishes[0].switch).parking_vlan)
    kept = {wish.ports for wish in wishes if wish.lacp}
    for number in sorted(ours & observed.bonds.keys()):
        if observed.bonds[number].members not in kept:
            switch.remove_bond(number, parking)
    _write_each(context, switch, observed, ours, wishes)


def _write_each(context: Context, switch: _Alone, observed: Observed, ours: set[int], wishes: list[Wish]) -> None:
    for wish in wishes:
        number = _bond_number(wish, observed, ours) if wish.lacp else None
        _record(context, wish, number, written=False)  # a worker that dies now has left no port that nobody knows of
        if number is None:
            switch.set_port(wish.ports[0], wish.vlans)
        else:
            switch.set_bond(Bond(number, wish.ports, wish.vlans))
        _record(context, wish, number, written=True)


def _bond_number(wish: Wish, observed: Observed, ours: set[int]) -> int:
    """That of the bond these ports are in, if it is ours; else the lowest that nobody has."""
    same = [number for number, bond in observed.bonds.items() if number in ours and bond.members == wish.ports]
    return same[0] if same else next(number for number in range(1, 1000) if number not in observed.bonds)


def _record(context: Context, wish: Wish, bond: int | None, *, written: bool) -> None:
    vlans = wish.vlans
    for port in wish.ports:
        placement = Placement(wish.switch, port, context.node.uuid, wish.network, vlans.untagged, vlans.tagged, bond)
        context.claim.record_placement(placement, written=written)


def _timeout(policy: Policy) -> float:
    return policy.switch_step_timeout_s
