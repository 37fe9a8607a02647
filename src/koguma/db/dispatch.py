"""The dispatcher: gives the nodes that are due to threads, and sees to it that slow BMCs hold up nobody else.

    due nodes --(a place is free)--> thread --(asks a BMC, a switch, a storage)--> outside --> back inside --> done

A thread needs a place inside while it works, and none while it waits for something outside of Koguma (`outside`):
places inside are few, so that threads don't fight for the processor, and those outside are many, so that fifty BMCs
that hang leave room for the node whose BMC does not. A node whose step has failed before may be slow again: such nodes
get at most half of the room outside.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

import psycopg
from django.db import connection, connections

from koguma.db.wake import DUE_CHANNEL

log = logging.getLogger(__name__)

T = TypeVar("T")

WATCH_S = 0.5
"""How often due nodes are looked for without being told."""
OUTSIDE_MAX = 64
FETCH_MORE = 16

DueNodes = Callable[[int, bool], list[tuple[str, int]]]
"""At most so many that are due, each with how often its step has failed; whether such as have failed are wanted."""


@dataclass
class _Run:
    """A node a thread works on."""

    was_slow: bool
    is_outside: bool = False


_here = threading.local()


@contextmanager
def outside() -> Iterator[None]:
    """The thread waits for something that is not Koguma's; its place inside is free for another meanwhile."""
    leave: Callable[[bool], None] | None = getattr(_here, "leave", None)
    if leave is None:
        yield
        return
    leave(True)
    try:
        yield
    finally:
        leave(False)


class _CallsOutside:
    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        if not callable(found):
            return found

        @wraps(found)
        def call(*arguments: Any, **named: Any) -> Any:
            with outside():
                return found(*arguments, **named)

        return call


def calls_outside(wrapped: T) -> T:
    """The same thing, whose calls need no place inside while they last."""
    return cast("T", _CallsOutside(wrapped))


class Dispatcher:
    """`advance` takes a node as far as it gets; `due_nodes` tells which are due."""

    def __init__(
        self,
        advance: Callable[[str], None],
        due_nodes: DueNodes,
        inside_max: int,
        outside_max: int = OUTSIDE_MAX,
    ) -> None:
        self._advance = advance
        self._due_nodes = due_nodes
        self._inside_max = inside_max
        self._outside_max = outside_max
        self._threads = ThreadPoolExecutor(inside_max + outside_max, thread_name_prefix="node")
        self._runs: dict[str, _Run] = {}
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._stopping = False

    def run(self) -> None:
        """Until `stop`. A database that is away is waited for."""
        while not self._stopping:
            self._bell.clear()
            try:
                began = self._begin_due()
            except Exception as error:
                log.warning("due nodes could not be looked for", extra={"error": str(error)[:300]})
                began = 0
                time.sleep(WATCH_S)
            finally:
                connection.close()
            if not began:
                self._bell.wait(WATCH_S)

    def ring(self) -> None:
        """Something is due, or there is room again."""
        self._bell.set()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._bell.set()

    def is_idle(self) -> bool:
        with self._lock:
            return not self._runs

    def _begin_due(self) -> int:
        room, slow_room = self._room()
        if room <= 0:
            return 0
        with self._lock:
            known = len(self._runs)
        begins: list[str] = []
        for uuid, tries in self._due_nodes(room + known + FETCH_MORE, slow_room > 0):
            if len(begins) >= room:
                break
            was_slow = tries > 0
            if was_slow and slow_room <= 0:
                continue
            with self._lock:
                if uuid in self._runs:
                    continue
                self._runs[uuid] = _Run(was_slow)
            slow_room -= was_slow
            begins.append(uuid)
        for uuid in begins:
            self._submit(uuid)
        return len(begins)

    def _submit(self, uuid: str) -> None:
        try:
            self._threads.submit(self._work, uuid).add_done_callback(lambda future: self._end(uuid, future))
        except RuntimeError:  # it was stopped meanwhile
            self._end(uuid, None)

    def _room(self) -> tuple[int, int]:
        """How many may begin now, and how many of them may be such as were slow."""
        with self._lock:
            runs = list(self._runs.values())
        is_outside = sum(run.is_outside for run in runs)
        inside = len(runs) - is_outside
        room = min(self._inside_max - inside, self._inside_max + self._outside_max - len(runs))
        return room, self._outside_max // 2 - sum(run.was_slow for run in runs)

    def _work(self, uuid: str) -> None:
        run = self._runs[uuid]

        def leave(is_outside: bool) -> None:
            with self._lock:
                run.is_outside = is_outside
            if is_outside:
                self._bell.set()

        _here.leave = leave
        try:
            self._advance(uuid)
        finally:
            _here.leave = None
            connections.close_all()

    def _end(self, uuid: str, future: Future[None] | None) -> None:
        error = future.exception() if future and not future.cancelled() else None
        if error:
            # Most often PostgreSQL restarts; the node is due again whatever happened.
            log.warning("a node was left for now", extra={"node": uuid, "error": str(error)[:300]})
        with self._lock:
            self._runs.pop(uuid, None)
        self._bell.set()


def listen(dsn: dict[str, object], heard: Callable[[], None], stopping: threading.Event) -> None:
    """Call `heard` whenever somebody woke a node. The connection is made again when it is lost."""
    while not stopping.is_set():
        try:
            with psycopg.connect(**dsn, autocommit=True) as conn:  # type: ignore[arg-type]
                conn.execute(f"LISTEN {DUE_CHANNEL}")
                heard()
                while not stopping.is_set():
                    for _ in conn.notifies(timeout=1.0, stop_after=1):
                        heard()
        except psycopg.Error as error:
            log.warning("no news of due nodes, listening again", extra={"error": str(error)[:300]})
            stopping.wait(0.5)
