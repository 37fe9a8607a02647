"""Loads a kernel for kexec: with kexec_file_load, or with kexec-tools on kernels and machines that refuse it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from koguma_node import command
from koguma_node.console import say
from koguma_node.errors import NodeError

KEXEC_FILE_LOAD = 320
"""The system call's number on x86_64."""
LOAD_TIMEOUT_S = 60.0


def load(kernel: Path, initrd: Path, command_line: str) -> None:
    """Raises NodeError with both reasons when neither way works."""
    problem = _load_files(kernel, initrd, command_line)
    if problem:
        say(f"{problem}; trying kexec-tools")
        arguments = ["kexec", "-c", "-l", str(kernel), f"--initrd={initrd}", f"--command-line={command_line}"]
        result = command.run(arguments, LOAD_TIMEOUT_S)
        if result.returncode != 0:
            raise NodeError(f"this machine cannot load a kernel: {problem}; kexec-tools: {result.stderr.strip()[:300]}")


def _load_files(kernel: Path, initrd: Path, command_line: str) -> str | None:
    """None when the kernel took them, else the reason."""
    text = command_line.encode() + b"\0"
    system_call = ctypes.CDLL(None, use_errno=True).syscall
    with kernel.open("rb") as kernel_file, initrd.open("rb") as initrd_file:
        result = system_call(
            ctypes.c_long(KEXEC_FILE_LOAD),
            ctypes.c_int(kernel_file.fileno()),
            ctypes.c_int(initrd_file.fileno()),
            ctypes.c_ulong(len(text)),
            ctypes.c_char_p(text),
            ctypes.c_ulong(0),
        )
    return None if result == 0 else f"kexec_file_load: {os.strerror(ctypes.get_errno())}"
