"""Hands the machine over: loads the verified kernel with the initramfs and Koguma's own files, and jumps into it."""

from __future__ import annotations

import json
import time

from koguma_node.errors import NodeError

from koguma_stage1 import handover, kernel, power
from koguma_stage1.context import Context

OUTCOME = "stage 2 is running"
PHASE = "kexec"
TIMEOUT_S = 120.0
RETURN_WAIT_S = 5.0


def run(context: Context) -> None:
    files = {
        "boot.env": handover.boot_env(context).encode(),
        "detail.json": json.dumps(context.detail, ensure_ascii=False).encode(),
    }
    initrd = context.work / "initrd"
    handover.append_files(initrd, files)
    kernel.load(context.work / "kernel", initrd, handover.command_line(context.profile))
    context.watchdog.disarm()
    power.jump_to_loaded_kernel()
    time.sleep(RETURN_WAIT_S)
    raise NodeError("the kernel must jump into the loaded kernel, but came back (kexec)")
