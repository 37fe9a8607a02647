"""Django's PostgreSQL backend, with a pool of idle connections and a limit.

Every request and every job runs in a thread of its own choosing, so connections must outlive threads. psycopg's own
pool does that, but after PostgreSQL restarts it tries its dead connections one by one, with growing pauses: requests
fail for many seconds. Here a connection is looked at without a round trip before it is used again (a dead one has an
end of file to read), and nothing is waited for but a free place.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from typing import Any

from django.db import OperationalError
from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus

CONNECTIONS_MAX = int(os.environ.get("KOGUMA_DB_CONNECTIONS", "32"))
"""Of one process, at a time."""
IDLE_MAX = 16
"""More than these were needed by a crowd that is gone."""
WAIT_S = 15.0

_idle: deque[Any] = deque()
_places = threading.Semaphore(CONNECTIONS_MAX)


class DatabaseWrapper(base.DatabaseWrapper):
    """One thread's use of a connection."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """An idle connection that is alive, else a new one. Raises OperationalError when all places stay taken."""
        if not _places.acquire(timeout=WAIT_S):
            raise OperationalError(f"a process may use {CONNECTIONS_MAX} connections, all were taken for {WAIT_S:g} s")
        try:
            return _take_idle() or super().get_new_connection(conn_params)
        except BaseException:
            _places.release()
            raise

    def _close(self) -> None:
        held = self.connection
        if held is None:
            return
        try:
            if not held.closed and held.info.transaction_status != TransactionStatus.IDLE:
                held.rollback()
            if held.closed or held.info.transaction_status != TransactionStatus.IDLE or len(_idle) >= IDLE_MAX:
                held.close()
            else:
                _idle.append(held)
        except self.Database.Error:
            held.close()
        finally:
            _places.release()


def close_idle() -> None:
    """Close what nobody uses; for the end of a process."""
    while _idle:
        _idle.pop().close()


def _take_idle() -> Any:
    """The connection used last that is alive, or None; dead ones are closed on the way."""
    while True:
        try:
            held = _idle.pop()
        except IndexError:
            return None
        if _is_alive(held):
            return held
        held.close()


def _is_alive(held: Any) -> bool:
    """An idle connection has nothing to read: whatever there is to read is the server's good-bye, or its end."""
    if held.closed:
        return False
    try:
        poller = select.poll()
        poller.register(held.fileno(), select.POLLIN)
        return not poller.poll(0)
    except (OSError, ValueError):
        return False
