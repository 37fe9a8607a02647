"""Waiting until every machine of a lab is a node at work: what to show meanwhile, and when to stop waiting.

The lab only looks, but for one thing that is an operator's part: it tells Koguma of BMCs that their machines cannot
tell of themselves. Registration, power and provisioning are Koguma's: a lab that helped would prove nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from koguma.lab.errors import ApiError
from koguma.lab.lab import Lab
from koguma.lab.plan import BmcKind, Machine

POLL_S = 1.0
HOPELESS_S = 45.0
"""How long all nodes that are not active may stay in a failed state before the wait is given up."""


@dataclass(frozen=True)
class NodeView:
    """One line of the table."""

    machine: str
    name: str = ""
    uuid: str = ""
    provision_state: str = "unregistered"
    status: str = ""
    """Why it waits or failed, in Koguma's words."""
    phase: str = ""
    """The boot phase it is in, or the last one."""
    flavor: str = ""
    label: str = ""
    commit: str = ""
    boot_s: float | None = None
    """How long its newest boot took, or has taken."""
    addresses: tuple[str, ...] = ()
    bmc_address: str = ""
    booted: bool = True
    """Whether the boot it should be running from has ended well: a known node stays active while its machine is off."""

    @property
    def active(self) -> bool:
        return self.provision_state == "active" and self.booted

    @property
    def failed(self) -> bool:
        return self.provision_state.endswith(("failed", "error"))


@dataclass(frozen=True)
class Outcome:
    """How the wait ended."""

    views: tuple[NodeView, ...]
    elapsed_s: float

    @property
    def all_active(self) -> bool:
        return bool(self.views) and all(view.active for view in self.views)


def wait_until_active(
    lab: Lab,
    deadline_s: float,
    show: Callable[[tuple[NodeView, ...], float], None] = lambda _views, _elapsed: None,
    powered_on: Mapping[str, datetime] | None = None,
) -> Outcome:
    """Look at the nodes every POLL_S seconds until all are active, the deadline passed, or hope is gone.

    A machine in `powered_on` must have booted after that moment.

    An API that does not answer for a while is no reason to give up: what was last seen stays.
    """
    started = time.monotonic()
    views: tuple[NodeView, ...] = tuple(NodeView(machine.name) for machine in lab.plan.machines)
    hopeless_since: float | None = None
    while True:
        try:
            tell_bmcs(lab)
            views = look(lab, powered_on or {})
        except ApiError:
            hopeless_since = None
        now = time.monotonic()
        show(views, now - started)
        outcome = Outcome(views, now - started)
        if outcome.all_active or now - started > deadline_s:
            return outcome
        if all(view.active or view.failed for view in views):
            hopeless_since = hopeless_since or now
            if now - hopeless_since > HOPELESS_S:
                return outcome
        else:
            hopeless_since = None
        time.sleep(POLL_S)


def tell_bmcs(lab: Lab) -> None:
    """Give every registered node without a BMC the one of its machine, where the machine itself cannot. ApiError."""
    untold = {machine.uuid: machine for machine in lab.plan.machines if machine.hardware.bmc is BmcKind.REDFISH}
    for node in lab.control_plane.api.nodes() if untold else ():
        machine = untold.get(str(node.get("uuid")))
        if machine and not node.get("bmc_address"):
            lab.control_plane.api.change_node(machine.uuid, {"bmc": lab.bmc(machine).credentials()})


def look(lab: Lab, powered_on: Mapping[str, datetime]) -> tuple[NodeView, ...]:
    """All machines of the lab as Koguma sees them now. ApiError when it does not answer."""
    api = lab.control_plane.api
    nodes = {str(node.get("uuid")): node for node in api.nodes()}
    return tuple(
        _view(lab, machine, nodes[machine.uuid], api.boots(machine.uuid), powered_on.get(machine.name))
        if machine.uuid in nodes
        else NodeView(machine.name, uuid=machine.uuid, bmc_address=lab.bmc(machine).address())
        for machine in lab.plan.machines
    )


def _view(
    lab: Lab, machine: Machine, node: Mapping[str, Any], boots: list[dict[str, Any]], since: datetime | None
) -> NodeView:
    # The boot that registered the machine is not what an operator means by its boot time.
    newest = next((boot for boot in boots if boot.get("mode") != "register"), boots[0] if boots else {})
    phases = newest.get("phases") or [{}]
    return NodeView(
        machine=machine.name,
        name=_text(node, "name"),
        uuid=_text(node, "uuid"),
        provision_state=_text(node, "provision_state"),
        status=_text(node, "status") or _text(node, "last_error"),
        phase=_text(phases[-1], "name"),
        flavor=_text(node, "flavor"),
        label=_text(node, "label"),
        commit=_text(node, "commit"),
        boot_s=newest.get("duration_s"),
        addresses=tuple(str(address) for address in node.get("addresses") or ()),
        bmc_address=lab.bmc(machine).address(),
        booted=has_booted(newest, since),
    )


def has_booted(boot: Mapping[str, Any], since: datetime | None) -> bool:
    """Whether the newest boot ended well, and began at `since` or later."""
    started = str(boot.get("started_at") or "")
    if since and (not started or datetime.fromisoformat(started) < since):
        return False
    return bool(boot.get("outcome", "succeeded") == "succeeded")


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return "" if value is None else str(value)
