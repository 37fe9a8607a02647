"""The tools `bench/images.py` holds Koguma against, each as the whole processes a person would type.

Koguma's modules are compiled before, as an installer does it, and no `PYTHON*` of the caller's shell changes how they
run.
A peer's `commit` gets a tree and a name (v1, v2); what a tool cannot do is None in its place.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import koguma

KOGUMA = Path(sys.executable).with_name("koguma")

Command = list[str]


@dataclass(frozen=True)
class Peer:
    """A tool and a repository of its own below `repository`."""

    name: str
    repository: Path

    def init(self) -> list[Command]:
        raise NotImplementedError

    def commit(self, tree: Path, name: str) -> list[Command]:
        raise NotImplementedError

    def diff(self) -> Command | None:
        return None

    def fsck(self) -> Command | None:
        return None

    def environ(self) -> dict[str, str]:
        return plain_environ()


class Koguma(Peer):
    def init(self) -> list[Command]:
        return [self._image("init")]

    def commit(self, tree: Path, name: str) -> list[Command]:
        return [self._image("commit", "-b", "main", "-m", name, str(tree))]

    def diff(self) -> Command | None:
        return self._image("diff", "main~1", "main")

    def fsck(self) -> Command | None:
        return self._image("fsck")

    def _image(self, *words: str) -> Command:
        return [str(KOGUMA), "image", "--repo", str(self.repository), *words]


class OSTree(Peer):
    @property
    def mode(self) -> str:
        return self.name.removeprefix("OSTree ")

    def init(self) -> list[Command]:
        return [self._ostree("init", f"--mode={self.mode}")]

    def commit(self, tree: Path, name: str) -> list[Command]:
        return [self._ostree("commit", "-b", "main", "-s", name, f"--tree=dir={tree}")]

    def diff(self) -> Command | None:
        return self._ostree("diff", "main^", "main")

    def fsck(self) -> Command | None:
        return self._ostree("fsck")

    def _ostree(self, *words: str) -> Command:
        return ["ostree", f"--repo={self.repository}", *words]


class Restic(Peer):
    def init(self) -> list[Command]:
        return [self._restic("init")]

    def commit(self, tree: Path, name: str) -> list[Command]:
        return [self._restic("backup", "--tag", name, str(tree))]

    def fsck(self) -> Command | None:
        return self._restic("check", "--read-data")

    def environ(self) -> dict[str, str]:
        return plain_environ() | {"RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": f"{self.repository}-cache"}

    def _restic(self, *words: str) -> Command:
        return ["restic", "--quiet", "-r", str(self.repository), *words]


class Git(Peer):
    def init(self) -> list[Command]:
        return [["git", "init", "--quiet", "--bare", str(self.repository)]]

    def commit(self, tree: Path, name: str) -> list[Command]:
        git = ["git", f"--git-dir={self.repository}", f"--work-tree={tree}", "-c", "core.bare=false"]
        who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        return [[*git, "add", "-A", str(tree)], [*git, *who, "commit", "--quiet", "--allow-empty", "-m", name]]

    def diff(self) -> Command | None:
        return ["git", f"--git-dir={self.repository}", "diff", "--stat", "HEAD~1", "HEAD"]

    def fsck(self) -> Command | None:
        return ["git", f"--git-dir={self.repository}", "fsck", "--full"]


class Casync(Peer):
    def init(self) -> list[Command]:
        return [["mkdir", "-p", str(self.repository)]]

    def commit(self, tree: Path, name: str) -> list[Command]:
        store = f"--store={self.repository}/default.castr"
        return [["casync", "make", store, f"{self.repository}/{name}.caidx", str(tree)]]


def installed_peers(folder: Path) -> list[Peer]:
    """Koguma and OSTree always, the others where they are installed."""
    peers: list[Peer] = [
        Koguma("Koguma", folder / "koguma"),
        OSTree("OSTree bare", folder / "ostree-bare"),
        OSTree("OSTree bare-user", folder / "ostree-bare-user"),
        Restic("restic", folder / "restic"),
        Git("git", folder / "git"),
        Casync("casync", folder / "casync"),
    ]
    tools = {"Restic": "restic", "Git": "git", "Casync": "casync", "OSTree": "ostree"}
    return [peer for peer in peers if (tool := tools.get(type(peer).__name__)) is None or shutil.which(tool)]


def plain_environ() -> dict[str, str]:
    """The environment without what changes how Python runs: a shell that forbids compiled modules doubles a start."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def compile_koguma() -> None:
    """Compile the modules of a source tree, as pip does with those it installs."""
    for package in koguma.__path__:
        compileall.compile_dir(package, quiet=1)


def run(command: Command, environ: dict[str, str] | None = None) -> str:
    """Run to the end; the standard output. Raises CalledProcessError, having shown what the tool said."""
    environ = environ or plain_environ()
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
        done.check_returncode()
    return done.stdout
