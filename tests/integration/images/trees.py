"""Small roots of other distributions, with package databases their own tools wrote or would have written.

A Fedora-like root is installed by rpm itself, from packages that rpmbuild made here. An Alpine-like root is laid out
by hand around a static busybox: Debian has no apk, so `lib/apk/db/installed` is written by the rules of its format,
with the checksums apk itself would check.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from koguma.images.aptsources import machine_sources, mirror_lines
from koguma.images.tools import with_own_mounts

RPM_TOOLS = ("rpm", "rpmbuild")
RPM_DATABASE = "usr/lib/sysimage/rpm/rpmdb.sqlite"
APK_DATABASE = "lib/apk/db/installed"
BUSYBOX = Path("/bin/busybox")
_FIXED_TIME = 1_700_000_000


@dataclass(frozen=True, slots=True)
class Package:
    """A package of a few files; its version is the distribution's way to say one (`1.0-1.fc40`, `1.0-r0`)."""

    name: str
    version: str
    files: dict[str, str]
    """Path without the first slash -> content."""
    changelog: str = "Built for a test."
    requires: tuple[str, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    """Path -> target of a symbolic link."""


def fedora_packages(*, minor: int = 0) -> list[Package]:
    """What a Fedora-like root has; `minor` upgrades some of it: 1 upgrades tool, removes old, installs added."""
    release = "PRETTY_NAME='Fedora-like 40'\nID=fedora\nVERSION_ID=40\n"
    packages = [
        Package("fedora-release", "40-1", {"etc/os-release": release, "etc/passwd": "root:x:0:0::/root:/bin/sh\n"}),
        Package("libtool", "2.0-1.fc40", {"usr/lib64/libtool.so.2.0": "library 2.0\n"},
                links={"usr/lib64/libtool.so.2": "libtool.so.2.0"}),
        Package("tool", f"1.{minor}-1.fc40", {"usr/bin/tool": f"#!/bin/sh\necho {minor}\n", "etc/tool.conf": "a=1\n"},
                changelog=f"Version 1.{minor}.", requires=("libtool",)),
    ]  # fmt: skip
    if minor:
        return [*packages, Package("added", "3:0.9~rc1-2.fc40", {"usr/bin/added": "added\n"})]
    return [*packages, Package("old", "5.1-4.fc40", {"usr/bin/old": "old\n"})]


def alpine_packages(*, minor: int = 0) -> list[Package]:
    """As `fedora_packages`, for an Alpine-like root."""
    release = "PRETTY_NAME='Alpine-like 3.20'\nID=alpine\nVERSION_ID=3.20.0\n"
    passwd = "root:x:0:0:root:/root:/bin/sh\n"
    packages = [
        Package("alpine-baselayout", "3.6.5-r0", {"etc/os-release": release, "etc/passwd": passwd}),
        Package("libtool", "2.0-r3", {"usr/lib/libtool.so.2.0": "library 2.0\n"},
                links={"usr/lib/libtool.so.2": "libtool.so.2.0"}),
        Package("tool", f"1.{minor}-r0", {"usr/bin/tool": f"#!/bin/sh\necho {minor}\n", "etc/tool.conf": "a=1\n"},
                requires=("so:libtool.so.2",)),
    ]  # fmt: skip
    if minor:
        return [*packages, Package("added", "0.9_rc1-r2", {"usr/bin/added": "added\n"})]
    return [*packages, Package("old", "5.1-r4", {"usr/bin/old": "old\n"})]


def missing_rpm_tools() -> list[str]:
    return [tool for tool in RPM_TOOLS if shutil.which(tool) is None]


def make_fedora_like(root: Path, packages: Sequence[Package], work: Path) -> Path:
    """A root that rpm installed, its database in sqlite where Fedora has it. Needs root, because rpm changes root."""
    rpms = [_build_rpm(package, work / package.name) for package in packages]
    root.mkdir(parents=True, exist_ok=True)
    for name in ("usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "proc", "tmp", "var/lib"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "var/lib/rpm").symlink_to("../../usr/lib/sysimage/rpm")
    _rpm(root, "--initdb")
    _rpm(root, "-U", "--nosignature", *(str(rpm) for rpm in rpms))
    return root


def upgrade_fedora_like(root: Path, packages: Sequence[Package], work: Path) -> Path:
    """Bring a root to these packages with rpm: install, upgrade and erase."""
    installed = set(_rpm(root, "-qa", "--qf", "%{NAME}\\n").split())
    gone = sorted(installed - {package.name for package in packages})
    rpms = [str(_build_rpm(package, work / package.name)) for package in packages]
    _rpm(root, "-U", "--nosignature", "--replacepkgs", *rpms)
    if gone:
        _rpm(root, "-e", *gone)
    return root


def installed_rpms(root: Path) -> dict[str, str]:
    """What rpm itself says is installed: name -> [epoch:]version-release."""
    said = _rpm(root, "-qa", "--qf", "%{NAME} %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\\n")
    return dict(line.split(" ", 1) for line in said.splitlines())


def _rpm(root: Path, *arguments: str) -> str:
    command = ["rpm", "--root", str(root), "--dbpath", "/usr/lib/sysimage/rpm", "--define", "_db_backend sqlite"]
    command += ["--define", "_pkgverify_level none", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _build_rpm(package: Package, work: Path) -> Path:
    """Make one package with rpmbuild; no scripts, no dependencies but those it names."""
    epoch, _, rest = package.version.rpartition(":")
    version, release = rest.rsplit("-", 1)
    top = work / f"{version}-{release}"
    content = top / "content"
    _lay_out(content, package)
    names = sorted([*package.files, *package.links])
    spec = top / f"{package.name}.spec"
    spec.write_text(
        f"Name: {package.name}\nVersion: {version}\nRelease: {release}\n"
        + (f"Epoch: {epoch}\n" if epoch else "")
        + "".join(f"Requires: {name}\n" for name in package.requires)
        + "Summary: A test\nLicense: none\nAutoReqProv: no\n%description\nA test.\n"
        + f"%install\nmkdir -p %{{buildroot}}\ncp -a {content}/. %{{buildroot}}/\n"
        + "%files\n"
        + "".join(f"{'%config ' if name.startswith('etc/') else ''}/{name}\n" for name in names)
        + f"%changelog\n* Tue Nov 14 2023 A Tester <tester@example.org> - {version}-{release}\n- {package.changelog}\n"
    )
    settings = {
        "_topdir": str(top), "_build_id_links": "none", "debug_package": "%{nil}", "__os_install_post": "%{nil}",
        "_buildhost": "builder", "source_date_epoch_from_changelog": "1", "use_source_date_epoch_as_buildtime": "1",
        "_binary_payload": "w6.gzdio",
    }  # fmt: skip
    defines = [part for name, value in settings.items() for part in ("--define", f"{name} {value}")]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(_FIXED_TIME), "LC_ALL": "C"}
    subprocess.run(
        ["rpmbuild", "-bb", "--quiet", *defines, str(spec)], check=True, capture_output=True, env=environment
    )
    (made,) = (top / "RPMS").rglob("*.rpm")
    return made


def _lay_out(root: Path, package: Package) -> None:
    for name, text in package.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if "/bin/" in f"/{name}" else 0o644)
    for name, target in package.links.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)


def make_alpine_like(root: Path, packages: Sequence[Package]) -> Path:
    """A root around busybox with apk's database of what is installed. Needs no root."""
    for name in ("bin", "sbin", "etc/apk", "lib/apk/db", "proc", "tmp", "var/cache/apk"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for tool in ("sh", "ls", "cat", "mkdir"):
        (root / "bin" / tool).symlink_to("/bin/busybox")
    busybox = Package("busybox", "1.36.1-r29", {})
    for package in packages:
        _lay_out(root, package)
    stanzas = [_apk_stanza(root, package) for package in (busybox, *packages)]
    (root / APK_DATABASE).write_text("".join(stanzas))
    (root / "etc/apk/world").write_text("".join(f"{package.name}\n" for package in (busybox, *packages)))
    (root / "etc/apk/arch").write_text("x86_64\n")
    return root


def _apk_stanza(root: Path, package: Package) -> str:
    """The package's part of `installed`: its fields, then each directory (F) with its files (R) and checksums (Z)."""
    names = ["bin/busybox"] if package.name == "busybox" else sorted([*package.files, *package.links])
    size = sum((root / name).lstat().st_size for name in names)
    fields = {
        "C": _q1(f"{package.name}-{package.version}".encode()), "P": package.name, "V": package.version, "A": "x86_64",
        "S": str(size), "I": str(size), "T": "A test", "U": "https://example.org/", "L": "none", "o": package.name,
        "m": "A Tester <tester@example.org>", "t": str(_FIXED_TIME),
        "c": hashlib.sha1(package.name.encode()).hexdigest(),
    }  # fmt: skip
    lines = [f"{key}:{value}" for key, value in fields.items()]
    if package.requires:
        lines.append("D:" + " ".join(package.requires))
    folder = None
    for name in sorted(names, key=lambda item: item.rpartition("/")[::2]):
        parent, _, base = name.rpartition("/")
        if parent != folder:
            lines.append(f"F:{parent}")
            folder = parent
        path = root / name
        link = path.is_symlink()
        lines.append(f"R:{base}")
        if not link and path.stat().st_mode & 0o777 != 0o644:
            lines.append(f"a:0:0:{path.stat().st_mode & 0o7777:o}")
        lines.append("Z:" + _q1(os.fsencode(path.readlink()) if link else path.read_bytes()))
    return "\n".join(lines) + "\n\n"


def _q1(content: bytes) -> str:
    return "Q1" + base64.b64encode(hashlib.sha1(content).digest()).decode()


def debian_tar(suite: str, target: Path, *packages: str, variant: str = "essential") -> Path:
    """A Debian root as a tar that mmdebstrap made, from the mirrors this machine uses. Takes half a minute."""
    sources = target.with_name(f"{target.name}.list")
    sources.write_text("".join(f"{line}\n" for line in mirror_lines(suite, ["main"], machine_sources())))
    options = [f"--variant={variant}", "--format=tar", *([f"--include={','.join(packages)}"] if packages else [])]
    command = ["mmdebstrap", *options, suite, str(target), *([str(sources)] if sources.stat().st_size else [])]
    subprocess.run(with_own_mounts(command), check=True, capture_output=True)
    return target
