"""What follows when a machine has told about itself, whether stage 1 or an agent of Ironic asked it: rules and hooks.

1. Rules of the phase `preprocess`.
2. Hooks: the node's properties and its boot mode are what the inventory says.
3. Rules of the phase `main`.
4. What they changed is stored by the same checks as a client's PATCH. A rule that fails, or cannot be applied, ends
   the inspection: nothing of 2 and 3 is stored, and the node says why.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings
from django.db import transaction

from koguma.api.ironic import checks
from koguma.api.ironic.http import Refused, Request
from koguma.api.ironic.inventories import boot_mode_of, of_registration, properties_of
from koguma.api.ironic.nodes import NODES
from koguma.api.ironic.ports import PORTS
from koguma.api.ironic.versions import MINOR_MAX
from koguma.db.models import InspectionRuleRow, NodeRow, PortRow
from koguma.db.wake import wake
from koguma.errors import KogumaError
from koguma.lifecycle.identity import OPEN_STATES
from koguma.lifecycle.rules.actions import ACTIONS
from koguma.lifecycle.rules.conditions import OPERATORS
from koguma.lifecycle.rules.engine import Rule, apply, reason_not_runnable
from koguma.lifecycle.rules.errors import RefusedByRule, RuleError
from koguma.lifecycle.rules.subject import Subject
from koguma.model.states import ProvisionState, StatusCode

log = logging.getLogger(__name__)

_ITSELF = Request("PATCH", "/v1", "", {}, {}, minor=MINOR_MAX)
"""Rules may touch what the newest client may."""


def machine_registered(row: NodeRow) -> None:
    """After a registration by stage 1; a machine that only repeats what is on record changes nothing."""
    if ProvisionState(row.provision_state) in OPEN_STATES:
        _inspected(row, of_registration(row), {})


def agent_told(row: NodeRow, inventory: dict[str, Any], plugin_data: dict[str, Any]) -> None:
    """After an agent's own words; they are kept as rules left them."""
    plugin_data = _inspected(row, inventory, plugin_data)
    NodeRow.objects.filter(pk=row.pk).update(inspection_data={"inventory": inventory, "plugin_data": plugin_data})


def _inspected(row: NodeRow, inventory: dict[str, Any], plugin_data: dict[str, Any]) -> dict[str, Any]:
    """The plugin data at the end."""
    try:
        with transaction.atomic():
            rules = [*(_rule_of(rule) for rule in InspectionRuleRow.objects.all()), *built_in_rules()]
            subject = _subject(row, inventory, plugin_data)
            before = _subject(row, inventory, {})
            apply(rules, subject, "preprocess")
            _run_hooks(subject)
            applied = apply(rules, subject, "main")
            _store(row, before, subject)
        if applied:
            log.info("inspection rules were applied", extra={"node": row.name, "rules": ", ".join(applied)})
    except (RefusedByRule, RuleError, Refused) as error:
        _refuse(row, error)
        return plugin_data
    return subject.plugin_data


@lru_cache(maxsize=1)
def built_in_rules() -> tuple[Rule, ...]:
    """Those of the site's own file, in Ironic's form. Raises KogumaError for a file that has none."""
    if not settings.KOGUMA_INSPECTION_RULES:
        return ()
    return read_rules(Path(settings.KOGUMA_INSPECTION_RULES))


def read_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of a YAML file: a list of objects with actions, and optionally conditions, priority, phase …"""
    try:
        documents = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise KogumaError(f"built-in inspection rules must be a readable YAML file: {error} ({path})") from None
    if not isinstance(documents, list):
        raise KogumaError(f"built-in inspection rules must be a list ({path})")
    return tuple(_built_in(number, document, path) for number, document in enumerate(documents))


def _built_in(number: int, document: Any, path: Path) -> Rule:
    keys = {"uuid", "actions", "conditions", "description", "priority", "phase", "sensitive", "scope"}
    if not isinstance(document, dict) or not document.get("actions") or not document.keys() <= keys:
        raise KogumaError(
            f"a built-in rule must have actions and may have {', '.join(sorted(keys))} ({path}, rule {number})"
        )
    rule = Rule(
        uuid=str(document.get("uuid") or f"00000000-0000-0000-0000-{number:012x}"),
        actions=tuple(document["actions"]),
        conditions=tuple(document.get("conditions") or ()),
        description=document.get("description"),
        priority=int(document.get("priority") or 0),
        phase=str(document.get("phase") or "main"),
        sensitive=bool(document.get("sensitive")),
    )
    for operations, known in ((rule.actions, ACTIONS), (rule.conditions, OPERATORS)):
        for operation in operations:
            if reason := reason_not_runnable(operation, known):
                raise KogumaError(f"{reason} ({path}, rule {number})")
    return rule


def _rule_of(row: InspectionRuleRow) -> Rule:
    return Rule(
        uuid=str(row.uuid),
        actions=tuple(row.actions),
        conditions=tuple(row.conditions),
        description=row.description,
        priority=row.priority,
        phase=row.phase,
        sensitive=row.sensitive,
    )


def _subject(row: NodeRow, inventory: dict[str, Any], plugin_data: dict[str, Any]) -> Subject:
    ports = PortRow.objects.filter(node=row).values_list("uuid", flat=True)
    return Subject(
        node=NODES.document_of(_ITSELF, str(row.uuid)),
        ports=[PORTS.document_of(_ITSELF, str(uuid)) for uuid in ports],
        inventory=inventory,
        plugin_data=dict(plugin_data),
    )


def _run_hooks(subject: Subject) -> None:
    node = subject.node
    node["properties"] = {**node["properties"], **properties_of(subject.inventory)}
    if mode := boot_mode_of(subject.inventory):
        kept = [
            pair for pair in str(node["properties"].get("capabilities") or "").split(",")
            if pair and not pair.startswith("boot_mode:")
        ]  # fmt: skip
        node["properties"]["capabilities"] = ",".join([*kept, f"boot_mode:{mode}"])


def _store(row: NodeRow, before: Subject, after: Subject) -> None:
    """Only what is another now. Raises Refused."""
    traits = after.node.pop("traits")
    if traits != before.node.pop("traits"):
        checks.traits("traits", traits)
        NodeRow.objects.filter(pk=row.pk).update(traits=traits)
    if values := _changed(before.node, after.node):
        NODES.edited(_ITSELF, str(row.uuid), lambda _: values)
    for was, port in zip(before.ports, after.ports, strict=True):
        if values := _changed(was, port):
            PORTS.edited(_ITSELF, port["uuid"], lambda _, values=values: values)  # type: ignore[misc]


def _changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in after.items() if before.get(key) != value}


def _refuse(row: NodeRow, error: KogumaError) -> None:
    """The step that waits for the machine finds the reason; a node that nobody inspects is left where it is."""
    reason = str(error)
    log.warning("an inspection rule ended an inspection", extra={"node": row.name, "reason": reason})
    NodeRow.objects.filter(pk=row.pk).update(
        inspection_error=reason,
        last_error=f"inspection: {reason}",
        goal=None,
        status_code=StatusCode.REFUSED_BY_RULE.value,
        status=reason,
    )
    wake(row.pk)
