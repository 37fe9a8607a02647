"""Views of commits: mounted from the packs by a process of their own, or from a root image; compared by rsync."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from koguma.images.edit import commit_edit
from koguma.images.errors import EditError, ViewError
from koguma.images.repository import Repository
from koguma.images.views import mount_view, mounted_views, unmount_view
from tests.unit.images.making import make_bootable_tree, make_tree
from tests.unit.images.test_images_overlay import ACL

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="a view needs root for its mount")]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One of every kind of file, and odd ones."""
    root = make_tree(tmp_path / "tree", {"etc/motd": "hello\n", "etc/empty": "", "bin/tool": "#!/bin/sh\n"})
    (root / "etc" / "large").write_bytes(os.urandom(1 << 16) * 160)
    (root / "etc" / "sparse").write_bytes(b"x")
    os.truncate(root / "etc" / "sparse", 40 << 20)
    (root / "etc" / "odd \udcff\nname").write_text("odd")
    (root / "bin" / "link").symlink_to("tool")
    (root / "bin" / "same").hardlink_to(root / "bin" / "tool")
    (root / "bin" / "tool").chmod(0o4755)
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    os.setxattr(root / "etc" / "motd", "user.note", b"\0\1two")
    os.chown(root / "etc" / "empty", 12345, 54321)
    (root / "many").mkdir(mode=0o1777)
    for number in range(3000):
        (root / "many" / f"file-{number:04}-{'x' * 40}").write_text(str(number))
    return root


@pytest.fixture
def repository(tmp_path: Path, tree: Path) -> Iterator[Repository]:
    repository = Repository.init(tmp_path / "repository")
    repository.commit_tree(tree, "main", "m", keep_times=True)
    yield repository
    for view in mounted_views(repository):
        unmount_view(repository, Path(view.place))


def _kind_of(place: Path) -> str:
    """The file system that is mounted at a place."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    (kind,) = [line.split(" - ")[1].split()[0] for line in mounts if f" {place} " in line]
    return kind


def _differences(one: Path, other: Path) -> str:
    command = ["rsync", "-aHAXnic", "--delete", "--devices", "--specials", f"{one}/", f"{other}/"]
    return subprocess.run(command, capture_output=True, text=True, check=True, errors="replace").stdout


def _place(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    place.mkdir()
    return place


def test_a_view_shows_everything_the_commit_holds(repository: Repository, tree: Path, tmp_path: Path) -> None:
    place = _place(tmp_path)
    started = time.monotonic()
    mount_view(repository, "main", place)
    elapsed_s = time.monotonic() - started

    assert _differences(tree, place) == ""
    assert (place / "bin" / "same").stat().st_ino == (place / "bin" / "tool").stat().st_ino
    assert (place / "bin" / "same").stat().st_nlink == 2
    with (place / "etc" / "large").open("rb") as file:
        file.seek(9_000_001)
        assert file.read(70_000) == (tree / "etc" / "large").read_bytes()[9_000_001:9_070_001]
    with pytest.raises(OSError, match="Read-only"):
        (place / "etc" / "motd").write_text("no")
    with pytest.raises(FileNotFoundError):
        (place / "etc" / "none").read_text()
    assert elapsed_s < 5
    assert [(view.place, view.alive) for view in mounted_views(repository)] == [(str(place), True)]
    unmount_view(repository, place)
    assert (mounted_views(repository), list(place.iterdir())) == ([], [])


def test_what_is_written_to_a_writable_view_is_thrown_away(repository: Repository, tmp_path: Path) -> None:
    place = _place(tmp_path)
    mount_view(repository, "main", place, writable=True)
    (place / "etc" / "motd").write_text("scribbled")
    (place / "new").mkdir()

    assert (place / "etc" / "motd").read_text() == "scribbled"
    unmount_view(repository, place)
    mount_view(repository, "main", place, writable=True)
    assert (place / "etc" / "motd").read_text() == "hello\n"
    assert not (place / "new").exists()
    unmount_view(repository, place)
    assert list((repository.path / "mounts").iterdir()) == []


def test_a_view_whose_server_was_killed_is_listed_as_dead_and_taken_away(
    repository: Repository, tmp_path: Path
) -> None:
    place = _place(tmp_path)
    mount_view(repository, "main", place)
    os.kill(_server(repository), signal.SIGKILL)

    deadline = time.monotonic() + 10
    while mounted_views(repository)[0].alive and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [view.alive for view in mounted_views(repository)] == [False]
    unmount_view(repository, place)
    assert list(place.iterdir()) == []
    mount_view(repository, "main", place)
    assert (place / "etc" / "motd").read_text() == "hello\n"


def test_a_server_ends_with_its_mount(repository: Repository, tmp_path: Path) -> None:
    place = _place(tmp_path)
    mount_view(repository, "main", place)
    server = _server(repository)
    unmount_view(repository, place)

    deadline = time.monotonic() + 10
    while Path(f"/proc/{server}/cmdline").exists() and Path(f"/proc/{server}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_view_is_refused_where_it_would_hide_something(repository: Repository, tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ViewError, match="needs an empty directory"):
        mount_view(repository, "main", tree)
    with pytest.raises(ViewError, match="there is none at"):
        mount_view(repository, "main", tmp_path / "nowhere")
    with pytest.raises(ViewError, match="there is no view of this repository at"):
        unmount_view(repository, tmp_path)
    place = _place(tmp_path)
    mount_view(repository, "main", place)
    with pytest.raises(ViewError, match="where nothing is mounted"):
        mount_view(repository, "main", place)


def test_a_damaged_file_of_a_view_is_an_error_and_not_other_content(repository: Repository, tmp_path: Path) -> None:
    digest = repository.resolve("main")
    packs = (repository.path / "packs").glob("*.pack")  # every process that stored something made one
    pack = next(path for path in packs if b"hello\n" in path.read_bytes())
    data = bytearray(pack.read_bytes())
    at = data.index(b"hello\n")
    data[at] ^= 1
    pack.write_bytes(data)
    place = _place(tmp_path)
    mount_view(repository, digest.id, place)

    with pytest.raises(OSError, match="Input/output error"):
        (place / "etc" / "motd").read_text()
    assert (place / "etc" / "empty").read_text() == ""


def test_a_commit_with_a_root_image_is_shown_from_it(repository: Repository, tmp_path: Path) -> None:
    bootable = make_bootable_tree(tmp_path / "bootable")
    repository.commit_tree(bootable, "compute", "m")
    repository.update_labels()
    place = _place(tmp_path)
    mount_view(repository, "compute", place)

    assert (place / "etc" / "motd").read_text() == "hello\n"
    assert _kind_of(place) == "squashfs"


@pytest.mark.parametrize("kind", ["squashfs", "fuse"])
def test_views_of_two_commits_at_one_place_are_committed_as_two(
    repository: Repository, tmp_path: Path, kind: str
) -> None:
    """All times in them are one, and inode and device numbers come again."""
    place = _place(tmp_path)
    for content in ("aaaa", "bbbb"):
        bootable = make_bootable_tree(tmp_path / content)
        (bootable / "etc" / "motd").write_text(content)
        commit = repository.commit_tree(bootable, content, "m").commit
        if kind == "squashfs":
            repository.update_labels()
        mount_view(repository, content, place)
        assert _kind_of(place) == kind
        assert repository.commit_tree(place, "copy", "m").commit.tree == commit.tree
        unmount_view(repository, place)


def test_a_commit_with_acls_is_shown_with_them_although_it_has_a_root_image(
    repository: Repository, tmp_path: Path
) -> None:
    bootable = make_bootable_tree(tmp_path / "bootable")
    os.setxattr(bootable / "etc" / "motd", "system.posix_acl_access", ACL)
    commit = repository.commit_tree(bootable, "compute", "m").commit
    repository.update_labels()
    assert repository.root_image(commit.tree) is not None
    place = _place(tmp_path)
    mount_view(repository, "compute", place)

    assert os.getxattr(place / "etc" / "motd", "system.posix_acl_access") == ACL
    assert repository.commit_tree(place, "copy", "m").commit.tree == commit.tree


def test_an_edit_of_a_commit_without_a_root_image_waits_for_none(repository: Repository, tmp_path: Path) -> None:
    root = tmp_path / "small"
    for name in ("usr/bin", "proc", "sys", "dev", "run", "tmp", "etc"):
        (root / name).mkdir(parents=True, exist_ok=True)
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    shutil.copy(busybox, root / "usr/bin/sh")
    (root / "bin").symlink_to("usr/bin")
    (root / "etc" / "motd").write_text("hello\n")
    repository.commit_tree(root, "plain", "start")

    script = "read word < /etc/motd; set -- /proc/$$/fd/*; echo $word $# > /etc/motd"
    command = [sys.executable, "-m", "koguma", "image", "--repo", str(repository.path), "edit", "plain"]
    held = [os.dup(0) for _ in range(12)]  # the view's own gets a number of two digits
    subprocess.run([*command, "--", "/bin/sh", "-c", script], check=True, stdin=subprocess.DEVNULL, pass_fds=held)
    for descriptor in held:
        os.close(descriptor)
    assert not (repository.path / "cache" / "images").exists()
    commit_edit(repository, "plain", "m")
    assert repository.resolve("plain").tree != repository.resolve("plain~1").tree
    assert [file.path for file in repository.diff("plain~1", "plain").files] == [b"etc/motd"]
    repository.checkout("plain", tmp_path / "out")
    word, descriptors = (tmp_path / "out" / "etc" / "motd").read_text().split()
    assert word == "hello"
    # Standard ones, that of the listing and the edit's lock: what serves the view is not passed on.
    assert int(descriptors) <= 5
    with pytest.raises(EditError, match="no pending edit"):
        commit_edit(repository, "plain", "again")


def test_the_command_line_mounts_lists_and_unmounts(repository: Repository, tmp_path: Path) -> None:
    place = _place(tmp_path)

    def image(*words: str) -> str:
        command = [sys.executable, "-m", "koguma", "image", "--repo", str(repository.path), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert image("mount", "main", str(place)).strip() == repository.resolve("main").id
    assert image("mount", "--list").split()[:2] == [str(place), repository.resolve("main").short_id]
    image("umount", str(place))
    assert image("mount", "--list", "--json").strip() == "[]"


def _server(repository: Repository) -> int:
    """The process id of the one that serves a view of this repository."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"koguma.images.viewfs" in words and os.fsencode(repository.path) in words:
            return int(folder.name)
    raise AssertionError("no process serves a view of this repository")
