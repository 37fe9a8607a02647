"""Resource: list, show, make, change and forget, the same way for everything that is one row of a table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

from django.db import models, transaction
from django.db.models import QuerySet

from koguma.api.ironic import checks
from koguma.api.ironic.fields import Field, Selection, by_name, chosen_fields
from koguma.api.ironic.http import NO_CONTENT, Refused, Request, Response, bad, links, not_acceptable
from koguma.api.ironic.patching import applied, patch_of, touched
from koguma.api.ironic.policy import visible
from koguma.db import documents
from koguma.db.documents import Row

PAGE_MAX = 1000
PAGING = ("limit", "marker", "sort_key", "sort_dir", "fields", "detail")

Filters = Mapping[str, Callable[[QuerySet[Any], str], QuerySet[Any]]]
"""Query arguments of a list, and how each narrows it."""


def _same(values: Row, row: Row | None, request: Request) -> Row:  # noqa: ARG001 - the form of every `store`
    return values


@dataclass(frozen=True)
class Resource:
    """One kind of thing. `path` is its place below /v1, `key` the name of the list in a collection."""

    title: str
    path: str
    key: str
    model: type[models.Model]
    declared: Sequence[Field]
    brief: Collection[str]
    since: int = 1
    required: Collection[str] = ()
    name: str | None = None
    """The column of the name it may also be called by."""
    filters: Filters = field(default_factory=dict)
    children: Mapping[str, int] = field(default_factory=dict)
    """Links to what belongs to it, and since when they are shown."""
    store: Callable[[Row, Row | None, Request], Row] = _same
    """Columns made of checked fields, for a new row (None) or the one that is there."""
    guard: Callable[[Row, str], None] = lambda _row, _verb: None
    """Refuses to `change` or `delete` the row as it stands."""
    guard_columns: Sequence[str] = ()
    finish: Callable[[list[dict[str, Any]], list[Row], Selection, Request], None] | None = None
    """Adds to documents what no column has."""
    extra_columns: Sequence[str] = ()
    present_of: Callable[[Row], dict[str, Any]] | None = None
    """Fields of the row, before a patch, that no single column has."""
    trigger_tells_time: bool = False
    link_path: str = ""
    detail_since: int = 43
    patch_since: int = 1
    patch_arguments: Collection[str] = ()
    aliases: Mapping[str, int] = field(default_factory=dict)
    """What a new one may be told that is no field of it, and since when."""
    fields: dict[str, Field] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", by_name(self.declared))

    def listed(
        self, request: Request, *, rows: QuerySet[Any] | None = None, detail: bool = False, place: str = ""
    ) -> Response:
        """`GET /v1/<path>` and `/detail`; `rows` and `place` are those of a sub-collection."""
        request.at_least(self.since)
        request.only(*PAGING, *self.filters)
        chosen = chosen_fields(request, self.brief, detail=detail, detail_since=self.detail_since)
        if chosen is not None and "fields" not in request.query:
            chosen = [name for name in chosen if request.minor >= self.fields[name].since]
        selection = Selection(self.fields, request, chosen)
        rows = visible(request, self.model._default_manager.all() if rows is None else rows)
        for name, narrow in self.filters.items():
            if name in request.query:
                rows = narrow(rows, request.query[name])
        limit = _limit(request)
        order = self._order(request)
        marker = self._marker(request, order)
        columns = {"id", "uuid", *selection.columns(), *self.extra_columns}
        found = documents.page(
            rows, sorted(columns), order=order, descending=_descending(request), marker=marker, limit=limit
        )
        collection: dict[str, Any] = {self.key: self._documents(found, selection, request, full=chosen is None)}
        if len(found) == limit:
            query = {**request.query, "limit": str(limit), "marker": str(found[-1]["uuid"])}
            collection["next"] = f"{request.url}/v1/{place or self.path}?{urlencode(query)}"
        return Response(document=collection)

    def shown(self, request: Request, reference: str) -> Response:
        """`GET /v1/<path>/<reference>`."""
        request.at_least(self.since)
        request.only("fields")
        return Response(document=self._document(request, *self._key(reference), chosen_fields(request, None)))

    def created(self, request: Request) -> Response:
        """`POST /v1/<path>`."""
        request.at_least(self.since)
        values = self.checked(request, request.document())
        with transaction.atomic():
            columns = self._renamed(self.store(values, None, request))
            columns.setdefault("uuid", str(uuid4()))
            pk = documents.insert(self.model, columns, self.title)
        uuid = columns["uuid"]
        document = self._document(request, "id", pk, None)
        return Response(201, document, {"Location": f"{request.url}/v1/{self.path}/{uuid}"})

    def changed(self, request: Request, reference: str) -> Response:
        """`PATCH /v1/<path>/<reference>`."""
        request.at_least(self.since)
        request.only(*self.patch_arguments)
        if request.minor < self.patch_since:
            raise Refused(405, "The API version does not allow to update it")
        patch = patch_of(request, [item.name for item in self.declared if item.check and item.patches])
        for name in touched(patch):
            if request.minor < self.fields[name].since:
                not_acceptable()

        def edit(before: Row) -> Row:
            after = applied(before, patch)
            return {name: after[name] for name in touched(patch)}

        return Response(document=self._document(request, "id", self.edited(request, reference, edit), None))

    def edited(self, request: Request, reference: str, edit: Callable[[Row], Row]) -> int:
        """Change the fields that `edit` gives for those that are there; the row's key. Raises Refused."""
        with transaction.atomic():
            columns = ("id", "uuid", *self._patched_columns(), *self.guard_columns, *self.extra_columns)
            row = documents.by_key(self.model, columns, *self._key(reference), self._what(reference), lock=True)
            self.guard(row, "change")
            values = {name: self._check(name, value) for name, value in edit(self.present(row)).items()}
            changes = self._renamed(self.store(values, row, request))
            if changes:
                changes = changes if self.trigger_tells_time else documents.touch(changes)
                documents.change(self.model._default_manager.filter(pk=row["id"]), changes, self.title)
        return int(row["id"])

    def deleted(self, request: Request, reference: str) -> Response:
        """`DELETE /v1/<path>/<reference>`."""
        request.at_least(self.since)
        request.only()
        with transaction.atomic():
            rows = self._find(reference).select_for_update(of=("self",))
            row = documents.one(rows, ["id", "uuid", *self.guard_columns], self._what(reference))
            self.guard(row, "delete")
            documents.remove(self.model._default_manager.filter(pk=row["id"]), self._what(reference))
        return NO_CONTENT

    def checked(self, request: Request, document: Mapping[str, Any]) -> Row:
        """The fields of a new one. Raises Refused."""
        for name, value in document.items():
            known = self.fields.get(name)
            if name in self.aliases and request.minor >= self.aliases[name]:
                continue
            if name != "uuid" and (known is None or known.check is None or not known.creates):
                bad(f"{self.title} has no field {name!r} that could be set")
            if known is not None and request.minor < known.since and value is not None:
                not_acceptable()
        if absent := [name for name in self.required if document.get(name) is None]:
            bad(f"{self.title} needs {', '.join(absent)}")
        values = {
            name: self._check(name, value) for name, value in document.items() if name in self.fields and name != "uuid"
        }
        values |= {name: document[name] for name in self.aliases if document.get(name) is not None}
        if document.get("uuid") is not None:
            values["uuid"] = checks.uuid("uuid", document["uuid"])
        return values

    def find(self, reference: str) -> Row:
        """`id` and `uuid` of the row called so, by UUID or name. Raises NotFound."""
        return documents.by_key(self.model, ("id", "uuid"), *self._key(reference), self._what(reference))

    def document_of(self, request: Request, uuid: str) -> dict[str, Any]:
        """The whole document of one row. Raises NotFound."""
        return self._document(request, "uuid", uuid, None)

    def present(self, row: Row) -> dict[str, Any]:
        """What a patch is applied to."""
        more = self.present_of(row) if self.present_of else {}
        fields = [item for item in self.declared if item.check and item.patches and item.path]
        return {item.name: _taken(row[item.path or ""]) for item in fields} | more

    def _check(self, name: str, value: Any) -> Any:
        check = self.fields[name].check
        if value is None and name in self.required:
            bad(f"{name} must not be removed")
        return check(name, value) if check else value

    def _renamed(self, values: Row) -> Row:
        """Fields whose column has another name, under that one."""
        return {self._column(name): value for name, value in values.items()}

    def _column(self, name: str) -> str:
        path = self.fields[name].path if name in self.fields else None
        return path if path and "__" not in path else name

    def _patched_columns(self) -> list[str]:
        return [item.path for item in self.declared if item.check and item.patches and item.path]

    def _key(self, reference: str) -> tuple[str, str]:
        """The column and the value that a reference is looked for by. Raises Refused."""
        if checks.is_uuid(reference):
            return "uuid", checks.uuid("uuid", reference)
        if self.name is None:
            bad(f"{self.title} is called by its UUID, got {reference[:80]!r}")
        return self.name, reference

    def _find(self, reference: str) -> QuerySet[Any]:
        column, value = self._key(reference)
        return self.model._default_manager.filter(**{column: value})

    def _what(self, reference: str) -> str:
        return f"{self.title} {reference[:80]}"

    def _document(self, request: Request, key: str, value: Any, chosen: Collection[str] | None) -> dict[str, Any]:
        selection = Selection(self.fields, request, chosen)
        columns = {"id", "uuid", *selection.columns(), *self.extra_columns}
        row = documents.by_key(self.model, tuple(sorted(columns)), key, value, self._what(str(value)))
        return self._documents([row], selection, request, full=chosen is None)[0]

    def _documents(
        self, rows: list[Row], selection: Selection, request: Request, *, full: bool
    ) -> list[dict[str, Any]]:
        path = self.link_path or self.path
        found = []
        for row in rows:
            document = selection.document(row)
            uuid = str(row["uuid"])
            document["links"] = links(request, path, uuid)
            if full:
                for child, since in self.children.items():
                    if request.minor >= since:
                        document[child] = links(request, path, f"{uuid}/{child}")
            found.append(document)
        if self.finish is not None:
            self.finish(found, rows, selection, request)
        return found

    def _order(self, request: Request) -> str:
        key = request.query.get("sort_key", "id")
        if key == "id":
            return key
        known = self.fields.get(key)
        if known is None or not known.sorts or known.path is None:
            bad(f"The sort_key value {key!r} is an invalid field for sorting")
        if request.minor < known.since:
            not_acceptable()
        return known.path

    def _marker(self, request: Request, order: str) -> Row | None:
        if "marker" not in request.query:
            return None
        marker = checks.uuid("marker", request.query["marker"])
        rows = self.model._default_manager.filter(uuid=marker)
        return documents.one(rows, sorted({"id", order}), self._what(marker))


def _taken(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value


def _limit(request: Request) -> int:
    text = request.query.get("limit")
    if text is None:
        return PAGE_MAX
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        bad(f"Limit must be positive, got {text[:20]!r}")
    return min(int(text), PAGE_MAX)


def _descending(request: Request) -> bool:
    direction = request.query.get("sort_dir", "asc")
    if direction not in ("asc", "desc"):
        bad(f"Invalid sort direction: {direction[:20]}. Acceptable values are 'asc' or 'desc'")
    return direction == "desc"
