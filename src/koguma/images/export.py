"""Root images: a commit's tree as squashfs or erofs, the same bytes from the same tree every time.

squashfs is made from a tar stream straight out of the packs; mkfs.erofs reads directories only, so it gets a checkout.
squashfs has no place for POSIX ACLs (`system.*` attributes): `attributes_lost` says which paths lose them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from koguma.images.checkout import checkout
from koguma.images.erofsorder import sort_attributes
from koguma.images.errors import ImageError, ToolError
from koguma.images.files import remove_tree, write_parts
from koguma.images.objects import ObjectStore
from koguma.images.tarstream import entries_parts
from koguma.images.tools import last_words, run_tool
from koguma.images.trees import FILE, NORMAL_MTIME_NS, Entry, walk

FORMATS = ("squashfs", "erofs")
SQUASHFS_ZSTD_LEVEL = 3
SQUASHFS_MEMORY = "512M"
TIME_S = NORMAL_MTIME_NS // 10**9
_PAGE_BYTES = 4096
_WAIT_S = 3600
_PIPE_BYTES = 1024 * 1024
"""What Linux lets everybody have: fewer changes between the two processes."""


def export(
    store: ObjectStore,
    tree_id: str,
    root: Entry,
    image_format: str,
    output: Path,
    scratch: Path,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write the tree as a root image to `output`, which must not exist. `progress` is told the bytes taken in."""
    check_output(output)
    if image_format == "squashfs":
        _squashfs(store, root, output, progress)
    elif image_format == "erofs":
        _erofs(store, tree_id, root, output, scratch)
    else:
        raise ImageError(f"an export's format is one of {', '.join(FORMATS)}, got {image_format!r}")


def check_output(output: Path) -> None:
    """Refuse a place where nothing can be written; the tools that write would not name it."""
    if output.exists():
        raise ImageError(f"an export may not overwrite a file, got {str(output)!r}")
    if not output.absolute().parent.is_dir():
        raise ImageError(f"an export needs a directory to write to, there is none for {str(output)!r}")


def attributes_lost(store: ObjectStore, root: Entry) -> list[bytes]:
    """Paths whose ACLs a squashfs cannot hold."""
    found = [
        path for path, entry in walk(store.read, root) if any(name.startswith(b"system.") for name, _ in entry.xattrs)
    ]
    return [b"", *found] if any(name.startswith(b"system.") for name, _ in root.xattrs) else found


def unpacked_size_bytes(store: ObjectStore, root: Entry) -> int:
    """What the tree takes in a tmpfs: every file once, rounded up to pages."""
    total, seen = 0, set()
    for _, entry in walk(store.read, root):
        if entry.kind == FILE and (not entry.link or entry.link not in seen):
            seen.add(entry.link)
            total += -(-entry.size // _PAGE_BYTES) * _PAGE_BYTES
    return total


def file_digest(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a file."""
    digest, size = sha256(), 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(1024 * 1024):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size


def _squashfs(store: ObjectStore, root: Entry, output: Path, progress: Callable[[int], None] | None) -> None:
    """mksquashfs 4.5.1 gives the root directory of a tar the present time whatever it is told, but never a time after
    SOURCE_DATE_EPOCH; so that is set to the newest time in the tree, which changes no other file's."""
    entries = [(b"", root), *walk(store.read, root)]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(_newest_time_s(entries))}
    stream = entries_parts(store, entries)
    command = [
        *_as_owner_of(root),
        "mksquashfs", "-", str(output), "-tar", "-comp", "zstd", "-Xcompression-level", str(SQUASHFS_ZSTD_LEVEL),
        "-reproducible", "-exit-on-error", "-no-exports", "-no-progress", "-quiet",
        "-noappend", "-no-recovery", "-mem", SQUASHFS_MEMORY, "-root-mode", f"{root.mode:o}",
        "-root-uid", str(root.uid), "-root-gid", str(root.gid),
    ]  # fmt: skip
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT, env=environment, bufsize=0
            )
        except FileNotFoundError:
            raise ToolError("mksquashfs must be installed, it was not found on PATH (package squashfs-tools)") from None
        try:
            _feed(process, stream, progress)
            status = process.wait(_WAIT_S)
        except BaseException:
            process.kill()
            process.wait()
            output.unlink(missing_ok=True)
            raise
        if status != 0:
            said.seek(0)
            output.unlink(missing_ok=True)
            raise ToolError(f"mksquashfs failed with status {status}: {last_words(said.read())}")


def _as_owner_of(root: Entry) -> list[str]:
    """mksquashfs 4.5.1 gives the root directory of a tar the user and group it runs as, whatever its options say; in a
    user namespace that is the tree's owner, without any rights. Where there are none, as in a chroot, fakeroot tells it
    that it is root."""
    owner = (root.uid, root.gid)
    if (os.getuid(), os.getgid()) == owner:
        return []
    inside = ["unshare", "--user", f"--map-user={root.uid}", f"--map-group={root.gid}", "--"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode == 0:
        return inside
    if owner == (0, 0) and shutil.which("fakeroot"):
        return ["fakeroot", "--"]
    raise ToolError(
        f"a squashfs of a tree of {root.uid}:{root.gid} needs that user, user namespaces, or fakeroot for one of root's"
    )


def _newest_time_s(entries: list[tuple[bytes, Entry]]) -> int:
    times = [entry.mtime_ns for _, entry in entries if entry.mtime_ns is not None]
    return max(0, max([NORMAL_MTIME_NS, *times]) // 10**9)


def _feed(
    process: subprocess.Popen[bytes], stream: Iterator[list[bytes]], progress: Callable[[int], None] | None
) -> None:
    """Write the stream to the tool; one that ends early is judged by its exit status."""
    assert process.stdin is not None  # noqa: S101 - opened as a pipe
    try:
        with process.stdin as pipe:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            for parts in stream:
                write_parts(pipe.fileno(), parts)
                if progress:
                    progress(sum(map(len, parts)))
    except BrokenPipeError:
        return


def _erofs(store: ObjectStore, tree_id: str, root: Entry, output: Path, scratch: Path) -> None:
    view = Path(tempfile.mkdtemp(prefix="erofs-", dir=scratch))
    try:
        tree = view / "root"
        checkout(store, root, tree)
        identity = str(UUID(hex=tree_id[:32]))
        run_tool(
            [
                "mkfs.erofs",
                "-zlz4",
                f"-T{TIME_S}",
                "--preserve-mtime",
                f"-U{identity}",
                "--quiet",
                str(output),
                str(tree),
            ]
        )
        sort_attributes(output)
    except BaseException:
        output.unlink(missing_ok=True)
        raise
    finally:
        remove_tree(view)
