"""From a recipe to a commit: mmdebstrap makes the root, hooks put in what the recipe says, the root is committed.

Downloaded packages are kept under `cache/debs` of the repository for the next build. An unchanged recipe gives the
commit that is the branch's head again; `force` builds anew, for instance to take in newer packages.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from koguma.images.aptsources import apt_settings, machine_sources, mirror_lines
from koguma.images.errors import RecipeError, ToolError
from koguma.images.files import locked, remove_tree
from koguma.images.recipe import Recipe, load_recipe
from koguma.images.refs import RefKind, check_ref_name
from koguma.images.repository import Committed, Repository
from koguma.images.tools import last_words, with_own_mounts

RECIPE_NOTE = "recipe"
"""The note of a commit that says which recipe (and node code) made it."""
_TIMEOUT_S = 3600


def build(
    repository: Repository,
    recipe_path: Path,
    branch: str,
    message: str | None = None,
    *,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Committed:
    """Build a recipe and commit the result to a branch."""
    check_ref_name(branch)
    recipe = load_recipe(recipe_path)
    node = node_directory() if recipe.node else None
    digest = sha256((recipe.digest() + (_directory_digest(node) if node else "")).encode()).hexdigest()
    head = repository.refs.get(RefKind.BRANCH, branch)
    if head and not force and (found := repository.commit(head)).notes.get(RECIPE_NOTE) == digest:
        say(f"{branch} is built from this recipe already; --force builds it again")
        return Committed(found, created=False)
    root = _new_root(repository)
    try:
        _make_root(repository, recipe, node, root, say)
        return repository.commit_tree(
            root,
            branch,
            message or f"build {recipe_path.name}",
            notes={RECIPE_NOTE: digest, "suite": recipe.suite},
            remember=False,
        )
    finally:
        remove_tree(root.parent)


def node_directory() -> Path:
    """The directory of the code that is shipped to machines: KOGUMA_NODE_DIR, else `node/` of this checkout."""
    named = os.environ.get("KOGUMA_NODE_DIR")
    path = Path(named).resolve() if named else Path(__file__).resolve().parents[3] / "node"
    if not (path / "stage2" / "install.sh").is_file():
        raise RecipeError(f"node = true needs Koguma's node code, there is no stage2/install.sh in {str(path)!r}")
    return path


def _new_root(repository: Repository) -> Path:
    """A place for the root; a stranger's leftovers from builds that were killed go first."""
    with locked(repository.path / "locks" / "build", timeout_s=_TIMEOUT_S, what="another build's start"):
        for old in (repository.path / "tmp").glob("build-*"):
            if not Path(f"/proc/{old.name.split('-')[1]}").exists():
                remove_tree(old)
        return Path(tempfile.mkdtemp(prefix=f"build-{os.getpid()}-", dir=repository.path / "tmp")) / "root"


def _make_root(
    repository: Repository, recipe: Recipe, node: Path | None, root: Path, say: Callable[[str], None]
) -> None:
    work = root.parent
    debs = repository.path / "cache" / "debs" / recipe.suite
    debs.mkdir(parents=True, exist_ok=True)
    setup, customize = work / "setup", work / "customize"
    settings = work / "apt.conf"
    settings.write_text(apt_settings())
    setup.write_text(_setup_script(debs, settings))
    customize.write_text(_customize_script(recipe, node, debs, work))
    mirrors = mirror_lines(recipe.suite, recipe.components, machine_sources())
    command = [
        "mmdebstrap", f"--variant={recipe.variant}", f"--components={','.join(recipe.components)}",
        "--format=directory", "--skip=essential/unlink", f"--setup-hook=sh {shlex.quote(str(setup))} \"$1\"",
        f"--customize-hook=sh {shlex.quote(str(customize))} \"$1\"",
    ]  # fmt: skip
    # mmdebstrap leaves these options in the root's dpkg configuration: an upgrade does not bring the files back.
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.exclude]
    if recipe.packages:
        command.append(f"--include={','.join(recipe.packages)}")
    sources = work / "sources.list"
    sources.write_text("".join(f"{line}\n" for line in mirrors))
    say(f"building a {recipe.suite} root with {len(recipe.packages)} packages named")
    _run([*command, recipe.suite, str(root), *([str(sources)] if mirrors else [])], work / "log", say)


def _setup_script(debs: Path, settings: Path) -> str:
    """Gives the new root the packages downloaded before and, for the build only, this machine's apt settings."""
    return f"""set -eu
mkdir -p "$1/var/cache/apt/archives" "$1/etc/apt/apt.conf.d"
cp {shlex.quote(str(settings))} "$1/etc/apt/apt.conf.d/00koguma-build"
find {shlex.quote(str(debs))} -name '*.deb' -exec cp -lf -t "$1/var/cache/apt/archives" {{}} +
"""


def _customize_script(recipe: Recipe, node: Path | None, debs: Path, work: Path) -> str:
    """What the recipe asks for beyond packages, in the order it promises."""
    lines = [
        "set -eu",
        f"cd {shlex.quote(str(debs))}",
        "find \"$1/var/cache/apt/archives\" -maxdepth 1 -name '*.deb' -exec cp -lfu -t . {} +",
    ]
    if recipe.hostname:
        lines.append(f'echo {shlex.quote(recipe.hostname)} > "$1/etc/hostname"')
    for number, file in enumerate(recipe.files):
        copy = work / f"file-{number}"
        copy.write_bytes(file.content)
        # Paths are resolved inside the root: an absolute link in it must not lead out to this machine.
        inside = shlex.quote(file.path)
        write = f"cat > {inside} && chmod {file.mode:o} {inside}"
        lines.append(f'chroot "$1" mkdir -p -- "$(dirname -- {inside})"')
        lines.append(f'chroot "$1" /bin/sh -c {shlex.quote(write)} < {shlex.quote(str(copy))}')
    if node:
        install = node / "stage2" / "install.sh"
        lines.append(f'sh {shlex.quote(str(install))} "$1"')
    lines += [f'chroot "$1" /bin/sh -c {shlex.quote(command)}' for command in recipe.commands]
    lines += _FINISH
    return "\n".join(lines) + "\n"


_FINISH = [
    # The node code's hook belongs in every initramfs, and commands may have changed what goes in.
    'if [ -x "$1/usr/sbin/update-initramfs" ] && ls "$1"/boot/vmlinuz-* >/dev/null 2>&1; then',
    '  chroot "$1" update-initramfs -u -k all',
    "fi",
    'rm -f "$1/etc/apt/apt.conf.d/00koguma-build"',
    # mmdebstrap copied this machine's; a node's own is rendered when it boots.
    '[ -L "$1/etc/resolv.conf" ] || rm -f "$1/etc/resolv.conf"',
    # Otherwise systemd rebuilds its databases at every boot, because a new /etc looks never updated.
    'touch "$1/etc/.updated" "$1/var/.updated"',
]


def _run(command: list[str], log: Path, say: Callable[[str], None]) -> None:
    """Run mmdebstrap; on a terminal its steps are passed on."""
    if shutil.which(command[0]) is None:
        raise ToolError(f"{command[0]} must be installed, it was not found on PATH")
    loud = sys.stderr.isatty()
    environment = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    with (
        log.open("wb") as kept,
        subprocess.Popen(
            with_own_mounts(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - opened as a pipe
        for line in process.stdout:
            kept.write(line)
            if loud and line.startswith(b"I: "):
                say(line.decode(errors="replace").strip())
        status = process.wait(_TIMEOUT_S)
    if status != 0:
        kept_log = log.parents[2] / "cache" / "build.log"
        shutil.copyfile(log, kept_log)
        words = b"\n".join(line for line in log.read_bytes().splitlines() if not line.startswith((b"I: ", b"E: ")))
        raise ToolError(f"mmdebstrap failed with status {status}: {last_words(words)} (all it said is in {kept_log})")


def _directory_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the files below a directory."""
    digest = sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(folder)}\0{path.stat().st_mode:o}\0".encode())
            digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()
