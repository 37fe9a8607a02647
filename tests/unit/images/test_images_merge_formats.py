"""Files that merge by entry: dpkg's and apt's databases, accounts, lists, logs, alternatives; and text."""

from __future__ import annotations

import pytest

from koguma.images.merging.accounts import merge_accounts, merge_subordinate_ids
from koguma.images.merging.alternatives import merge_alternatives, parse
from koguma.images.merging.conflicts import Conflict, Problem
from koguma.images.merging.depends import broken_dependencies
from koguma.images.merging.keyed import merge_orders
from koguma.images.merging.lists import merge_diversions, merge_line_set, merge_log, merge_md5sums
from koguma.images.merging.rules import rule_for
from koguma.images.merging.stanzas import merge_debconf, merge_dpkg_status, merge_extended_states
from koguma.images.merging.text import has_markers, merge_text


def _package(name: str, version: str = "1", state: str = "install ok installed", **fields: str) -> bytes:
    lines = [f"Package: {name}", f"Status: {state}", "Architecture: amd64", f"Version: {version}"]
    lines += [f"{key}:{value if value.startswith(chr(10)) else ' ' + value}" for key, value in fields.items()]
    return ("\n".join(lines) + "\nDescription: x\n more\n .\n end\n\n").encode()


def _told(content: object) -> list[tuple[str, str, str, str]]:
    disagreements = content.disagreements  # type: ignore[attr-defined]
    return [(item.problem.value, item.subject, item.ours, item.theirs) for item in disagreements]


def test_packages_that_both_sides_installed_stand_in_dpkgs_order() -> None:
    base = _package("bash") + _package("zsh")
    ours = _package("bash") + _package("nginx") + _package("zsh")
    theirs = _package("bash") + _package("vim") + _package("zsh")

    merged = merge_dpkg_status(base, ours, theirs)

    assert merged.data == _package("bash") + _package("nginx") + _package("vim") + _package("zsh")
    assert merge_dpkg_status(base, theirs, ours).data == merged.data
    assert merged.disagreements == ()


def test_a_package_that_one_side_upgraded_and_one_that_the_other_removed_are_both_so() -> None:
    base = _package("bash") + _package("gone") + _package("zsh")
    ours = _package("bash", "2") + _package("gone") + _package("zsh")
    theirs = _package("bash") + _package("zsh")

    merged = merge_dpkg_status(base, ours, theirs)

    assert merged.data == _package("bash", "2") + _package("zsh")
    assert merged.disagreements == ()


def test_one_package_in_two_versions_is_a_conflict_that_keeps_ours_whole() -> None:
    base, ours, theirs = _package("bash"), _package("bash", "2", Depends="a"), _package("bash", "3", Depends="b")

    merged = merge_dpkg_status(base, ours, theirs)

    assert merged.data == ours
    assert _told(merged) == [("package", "bash:amd64", "has 2 installed", "has 3 installed")]


def test_a_package_upgraded_here_and_removed_there_is_a_conflict() -> None:
    removed = _package("bash", "1", "deinstall ok config-files")

    assert _told(merge_dpkg_status(_package("bash"), _package("bash", "2"), removed)) == [
        ("package", "bash:amd64", "has 2 installed", "has 1 config-files")
    ]
    assert _told(merge_dpkg_status(_package("bash"), b"", _package("bash", "2"))) == [
        ("package", "bash:amd64", "removed it", "changed it")
    ]


def test_fields_of_one_package_merge_by_themselves() -> None:
    base = _package("a", Conffiles="\n /etc/a 1\n /etc/b 1", Section="x")
    ours = _package("a", Conffiles="\n /etc/a 2\n /etc/b 1", Section="x", state="hold ok installed")
    theirs = _package("a", Conffiles="\n /etc/a 1\n /etc/b 2", Section="y")

    merged = merge_dpkg_status(base, ours, theirs)

    assert merged.data == _package("a", Conffiles="\n /etc/a 2\n /etc/b 2", Section="y", state="hold ok installed")
    assert merged.disagreements == ()


def test_a_status_file_that_is_none_is_not_merged_by_stanza() -> None:
    with pytest.raises(ValueError, match="Name: value"):
        merge_dpkg_status(b"", b"what is this\n", _package("a"))
    with pytest.raises(ValueError, match="of its own"):
        merge_dpkg_status(b"", _package("a") + _package("a"), _package("a", "2"))


def test_what_apt_installed_by_itself_is_the_union_of_both() -> None:
    one, two = (
        b"Package: a\nArchitecture: amd64\nAuto-Installed: 1\n\n",
        b"Package: b\nArchitecture: amd64\nAuto-Installed: 1\n\n",
    )

    assert merge_extended_states(None, one, two).data == one + two


def test_owners_of_a_debconf_template_are_those_of_both_sides() -> None:
    entry = "Name: x/y\nTemplate: x/y\nOwners: {}\n\n"

    merged = merge_debconf(entry.format("a").encode(), entry.format("a, b").encode(), entry.format("a, c").encode())

    assert merged.data == entry.format("a, b, c").encode()
    assert merged.disagreements == ()


def test_users_of_both_sides_are_kept_in_order_of_their_ids() -> None:
    base = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
    ours, theirs = base + b"zoe:x:1001:1001::/:/bin/sh\n", base + b"adam:x:1002:1002::/:/bin/sh\n"

    merged = merge_accounts(b"passwd", base, ours, theirs)

    assert merged.data == base + b"zoe:x:1001:1001::/:/bin/sh\nadam:x:1002:1002::/:/bin/sh\n"
    assert merge_accounts(b"passwd", base, theirs, ours).data == merged.data
    assert merged.disagreements == ()


def test_one_uid_for_two_users_is_a_conflict_that_says_so() -> None:
    base = b"root:x:0:0:root:/root:/bin/sh\n"
    ours, theirs = base + b"sshd:x:101:65534::/:/bin/sh\n", base + b"nginx:x:101:102::/:/bin/sh\n"

    merged = merge_accounts(b"passwd", base, ours, theirs)

    assert _told(merged) == [("id", "uid 101", "gave it to sshd", "gave it to nginx")]
    assert sorted(merged.data.splitlines()) == sorted({*ours.splitlines(), *theirs.splitlines()})


def test_names_that_shared_a_uid_before_are_nobodys_conflict() -> None:
    base = b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\n"

    assert merge_accounts(b"passwd", base, base + b"a:x:5:5::/:/\n", base + b"b:x:6:6::/:/\n").disagreements == ()


def test_members_that_both_sides_added_to_a_group_are_all_in_it() -> None:
    merged = merge_accounts(b"group", b"sudo:x:27:a,b\n", b"sudo:x:27:a,b,c\n", b"sudo:x:27:b,d\n")

    assert merged.data == b"sudo:x:27:b,c,d\n"


def test_two_passwords_for_one_user_are_a_conflict_and_two_days_are_not() -> None:
    base, ours, theirs = b"a:1:10::::::\n", b"a:1:12::::::\n", b"a:1:11::::::\n"

    assert merge_accounts(b"shadow", base, ours, theirs).data == ours
    changed = merge_accounts(b"shadow", base, b"a:2:12::::::\n", b"a:3:11::::::\n")
    assert (changed.data, [item[0] for item in _told(changed)]) == (b"a:2:12::::::\n", ["record"])


def test_one_range_of_subordinate_ids_for_two_users_is_a_conflict() -> None:
    merged = merge_subordinate_ids(b"", b"a:100000:65536\n", b"b:165535:65536\n")

    assert merged.data == b"a:100000:65536\nb:165535:65536\n"
    assert [item[0] for item in _told(merged)] == ["id"]
    assert merge_subordinate_ids(b"", b"a:100000:65536\n", b"b:165536:65536\n").disagreements == ()


def test_lines_that_both_sides_added_to_a_list_are_in_it_and_removed_ones_are_not() -> None:
    assert merge_line_set(b"/a\n/b\n/c\n", b"/a\n/b\n/c\n/x\n", b"/b\n/c\n/y\n").data == b"/b\n/c\n/x\n/y\n"


def test_diversions_merge_by_record() -> None:
    record = b"/bin/sh\n/bin/sh.distrib\ndash\n"
    vim, tex = b"/v\n/v.d\nvim\n", b"/t\n/t.d\ntex\n"

    assert merge_diversions(record, record + vim, record + tex).data == record + tex + vim
    with pytest.raises(ValueError, match="records of 3 lines"):
        merge_diversions(record, b"/bin/sh\n", record + tex)


def test_digests_of_one_file_that_differ_are_told_with_its_path() -> None:
    merged = merge_md5sums(b"0  usr/a\n", b"1  usr/a\n", b"2  usr/a\n")

    assert (merged.data, _told(merged)) == (b"1  usr/a\n", [("record", "usr/a", "changed it", "changed it")])


def test_a_log_keeps_what_both_sides_added() -> None:
    assert merge_log(b"0\n", b"0\n1\n", b"0\n2\n").data == b"0\n1\n2\n"
    assert merge_log(b"0\n", b"1\n", b"0\n2\n").data == b"1\n"
    assert merge_log(b"0\n", b"0\nno end", b"0\n2\n").data == b"0\nno end\n2\n"
    assert merge_log(b"0", b"0", b"0\n2\n").data == b"0\n2\n"


ALTERNATIVES = b"auto\n/usr/bin/editor\neditor.1.gz\n/usr/share/man/man1/editor.1.gz\n\n"
NANO = b"/bin/nano\n40\n/usr/share/man/man1/nano.1.gz\n"
VIM = b"/usr/bin/vim.basic\n30\n\n"
ED = b"/bin/ed\n-100\n/usr/share/man/man1/ed.1.gz\n"


def test_choices_that_both_sides_added_to_an_alternative_are_in_it_and_the_best_is_chosen() -> None:
    merged = merge_alternatives(
        ALTERNATIVES + ED + b"\n", ALTERNATIVES + ED + VIM + b"\n", ALTERNATIVES + ED + NANO + b"\n"
    )

    assert merged.data == ALTERNATIVES + ED + NANO + VIM + b"\n"
    assert parse(merged.data).targets(b"editor") == {
        b"editor": b"/bin/nano",
        b"editor.1.gz": b"/usr/share/man/man1/nano.1.gz",
    }


@pytest.mark.parametrize("damaged", [b"", b"auto\n/l\n", b"maybe\n/l\n\n\n", b"auto\n/l\n\n/x\nhigh\n\n"])
def test_an_alternative_that_update_alternatives_did_not_write_is_not_merged_by_choice(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        merge_alternatives(None, damaged, ALTERNATIVES + ED + b"\n")


def test_what_one_side_needs_in_a_version_that_the_other_replaced_is_a_conflict() -> None:
    ours = _package("vim-common", "2")
    theirs = _package("vim-common", "1") + _package("vim", "1", Depends="vim-common (= 1), libc6 | bash")
    merged = _package("vim-common", "2") + _package("vim", "1", Depends="vim-common (= 1), libc6 | bash")

    told = broken_dependencies(ours, theirs, merged)

    # That libc6 or bash are missing is so on their side already.
    assert [(item.subject, item.ours, item.theirs) for item in told] == [
        ("vim", "has vim-common 2", "has vim, which needs vim-common (= 1)")
    ]


def test_provided_names_satisfy_and_broken_packages_are_told() -> None:
    provider = _package("exim", Provides="mail-transport-agent, mta (= 3)")
    needs = _package("cron", Depends="mail-transport-agent, mta (>= 2)", Breaks="old (<< 2)")
    old = _package("old", "1")

    assert broken_dependencies(provider, b"", provider + needs) == []
    assert [item.theirs for item in broken_dependencies(old, needs + provider, old + provider + needs)] == [
        "has cron, which breaks old (<< 2)"
    ]


def test_a_package_may_provide_what_it_conflicts_with() -> None:
    itself = _package("exim", Provides="mta", Conflicts="mta")

    assert broken_dependencies(b"", b"", itself) == []
    assert broken_dependencies(itself, b"", itself + _package("postfix", Provides="mta"))[0].subject == "exim"


def test_text_merges_by_lines_with_or_without_a_last_newline() -> None:
    base = b"1\n2\n3\n4\n5"

    assert merge_text(base, b"one\n2\n3\n4\n5", b"1\n2\n3\n4\nfive", ("o", "t")).data == b"one\n2\n3\n4\nfive"
    assert merge_text(base, b"one\n2\n3\n4\n5", b"1\n2\n3\n4\n5\n", ("o", "t")).data == b"one\n2\n3\n4\n5\n"
    assert merge_text(base, b"one\n2\n3\n4\n5", b"1\n2\n3\n4\n5\n6", ("o", "t")).disagreements == ()


def test_lines_that_both_sides_changed_stand_between_markers_with_the_names_of_the_sides() -> None:
    merged = merge_text(b"1\n2\n3\n", b"1\nours\n3\n", b"1\ntheirs\n3", ("ours (a)", "theirs (b)"))

    assert merged.data == b"1\n<<<<<<< ours (a)\nours\n=======\ntheirs\n>>>>>>> theirs (b)\n3\n"
    assert has_markers(merged.data)
    assert not has_markers(b"1\n=======\n2\n")
    assert not has_markers(b">>>>>>> x\n=======\n<<<<<<< x\n")


def test_markers_are_found_in_any_merged_text_however_long_and_with_nuls() -> None:
    markers = b"<<<<<<< ours\n1\n=======\n2\n>>>>>>> theirs\n"

    assert has_markers(b"\0\n" + markers)
    assert has_markers(b"a line\n" * 2_000_000 + markers)


def test_equal_changes_of_both_sides_are_no_conflict() -> None:
    assert merge_text(b"1\n2\n3\n", b"1\nx\n3\n", b"1\nx\n3\n4\n", ("o", "t")).data == b"1\nx\n3\n4\n"


def test_orders_follow_both_sides_and_a_side_that_reordered() -> None:
    assert merge_orders([1, 2, 3], [1, 9, 2, 3], [1, 2, 8, 3]) == [1, 9, 2, 8, 3]
    assert merge_orders([1, 2], [1, 9, 2], [1, 8, 2]) == merge_orders([1, 2], [1, 8, 2], [1, 9, 2]) == [1, 8, 9, 2]
    assert merge_orders([1, 2, 3], [3, 2, 1], [1, 2, 3, 4]) == [3, 4, 2, 1]


def test_a_command_that_makes_a_file_again_names_only_what_a_shell_takes_literally() -> None:
    def command(path: bytes) -> str:
        rule = rule_for(path)
        return rule.command(path) if rule else ""

    assert command(b"etc/ld.so.cache") == "ldconfig"
    assert command(b"boot/initrd.img-6.1.0-9-amd64") == "update-initramfs -u -k 6.1.0-9-amd64"
    assert command(b"usr/lib/modules/6.1.0-9-amd64/modules.dep.bin") == "depmod 6.1.0-9-amd64"
    assert command(b"boot/initrd.img-$(reboot)") == command(b"boot/initrd.img-a b") == ""


def test_a_conflict_is_written_down_and_read_as_it_was() -> None:
    conflict = Conflict(b"etc/\xff\n", Problem.TEXT, "changed lines", "changed lines", "x", "ldconfig", resolved=True)

    assert Conflict.from_json(conflict.to_json()) == conflict
