"""Threads for due nodes: BMCs that hang hold up nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from koguma.db.dispatch import Dispatcher, calls_outside, outside

pytestmark = pytest.mark.usefixtures("db")


class Work:
    """Nodes that are due until they are done; those called `slow…` wait for a BMC that hangs."""

    def __init__(self, *due: tuple[str, int]) -> None:
        self.due = list(due)
        self.begun: list[str] = []
        self.done: list[str] = []
        self.release = threading.Event()
        self.lock = threading.Lock()

    def due_nodes(self, limit: int, with_failed: bool) -> list[tuple[str, int]]:
        with self.lock:
            return [item for item in self.due if with_failed or not item[1]][:limit]

    def advance(self, uuid: str) -> None:
        with self.lock:
            self.begun.append(uuid)
        if uuid.startswith("slow"):
            with outside():
                assert self.release.wait(60)
        if uuid.startswith("busy"):
            assert self.release.wait(60)
        with self.lock:
            self.done.append(uuid)
            self.due = [item for item in self.due if item[0] != uuid]


def dispatched(work: Work, until: Callable[[], bool], inside_max: int = 4, outside_max: int = 64) -> None:
    dispatcher = Dispatcher(work.advance, work.due_nodes, inside_max, outside_max)
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not until():
            assert time.monotonic() < deadline, (work.begun, work.done)
            time.sleep(0.01)
    finally:
        work.release.set()
        dispatcher.stop()
        thread.join(10)
        while not dispatcher.is_idle():
            time.sleep(0.01)


def test_fifty_bmcs_that_hang_do_not_hold_up_a_node_whose_bmc_answers() -> None:
    work = Work(*((f"slow-{number}", 0) for number in range(50)), ("well", 0))
    dispatched(work, lambda: "well" in work.done)
    assert work.done[0] == "well"
    assert len(work.begun) == 51


def test_driver_whose_calls_hang_holds_up_nobody_when_its_calls_are_outside() -> None:
    work = Work(*((f"drive{number}", 0) for number in range(8)), ("fast", 0))

    class Drive:
        kind = "cdrom"

        def insert(self, disc: str) -> str:
            assert work.release.wait(60)
            return disc

    drive, advance = calls_outside(Drive()), work.advance

    def insert(uuid: str) -> None:
        if uuid.startswith("drive"):
            drive.insert(uuid)
        advance(uuid)

    work.advance = insert  # type: ignore[method-assign]
    dispatched(work, lambda: work.done == ["fast"])
    assert drive.kind == "cdrom"
    assert drive.insert("ipxe.iso") == "ipxe.iso"


def test_bmcs_known_to_hang_leave_half_of_the_room_to_others() -> None:
    work = Work(*((f"slow-{number}", 1) for number in range(50)), ("well", 0))
    dispatched(work, lambda: "well" in work.done, outside_max=8)
    assert len([uuid for uuid in work.begun if uuid.startswith("slow")]) == 4


def test_no_more_threads_work_at_once_than_there_are_places() -> None:
    work = Work(*((f"busy-{number}", 0) for number in range(10)))
    dispatched(work, lambda: len(work.begun) >= 4 and time.sleep(0.7) is None, inside_max=4)
    assert len(work.begun) == 4


def test_a_node_is_given_to_one_thread_at_a_time() -> None:
    work = Work(("busy-1", 0))
    dispatched(work, lambda: bool(work.begun) and time.sleep(0.7) is None)
    assert work.begun.count("busy-1") == 1
