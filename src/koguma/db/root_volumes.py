"""The volumes that nodes' roots are on: volume targets of the Ironic API, with what only Koguma knows of them sealed.

A target that somebody made through the API is theirs; one with something sealed is Koguma's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from koguma.db.models import NodeRow, VolumeConnectorRow, VolumeTargetRow
from koguma.db.sealing import seal, unseal
from koguma.model.volume import RootVolume, Target, initiator_of

BOOT_INDEX = 0


def of_node(node_id: int) -> RootVolume | None:
    row = VolumeTargetRow.objects.filter(node_id=node_id).exclude(sealed="").first()
    return _volume(row) if row else None


def of_all() -> Mapping[int, RootVolume]:
    """By the id of the node's row."""
    return {row.node_id: _volume(row) for row in VolumeTargetRow.objects.exclude(sealed="")}


def keep(node: NodeRow, volume: RootVolume) -> None:
    """Call it in a transaction."""
    uuid = str(node.uuid)
    VolumeTargetRow.objects.update_or_create(
        node=node,
        boot_index=BOOT_INDEX,
        defaults={
            "volume_type": "iscsi",
            "volume_id": volume.name,
            "properties": _properties(volume.target),
            "sealed": seal(json.dumps(_secrets(volume))),
            "extra": {"size_bytes": volume.size_bytes, "commit": volume.commit},
        },
    )
    VolumeConnectorRow.objects.get_or_create(type="iqn", connector_id=initiator_of(uuid), defaults={"node": node})


def forget(node_id: int) -> None:
    VolumeTargetRow.objects.filter(node_id=node_id).exclude(sealed="").delete()


def access(volume: RootVolume | None, uuid: str) -> dict[str, Any] | None:
    """What the machine is told in its `detail`; None while the volume is not shown to it."""
    if volume is None or volume.target is None:
        return None
    target = volume.target
    host, _, port = target.portal.rpartition(":")
    return {
        "address": host.strip("[]"),
        "port": int(port),
        "target": target.name,
        "lun": target.lun,
        "initiator": initiator_of(uuid),
        "user": target.user,
        "secret": target.secret,
    }


def _properties(target: Target | None) -> dict[str, Any]:
    """In Ironic's words."""
    if target is None:
        return {}
    return {
        "target_portal": target.portal,
        "target_iqn": target.name,
        "target_lun": target.lun,
        "auth_method": "CHAP",
        "auth_username": target.user,
    }


def _secrets(volume: RootVolume) -> dict[str, str]:
    return {"secret": volume.secret} | ({"login": volume.target.secret} if volume.target else {})


def _volume(row: VolumeTargetRow) -> RootVolume:
    said, sealed = row.properties, json.loads(unseal(row.sealed))
    target = None
    if said:
        # A record made before storages chose secrets has one secret.
        secret = sealed.get("login", sealed["secret"])
        target = Target(said["target_portal"], said["target_iqn"], said["target_lun"], said["auth_username"], secret)
    return RootVolume(
        name=row.volume_id,
        size_bytes=row.extra["size_bytes"],
        secret=sealed["secret"],
        commit=row.extra["commit"],
        target=target,
    )
