"""Which hardware types this installation can use: those whose power driver is part of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec

from koguma.model.hardware import HARDWARE_TYPES, NO_BMC, HardwareType


@lru_cache(maxsize=1)
def enabled() -> Mapping[str, HardwareType]:
    return {
        name: hardware
        for name, hardware in HARDWARE_TYPES.items()
        if name == NO_BMC or find_spec(f"koguma.drivers.power.{name.replace('-', '_')}")
    }


def enabled_names() -> list[str]:
    return list(enabled())
