"""JSON Patch (RFC 6902) as Ironic takes it: operations add, replace, remove, test, copy and move on one document."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

from koguma.api.ironic.http import Refused, Request, bad
from koguma.model.names import shown

OPERATIONS = ("add", "replace", "remove", "test", "copy", "move")


def patch_of(request: Request, allowed: Collection[str]) -> list[dict[str, Any]]:
    """The request's patch; it touches `allowed` fields only. Raises Refused."""
    patch = request.json()
    if not isinstance(patch, list):
        bad(f"a patch must be a list of operations, got {type(patch).__name__}")
    for operation in patch:
        _check(operation, allowed)
    return patch


def touched(patch: list[dict[str, Any]]) -> set[str]:
    """The fields at the root that the patch may change."""
    return {_parts(operation["path"])[0] for operation in patch if operation["op"] != "test"}


def applied(document: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    """The document after the patch. A field that is removed is None. Raises Refused."""
    result = copy.deepcopy(document)
    for operation in patch:
        try:
            _apply(result, operation)
        except (KeyError, IndexError, ValueError, TypeError):
            bad(f"Couldn't apply patch {shown(operation)}: nothing is there that it could change")
    return {**dict.fromkeys(document), **result}


def _check(operation: Any, allowed: Collection[str]) -> None:
    if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
        bad(f"a patch operation must be an object with op and path, got {shown(operation)}")
    if operation.get("op") not in OPERATIONS:
        bad(f"a patch operation must be one of {', '.join(OPERATIONS)}, got {shown(operation.get('op'))}")
    if not operation["path"].startswith("/") or operation["path"] == "/":
        bad(f"a patch path must begin with / and name a field, got {shown(operation['path'])}")
    if operation["op"] in ("add", "replace", "test") and "value" not in operation:
        bad(f"a patch operation {operation['op']} needs a value ({operation['path']})")
    field = _parts(operation["path"])[0]
    if field not in allowed:
        bad(f"Cannot patch {operation['path']}: the field {field} does not exist or must not be changed")


def _parts(path: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in path.lstrip("/").split("/")]


def _apply(document: dict[str, Any], operation: dict[str, Any]) -> None:
    verb, parts = operation["op"], _parts(operation["path"])
    if verb in ("copy", "move"):
        source = _parts(str(operation.get("from", "")))
        value = copy.deepcopy(_get(document, source))
        if verb == "move":
            _remove(document, source)
        _put(document, parts, value, insert=True)
    elif verb == "remove":
        _remove(document, parts)
    elif verb == "test":
        if _get(document, parts) != operation["value"]:
            raise Refused(400, f"Couldn't apply patch {shown(operation)}: the value is another one")
    else:
        if verb == "replace":
            _get(document, parts)
        _put(document, parts, operation["value"], insert=verb == "add")


def _get(document: Any, parts: list[str]) -> Any:
    for part in parts:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _put(document: Any, parts: list[str], value: Any, *, insert: bool) -> None:
    parent, last = _get(document, parts[:-1]), parts[-1]
    if not isinstance(parent, list):
        parent[last] = value
    elif last == "-":
        parent.append(value)
    elif insert:
        if int(last) > len(parent):
            raise IndexError(last)
        parent.insert(int(last), value)
    else:
        parent[int(last)] = value


def _remove(document: Any, parts: list[str]) -> None:
    parent, last = _get(document, parts[:-1]), parts[-1]
    if isinstance(parent, list):
        del parent[int(last)]
    else:
        del parent[last]
