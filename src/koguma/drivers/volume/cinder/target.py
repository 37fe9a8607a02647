"""What Cinder's connection_info must say for a machine to log in: iSCSI, with CHAP, in forms that node code takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from koguma.contracts.errors import VolumeRefused
from koguma.contracts.volumes import SECRET
from koguma.model.volume import Target

_PORTAL = re.compile(r"([0-9.]{7,15}|\[[0-9a-f:.]{2,45}\]):[0-9]{1,5}")
_NAME = re.compile(r"iqn\.[a-z0-9.:-]{1,220}")
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
LUN_MAX = 16383


def target_of(said: Mapping[str, Any], place: str) -> Target:
    """Raises VolumeRefused, which never shows a secret."""
    _require(said.get("driver_volume_type") == "iscsi", "its type of connection must be iscsi", said, place,
             "driver_volume_type")  # fmt: skip
    if said.get("auth_method") != "CHAP":
        rule = "a volume must be shown with CHAP: set use_chap_auth = true at Cinder's back end"
        raise VolumeRefused(f"{rule}, got auth_method {_shown(said.get('auth_method'))} ({place})")
    _require(said.get("encrypted", False) is False, "its type may not be encrypted: machines have no key", said, place,
             "encrypted")  # fmt: skip
    _require(said.get("access_mode", "rw") == "rw", "it must be writable", said, place, "access_mode")
    lun = said.get("target_lun")
    _require(type(lun) is int and 0 <= lun <= LUN_MAX, "a LUN must be a number", said, place, "target_lun")
    for key, form in (("target_portal", _PORTAL), ("target_iqn", _NAME), ("auth_username", _USER)):
        _require(_has_form(said.get(key), form), "node code must be able to use it", said, place, key)
    if not _has_form(said.get("auth_password"), SECRET):
        raise VolumeRefused(f"a CHAP secret must be 12 to 16 letters and digits, Cinder's is not ({place})")
    return Target(
        said["target_portal"], said["target_iqn"], said["target_lun"], said["auth_username"], said["auth_password"]
    )


def _has_form(value: Any, form: re.Pattern[str]) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def _require(right: bool, rule: str, said: Mapping[str, Any], place: str, key: str) -> None:
    if not right:
        raise VolumeRefused(f"a volume cannot be shown: {rule}, got {key} {_shown(said.get(key))} ({place})")


def _shown(value: Any) -> str:
    return repr(value)[:80]
