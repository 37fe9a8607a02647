"""What a person at the console sees: one line per event, with the seconds since the kernel started."""

from __future__ import annotations

import time


def uptime_s() -> float:
    return round(time.clock_gettime(time.CLOCK_BOOTTIME), 2)


def say(message: str) -> None:
    print(f"koguma [{uptime_s():8.2f}] {message}", flush=True)
