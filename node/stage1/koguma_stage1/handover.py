"""What stage 1 hands to stage 2: /koguma/boot.env and /koguma/detail.json in a cpio after the image's initramfs.

Nothing secret goes on the kernel command line, which every process of stage 2 can read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from koguma_node.errors import NodeError

from koguma_stage1 import newc
from koguma_stage1.context import Context

MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,10}")
"""Linux allows 15 bytes; the initramfs needs four of them for a while."""
COMMAND_LINE_BYTES_MAX = 2047
"""COMMAND_LINE_SIZE of x86 is 2048 with the terminating zero; the kernel would cut silently."""


def boot_env(context: Context) -> str:
    """KEY='value' lines, quoted for sh."""
    profile, root = context.profile, context.manifest["files"]["root"]
    lease = context.required_lease()
    values = {
        "KOGUMA_URL": context.arguments.url,
        "KOGUMA_UUID": context.arguments.uuid,
        "KOGUMA_TOKEN": context.arguments.token,
        "KOGUMA_MAC": context.arguments.mac or _mac(lease.interface),
        "KOGUMA_ADDRESS": lease.address,
        "KOGUMA_GATEWAY": lease.gateway,
        "KOGUMA_MTU": lease.mtu,
        "KOGUMA_NODE": profile["node"],
        "KOGUMA_LABEL": profile["label"],
        "KOGUMA_COMMIT": profile["commit"],
        "KOGUMA_ROOT_METHOD": profile["root_method"],
        "KOGUMA_ROOT_URL": profile["artifact_url"].rstrip("/") + "/" + root["name"],
        "KOGUMA_ROOT_NAME": root["name"],
        "KOGUMA_ROOT_FORMAT": context.manifest["root_format"],
        "KOGUMA_ROOT_SHA256": root["sha256"],
        "KOGUMA_ROOT_SIZE_BYTES": str(root["size_bytes"]),
        "KOGUMA_OVERLAY_SIZE_BYTES": str(profile["overlay_size_bytes"]),
        "KOGUMA_NFS": profile.get("nfs") or "",
        "KOGUMA_INTERFACES": interface_names(context.detail),
    }
    return "".join(f"{key}={_quoted(value)}\n" for key, value in values.items())


def interface_names(detail: dict[str, Any]) -> str:
    """ "MAC=NAME …" of the NICs that detail names: its shell names a NIC before it is up."""
    pairs = []
    for interface in detail.get("interfaces", []):
        mac, name = str(interface.get("mac", "")).lower(), str(interface.get("name", ""))
        if MAC.fullmatch(mac) and INTERFACE.fullmatch(name):
            pairs.append(f"{mac}={name}")
    return " ".join(pairs)


def append_files(initrd: Path, files: dict[str, bytes]) -> None:
    with initrd.open("ab") as file:
        file.write(newc.padding(file.tell()) + newc.archive("koguma", files))


def command_line(profile: dict[str, Any]) -> str:
    line = f"boot=koguma {profile['kernel_args']}".strip()
    require_length(line)
    return line


def require_length(line: str) -> None:
    if len(line.encode()) > COMMAND_LINE_BYTES_MAX:
        raise NodeError(
            f"a kernel command line may have {COMMAND_LINE_BYTES_MAX} bytes, got {len(line.encode())} (profile)"
        )


def _quoted(value: str) -> str:
    if not value.isprintable():
        raise NodeError(f"a value for boot.env must be printable, got {value!r}")
    return "'" + value.replace("'", "'\\''") + "'"


def _mac(interface: str) -> str:
    return Path(f"/sys/class/net/{interface}/address").read_text(encoding="ascii").strip()
