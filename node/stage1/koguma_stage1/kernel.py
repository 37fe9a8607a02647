"""Loads a kernel for kexec: with kexec-tools, or with kexec_file_load where the kernel allows only that.

kexec-tools first, because it can leave out the checksum over everything loaded, which the kernel would make once and
the jump once more, in plain C: 2.3 of 30 seconds of a boot under emulation. The digests have just been verified, and
what could change the memory in the second until the jump could change the checking code as well. A locked-down kernel
(Secure Boot) refuses it and takes kexec_file_load, which checks the kernel's own signature.
"""

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
    if problem := _load_with_tools(kernel, initrd, command_line):
        say(f"{problem}; trying kexec_file_load")
        if second := _load_files(kernel, initrd, command_line):
            raise NodeError(f"this machine cannot load a kernel: {problem}; {second}")


def _load_with_tools(kernel: Path, initrd: Path, command_line: str) -> str | None:
    """None when the kernel took it, else the reason."""
    arguments = ["kexec", "-c", "-l", str(kernel), f"--initrd={initrd}", f"--command-line={command_line}"]
    try:
        result = command.run([*arguments, "--no-checks"], LOAD_TIMEOUT_S)
    except NodeError as error:
        return str(error)
    return None if result.returncode == 0 else f"kexec: {result.stderr.strip()[:300]}"


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
