"""What goes into the stage-1 initramfs, and how it is taken out of extracted Debian packages.

Nothing is installed: packages are unpacked, and only programs with their libraries, the Python modules that stage 1
imports, and the drivers of servers are copied. The trees have the merged /usr layout. Called by `koguma.images.stage1`.

What every boot needs is apart from the tools, which only registration and rescue load as well: programs that look at
hardware, and drivers of storage.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from koguma.images.errors import ToolError
from koguma.images.tools import run_tool

PACKAGES = (
    "linux-image-amd64",
    "busybox",
    "python3-minimal",
    "libpython3-stdlib",
    "openssl",
    "dmidecode",
    "ipmitool",
    "kexec-tools",
    "kmod",
    "dropbear-bin",
)
PROGRAMS = ("bin/busybox", "usr/bin/openssl", "sbin/kexec")
TOOLS = ("usr/sbin/dmidecode", "usr/bin/ipmitool", "usr/sbin/dropbear", "usr/bin/dropbearconvert")
KMOD = "bin/kmod"
PYTHON_NAME = re.compile(r"python3\.\d+")
LIBGCC = "lib/x86_64-linux-gnu/libgcc_s.so.1"
"""glibc loads it by name when a thread ends; without it, a Python that ends before its threads do is aborted."""
APPLETS = (
    "cat", "chroot", "grep", "find", "ip", "ls", "mkdir", "mount", "mv", "reboot", "sh", "sleep", "sort", "udhcpc",
    "umount",
)  # fmt: skip
MODULE_FOLDERS = (
    "drivers/net/ethernet",
    "drivers/net/phy",
    "drivers/net/mdio",
    "drivers/net/bonding",
    "drivers/net/hyperv",
    "drivers/net/vmxnet3",
)
MODULES = (
    "virtio_net", "virtio_pci", "virtio_mmio", "virtio_rng", "xen-netfront", "af_packet",
    "i6300esb", "iTCO_wdt", "softdog", "i2c-i801", "lpc_ich", "wdat_wdt", "hpwdt", "sp5100_tco",
)  # fmt: skip
TOOL_MODULE_FOLDERS = ("drivers/char/ipmi", "drivers/ata", "drivers/nvme/host", "drivers/message/fusion")
TOOL_MODULES = (
    "virtio_blk", "virtio_scsi", "sd_mod", "sg", "megaraid_sas", "mpt3sas", "hpsa", "aacraid", "smartpqi", "3w-sas",
    "pm80xx", "isci", "mvsas", "vmw_pvscsi", "hv_storvsc",
    "loop", "squashfs", "erofs", "ext4", "raid1", "crc32c_generic", "vfat", "nls_cp437", "nls_ascii", "nls_utf8",
)  # fmt: skip
EXCLUDED_MODULES = re.compile(r"/(pata_|drivers/net/ethernet/(8390|dec|natsemi|fealnx|smsc|packetengines|dlink|sis)/)")
"""Drivers of buses and NICs that no server of this century boots from."""
COMPILE = """
import py_compile, sys
for path in set(sys.argv[1:]):
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(path, path + "c", doraise=True, optimize=2, invalidation_mode=mode)
"""
FOLDERS = (
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "root",
    "etc/koguma/trusted",
    "var/lib",
    "usr/bin",
    "usr/sbin",
    "usr/lib64",
)
ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\n"
GROUP = "root:x:0:\n"


def kernel_release(packages: Path) -> str:
    """The release of the one kernel in the extracted packages."""
    releases = [path.name for path in (packages / "lib/modules").iterdir()]
    if len(releases) != 1:
        raise ToolError(f"stage 1 needs exactly one kernel, got {', '.join(releases) or 'none'} ({packages})")
    return releases[0]


def python_of(packages: Path) -> str:
    """The name of the one Python in the extracted packages, such as python3.13."""
    names = sorted(path.name for path in (packages / "usr/bin").glob("python3.*") if PYTHON_NAME.fullmatch(path.name))
    if len(names) != 1:
        raise ToolError(f"stage 1 needs exactly one Python, got {', '.join(names) or 'none'} ({packages})")
    return names[0]


def lay_out_system(packages: Path, node: Path, target: Path) -> None:
    """What every boot needs but for the drivers: programs, libraries, Python, stage 1's own code."""
    for folder in FOLDERS:
        (target / folder).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (target / name).symlink_to(f"usr/{name}")
    (target / "usr/lib").mkdir(exist_ok=True)
    (target / "var/run").symlink_to("/run")
    (target / "etc/passwd").write_text(ACCOUNTS, encoding="ascii")
    (target / "etc/group").write_text(GROUP, encoding="ascii")
    python = python_of(packages)
    copy_programs(packages, (*PROGRAMS, KMOD, f"usr/bin/{python}"), target)
    _copy(packages / LIBGCC, _merged(target, LIBGCC))
    for applet in APPLETS:
        (target / "usr/bin" / applet).symlink_to("busybox")
    (target / "usr/bin/python3").symlink_to(python)
    (target / "usr/sbin/modprobe").symlink_to("../bin/kmod")
    _copy_python(packages, node, target)
    _copy_scripts(node / "stage1", target)
    _prove_imports(target, python)


def lay_out_tools(packages: Path, system: Path, target: Path) -> None:
    """The programs of registration and rescue, with those of their libraries that the system does not have."""
    target.mkdir()
    copy_programs(packages, TOOLS, target)
    remove_what_is_in(system, target)


def lay_out_drivers(packages: Path, target: Path, tools: Path) -> None:
    """The drivers, each compressed by itself: only those a machine needs are ever decompressed.

    Those of storage go to `tools`. The index, which goes to `target`, is of all of them.
    """
    release = kernel_release(packages)
    source = packages / "lib/modules" / release
    run_tool(["chroot", str(packages), f"/{KMOD}", "--version"])
    run_tool(["depmod", "-b", str(packages), release])
    destination = target / "usr/lib/modules" / release
    always = _with_dependencies(source, _chosen_modules(source, MODULE_FOLDERS, MODULES))
    for_tools = _with_dependencies(source, _chosen_modules(source, TOOL_MODULE_FOLDERS, TOOL_MODULES)) - always
    for module in sorted(always | for_tools):
        _copy(source / module, destination / module)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        _copy(source / name, destination / name)
    if packed := [str(path) for path in sorted(destination.rglob("*.ko.xz"))]:
        run_tool(["xz", "-d", "-q", *packed])  # as Debian 13 packs them, slow to unpack at every boot
    modules = [str(path) for path in sorted(destination.rglob("*.ko"))]
    run_tool(["zstd", "-q", "-19", "--rm", *modules])
    (target / "lib").symlink_to("usr/lib")
    run_tool(["depmod", "-b", str(target), release])
    (target / "lib").unlink()
    for name in (
        "modules.alias",
        "modules.dep",
        "modules.symbols",
        "modules.builtin.alias.bin",
        "modules.order",
        "modules.builtin.modinfo",
        "modules.builtin",
        "modules.devname",
    ):
        (destination / name).unlink(missing_ok=True)
    for module in for_tools:
        driver = destination / f"{module.removesuffix('.xz')}.zst"
        place = tools / driver.relative_to(target)
        place.parent.mkdir(parents=True, exist_ok=True)
        driver.rename(place)


def copy_programs(packages: Path, programs: Iterable[str], target: Path) -> None:
    """Packaged programs and their shared libraries."""
    for program in programs:
        _copy(packages / program, _merged(target, program))
        _copy_libraries(packages, f"/{program}", target)


def remove_what_is_in(system: Path, target: Path) -> None:
    """Files of an initramfs that the machine has from one loaded before, and the directories that are empty then."""
    for path in sorted(target.rglob("*"), reverse=True):
        if path.is_file() and (system / path.relative_to(target)).exists():
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _copy_libraries(packages: Path, program: str, target: Path) -> None:
    """The shared libraries that the packages' own loader would give a program."""
    loader = "/lib64/ld-linux-x86-64.so.2"
    _copy(packages / loader[1:], _merged(target, loader[1:]))
    for line in run_tool(["chroot", str(packages), loader, "--list", program]).splitlines():
        if match := re.search(r"=> (/\S+)", line):
            _copy(packages / match[1][1:], _merged(target, match[1][1:]))
        elif "not found" in line:
            raise ToolError(f"{program} needs a library that its packages do not bring: {line.strip()}")


def _copy_python(packages: Path, node: Path, target: Path) -> None:
    """Koguma's own packages and what they import, as byte code made by the very Python that will run it."""
    own = (node / "common/koguma_node", node / "stage1/koguma_stage1")
    name = python_of(packages)
    library = f"usr/lib/{name}"
    for package in own:
        shutil.copytree(package, packages / library / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    tracer = "trace_imports.py"
    shutil.copyfile(node / "common" / tracer, packages / tracer)
    python = ["chroot", str(packages), f"/usr/bin/{name}", "-I", "-S", "-B"]
    found = run_tool([*python, f"/{tracer}", f"/{library}", *(package.name for package in own)]).split()
    sources = [path for path in found if path.endswith(".py")]
    run_tool([*python, "-c", COMPILE, *sources])
    for source in sources:
        _copy(packages / f"{source[1:]}c", target / f"{source[1:]}c")
    for extension in (path for path in found if path.endswith(".so")):
        _copy(packages / extension[1:], target / extension[1:])
        _copy_libraries(packages, extension, target)


def _copy_scripts(stage1: Path, target: Path) -> None:
    _copy(stage1 / "init", target / "init")
    for script in ("bring-up", "bring-up.lease"):
        _copy(stage1 / script, target / "usr/lib/koguma" / script)


def _prove_imports(target: Path, python: str) -> None:
    """Import our modules in the laid-out system itself, so that a missing one fails here and not on a machine."""
    library = target / "usr/lib" / python
    modules = sorted(path.relative_to(library) for path in library.glob("koguma_*/**/*.pyc"))
    imports = [f"import {'.'.join(path.with_suffix('').parts)}" for path in modules if path.stem != "__main__"]
    run_tool(["chroot", str(target), "/usr/bin/python3", "-I", "-S", "-B", "-c", "\n".join(imports)])


def _chosen_modules(source: Path, folders: Iterable[str], modules: Iterable[str]) -> Iterator[str]:
    by_name = {path.name.partition(".ko")[0].replace("-", "_"): path for path in source.rglob("*.ko*")}
    chosen = [by_name[name.replace("-", "_")] for name in modules if name.replace("-", "_") in by_name]
    for folder in folders:
        chosen += (source / "kernel" / folder).rglob("*.ko*")
    for path in chosen:
        name = str(path.relative_to(source))
        if not EXCLUDED_MODULES.search(name):
            yield name


def _with_dependencies(source: Path, chosen: Iterable[str]) -> set[str]:
    """The chosen modules and what they need, as modules.dep says (which lists the whole closure of each)."""
    needs = {}
    for line in (source / "modules.dep").read_text(encoding="ascii").splitlines():
        module, _, needed = line.partition(":")
        needs[module] = needed.split()
    found = set(chosen)
    return found.union(*(needs[module] for module in found))


def _merged(target: Path, path: str) -> Path:
    """Where a packaged file goes when /bin, /sbin, /lib and /lib64 are below /usr."""
    return target / (path if path.startswith(("usr/", "etc/", "var/")) else f"usr/{path}")


def _copy(source: Path, target: Path) -> None:
    """Copy a file's content and permissions, following symbolic links within the same directory tree only."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_within(source), target)
    target.chmod(0o755 if os.access(_within(source), os.X_OK) else 0o644)


def _within(path: Path) -> Path:
    """Follow a packaged file's symbolic links; an absolute one means the packages' root, not this machine's."""
    while path.is_symlink():
        link = path.readlink()
        if link.is_absolute():
            root = next(
                parent for parent in path.parents if (parent / "usr/bin").is_dir() and (parent / "etc").is_dir()
            )
            path = root / link.relative_to("/")
        else:
            path = path.parent / link
    return path
