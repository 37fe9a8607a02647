"""What an agent inside of a machine says: lookup, heartbeat, and the end of an inspection.

An agent proves with its token that it is the one that looked the node up. The token is given away once; whoever looks
up again while a machine works gets a mask, as Ironic has it.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Any
from urllib.parse import urlsplit

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from koguma.api.ironic import checks
from koguma.api.ironic.http import Refused, Request, Response, bad, missing
from koguma.api.ironic.inspecting import agent_told
from koguma.api.ironic.masks import MASK
from koguma.api.ironic.nodes import NODES
from koguma.db.models import NodeRow, PortRow
from koguma.db.wake import wake
from koguma.model.states import ProvisionState as S

HEARTBEAT_TIMEOUT_S = 300
TOKEN = "agent_secret_token"  # noqa: S105 - the name of a key
LOOKUP_STATES = frozenset(
    {
        S.DEPLOYING, S.WAIT_CALL_BACK, S.CLEANING, S.CLEAN_WAIT, S.INSPECTING, S.INSPECT_WAIT, S.RESCUING,
        S.RESCUE_WAIT, S.SERVICING, S.SERVICE_WAIT, S.SERVICE_HOLD,
    }
)  # fmt: skip


def lookup(request: Request) -> Response:
    request.at_least(22)
    request.only("addresses", "node_uuid")
    addresses = [item.strip() for item in request.query.get("addresses", "").split(",") if item.strip()]
    macs = [checks.mac("addresses", item) for item in addresses if _is_mac(item)]
    uuid = request.query.get("node_uuid")
    if not macs and not uuid:
        bad("Neither a node UUID nor a valid MAC address was given to look a node up by")
    same = Q(uuid=checks.uuid("node_uuid", uuid)) if uuid else Q(ports__mac__in=macs)
    with transaction.atomic():
        keys = set(NodeRow.objects.filter(same).values_list("pk", flat=True))
        row = NodeRow.objects.select_for_update(no_key=True).filter(pk__in=keys).first() if len(keys) == 1 else None
        if row is None or row.provision_state not in LOOKUP_STATES:
            missing("Resource could not be found.")  # which of the two, is nobody's affair
        token = _token_of(row, request)
    document = NODES.document_of(request, str(row.uuid))
    keep = ("uuid", "properties", "instance_info", "driver_internal_info", "links")
    return Response(
        document={"node": {key: document[key] for key in keep if key in document}, "config": _config(token)}
    )


def heartbeat(request: Request, reference: str) -> Response:
    request.at_least(22)
    body = {**request.query, **request.document()}
    known = {
        "callback_url": 22, "agent_version": 36, "agent_token": 62, "agent_verify_ca": 68, "agent_status": 72,
        "agent_status_message": 72,
    }  # fmt: skip
    for key in body:
        if request.minor < known.get(key, 1000):
            bad(f'Field "{key[:40]}" not recognised')
    url = _callback(body.get("callback_url"))
    if body.get("agent_status") not in (None, "start", "end", "error"):
        bad("Agent status is invalid. Valid states are start,end,error.")
    if not isinstance(body.get("agent_token"), str):
        bad("Agent token is required for heartbeat processing.")
    with transaction.atomic():
        same = {"uuid": reference} if checks.is_uuid(reference) else {"name": reference}
        row = NodeRow.objects.select_for_update(no_key=True).filter(**same).first()
        if row is None:
            missing(f"Node {reference[:80]} could not be found.")
        info = row.driver_internal_info
        if not hmac.compare_digest(str(info.get(TOKEN, "")).encode(), body["agent_token"].encode()):
            bad("Invalid agent token received.")
        if info.get("agent_url", url) != url:
            bad('Detected change in ramdisk provided "callback_url"')
        told = {
            "agent_url": url,
            "agent_version": body.get("agent_version"),
            "agent_last_heartbeat": timezone.now().isoformat(),
        }
        NodeRow.objects.filter(pk=row.pk).update(driver_internal_info={**info, **told})
        wake(row.pk)
    return Response(202)


def continue_inspection(request: Request) -> Response:
    """1. Find the node that is being inspected. 2. Keep what the machine told. 3. Make ports of its NICs. 4. Apply
    rules and hooks. 5. Wake the node.
    """
    if 1 < request.minor < 84:
        missing("API version 1.84 or newer is required")
    request.only("node_uuid")
    data = dict(request.document())
    inventory = data.pop("inventory", None)
    if not isinstance(inventory, dict) or not isinstance(inventory.get("interfaces"), list):
        bad("inventory.interfaces must be a list")
    macs = [checks.mac("mac_address", item.get("mac_address")) for item in inventory["interfaces"] if _has_mac(item)]
    with transaction.atomic():
        row = _inspected(request.query.get("node_uuid"), macs)
        NodeRow.objects.filter(pk=row.pk).update(registered_at=timezone.now())
        taken = set(PortRow.objects.filter(mac__in=macs).values_list("mac", flat=True))
        PortRow.objects.bulk_create(PortRow(node=row, mac=mac) for mac in dict.fromkeys(macs) if mac not in taken)
        agent_told(row, inventory, data)
        wake(row.pk)
    if request.minor < 84:
        return Response(202, {"uuid": str(row.uuid)})
    document = NODES.document_of(request, str(row.uuid))
    return Response(202, {"node": {"uuid": document["uuid"], "links": document["links"]}, "config": _config(None)})


def _inspected(uuid: str | None, macs: list[str]) -> NodeRow:
    same = Q(uuid=checks.uuid("node_uuid", uuid)) if uuid else Q(ports__mac__in=macs)
    keys = set(NodeRow.objects.filter(same).values_list("pk", flat=True))
    rows = NodeRow.objects.select_for_update(no_key=True).filter(pk__in=keys, provision_state=S.INSPECT_WAIT.value)
    row = rows.first() if len(keys) == 1 else None
    if row is None:
        raise Refused(404, "Resource could not be found.")
    return row


def _token_of(row: NodeRow, request: Request) -> str | None:
    if request.minor < 62:
        return None
    if row.driver_internal_info.get(TOKEN):
        return MASK
    token = secrets.token_urlsafe(32)
    row.driver_internal_info = {**row.driver_internal_info, TOKEN: token}
    row.save(update_fields=["driver_internal_info"])
    return token


def _config(token: str | None) -> dict[str, Any]:
    return {
        "metrics": {"backend": "noop", "prepend_host": False, "prepend_uuid": False, "prepend_host_reverse": True,
                    "global_prefix": None},
        "metrics_statsd": {"statsd_host": "localhost", "statsd_port": 8125},
        "heartbeat_timeout": HEARTBEAT_TIMEOUT_S,
        "agent_token": token,
        "agent_token_required": True,
    }  # fmt: skip


def _callback(url: Any) -> str:
    try:
        scheme = urlsplit(url).scheme if isinstance(url, str) else ""
    except ValueError:
        scheme = ""
    if scheme not in ("http", "https") and url != "":
        bad('An issue with the supplied "callback_url" has been detected.')
    return str(url)


def _is_mac(item: str) -> bool:
    try:
        checks.mac("addresses", item)
    except Refused:
        return False
    return True


def _has_mac(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("mac_address"), str) and _is_mac(item["mac_address"])
