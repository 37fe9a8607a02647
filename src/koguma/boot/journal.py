"""The boot service's own memory on disk: reports not yet delivered, and what must survive its restart.

One SQLite file (`<state>/boot/journal.sqlite`), so that a kill at any moment keeps every report that a machine was
told is accepted. Reports leave the file when the server has taken them. Used from one thread (the event loop's).
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from koguma.boot.errors import TooManyReports

Kind = Literal["script", "phase", "installed", "heartbeat", "once"]

REPORTS_PER_BOOT_MAX = 500
"""A boot sends about twenty; a machine that sends more is broken or hostile."""

UNREGISTERED_BOOTS_MAX = 256
REPORTS_PER_UNREGISTERED_BOOT_MAX = 64
INSTALLED_KEPT_DAYS = 30

_SCHEMA = """
CREATE TABLE IF NOT EXISTS reports (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, boot_id TEXT NOT NULL, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counts (boot_id TEXT PRIMARY KEY, reports INTEGER NOT NULL, at TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS once (id TEXT PRIMARY KEY, boot_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chosen (boot_id TEXT PRIMARY KEY, label TEXT NOT NULL, at TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS disks (boot_id TEXT PRIMARY KEY, wish TEXT NOT NULL, at TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS written (wish TEXT PRIMARY KEY, boot_id TEXT NOT NULL, at TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS installed (boot_id TEXT PRIMARY KEY, at TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Report:
    """Something a machine said, or that was done for it, at a moment (UTC)."""

    uuid: str
    boot_id: str
    kind: Kind
    body: dict[str, Any]
    at: str
    id: str

    @classmethod
    def now(cls, uuid: str, boot_id: str, kind: Kind, body: dict[str, Any]) -> Report:
        return cls(uuid, boot_id, kind, body, datetime.now(UTC).isoformat(), secrets.token_hex(16))

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


class Journal:
    """Reports in order, and the marks of boots."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        self._unregistered: OrderedDict[str, list[Report]] = OrderedDict()
        self._registering: OrderedDict[str, str] = OrderedDict()
        self._heartbeats: dict[str, Report] = {}
        self._forget_old_marks()

    def close(self) -> None:
        self._db.close()

    def add(self, report: Report) -> None:
        """Keep a report until the server has it. Raises TooManyReports for a boot that reports without end."""
        self._add_all([report])

    def add_unregistered(self, report: Report) -> None:
        """Remember, in memory only and within bounds, what a machine said before anybody knew it."""
        kept = self._unregistered.setdefault(report.boot_id, [])
        self._unregistered.move_to_end(report.boot_id)
        if len(kept) >= REPORTS_PER_UNREGISTERED_BOOT_MAX:
            raise TooManyReports(f"an unregistered boot may report {REPORTS_PER_UNREGISTERED_BOOT_MAX} times")
        kept.append(report)
        while len(self._unregistered) > UNREGISTERED_BOOTS_MAX:
            self._unregistered.popitem(last=False)

    def registered(self, boot_id: str, address: str) -> None:
        """The machine of this boot is a node now: what it said before counts."""
        self._add_all(self._unregistered.pop(boot_id, []))
        self._registering[boot_id] = address
        while len(self._registering) > UNREGISTERED_BOOTS_MAX:
            self._registering.popitem(last=False)

    def has_registered_from(self, boot_id: str, address: str) -> bool:
        """Whether this boot registered its machine, from this address: it keeps it until it powers off."""
        return self._registering.get(boot_id) == address

    def heartbeat(self, report: Report) -> None:
        """Only a machine's newest heartbeat matters, and none is worth a disk write."""
        self._heartbeats[report.uuid] = report

    def pending(self, limit: int) -> list[Report]:
        """The oldest undelivered reports, then the newest heartbeats, at most `limit` in all."""
        rows = self._db.execute("SELECT document FROM reports ORDER BY sequence LIMIT ?", (limit,)).fetchall()
        reports = [Report(**json.loads(text)) for (text,) in rows]
        return reports + list(self._heartbeats.values())[: limit - len(reports)]

    def delivered(self, ids: Iterable[str]) -> None:
        gone = set(ids)
        with self._transaction():
            self._db.executemany("DELETE FROM reports WHERE id = ?", [(id_,) for id_ in gone])
        self._heartbeats = {uuid: report for uuid, report in self._heartbeats.items() if report.id not in gone}

    def claim_once(self, once_id: str, boot_id: str) -> bool:
        """Whether this boot is the one that may use a label set for one boot: the first that asks."""
        self._db.execute("INSERT OR IGNORE INTO once VALUES (?, ?)", (once_id, boot_id))
        (holder,) = self._db.execute("SELECT boot_id FROM once WHERE id = ?", (once_id,)).fetchone()
        return bool(holder == boot_id)

    def choose(self, boot_id: str, label: str) -> None:
        """Somebody at the console chose a label for this boot."""
        self._db.execute("INSERT OR REPLACE INTO chosen VALUES (?, ?, ?)", (boot_id, label, _now()))

    def chosen(self, boot_id: str) -> str | None:
        row = self._db.execute("SELECT label FROM chosen WHERE boot_id = ?", (boot_id,)).fetchone()
        return row[0] if row else None

    def begin_disk(self, boot_id: str, wish: str) -> None:
        """This boot is to fulfil a wish about its machine's disks."""
        self._db.execute("INSERT OR IGNORE INTO disks VALUES (?, ?, ?)", (boot_id, wish, _now()))

    def mark_written(self, boot_id: str) -> None:
        """The boot has fulfilled its wish. Harmless when it had none."""
        self._db.execute(
            "INSERT OR IGNORE INTO written SELECT wish, boot_id, ? FROM disks WHERE boot_id = ?", (_now(), boot_id)
        )

    def writer_of(self, wish: str) -> str | None:
        """The boot that fulfilled the wish."""
        row = self._db.execute("SELECT boot_id FROM written WHERE wish = ?", (wish,)).fetchone()
        return row[0] if row else None

    def mark_installed(self, report: Report) -> bool:
        """Keep an `installed` report, once for each boot; False when that boot had reported it before."""
        with self._transaction():
            fresh = self._db.execute(
                "INSERT OR IGNORE INTO installed VALUES (?, ?)", (report.boot_id, report.at)
            ).rowcount
            if fresh:
                self._insert(report)
        return bool(fresh)

    def is_installed(self, boot_id: str) -> bool:
        return self._db.execute("SELECT 1 FROM installed WHERE boot_id = ?", (boot_id,)).fetchone() is not None

    def _add_all(self, reports: list[Report]) -> None:
        with self._transaction():
            for report in reports:
                self._count(report.boot_id)
                self._insert(report)

    def _count(self, boot_id: str) -> None:
        (count,) = self._db.execute(
            "INSERT INTO counts VALUES (?, 1, ?)"
            " ON CONFLICT (boot_id) DO UPDATE SET reports = reports + 1 RETURNING reports",
            (boot_id, _now()),
        ).fetchone()
        if count > REPORTS_PER_BOOT_MAX:
            raise TooManyReports(f"a boot may report {REPORTS_PER_BOOT_MAX} times, boot {boot_id} reported more")

    def _insert(self, report: Report) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO reports (id, boot_id, document) VALUES (?, ?, ?)",
            (report.id, report.boot_id, json.dumps(report.to_json())),
        )

    def _forget_old_marks(self) -> None:
        limit = datetime.fromtimestamp(datetime.now(UTC).timestamp() - INSTALLED_KEPT_DAYS * 86400, UTC).isoformat()
        with self._transaction():
            for table in ("counts", "chosen", "disks", "installed"):
                self._db.execute(f"DELETE FROM {table} WHERE at < ?", (limit,))  # noqa: S608 - the names stand above

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT, or ROLLBACK when the block raises."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _now() -> str:
    return datetime.now(UTC).isoformat()
