"""Edits: a branch's head as a writable work tree, at once and whatever its size; `commit_edit` keeps what changed.

A view of the head (`views`) lies below an overlay whose upper layer is a directory of the repository. All mounts live
in a namespace of the session's processes and end with them. These end with koguma, also after kill -9, and hold the
edit's lock as long as they live; what was changed stays in the upper layer until it is committed or discarded. What is
written down of a session is `sessions`'s.

In the session: the host's network and name servers, /proc, /sys (read-only), a /dev of its own, /run and /tmp that are
not kept, and apt with the package lists and archives of a cache outside the image. A policy-rc.d keeps services from
starting. These helps lie in a layer between image and changes (`aid`), so that they are never part of a commit.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from koguma.images import usernamespace
from koguma.images.aid import copied_up, prepare_aid
from koguma.images.draft import Folder, store_root
from koguma.images.errors import EditError, ImageError
from koguma.images.files import locked
from koguma.images.hashing import FileHasher
from koguma.images.overlay import apply_upper
from koguma.images.repository import Committed, Repository
from koguma.images.resolving import check_settled
from koguma.images.sessions import (
    Session,
    alone,
    begin,
    end,
    folder_of,
    head_of,
    lock_held,
    pending,
    pending_edits,
    write_session,
)
from koguma.images.trees import Entry, resolve
from koguma.images.views import Source, source

__all__ = ["commit_edit", "commit_session", "discard", "edit", "opened", "pending_edits"]

_PR_SET_PDEATHSIG = 1
_LISTS_MAX_AGE_S = 24 * 3600
_APT_SLOTS = 64
_PASSED_ON = (
    "TERM",
    "LANG",
    "LC_ALL",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)

Lower = Callable[[], AbstractContextManager[Source]]
"""What a session lies over, to be mounted anew for every command."""

_OVERLAY = "redirect_dir=off,metacopy=off,index=off"
_OVERLAY_INSIDE = "userxattr,index=off"
"""In a user namespace: with `userxattr` there are neither redirects nor metacopies, and saying so is an error."""

_SCRIPT = r"""
set -eu
image=$1 apt=$2 how=$3; shift 3
mount -t tmpfs -o mode=0700 koguma mnt
mkdir mnt/image mnt/root
eval "mount $image mnt/image"
# The session must not hold /dev/fuse. Only bash can close a descriptor of two digits.
case $image in *,fd=*) fd=${image#*,fd=}; eval "exec ${fd%%,*}<&-" ;; esac
layers=lowerdir=aid:mnt/image,upperdir=upper,workdir=work
mount -t overlay -o $layers,$how koguma mnt/root
root=mnt/root
mount -t proc proc $root/proc
# Root of a user namespace may not mount a sysfs of a network it does not own; the host's shows the same.
mount -t sysfs -o ro sysfs $root/sys 2>/dev/null || mount --rbind /sys $root/sys
mount -t tmpfs -o mode=0755,nosuid,size=16m koguma $root/dev
for device in null zero full random urandom tty; do
  : > $root/dev/$device
  mount --bind /dev/$device $root/dev/$device
done
mkdir $root/dev/pts $root/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts $root/dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev koguma $root/dev/shm
ln -s pts/ptmx $root/dev/ptmx
ln -s /proc/self/fd $root/dev/fd
ln -s fd/0 $root/dev/stdin
ln -s fd/1 $root/dev/stdout
ln -s fd/2 $root/dev/stderr
mount -t tmpfs -o mode=0755,nosuid,nodev koguma $root/run
mount -t tmpfs -o mode=1777,nosuid,nodev koguma $root/tmp
mkdir -p $root/run/lock $root/run/koguma
cp apt.conf $root/run/koguma/apt.conf
if [ -n "$apt" ]; then
  mount --bind "$apt/lists" $root/var/lib/apt/lists
  mount --bind "$apt/cache" $root/var/cache/apt
fi
hostname koguma-edit
cd $root
status=0
chroot . "$@" || status=$?
exit $status
"""


def edit(
    repository: Repository, branch: str, command: Sequence[str], *, say: Callable[[str], None] = lambda _: None
) -> int:
    """Run a command (or a shell) in the branch's work tree; returns its exit status. A pending edit goes on."""
    if os.geteuid() != 0:
        raise EditError(
            f"an edit needs root, or a user namespace, for its mounts, got user id {os.geteuid()} (branch {branch})"
        )
    shell = ["/bin/sh", "-c", "[ -x /bin/bash ] && exec /bin/bash; exec /bin/sh"]
    with alone(repository, branch):
        session = pending(repository, branch) or begin(repository, branch, Session(head_of(repository, branch)))
        root = repository.root(repository.commit(session.base))
        with _apt_cache(repository, root) as apt, opened(repository, branch, session) as run:
            if apt and _lists_are_old(apt):
                say("fetching package lists")
                if run(["apt-get", "-qq", "update"], apt, quiet=True) != 0:
                    say("package lists could not be fetched; apt works with what there is")
            status = run(command or shell, apt)
    say(f"what changed is kept; commit it with: koguma image commit -b {branch} -m MESSAGE")
    return status


class Run(Protocol):
    """Runs a command in a session; returns its exit status."""

    def __call__(self, command: Sequence[str], apt: Path | None = None, *, quiet: bool = False) -> int: ...


@contextmanager
def opened(repository: Repository, branch: str, session: Session) -> Iterator[Run]:
    """What runs commands in a session; for whoever works `alone` on the branch."""
    folder = folder_of(repository, branch)
    base = repository.commit(session.base)
    lower = partial(source, repository, base.tree)
    prepare_aid(repository.objects.read, repository.root(base), folder)

    def run(command: Sequence[str], apt: Path | None = None, *, quiet: bool = False) -> int:
        return run_in(folder, lower, apt, command, quiet=quiet, held=[lock_held(repository, branch)])

    yield run


def commit_edit(
    repository: Repository,
    branch: str,
    message: str | None = None,
    *,
    author: str | None = None,
    keep_times: bool = False,
) -> Committed:
    """Commit what the branch's pending edit changed; costs what changed, not the image's size.

    The message is needed unless the session is that of a merge, a cherry-pick or a revert. Raises EditError while
    conflicts are open.
    """
    with alone(repository, branch):
        session = pending(repository, branch)
        if session is None:
            raise EditError(
                f"there is no pending edit of branch {branch!r}; start one with: koguma image edit {branch},"
                f" or name a directory to commit"
            )
        return commit_session(repository, branch, session, message, author=author, keep_times=keep_times)


def commit_session(
    repository: Repository,
    branch: str,
    session: Session,
    message: str | None = None,
    *,
    author: str | None = None,
    keep_times: bool = False,
) -> Committed:
    """As `commit_edit`, for whoever works `alone` on the branch already."""
    operation = session.operation
    message = message or (operation.message if operation else None)
    if not message:
        raise EditError(f"a commit needs a message that says why; give it with -m (branch {branch})")
    check_settled(repository, branch)
    base = repository.commit(session.base)
    root = repository.root(base)
    with repository.objects.writing() as writer:
        draft = Folder(root, repository.objects.read)
        with FileHasher(writer) as hasher:
            folder = folder_of(repository, branch)
            # A merge must not take the times off files whose commits keep them.
            keep_times = keep_times or (operation is not None and root.mtime_ns is not None)
            upper, copies = os.fsencode(folder / "upper"), copied_up(folder)
            apply_upper(upper, draft, hasher, keep_times=keep_times, left_out=copies)
        made = repository.add_commit(
            writer,
            store_root(draft, writer),
            [base.id, *(operation.parents if operation else ())],
            message,
            author=author or (operation.author if operation else None),
            notes=operation.notes if operation else None,
        )
        writer.finish()
        write_session(repository, branch, replace(session, committed=made.id))
        done = repository.publish(made, branch, base.id)
    end(repository, branch)
    return done


def discard(repository: Repository, branch: str) -> None:
    """Throw a pending edit away, and with it what was begun on the branch: a merge, a cherry-pick, a revert."""
    with alone(repository, branch):
        end(repository, branch)


@contextmanager
def _apt_cache(repository: Repository, root: Entry) -> Iterator[Path | None]:
    """A cache of package lists and archives for trees with these apt sources, for this edit alone; None without apt."""
    read = repository.objects.read
    places = [resolve(read, root, place) for place in (b"var/lib/apt/lists", b"var/cache/apt", b"usr/bin/apt-get")]
    if not all(places):
        yield None
        return
    sources = [resolve(read, root, place) for place in (b"etc/apt/sources.list", b"etc/apt/sources.list.d")]
    key = sha256(b"".join(found[1].digest for found in sources if found)).hexdigest()[:16]
    for slot in range(_APT_SLOTS):
        cache = repository.path / "cache" / "apt" / key / str(slot)
        for name in ("lists", "cache"):
            (cache / name).mkdir(parents=True, exist_ok=True)
        try:
            with locked(cache / "lock", timeout_s=0):
                yield cache
                return
        except ImageError as error:
            if str(cache / "lock") not in str(error):
                raise
    raise EditError(f"at most {_APT_SLOTS} edits may be open at once")


def _lists_are_old(apt: Path) -> bool:
    """Whether apt has no package lists yet, or ones of yesterday."""
    newest = max((path.stat().st_mtime for path in (apt / "lists").glob("*_*Release")), default=0.0)
    stamp = apt / "lists" / "partial"
    fetched = stamp.stat().st_mtime if stamp.exists() else 0.0
    return newest == 0 or time.time() - fetched > _LISTS_MAX_AGE_S


def run_in(
    folder: Path,
    lower: Lower,
    apt: Path | None,
    command: Sequence[str],
    *,
    quiet: bool = False,
    held: Sequence[int] = (),
) -> int:
    """Run a command in the session's namespaces and wait for it; its processes have the descriptors `held`, too."""
    with lower() as shown:
        return _run_over(folder, shown, apt, command, quiet=quiet, held=held)


def _run_over(
    folder: Path, shown: Source, apt: Path | None, command: Sequence[str], *, quiet: bool, held: Sequence[int]
) -> int:
    """Interrupts are the command's own business, meanwhile."""
    arguments = [
        "unshare", "--mount", "--propagation", "private", "--uts", "--pid", "--fork", "--kill-child", "--",
        "/bin/bash", "-c", _SCRIPT, "koguma-edit", shlex.join(shown.words), str(apt or ""),
        _OVERLAY_INSIDE if usernamespace.is_inside() else _OVERLAY, *command,
    ]  # fmt: skip
    (folder / "mnt").mkdir(exist_ok=True)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.run(
            arguments,
            cwd=folder,
            env=_environment(),
            pass_fds=[*shown.descriptors, *held],
            check=False,
            stdin=subprocess.DEVNULL if quiet else None,
            stdout=subprocess.DEVNULL if quiet else None,
            stderr=subprocess.DEVNULL if quiet else None,
            preexec_fn=_prepare_child(),
        ).returncode
    except FileNotFoundError:
        raise EditError("an edit needs unshare, it was not found on PATH (package util-linux)") from None
    finally:
        signal.signal(signal.SIGINT, before)


def _prepare_child() -> Callable[[], None]:
    """What makes a new process interruptible again and lets it be killed when we die: then what it started is, too."""
    import ctypes  # noqa: PLC0415 - slow to load, and needed by sessions alone

    libc, parent = ctypes.CDLL(None), os.getpid()

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGKILL)

    return prepare


def _environment() -> dict[str, str]:
    environment = {name: value for name in _PASSED_ON if (value := os.environ.get(name))}
    environment |= {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "APT_CONFIG": "/run/koguma/apt.conf",
        "KOGUMA_EDIT": "1",
    }
    if not os.isatty(0):
        environment["DEBIAN_FRONTEND"] = "noninteractive"
    return environment
