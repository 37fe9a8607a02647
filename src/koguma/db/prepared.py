"""Queries by one value whose SQL is made once: Django takes longer to write it than PostgreSQL to answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

from django.db import connection
from django.db.models import Model, QuerySet
from django.db.models.query import get_related_populators

Row = TypeVar("Row", bound=Model)


class Prepared(Generic[Row]):
    """The rows of a queryset with one parameter, with what it selects along; the queryset is made at the first use."""

    def __init__(self, queryset: Callable[[], QuerySet[Row]]) -> None:
        self._queryset = queryset

    def all(self, value: Any) -> list[Row]:
        return [self._built(found) for found in self._compiled.fetch(value)]

    def first(self, value: Any) -> Row | None:
        """The first of those that PostgreSQL finds, or None."""
        for found in self._compiled.fetch(value):
            return self._built(found)
        return None

    def _built(self, found: list[Any]) -> Row:
        model, start, end, names, populators = self._shape
        row: Row = model.from_db(connection.alias, names, found[start:end])
        for populator in populators:
            populator.populate(found, row)
        return row

    @cached_property
    def _compiled(self) -> Compiled:
        return compiled(self._queryset())

    @cached_property
    def _shape(self) -> tuple[Any, int, int, list[str], Sequence[Any]]:
        select, shape = self._compiled.select, self._compiled.shape
        start, end = shape["select_fields"][0], shape["select_fields"][-1] + 1
        names = [column[0].target.attname for column in select[start:end]]
        populators = get_related_populators(shape, select, connection.alias)  # type: ignore[call-arg]  # of a later Django
        return shape["model"], start, end, names, populators


class Compiled(NamedTuple):
    """A queryset's SQL with one parameter, and what makes values of its columns."""

    sql: str
    converters: Sequence[tuple[int, Any, Sequence[Callable[[Any, Any, Any], Any]]]]
    """Place of the column, its expression, the functions its value goes through."""
    select: Sequence[Any]
    shape: Any

    def fetch(self, value: Any) -> list[list[Any]]:
        """All rows. Raises DataError when no row can have the value."""
        with connection.cursor() as cursor:
            cursor.execute(self.sql, [value])
            rows = [list(found) for found in cursor.fetchall()]
        for row in rows:
            for place, expression, steps in self.converters:
                for step in steps:
                    row[place] = step(row[place], expression, connection)
        return rows


def compiled(queryset: QuerySet[Any]) -> Compiled:
    """Its values come from the connection that fetches, so it may be kept over connections and threads."""
    compiler = queryset.query.get_compiler(connection=connection)
    sql, parameters = compiler.as_sql()
    if len(parameters) != 1:
        raise AssertionError(f"a prepared query must have one parameter, this one has {len(parameters)}: {sql}")
    converters = compiler.get_converters([column[0] for column in compiler.select])
    steps = [(place, expression, steps) for place, (steps, expression) in converters.items()]
    return Compiled(sql, steps, compiler.select, compiler.klass_info)
