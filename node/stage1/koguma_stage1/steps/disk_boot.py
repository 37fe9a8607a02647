"""Makes the written root this node's, and each of its disks bootable."""

from __future__ import annotations

import json

from koguma_stage1 import handover
from koguma_stage1.context import Context
from koguma_stage1.disk import boot_loader, config_drive, layout, mirror, settling, tools

OUTCOME = "the disk boots by itself"
PHASE = "disk"
TIMEOUT_S = 900.0


def run(context: Context) -> None:
    root = context.work / "root"
    if context.profile["disk"]["image"] is None:
        settling.require_method(root, "disk")
        drive = context.detail.pop("config_drive", None)
        detail = json.dumps(context.detail, ensure_ascii=False)
        made = context.required_root()
        if made.mirror:
            mirror.require_mdadm(root)
        settling.settle(root, handover.boot_env(context), detail, made)
        tools.unmount(str(root))
        for disk in context.required_disks():
            _install_boot_loader(context, disk, made)
            config_drive.write(disk, drive, context.work / "config")
        if made.mirror:
            mirror.stop()


def _install_boot_loader(context: Context, disk: layout.Disk, root: layout.Root) -> None:
    esp = context.work / "esp"
    esp.mkdir(exist_ok=True)
    tools.mount("vfat", disk.partition(layout.ESP), str(esp), "rw")
    line = f"boot=koguma {root.kernel_arguments()} {context.profile['kernel_args']}".strip()
    handover.require_length(line)
    title = f"{context.profile['label']} {context.profile['commit'][:12]}"
    boot_loader.install(disk, esp, context.work / "kernel", context.work / "initrd", line, title)
    tools.unmount(str(esp))
