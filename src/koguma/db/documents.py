"""Rows as columns, for APIs that show many of them: no ORM instance is made for what is only read.

Pages are by key, never by offset: a page begins after the row called the marker, in the order asked for, and costs the
same wherever it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from django.db import DataError, IntegrityError, models, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from koguma.db.errors import AlreadyExists, InUse, NotFound
from koguma.db.prepared import Compiled, compiled
from koguma.model.errors import InvalidValue

Row = dict[str, Any]


def page(
    rows: QuerySet[Any],
    columns: Sequence[str],
    *,
    order: str = "id",
    descending: bool = False,
    marker: Row | None = None,
    limit: int,
) -> list[Row]:
    """At most `limit` rows after the marker (a row with `id` and the column `order`)."""
    if marker is not None:
        rows = rows.filter(_after(order, marker, descending=descending))
    column = F(order).desc() if descending else F(order).asc()
    ordering = [column] if order == "id" else [column, F("id").desc() if descending else F("id").asc()]
    return list(rows.order_by(*ordering).values(*columns)[:limit])


def _after(order: str, marker: Row, *, descending: bool) -> Q:
    """Null sorts last going up and first going down, as PostgreSQL has it."""
    than = "lt" if descending else "gt"
    further = Q(**{f"id__{than}": marker["id"]})
    if order == "id":
        return further
    value = marker[order]
    if value is None:
        same = Q(**{f"{order}__isnull": True}) & further
        return same | Q(**{f"{order}__isnull": False}) if descending else same
    beyond = Q(**{f"{order}__{than}": value}) | (Q(**{order: value}) & further)
    return beyond if descending else beyond | Q(**{f"{order}__isnull": True})


def one(rows: QuerySet[Any], columns: Sequence[str], what: str) -> Row:
    """Raises NotFound with `what`."""
    try:
        row = rows.values(*columns).first()
    except (DataError, ValueError):
        row = None
    if row is None:
        raise NotFound(f"{what} could not be found.")
    return dict(row)


def by_key(
    model: type[models.Model], columns: tuple[str, ...], key: str, value: Any, what: str, *, lock: bool = False
) -> Row:
    """The row whose column `key` is `value`; with `lock`, nobody else changes it until the transaction ends. Raises
    NotFound with `what`.
    """
    try:
        found = _prepared(model, columns, key, lock).fetch(value)
    except (DataError, ValueError):  # no row can have such a value
        found = []
    if not found:
        raise NotFound(f"{what} could not be found.")
    return dict(zip(columns, found[0], strict=True))


@lru_cache(maxsize=512)
def _prepared(model: type[models.Model], columns: tuple[str, ...], key: str, lock: bool) -> Compiled:
    rows = model._default_manager.filter(**{key: _EXAMPLES.get(key, "")}).values_list(*columns)
    return compiled(rows.select_for_update(of=("self",), no_key=True) if lock else rows)


_EXAMPLES: Mapping[str, Any] = {"id": 0, "uuid": "00000000-0000-0000-0000-000000000000"}


def insert(model: type[models.Model], values: Mapping[str, Any], what: str) -> Any:
    """The new row's key. Raises AlreadyExists or InvalidValue."""
    with refusals(what):
        row: Any = model(**values)
        row.save(force_insert=True)
        return row.pk


def change(rows: QuerySet[Any], values: Mapping[str, Any], what: str) -> None:
    """Raises AlreadyExists or InvalidValue."""
    with refusals(what):
        rows.update(**values)


def touch(values: Mapping[str, Any]) -> dict[str, Any]:
    """The changes of a row whose table has no trigger for the time of its last change."""
    return {**values, "updated_at": timezone.now()}


def remove(rows: QuerySet[Any], what: str) -> None:
    """Raises InUse when something depends on it."""
    try:
        with transaction.atomic():
            rows.delete()
    except (models.ProtectedError, models.RestrictedError):
        raise InUse(f"{what} is in use and cannot be deleted: others depend on it") from None


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """What the database refuses, as errors a person can read; a transaction outside must not go on."""
    try:
        yield
    except IntegrityError as error:
        detail = str(error.__cause__ or error).splitlines()
        raise AlreadyExists(f"{what}: {detail[-1].removeprefix('DETAIL:').strip()}") from None
    except DataError as error:
        raise InvalidValue(f"{what}: {str(error).splitlines()[0]}") from None
