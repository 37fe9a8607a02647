from __future__ import annotations

from pathlib import Path

from koguma.images.diff import Move
from koguma.images.repository import Repository
from tests.unit.images.making import make_bootable_tree, make_tree

UNITS = "usr/lib/systemd/system"
ETC = "etc/systemd/system"


def test_a_reboot_tells_kernel_services_users_and_configuration(repository: Repository, tmp_path: Path) -> None:
    old = make_bootable_tree(tmp_path / "old", version="6.1.0-9-amd64")
    make_tree(old, {"etc/passwd": "root:x:0:0\nold:x:9:9\n", f"{UNITS}/ssh.service": "1", f"{UNITS}/cron.service": "1"})
    make_tree(old, {"lib/modules/6.1.0-9-amd64/a.ko": "1", f"{UNITS}/gone.timer": "1", f"{UNITS}/quiet.service": "1"})
    (old / ETC / "timers.target.wants").mkdir(parents=True)
    (old / ETC / "timers.target.wants" / "gone.timer").symlink_to(f"/{UNITS}/gone.timer")
    repository.commit_tree(old, "old", "m")
    new = make_bootable_tree(tmp_path / "new", version="6.1.0-10-amd64")
    make_tree(new, {"etc/passwd": "root:x:0:0:changed\nwww:x:33:33\n", f"{UNITS}/ssh.service": "2"})
    make_tree(new, {f"{UNITS}/nginx.service": "1", f"{ETC}/cron.service.d/more.conf": "x", "etc/hosts": "::1 x\n"})
    make_tree(new, {"lib/modules/6.1.0-10-amd64/a.ko": "12", f"{UNITS}/cron.service": "1"})
    make_tree(new, {f"{UNITS}/quiet.service": "1"})
    (new / ETC / "multi-user.target.wants").mkdir()
    (new / ETC / "multi-user.target.wants" / "nginx.service").symlink_to(f"/{UNITS}/nginx.service")
    (new / ETC / "quiet.service").symlink_to("/dev/null")
    repository.commit_tree(new, "new", "m")

    meaning = repository.reboot("old", "new")

    assert (meaning.kernel, meaning.kernel_changed) == (("6.1.0-9-amd64", "6.1.0-10-amd64"), True)
    assert meaning.initramfs_changed
    assert (meaning.modules, meaning.firmware) == (2, 0)
    assert [(item.unit, item.change) for item in meaning.units] == [
        ("cron.service", "changed"),
        ("gone.timer", "removed"),
        ("nginx.service", "added"),
        ("nginx.service", "enabled"),
        ("quiet.service", "masked"),
        ("ssh.service", "changed"),
    ]
    assert [(item.kind, item.name, item.change) for item in meaning.accounts] == [
        ("user", "old", "removed"),
        ("user", "root", "changed"),
        ("user", "www", "added"),
    ]
    assert [item.path for item in meaning.configuration] == [b"etc/hosts"]
    assert meaning.grown_bytes == sum(item.new_size - item.old_size for item in repository.diff("old", "new").files)
    assert meaning.grown_image_bytes is None


def test_a_reboot_tells_how_much_more_memory_the_image_takes(repository: Repository, tmp_path: Path) -> None:
    repository.commit_tree(make_bootable_tree(tmp_path / "old"), "old", "m")
    new = make_bootable_tree(tmp_path / "new")
    make_tree(new, {"more": "".join(map(str, range(40_000)))})
    repository.commit_tree(new, "new", "m")
    repository.update_labels()
    sizes = [
        (repository.path / "boot" / "artifacts" / repository.resolve(name).id / "root.squashfs").stat().st_size
        for name in ("old", "new")
    ]

    assert repository.reboot("old", "new").grown_image_bytes == sizes[1] - sizes[0] > 0


def test_a_reboot_into_the_same_tree_means_nothing(repository: Repository, tmp_path: Path) -> None:
    repository.commit_tree(make_bootable_tree(tmp_path / "old"), "main", "m")

    assert repository.reboot("main", "main").nothing


def test_a_file_that_moved_is_known_by_its_content(repository: Repository, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"a/x": "content", "a/y": "other", "lone": "alone", "empty": "", "b/keep": "1"}
    repository.commit_tree(make_tree(tmp_path / "old", files), "old", "m")
    moved: dict[str, str | bytes] = {
        "b/c/x": "content",
        "b/c/y": "other",
        "b/lone2": "alone",
        "empty2": "",
        "b/keep": "1",
    }
    repository.commit_tree(make_tree(tmp_path / "new", moved), "new", "m")

    diff = repository.diff("old", "new")

    assert diff.moves == (Move(b"a", b"b/c", "directory"), Move(b"lone", b"b/lone2", "file"))
    assert {item.path for item in diff.files if item.change == "removed"} == {b"a", b"a/x", b"a/y", b"lone", b"empty"}
