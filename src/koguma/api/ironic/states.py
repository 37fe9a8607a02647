"""What is asked of a node: provision verbs, power, boot mode, secure boot, maintenance. All of it becomes an operation
of Koguma's own lifecycle; this module knows which microversion may ask, and Ironic's words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import Q

from koguma.api.ironic import checks
from koguma.api.ironic.http import NO_CONTENT, Refused, Request, Response, bad, conflict, missing, not_acceptable, truth
from koguma.api.ironic.nodes import NODES, node_row
from koguma.api.ironic.policy import visible
from koguma.db import nodes as store
from koguma.db.models import DeployTemplateRow, NodeRow, RunbookRow
from koguma.db.sealing import hashed_password
from koguma.db.wake import wake
from koguma.lifecycle.errors import NodeBusy, NodeProtected, VerbRefused
from koguma.model.errors import InvalidValue
from koguma.model.names import boot_label, shown
from koguma.model.operation import AskedStep, Order
from koguma.model.states import PowerAction, ProvisionState, Verb

S = ProvisionState

VERB_SINCE: Mapping[Verb, int] = {
    Verb.MANAGE: 4, Verb.PROVIDE: 4, Verb.INSPECT: 6, Verb.ABORT: 13, Verb.CLEAN: 15, Verb.ADOPT: 17, Verb.RESCUE: 38,
    Verb.UNRESCUE: 38, Verb.UNHOLD: 85, Verb.SERVICE: 87,
}  # fmt: skip

POWER: Mapping[str, PowerAction] = {
    "power on": PowerAction.ON,
    "power off": PowerAction.OFF,
    "rebooting": PowerAction.CYCLE,
    "soft power off": PowerAction.SOFT_OFF,
    "soft rebooting": PowerAction.REBOOT,
}

TRANSIENT = frozenset(
    {
        S.DEPLOYING, S.WAIT_CALL_BACK, S.CLEANING, S.CLEAN_WAIT, S.VERIFYING, S.DELETING, S.INSPECTING,
        S.INSPECT_WAIT, S.ADOPTING, S.RESCUING, S.RESCUE_WAIT, S.UNRESCUING, S.SERVICING, S.SERVICE_WAIT,
    }
)  # fmt: skip

_CLEAN_STEPS = checks.steps(
    "order", needs_args=False, optional=("order", "execute_on_child_nodes", "limit_child_node_execution", "priority")
)
_DEPLOY_STEPS = checks.steps("priority", needs_args=True)

_SHOWN = (
    "power_state", "target_power_state", "provision_state", "target_provision_state", "provision_updated_at",
    "last_error", "console_enabled", "raid_config", "target_raid_config", "boot_mode", "secure_boot",
)  # fmt: skip


def show_states(request: Request, reference: str) -> Response:
    request.only()
    row = node_row(reference)
    document = NODES.document_of(request, str(row["uuid"]))
    return Response(document={name: document[name] for name in _SHOWN if name in document})


def put_power(request: Request, reference: str) -> Response:
    body = request.document()
    if unknown := sorted(set(body) - {"target", "timeout"}):
        bad(f"Unexpected arguments: {', '.join(unknown)}")
    target, timeout = body.get("target"), body.get("timeout")
    row = node_row(reference, "provision_state", "power_state", "disable_power_off")
    if request.minor < 27 and (target in ("soft power off", "soft rebooting") or timeout is not None):
        not_acceptable()
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 1):
        bad("timeout has to be positive integer")
    if target not in POWER:
        bad(f'The requested action "{shown(target)}" can not be performed on node "{row["uuid"]}".')
    if row["provision_state"] in (S.CLEANING, S.CLEAN_WAIT):
        bad(f'The requested action "{target}" can not be performed while the node is {row["provision_state"]!r}.')
    if row["disable_power_off"] and target in ("power off", "soft power off"):
        bad(f"Failed to set node power state to {target}: this node must not be powered off.")
    _ask(lambda: store.request_power(str(row["uuid"]), POWER[str(target)]))
    return _accepted(request, reference)


def put_boot_mode(request: Request, reference: str) -> Response:
    row = _settled(request, reference)
    target = request.document().get("target")
    if target not in ("bios", "uefi"):
        bad(f"Invalid boot mode {shown(target)} requested for node. Allowed boot modes are: bios, uefi")
    NodeRow.objects.filter(pk=row["id"]).update(boot_mode=target)
    return _accepted(request, reference)


def put_secure_boot(request: Request, reference: str) -> Response:
    row = _settled(request, reference)
    target = request.document().get("target")
    if target is None:
        bad("Invalid secure_boot None requested for node. Allowed secure_boot states are: True, False")
    NodeRow.objects.filter(pk=row["id"]).update(secure_boot=truth(target, "target"))
    return _accepted(request, reference)


def put_raid(request: Request, reference: str) -> Response:
    if request.minor < 12:
        not_acceptable()
    row = node_row(reference)
    config = checks.mapping("target_raid_config", request.json())
    if config and not (isinstance(config.get("logical_disks"), list) and config["logical_disks"]):
        bad("RAID config validation error: 'logical_disks' is a required property and must not be empty")
    NodeRow.objects.filter(pk=row["id"]).update(target_raid_config=config)
    return NO_CONTENT


def put_maintenance(request: Request, reference: str) -> Response:
    reason = checks.text(4096)("reason", request.document().get("reason"))
    return _maintain(reference, maintenance=True, maintenance_reason=reason or "")


def delete_maintenance(request: Request, reference: str) -> Response:
    request.only()
    return _maintain(reference, maintenance=False, maintenance_reason="", fault=None)


def _maintain(reference: str, **columns: Any) -> Response:
    row = node_row(reference)
    NodeRow.objects.filter(pk=row["id"]).update(**columns)
    wake(row["id"])
    return Response(202)


def put_provision(request: Request, reference: str) -> Response:
    """1. The verb and what comes with it must be allowed in this microversion. 2. The node's state must allow it.
    3. The operation begins, with the steps that were asked for.
    """
    body = request.document()
    known = {"target", "configdrive", "clean_steps", "deploy_steps", "service_steps", "rescue_password",
             "disable_ramdisk", "runbook"}  # fmt: skip
    if unknown := sorted(set(body) - known):
        bad(f"Unexpected arguments: {', '.join(unknown)}")
    if "target" not in body:
        bad("Missing mandatory parameter: target")
    verb = _verb(request, body["target"])
    row = node_row(reference, "provision_state", "maintenance", "instance_info", "name")
    _check_version(request, verb, body, row["provision_state"])
    if verb in (Verb.DEPLOY, Verb.REBUILD) and row["maintenance"]:
        bad(f"The provisioning operation can't be performed on node {row['uuid']} because it's in maintenance mode.")
    order = Order(steps=tuple(_steps(request, verb, body, row)))
    columns: dict[str, Any] = {}
    if verb in (Verb.DEPLOY, Verb.REBUILD) and (label := _label(row["instance_info"].get("image_source"))):
        columns["label"] = label
    if verb is Verb.RESCUE:
        columns["rescue_password_hash"] = hashed_password(_rescue_password(body))
    if body.get("configdrive") is not None:
        columns["instance_info"] = {**row["instance_info"], "configdrive": body["configdrive"]}
    _ask(lambda: store.ask_verb(str(row["uuid"]), verb, order=order, columns=columns))
    return _accepted(request, reference)


def _verb(request: Request, target: Any) -> Verb:
    verb = Verb.parse(str(target))
    if verb is None:
        bad(f'The requested action "{shown(target)}" could not be understood.')
    since = 73 if target in ("deploy", "undeploy") else VERB_SINCE.get(verb, 1)
    if request.minor < since:
        not_acceptable()
    return verb


def _check_version(request: Request, verb: Verb, body: Mapping[str, Any], state: str) -> None:
    """What comes with the verb must belong to it, and to this microversion."""
    for name, (verbs, since) in _BELONGS.items():
        if body.get(name) in (None, []):
            continue
        if verb not in verbs:
            words = " or ".join(item.value for item in verbs)
            bad(f'"{name}" is only valid when setting target provision state to {words}')
        if request.minor < since:
            not_acceptable()
    if body.get("configdrive") is not None:
        _check_configdrive(request.minor, verb, body["configdrive"])
    if body.get("disable_ramdisk") is not None and verb is Verb.SERVICE and request.minor < 108:
        not_acceptable()
    if verb is Verb.ABORT and request.minor < _ABORT_SINCE.get(state, 0):
        not_acceptable()


_BELONGS: Mapping[str, tuple[tuple[Verb, ...], int]] = {
    "clean_steps": ((Verb.CLEAN,), 15),
    "configdrive": ((Verb.DEPLOY, Verb.REBUILD), 1),
    "deploy_steps": ((Verb.DEPLOY, Verb.REBUILD), 69),
    "disable_ramdisk": ((Verb.CLEAN, Verb.SERVICE), 70),
    "rescue_password": ((Verb.RESCUE,), 38),
    "runbook": ((Verb.CLEAN, Verb.SERVICE), 92),
    "service_steps": ((Verb.SERVICE,), 87),
}
"""The verbs that something may come with, and since when."""

_ABORT_SINCE: Mapping[str, int] = {S.INSPECT_WAIT.value: 41, S.WAIT_CALL_BACK.value: 110}


def _check_configdrive(minor: int, verb: Verb, drive: Any) -> None:
    if verb is Verb.REBUILD and minor < 35:
        bad("API version 1.35 or newer is required to give a config drive when rebuilding")
    if isinstance(drive, dict) and minor < 56:
        bad("API version 1.56 or newer is required to give a config drive as an object")


def _steps(request: Request, verb: Verb, body: Mapping[str, Any], row: Mapping[str, Any]) -> list[AskedStep]:
    given: Any = None
    if body.get("runbook") is not None:
        given = _runbook_steps(request, body)
    elif verb in (Verb.CLEAN, Verb.SERVICE):
        given = body.get(f"{verb.value}_steps")
        if not given:
            bad(f'"{verb.value}_steps" is required when setting target provision state to {verb.value}')
        given = _CLEAN_STEPS(f"{verb.value}_steps", given)
    elif verb in (Verb.DEPLOY, Verb.REBUILD):
        asked = _DEPLOY_STEPS("deploy_steps", body["deploy_steps"]) if body.get("deploy_steps") else []
        given = _by_priority([*_template_steps(row), *asked])
    return [AskedStep(item["interface"], item["step"], item.get("args") or {}) for item in given or []]


def _template_steps(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Steps of the deploy templates that the instance's traits name."""
    traits = row["instance_info"].get("traits")
    if not isinstance(traits, list) or not traits:
        return []
    found = DeployTemplateRow.objects.filter(name__in=[str(trait) for trait in traits]).order_by("name")
    return [step for steps in found.values_list("steps", flat=True) for step in steps]


def _by_priority(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The highest first; 0 disables a step, and what comes later replaces a step of the same name."""
    last = {(step["interface"], step["step"]): step for step in steps}
    return sorted((step for step in last.values() if step["priority"]), key=lambda step: -int(step["priority"]))


def _runbook_steps(request: Request, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    if body.get("clean_steps") or body.get("service_steps"):
        bad('"runbook" and explicit steps exclude each other')
    name = str(body["runbook"])
    same = Q(uuid=name) if checks.is_uuid(name) else Q(name=name)
    steps = visible(request, RunbookRow.objects.filter(same)).values_list("steps", flat=True).first()
    if steps is None:
        missing(f"Runbook {name[:80]} could not be found.")
    return sorted(steps, key=lambda step: int(step["order"]))


def _label(image_source: Any) -> str | None:
    """`instance_info.image_source` as a label; what is a URL or a UUID of an image service is none."""
    if not isinstance(image_source, str) or ":" in image_source or "/" in image_source or checks.is_uuid(image_source):
        return None
    try:
        return boot_label(image_source)
    except InvalidValue:
        return None


def _rescue_password(body: Mapping[str, Any]) -> str:
    password = body.get("rescue_password")
    if not isinstance(password, str) or not password.strip():
        bad('A non-empty "rescue_password" is required when setting target provision state to rescue')
    return password


def _settled(request: Request, reference: str) -> Mapping[str, Any]:
    request.at_least(76)
    row = node_row(reference, "provision_state")
    if row["provision_state"] in TRANSIENT:
        conflict(f"Node {row['uuid']} is in {row['provision_state']!r} state. Try again later.")
    return row


def _ask(wish: Any) -> None:
    """What the lifecycle refuses is a client's error, but for a busy node, where the same wish may succeed later."""
    try:
        wish()
    except NodeBusy as error:
        raise Refused(409, str(error)) from None
    except NodeProtected as error:
        raise Refused(403, str(error)) from None
    except VerbRefused as error:
        raise Refused(400, str(error)) from None


def _accepted(request: Request, reference: str) -> Response:
    return Response(202, None, {"Location": f"{request.url}/v1/nodes/{reference}/states"})
