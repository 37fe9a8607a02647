from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from koguma.cli.image.showing import reboot_document, reboot_lines
from koguma.images import accounts
from koguma.images.diff import FileChange, Move
from koguma.images.reboot import Reboot, privilege_changes
from koguma.images.repository import Repository
from koguma.images.trees import FILE, Entry
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


def meaning_of(repository: Repository, tree: Path, change: Callable[[Path], object]) -> Reboot:
    """What it means when this is done to a tree."""
    repository.commit_tree(tree, "old", "m")
    change(tree)
    repository.commit_tree(tree, "new", "m")
    return repository.reboot("old", "new")


def test_changed_programs_libraries_and_privileges_are_told(repository: Repository, tmp_path: Path) -> None:
    programs: dict[str, str | bytes] = {"usr/sbin/sshd": "one", "usr/bin/tool": "1", "usr/bin/was": "1"}
    tree = make_tree(tmp_path / "tree", {**programs, "usr/lib/libc.so.6": "one", "usr/share/data": "one"})
    for name in programs:
        (tree / name).chmod(0o4755 if name == "usr/bin/was" else 0o755)

    def change(tree: Path) -> None:
        make_tree(tree, {"usr/sbin/sshd": "two", "usr/lib/libc.so.6": "two", "usr/share/data": "two"})
        (tree / "usr/bin/tool").chmod(0o6755)
        (tree / "usr/bin/was").chmod(0o755)

    meaning = meaning_of(repository, tree, change)

    assert not meaning.nothing
    assert reboot_lines(meaning) == [
        "setgid        /usr/bin/tool gained",
        "setuid        /usr/bin/tool gained",
        "setuid        /usr/bin/was lost",
        "program       /usr/bin/tool changed",
        "program       /usr/bin/was changed",
        "program       /usr/sbin/sshd changed",
        "library       /usr/lib/libc.so.6 changed",
        "other files   1 changed",
    ]
    document = reboot_document(meaning)
    assert document["privileges"][2] == {"path": "/usr/bin/was", "privilege": "setuid", "change": "lost"}
    assert document["libraries"] == [{"path": "/usr/lib/libc.so.6", "change": "changed"}]
    assert (len(document["programs"]), document["other_files"]) == (3, 1)


def test_many_programs_are_counted(repository: Repository, tmp_path: Path) -> None:
    def change(tree: Path) -> None:
        for number in range(30):
            make_tree(tree, {f"bin/{number}": "x"}).joinpath(f"bin/{number}").chmod(0o755)

    meaning = meaning_of(repository, make_tree(tmp_path / "tree", {}), change)

    assert reboot_lines(meaning) == ["programs      30 files", "root          +30 bytes unpacked"]


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: make_tree(tree, {"opt/file": "two"}),
        lambda tree: (tree / "opt/file").chmod(0o600),
        lambda tree: (tree / "opt").chmod(0o777),
        lambda tree: tree.chmod(0o700),
        lambda tree: (tree / "opt/folder").mkdir(),
        lambda tree: (tree / "opt/link").symlink_to("elsewhere"),
        lambda tree: (tree / "etc/sudoers.d").chmod(0o777),
        lambda tree: (tree / "etc/shadow").chmod(0o666),
        lambda tree: make_tree(tree, {"etc/passwd-": "two"}),
        lambda tree: make_tree(tree, {"etc/passwd": "root:x:0:0::/root:/bin/sh\n\n"}),
        lambda tree: make_tree(tree, {"etc/passwd": "no line of an account\nroot:x:0:0::/root:/bin/sh\n"}),
        lambda tree: make_tree(tree, {"etc/shadow": "root:*:19001:0:99999:7:::\n"}),
        lambda tree: (tree / "lib/modules").chmod(0o700),
        lambda tree: (tree / "boot/vmlinuz-6.1.0-9-amd64").chmod(0o600),
        lambda tree: (tree / "boot/initrd.img-6.1.0-9-amd64").unlink(),
        lambda tree: (tree / UNITS / "README").write_text("two"),
        lambda tree: (tree / ETC / "a.wants").mkdir(parents=True),
    ],
)
def test_no_change_means_nothing(repository: Repository, tmp_path: Path, change: Callable[[Path], object]) -> None:
    tree = make_bootable_tree(tmp_path / "tree")
    make_tree(tree, {"opt/file": "one", "etc/passwd": "root:x:0:0::/root:/bin/sh\n", f"{UNITS}/README": "one"})
    make_tree(tree, {"etc/shadow": "root:*:19000:0:99999:7:::\n", "etc/passwd-": "one", "lib/modules/a": "1"})
    (tree / "etc/sudoers.d").mkdir()

    meaning = meaning_of(repository, tree, change)

    assert not meaning.nothing
    assert reboot_lines(meaning) != ["nothing that a machine would notice"]


HASH, OTHER_HASH = "$y$j9T$abc$def", "$6$ghi$jkl"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("root:*:1", f"root:{HASH}:2", ["user root password set"]),
        (f"root:{HASH}:1", f"root:{OTHER_HASH}:2", ["user root password changed"]),
        (f"root:{HASH}:1", f"root:!{HASH}:1", ["user root password locked"]),
        (f"root:{HASH}:1", "root::1", ["user root password emptied"]),
        ("root::1", "root:*:1", ["user root password locked"]),
        (f"root:!{HASH}:1", f"root:!{OTHER_HASH}:1", ["user root password changed, still locked"]),
        (f"root:{HASH}:1:0:99999:7:::", f"root:{HASH}:1:0:90:7:::", ["user root password aging changed"]),
        (f"root:{HASH}:1:0:90:7:::", f"root:{HASH}:2:0:90:7:::", ["user root password aging changed"]),
        (f"root:{HASH}:1:0:99999:7:::", f"root:{HASH}:0:0:99999:7:::", ["user root password aging changed"]),
        ("root:*:1\nwww:*:1", f"root:{HASH}:1\nwww::1", ["user root password set", "user www password emptied"]),
        ("root:*:1\n", "root:*:1\nroot::1", ["user root password emptied"]),
        ("root:*:1", "", ["user root password changed, still locked"]),
    ],
)
def test_a_changed_shadow_is_told_by_account_and_without_hashes(
    repository: Repository, tmp_path: Path, before: str, after: str, told: list[str]
) -> None:
    tree = make_tree(tmp_path / "tree", {"etc/passwd": "root:x:0:0\nwww:x:33:33\n", "etc/shadow": before})

    meaning = meaning_of(repository, tree, lambda tree: make_tree(tree, {"etc/shadow": after}))

    assert [" ".join(item) for item in meaning.accounts] == told
    assert meaning.configuration == ()
    assert HASH[-4:] not in "".join(reboot_lines(meaning)) + json.dumps(reboot_document(meaning))


def test_accounts_are_told_from_all_their_lists(repository: Repository, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"etc/passwd": "root:x:0:0\nann:x:9:9\n", "etc/shadow": "root:*:1\nann:*:1\n"}
    files |= {"etc/group": "wheel:x:1:\n", "etc/gshadow": "wheel:!::\n", "etc/subuid": "ann:1:1\n"}
    tree = make_tree(tmp_path / "tree", files)
    changed: dict[str, str | bytes] = {"etc/passwd": "root::0:0\nann:x:9:9\nben:x:7:7\n"}
    changed |= {"etc/shadow": f"root:*:1\nann:*:1\nben:{HASH}:1\n", "etc/subuid": "ann:1:1\nann:7:1\n"}
    changed |= {"etc/gshadow": f"wheel:{HASH}::ann\n"}

    meaning = meaning_of(repository, tree, lambda tree: make_tree(tree, changed))

    assert [" ".join(item) for item in meaning.accounts] == [
        "user ann subordinate ids changed",
        "user ben added",
        "user ben password set",
        "user root password emptied",
        "group wheel changed",
        "group wheel password set",
    ]


def test_a_list_of_accounts_too_large_to_be_honest_is_told_as_a_file(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "_BYTES_MAX", 100)
    tree = make_tree(tmp_path / "tree", {"etc/passwd": "root:x:0:0\n", "etc/group": "root:x:0:\n"})
    changed: dict[str, str | bytes] = {
        "etc/passwd": "a:x:1:1\n" * 20,
        "etc/group": "wheel:x:1:\n",
        "etc/subuid": "x:1:1",
    }

    meaning = meaning_of(repository, tree, lambda tree: make_tree(tree, changed))

    assert [" ".join(item) for item in meaning.accounts] == ["group root removed", "group wheel added"]
    assert [item.path for item in meaning.configuration] == [b"etc/passwd", b"etc/subuid"]


def test_subordinate_ids_of_users_from_elsewhere_are_told(repository: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {"etc/subuid": "ann:1:1\n"})

    meaning = meaning_of(repository, tree, lambda tree: make_tree(tree, {"etc/subuid": "ann:1:2\n"}))

    assert [" ".join(item) for item in meaning.accounts] == ["user ann subordinate ids changed"]


def test_capabilities_and_owners_of_privileged_files_are_told() -> None:
    plain = Entry(b"ping", FILE, 0o755, 0, 0)
    capable = plain._replace(xattrs=((b"security.capability", b"1"), (b"security.selinux", b"x")))
    other = plain._replace(xattrs=((b"security.capability", b"2"),))
    labelled = plain._replace(xattrs=((b"security.selinux", b"x"),))
    owned = [plain._replace(mode=0o4755, uid=uid) for uid in (9, 0)]

    def told(old: Entry | None, new: Entry | None) -> list[tuple[str, str]]:
        item = FileChange(b"bin/ping", "changed", "file", (), 0, 0, old, new)
        return [(found.privilege, found.change) for found in privilege_changes([item])]

    assert told(plain, capable) == [("capabilities", "gained")]
    assert told(capable, other) == [("capabilities", "changed")]
    assert told(capable, None) == [("capabilities", "lost")]
    assert told(owned[0], owned[1]) == [("setuid", "changed")]
    assert told(plain, labelled) == told(owned[0], owned[0]) == []


def test_names_of_accounts_and_units_do_nothing_to_a_terminal(repository: Repository, tmp_path: Path) -> None:
    changed: dict[str, str | bytes] = {"etc/passwd": "a\x1b[2J:x:0:0\n", f"{UNITS}/b\x1b[2J.service": "1"}

    meaning = meaning_of(repository, make_tree(tmp_path / "tree", {}), lambda tree: make_tree(tree, changed))

    assert "user          a\\x1b[2J added" in reboot_lines(meaning)
    assert "service       b\\x1b[2J.service added" in reboot_lines(meaning)


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
