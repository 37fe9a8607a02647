"""Asks what to boot and who the machine is, and checks what later steps rely on."""

from __future__ import annotations

import re
from typing import Any

from koguma_node.console import say
from koguma_node.errors import NodeError

from koguma_stage1.context import Context

OUTCOME = "the boot service has said what to boot"
PHASE = "profile"
TIMEOUT_S = 300.0
COMMIT = re.compile(r"[0-9a-f]{64}")
ROOT_METHODS = ("ram", "nfs", "disk", "iscsi")


def run(context: Context) -> None:
    context.profile = checked_profile(context.service.get("profile", context.deadline))
    context.detail = context.service.get("detail", context.deadline)
    profile = context.profile
    say(f"node {profile['node']} boots {profile['label']} ({profile['commit'][:12]}), root {profile['root_method']}")


def checked_profile(profile: dict[str, Any]) -> dict[str, Any]:
    """The profile, if every key that stage 1 reads is as the contract says. Raises NodeError."""
    _require(profile, "node", lambda value: isinstance(value, str) and bool(value), "a name")
    _require(profile, "label", lambda value: isinstance(value, str) and bool(value), "a label")
    _require(profile, "commit", lambda value: isinstance(value, str) and bool(COMMIT.fullmatch(value)), "64 hex digits")
    _require(profile, "root_method", lambda value: value in ROOT_METHODS, ", ".join(ROOT_METHODS))
    _require(profile, "kernel_args", _is_one_line, "one line of text")
    _require(
        profile, "artifact_url", lambda value: _is_one_line(value) and value.startswith("http://"), "an http:// URL"
    )
    _require(profile, "overlay_size_bytes", lambda value: type(value) is int and value >= 0, "a number of bytes")
    if profile["root_method"] == "nfs":
        _require(profile, "nfs", lambda value: _is_one_line(value) and ":/" in value, "HOST:/PATH")
    if profile["root_method"] == "disk":
        _check_disk(profile)
    return profile


def _check_disk(profile: dict[str, Any]) -> None:
    """`disk`: {"hints": {…}, "mirror": null or hints, "image": null or {"url", "sha256", "size_bytes", "format"}}."""
    _require(profile, "disk", lambda value: isinstance(value, dict) and isinstance(value.get("hints"), dict), "hints")
    mirror, image = (profile["disk"].setdefault(key, None) for key in ("mirror", "image"))
    _require(profile["disk"], "mirror", lambda value: value is None or isinstance(value, dict), "hints")
    if image is None:
        return
    _require(profile["disk"], "mirror", lambda _: mirror is None, "left out for a disk image")
    _require({"image": image}, "image", lambda value: isinstance(value, dict), "an object")
    _require(image, "url", lambda value: _is_one_line(value) and value.startswith("http://"), "an http:// URL")
    _require(image, "sha256", lambda value: isinstance(value, str) and bool(COMMIT.fullmatch(value)), "64 hex digits")
    _require(image, "size_bytes", lambda value: type(value) is int and value > 0, "a number of bytes")
    _require(image, "format", lambda value: isinstance(value, str), "raw")


def _require(profile: dict[str, Any], key: str, test: Any, rule: str) -> None:
    if not test(profile.get(key)):
        raise NodeError(f"{key} must be {rule}, got {profile.get(key)!r} (profile)")


def _is_one_line(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()
