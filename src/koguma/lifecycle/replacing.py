"""Steps of `koguma node replace`: another machine takes a node's place, with its name, keys, addresses and volume.

1. The machine is cut off: powered off if its BMC still answers, and its volume is hidden from it in any case. Only then
   may another use the same volume and the same addresses.
2. The identity changes hands, in one transaction: afterwards the other node is the one that is deployed, and this one
   has the name and the addresses of the spare it was. There is no moment at which both or neither have them.
3. This node is in maintenance, to be repaired.

A crash anywhere leads to the same end: cutting off and hiding may be repeated, and the transaction says whether it was
done.
"""

from __future__ import annotations

from koguma.contracts.errors import PowerError
from koguma.lifecycle.errors import StepFailed, VerbRefused
from koguma.lifecycle.steps import Context, Done, Result, Step, Wait, is_diskless
from koguma.model.flavor import Flavor, RootMethod
from koguma.model.node import Node
from koguma.model.states import PowerState, ProvisionState, StatusCode

S = ProvisionState
REPLACEABLE = frozenset({S.ACTIVE, S.DEPLOY_FAILED, S.ERROR, S.WAIT_CALL_BACK, S.RESCUE, S.RESCUE_FAILED})
"""Where a node has an identity that is worth handing on. In maintenance, too: that is where dead machines are."""
POWER_TRIES_MAX = 3
POWER_RETRY_S = 5.0
OPERATION = "replacing"
"""The key of an operation's data that tells one replacement from another."""
BY = "replacement"
"""The key of an operation's data that names the node that was asked for."""


def reason_not_replaceable(node: Node, flavor: Flavor | None) -> str | None:
    if node.provision_state not in REPLACEABLE:
        allowed = ", ".join(sorted(state.value for state in REPLACEABLE))
        return f"a node is replaced in {allowed}; it is {node.provision_state.value}"
    if flavor is None:
        return "a node needs a flavor to be replaced, it has none"
    if flavor.root_method is RootMethod.DISK:
        return "a node whose root is on its own disk cannot be replaced: its data would stay behind"
    return None


def reason_not_a_replacement(other: Node, node: Node) -> str | None:
    if other.uuid == node.uuid:
        return "a node cannot replace itself"
    if other.flavor != node.flavor:
        return f"a replacement must have flavor {node.flavor}, {other.name} has {other.flavor}"
    if other.provision_state is not S.AVAILABLE or other.maintenance or other.retired:
        kind = "in maintenance" if other.maintenance else "retired" if other.retired else other.provision_state.value
        return f"a replacement must be available, {other.name} is {kind}"
    return None


def require_replaceable(node: Node, flavor: Flavor | None) -> None:
    """Raises VerbRefused."""
    if reason := reason_not_replaceable(node, flavor):
        raise VerbRefused(f"{reason} (node {node.name})")


def machine_is_cut_off(state: ProvisionState) -> Step:
    """A dead machine's BMC is often dead with it: then a hidden volume must do, where there is one."""

    def run(context: Context) -> Result:
        try:
            if context.observed_power() is not PowerState.OFF:
                context.power().set_power_state(PowerState.OFF, timeout_s=context.policy.power_call_timeout_s)
                context.changes["power_state"] = PowerState.OFF
            return Done()
        except PowerError as error:
            tries = int(context.data.get("power_tries", 0)) + 1
            if tries < POWER_TRIES_MAX:
                context.data["power_tries"] = tries
                return Wait(StatusCode.WAITING_FOR_BMC, f"it is to be powered off: {error}", POWER_RETRY_S)
            if context.claim.volume() is None:
                raise StepFailed(
                    StatusCode.BMC_UNREACHABLE,
                    f"a machine that may still run keeps its addresses, and it could not be powered off: {error}",
                ) from error
            return Done()

    return Step("the machine is cut off", state, run, applies=is_diskless)


def replacement_has_its_identity(state: ProvisionState) -> Step:
    def run(context: Context) -> Result:
        context.claim.hand_over(context.data.get(BY), str(context.data[OPERATION]))
        return Done()

    return Step("its replacement has its identity", state, run)
