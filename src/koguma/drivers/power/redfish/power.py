"""The power of a machine behind a Redfish service."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import sushy

from koguma.contracts.errors import PowerTimeout, PowerUnreachable, Unsupported
from koguma.contracts.power import Access
from koguma.drivers.power.redfish.connection import Conversation
from koguma.model.states import PowerState

POLL_S = 0.5

_STATES = {
    sushy.PowerState.ON: PowerState.ON,
    sushy.PowerState.PAUSED: PowerState.ON,
    # Not yet where it goes: what it leaves is what it has.
    sushy.PowerState.POWERING_OFF: PowerState.ON,
    sushy.PowerState.POWERING_ON: PowerState.OFF,
    sushy.PowerState.OFF: PowerState.OFF,
}
_ON = (sushy.ResetType.ON, sushy.ResetType.FORCE_ON)
_OFF = (sushy.ResetType.FORCE_OFF,)
_SHUTDOWN = (sushy.ResetType.GRACEFUL_SHUTDOWN, sushy.ResetType.PUSH_POWER_BUTTON)


class RedfishPower:
    """Each call is a conversation of its own."""

    def __init__(self, access: Access, sleep: Callable[[float], None] = time.sleep) -> None:
        self._access = access
        self._sleep = sleep

    def get_power_state(self, *, timeout_s: float) -> PowerState:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated("tell the power state"):
            return power_of(conversation.system(), conversation.where)

    def set_power_state(self, target: PowerState, *, timeout_s: float) -> None:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated(f"bring the power to {target.value!r}"):
            system = conversation.system()
            if power_of(system, conversation.where) is not target:
                reset(system, _ON if target is PowerState.ON else _OFF)
                wait_for_power(conversation, system, target, timeout_s, self._sleep)

    def request_shutdown(self, *, timeout_s: float) -> None:
        conversation = Conversation(self._access, timeout_s)
        with conversation.translated("ask the operating system to shut down"):
            system = conversation.system()
            if power_of(system, conversation.where) is PowerState.ON:
                reset(system, _SHUTDOWN)


def power_of(system: Any, where: str) -> PowerState:
    if state := _STATES.get(system.power_state):
        return state
    raise PowerUnreachable(f"the BMC must say that power is on or off, it said nothing of the kind ({where})")


def reset(system: Any, kinds: tuple[sushy.ResetType, ...]) -> None:
    """Ask for the first of these kinds that the BMC says it knows; a BMC that lists none is asked for the first."""
    known = system.get_allowed_reset_system_values()
    kind = next((kind for kind in kinds if kind in known), None)
    if kind is None:
        words = ", ".join(sorted(each.value for each in known))
        raise Unsupported(f"the BMC must know the reset {kinds[0].value}, it knows {words}")
    system.reset_system(kind)


def wait_for_power(
    conversation: Conversation, system: Any, target: PowerState, timeout_s: float, sleep: Callable[[float], None]
) -> None:
    """Raises PowerTimeout when the BMC does not confirm it in time. A question that fails meanwhile is asked again."""
    state = PowerState.UNKNOWN
    while conversation.left_s > POLL_S:
        try:
            with conversation.translated("tell the power state"):
                system.refresh(force=True)
                state = power_of(system, conversation.where)
        except PowerUnreachable:
            if conversation.left_s <= POLL_S:
                break
        if state is target:
            return
        sleep(POLL_S)
    raise PowerTimeout(
        f"the power must be {target.value!r} within {timeout_s:g} s, it is {state.value!r} ({conversation.where})"
    )
