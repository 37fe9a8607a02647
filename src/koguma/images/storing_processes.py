"""Stores files in processes of their own, each with a pack of its own: for when much is new.

Threads would wait for each other at the interpreter's lock for a fifth of the time. Only files of one size can be
equal, so all of a size go to one process, and each content is stored once without the processes asking each other.

A process ends when the other end of its pipe is gone, whatever happened to who held it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

from koguma.images.errors import ImageError, StorageError
from koguma.images.objects import ObjectWriter
from koguma.images.processors import processors
from koguma.images.storing import Batch, Done, store_files

_IN_FLIGHT_MAX = 16
"""Batches that a process has been sent: their results fit the pipe, so it never waits for its parent to read."""
_AHEAD_BYTES = 6 * 1024 * 1024
"""What it has been sent is enough to do while the parent looks at files; what waits for that can go to another one."""
_SYNC = "sync"
"""Sent when there is nothing more to store: disks are waited for while the parent makes its directories."""
_END_S = 1.0
_FILE_COST_BYTES = 20_000
"""What opening and recording a file costs, in bytes that could be stored meanwhile."""


class StoringProcesses:
    """Call `add` for each file, then `wait`. The writer finishes or abandons their packs with its own."""

    def __init__(self, writer: ObjectWriter, progress: Callable[[int], None]) -> None:
        self._progress = progress
        self._helpers: list[_Helper] = []
        self._by_size: dict[int, _Helper] = {}
        self._shared: set[int] = set()
        """The sizes of more than one file."""
        for _ in range(processors()):
            self._helpers.append(_Helper(writer, [helper.connection for helper in self._helpers]))
        writer.accompany(self)

    def add(self, path: bytes, size: int, done: Done) -> None:
        helper = self._by_size.get(size)
        if helper is None:
            helper = self._by_size[size] = min(self._helpers, key=lambda helper: helper.backlog)
        else:
            self._shared.add(size)
        if helper.add(path, size, done):
            self._exchange()

    def wait(self) -> None:
        """Until everything is stored; the first error of any process is raised here."""
        for helper in self._helpers:
            helper.close_batch()
            helper.put_off(self._may_move)
        self._exchange()
        while busy := [helper.connection for helper in self._helpers if helper.sent]:
            wait(busy)
            self._exchange()
            self._balance()
        for helper in self._helpers:
            helper.send(_SYNC)

    def finish(self) -> tuple[int, int]:
        """Make what was stored durable and visible; how many objects that were, and their stored bytes."""
        for helper in self._helpers:
            helper.send(None)
        counts = [helper.receive() for helper in self._helpers]
        self.abandon()
        return sum(objects for objects, _ in counts), sum(stored for _, stored in counts)

    def abandon(self) -> None:
        """End the processes; what was not finished is gone."""
        for helper in self._helpers:
            helper.connection.close()
        for helper in self._helpers:
            helper.process.join(_END_S)
            if helper.process.is_alive():
                helper.process.kill()  # it compresses a large file; what it wrote is cleared away by the next writer
                helper.process.join()
        self._helpers = []

    def _balance(self) -> None:
        """Give who is done something of who has most to do: how long contents take is known afterwards only."""
        idle = [helper for helper in self._helpers if helper.is_idle()]
        for helper in idle:
            busiest = sorted(self._helpers, key=lambda helper: -helper.backlog)
            if batch := next(filter(None, (giver.give(self._may_move) for giver in busiest)), None):
                helper.take(*batch)
                helper.send_batches()

    def _may_move(self, batch: Batch) -> bool:
        """Now that all files are known: whether no file elsewhere can be equal to one of these."""
        return all(size not in self._shared for _, size in batch.work)

    def _exchange(self) -> None:
        """Collect what is done and send what there is room for, without waiting."""
        for helper in self._helpers:
            while helper.sent and helper.connection.poll():
                self._progress(helper.collect())
            helper.send_batches()


class _Helper:
    """One process, as its parent sees it."""

    def __init__(self, writer: ObjectWriter, others: Sequence[Connection]) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        ends = [*others, self.connection]
        self.process = context.Process(target=_serve, args=(theirs, ends, writer), daemon=True)
        self.process.start()
        theirs.close()
        self.backlog = 0
        """What it has yet to do, in bytes."""
        self.sent: deque[tuple[Batch, int]] = deque()
        self._ahead = 0
        """What it has been sent of that."""
        self._batch, self._cost = Batch(), 0
        self._waiting: deque[tuple[Batch, int]] = deque()

    def add(self, path: bytes, size: int, done: Done) -> bool:
        """Whether that made a batch."""
        self._batch.add(path, size, done)
        self._cost += size + _FILE_COST_BYTES
        self.backlog += size + _FILE_COST_BYTES
        if self._batch.is_full():
            self.close_batch()
            return True
        return False

    def close_batch(self) -> None:
        if self._batch.work:
            self._waiting.append((self._batch, self._cost))
            self._batch, self._cost = Batch(), 0

    def put_off(self, may_move: Callable[[Batch], bool]) -> None:
        """Batches that another process may do come last."""
        self._waiting = deque(sorted(self._waiting, key=lambda item: may_move(item[0])))

    def is_idle(self) -> bool:
        """Whether it has at most the batch that it is doing."""
        return not self._waiting and len(self.sent) <= 1

    def give(self, may_move: Callable[[Batch], bool]) -> tuple[Batch, int] | None:
        """The last batch that waits, if another process may do it."""
        if not self._waiting or not may_move(self._waiting[-1][0]):
            return None
        batch, cost = self._waiting.pop()
        self.backlog -= cost
        return batch, cost

    def take(self, batch: Batch, cost: int) -> None:
        self.backlog += cost
        self._waiting.append((batch, cost))

    def send_batches(self) -> None:
        while self._waiting and (not self.sent or (self._ahead < _AHEAD_BYTES and len(self.sent) < _IN_FLIGHT_MAX)):
            batch, cost = self._waiting.popleft()
            self.send(batch.work)
            self.sent.append((batch, cost))
            self._ahead += cost

    def collect(self) -> int:
        results = self.receive()
        batch, cost = self.sent.popleft()
        self.backlog -= cost
        self._ahead -= cost
        return batch.tell(results)

    def send(self, message: object) -> None:
        try:
            self.connection.send(message)
        except OSError:
            self._died()

    def receive(self) -> Any:
        """The answer to what was sent first. Raises what went wrong in the process."""
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self._died()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _died(self) -> NoReturn:
        """Raises what the process said last, when that is why it ended."""
        answer: object = None
        with contextlib.suppress(EOFError, OSError):
            while not isinstance(answer, BaseException):
                answer = self.connection.recv()
        if isinstance(answer, BaseException):
            raise answer from None
        self.process.join(_END_S)
        ended = f"it ended with {self.process.exitcode}"
        raise StorageError(
            f"a process that stores files must live until the commit ends, {ended}; commit again"
        ) from None


def _serve(connection: Connection, others: Sequence[Connection], writer: ObjectWriter) -> None:
    """What a process does: store batches until it is told to finish, or nobody is there any more."""
    # Its parent hears the interrupt from the keyboard and decides for both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:
        other.close()
    own = writer.sibling()
    try:
        while (work := connection.recv()) is not None:
            if work == _SYNC:
                own.sync()
            else:
                connection.send(store_files(own, work))
        own.finish()
        connection.send((own.objects, own.stored_bytes))
    except (ImageError, OSError, EOFError) as error:
        own.abandon()
        with contextlib.suppress(OSError):  # nobody may be there to hear it
            connection.send(error)
