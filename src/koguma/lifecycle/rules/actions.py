"""The actions of rules. Each takes the subject and its arguments by name, and changes the subject or raises."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import httpx

from koguma.lifecycle.rules.errors import RefusedByRule, RuleError
from koguma.lifecycle.rules.subject import Subject, parts_of, place_of

log = logging.getLogger(__name__)

LEVELS = ("debug", "info", "warning", "error", "critical")
CALL_TIMEOUT_MAX_S = 30.0


@dataclass(frozen=True)
class Action:
    """`required` and `optional` are its arguments in the order in which a list gives them."""

    run: Callable[..., None]
    required: tuple[str, ...] = ("path",)
    optional: tuple[str, ...] = ()


def _fail(_: Subject, msg: Any) -> NoReturn:
    raise RefusedByRule(str(msg))


def _log(subject: Subject, msg: Any, level: str = "info") -> None:
    if str(level).lower() not in LEVELS:
        raise RuleError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
    log.log(getattr(logging, str(level).upper()), "inspection rule: %s", msg, extra={"node": subject.node.get("uuid")})


def _set(document: dict[str, Any], path: Any, value: Any, separator: str = "/") -> None:
    here, key = place_of(document, path, separator)
    here[key] = value


def _extend(document: dict[str, Any], path: Any, value: Any, unique: bool, separator: str = "/") -> None:
    here, key = place_of(document, path, separator)
    items = here.get(key)
    if items is not None and not isinstance(items, list):
        raise RuleError(f"only a list is extended, {path!r} is {type(items).__name__}")
    here[key] = [*(items or []), *([] if unique and value in (items or []) else [value])]


def _delete(document: dict[str, Any], path: Any) -> None:
    here, key = place_of(document, path)
    if key not in here:
        raise RuleError(f"what is deleted must be there, got {path!r}")
    # A field of a document itself cannot go: it is nothing then.
    if here is document:
        here[key] = None
    else:
        del here[key]


def _unset_plugin_data(subject: Subject, path: Any) -> None:
    here: Any = subject.plugin_data
    *before, last = parts_of(path, ".")
    for part in before:
        here = here.get(part) if isinstance(here, dict) else None
    if isinstance(here, dict):
        here.pop(last, None)


def _capabilities(subject: Subject) -> dict[str, str]:
    text = str((subject.node.get("properties") or {}).get("capabilities") or "")
    return {name: value for name, _, value in (pair.partition(":") for pair in text.split(",") if pair)}


def _set_capability(subject: Subject, name: str, value: Any) -> None:
    _store_capabilities(subject, {**_capabilities(subject), str(name): str(value)})


def _unset_capability(subject: Subject, name: str) -> None:
    _store_capabilities(subject, {key: value for key, value in _capabilities(subject).items() if key != name})


def _store_capabilities(subject: Subject, capabilities: dict[str, str]) -> None:
    text = ",".join(f"{name}:{value}" for name, value in capabilities.items())
    subject.node["properties"] = {**(subject.node.get("properties") or {}), "capabilities": text}


def _add_trait(subject: Subject, name: str) -> None:
    subject.node["traits"] = list(dict.fromkeys([*(subject.node.get("traits") or []), str(name)]))


def _remove_trait(subject: Subject, name: str) -> None:
    subject.node["traits"] = [trait for trait in subject.node.get("traits") or [] if trait != name]


def _call(
    _: Subject,
    url: str,
    headers: Mapping[str, str] | None = None,
    proxies: Mapping[str, str] | None = None,
    timeout: Any = 5,
    retries: Any = 3,
    backoff_factor: Any = 0.3,  # noqa: ARG001 - Ironic's pause between tries; ours are immediate
) -> None:
    try:
        patience_s = min(float(timeout), CALL_TIMEOUT_MAX_S)
        mounts = {f"{kind}://": httpx.HTTPTransport(proxy=proxy) for kind, proxy in (proxies or {}).items()}
        transport = None if mounts else httpx.HTTPTransport(retries=min(int(retries), 10))
        with httpx.Client(transport=transport, mounts=mounts or None, timeout=patience_s, trust_env=False) as client:
            client.get(str(url), headers=dict(headers or {})).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError) as error:
        raise RuleError(f"api-call must be answered: {error} ({str(url)[:120]})") from None


ACTIONS: Mapping[str, Action] = {
    "fail": Action(_fail, ("msg",)),
    "log": Action(_log, ("msg",), ("level",)),
    "set-attribute": Action(lambda subject, path, value: _set(subject.node, path, value), ("path", "value")),
    "extend-attribute": Action(
        lambda subject, path, value, unique=False: _extend(subject.node, path, value, unique),
        ("path", "value"),
        ("unique",),
    ),
    "del-attribute": Action(lambda subject, path: _delete(subject.node, path)),
    "set-capability": Action(_set_capability, ("name", "value")),
    "unset-capability": Action(_unset_capability, ("name",)),
    "add-trait": Action(_add_trait, ("name",)),
    "remove-trait": Action(_remove_trait, ("name",)),
    "set-plugin-data": Action(
        lambda subject, path, value: _set(subject.plugin_data, path, value, "."), ("path", "value")
    ),
    "extend-plugin-data": Action(
        lambda subject, path, value, unique=False: _extend(subject.plugin_data, path, value, unique, "."),
        ("path", "value"),
        ("unique",),
    ),
    "unset-plugin-data": Action(_unset_plugin_data),
    "set-port-attribute": Action(
        lambda subject, port_id, path, value: _set(subject.port(port_id), path, value), ("port_id", "path", "value")
    ),
    "extend-port-attribute": Action(
        lambda subject, port_id, path, value, unique=False: _extend(subject.port(port_id), path, value, unique),
        ("port_id", "path", "value"),
        ("unique",),
    ),
    "del-port-attribute": Action(
        lambda subject, port_id, path: _delete(subject.port(port_id), path), ("port_id", "path")
    ),
    "api-call": Action(_call, ("url",), ("headers", "proxies", "timeout", "retries", "backoff_factor")),
}
