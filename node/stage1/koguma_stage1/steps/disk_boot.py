"""Makes the written root this node's, and the disk bootable."""

from __future__ import annotations

import json

from koguma_stage1 import handover
from koguma_stage1.context import Context
from koguma_stage1.disk import boot_loader, config_drive, layout, settling, tools

OUTCOME = "the disk boots by itself"
PHASE = "disk"
TIMEOUT_S = 900.0


def run(context: Context) -> None:
    disk, root = context.required_disk(), context.work / "root"
    if context.profile["disk"]["image"] is None:
        settling.require_method(root, "disk")
        drive = context.detail.pop("config_drive", None)
        detail = json.dumps(context.detail, ensure_ascii=False)
        settling.settle(root, handover.boot_env(context), detail, context.uuids)
        tools.unmount(str(root))
        _install_boot_loader(context, disk)
        config_drive.write(disk, drive, context.work / "config")


def _install_boot_loader(context: Context, disk: layout.Disk) -> None:
    esp = context.work / "esp"
    esp.mkdir(exist_ok=True)
    tools.mount("vfat", disk.partition(layout.ESP), str(esp), "rw")
    line = f"boot=koguma koguma.root=UUID={context.uuids[0]} {context.profile['kernel_args']}".strip()
    handover.require_length(line)
    title = f"{context.profile['label']} {context.profile['commit'][:12]}"
    boot_loader.install(disk, esp, context.work / "kernel", context.work / "initrd", line, title)
    tools.unmount(str(esp))
