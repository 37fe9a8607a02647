"""Which files merge how: the table of what a Debian, or any, root keeps in databases, caches and logs.

A path that no rule names merges by lines when it is text and is a conflict otherwise. To add a format: a function
`(base, ours, theirs) -> Content` in a module of this package, and a line here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from koguma.images.merging import accounts, alternatives, lists, stanzas
from koguma.images.merging.conflicts import Content

MergeContent = Callable[[bytes | None, bytes, bytes], Content]
"""(base, ours, theirs) -> the merged content. Raises ValueError when one of them does not have the format."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a file merges; one of the three is set."""

    pattern: re.Pattern[bytes]
    merge: MergeContent | None = None
    """By entries."""
    keep_ours: str = ""
    """Ours is kept; why that loses nothing."""
    rebuild: str = ""
    """Ours is kept until this shell command, run in the image, has made it again; `{1}` is the pattern's group."""
    backup: bool = False
    """Where the entries disagree ours is kept without asking: the file is a copy of what another one was before."""

    def command(self, path: bytes) -> str:
        found = self.pattern.fullmatch(path)
        groups = found.groups() if found else ()
        return self.rebuild.format("", *(group.decode("utf-8", "backslashreplace") for group in groups))


def rule_for(path: bytes) -> Rule | None:
    """The rule for a path relative to the root."""
    return next((rule for rule in _RULES if rule.pattern.fullmatch(path)), None)


def _by(pattern: bytes, merge: MergeContent, *, backup: bool = False) -> Rule:
    return Rule(re.compile(pattern, re.DOTALL), merge=merge, backup=backup)


def _ours(pattern: bytes, why: str) -> Rule:
    return Rule(re.compile(pattern, re.DOTALL), keep_ours=why)


def _made_by(command: str, *patterns: bytes) -> list[Rule]:
    return [Rule(re.compile(pattern, re.DOTALL), rebuild=command) for pattern in patterns]


_NAME = rb"([A-Za-z0-9._+~-]+)"
"""What may stand in a command: nothing that means something to a shell."""

_RULES = [
    # dpkg and apt
    _by(rb"var/lib/dpkg/(status|available)", stanzas.merge_dpkg_status),
    _by(rb"var/lib/dpkg/status-old", stanzas.merge_dpkg_status, backup=True),
    _by(rb"var/lib/dpkg/info/[^/]+\.(list|triggers|conffiles)", lists.merge_line_set),
    _by(rb"var/lib/dpkg/info/[^/]+\.md5sums", lists.merge_md5sums),
    _by(rb"var/lib/dpkg/diversions", lists.merge_diversions),
    _by(rb"var/lib/dpkg/diversions-old", lists.merge_diversions, backup=True),
    _by(rb"var/lib/dpkg/statoverride", lists.merge_statoverride),
    _by(rb"var/lib/dpkg/statoverride-old", lists.merge_statoverride, backup=True),
    _by(rb"var/lib/dpkg/triggers/Unincorp", lists.merge_first_word),
    _by(rb"var/lib/dpkg/triggers/[^/]+", lists.merge_line_set),
    _by(rb"var/lib/dpkg/arch", lists.merge_line_set),
    _by(alternatives.DATABASE + rb"/[^/]+", alternatives.merge_alternatives),
    _by(rb"var/lib/apt/extended_states", stanzas.merge_extended_states),
    _by(rb"var/cache/debconf/[a-z]+\.dat", stanzas.merge_debconf),
    _by(rb"var/cache/debconf/[a-z]+\.dat-old", stanzas.merge_debconf, backup=True),
    _by(rb"var/lib/ucf/(hashfile|registry)", lists.merge_last_word),
    _by(rb"var/lib/ucf/(hashfile|registry)\.[0-9]+", lists.merge_last_word, backup=True),
    # Accounts
    *(
        _by(b"etc/%b" % name, partial(accounts.merge_accounts, name))
        for name in (b"passwd", b"group", b"shadow", b"gshadow")
    ),
    *(
        _by(b"etc/%b-" % name, partial(accounts.merge_accounts, name), backup=True)
        for name in (b"passwd", b"group", b"shadow", b"gshadow")
    ),
    _by(rb"etc/sub[ug]id", accounts.merge_subordinate_ids),
    _by(rb"etc/sub[ug]id-", accounts.merge_subordinate_ids, backup=True),
    # Lists that scripts of packages add their lines to
    _by(rb"etc/shells|var/lib/shells\.state|var/lib/pam/seen", lists.merge_line_set),
    _by(rb"var/lib/systemd/deb-systemd-(user-)?helper-(enabled|masked)/[^/]+\.dsh-also", lists.merge_line_set),
    _by(rb"etc/apk/world", lists.merge_line_set),
    # Made from other files by a program of the image
    *_made_by("ldconfig", rb"etc/ld\.so\.cache", rb"var/cache/ldconfig/aux-cache"),
    *_made_by(
        "depmod {1}",
        rb"(?:usr/)?lib/modules/" + _NAME + rb"/modules\.(?:dep|alias|symbols|builtin|builtin\.alias)\.bin",
        rb"(?:usr/)?lib/modules/" + _NAME + rb"/modules\.(?:dep|alias|softdep|symbols|devname|weakdep)",
    ),
    *_made_by("update-initramfs -u -k {1}", rb"boot/initrd\.img-" + _NAME),
    *_made_by("update-info-dir", rb"usr/share/info/dir(?:\.gz|\.old)?"),
    *_made_by(
        "update-mime-database /usr/share/mime",
        rb"usr/share/mime/(?:XMLnamespaces|aliases|generic-icons|globs2?|icons|magic|mime\.cache|subclasses|treemagic|types|version)",
        rb"usr/share/mime/(?:application|audio|font|image|inode|message|model|multipart|text|video|x-[a-z-]+)/[^/]+\.xml",
    ),
    *_made_by("update-desktop-database", rb"usr/share/applications/mimeinfo\.cache"),
    *_made_by("update-mime", rb"etc/mailcap"),
    *_made_by(
        "$(command -v glib-compile-schemas || ls /usr/lib/*/glib-2.0/glib-compile-schemas) /usr/share/glib-2.0/schemas",
        rb"usr/share/glib-2\.0/schemas/gschemas\.compiled",
    ),
    *_made_by(
        "gtk-update-icon-cache --force /usr/share/icons/{1}", rb"usr/share/icons/" + _NAME + rb"/icon-theme\.cache"
    ),
    *_made_by(
        "/usr/lib/{1}/gdk-pixbuf-2.0/gdk-pixbuf-query-loaders --update-cache",
        rb"usr/lib/" + _NAME + rb"/gdk-pixbuf-2\.0/[^/]+/loaders\.cache",
    ),
    *_made_by(
        "/usr/lib/{1}/glib-2.0/gio-querymodules /usr/lib/{1}/gio/modules",
        rb"usr/lib/" + _NAME + rb"/gio/modules/giomodule\.cache",
    ),
    *_made_by("update-ca-certificates", rb"etc/ssl/certs/ca-certificates\.crt"),
    *_made_by("journalctl --update-catalog", rb"var/lib/systemd/catalog/database"),
    *_made_by("systemd-hwdb update", rb"etc/udev/hwdb\.bin"),
    *_made_by("systemd-hwdb update --usr", rb"usr/lib/udev/hwdb\.bin"),
    *_made_by("locale-gen", rb"usr/lib/locale/locale-archive"),
    *_made_by("update-catalog --update-super", rb"etc/sgml/catalog"),
    # What nobody misses
    _by(
        rb"var/log/(apt/(history|term)\.log|(dpkg|alternatives|fontconfig|bootstrap)\.log|[^/]+\.log)", lists.merge_log
    ),
    _ours(rb"var/log/.+", "a log of the image's making"),
    _ours(rb"var/cache/.+", "a cache, which is filled again when it is needed"),
    _ours(rb"etc/machine-id|var/lib/dbus/machine-id", "an identity, of which an image has one"),
    _ours(rb"etc/ssh/ssh_host_[a-z0-9]+_key(\.pub)?", "an identity, of which an image has one"),
    _ours(
        rb"etc/ssl/(certs/ssl-cert-snakeoil\.pem|private/ssl-cert-snakeoil\.key)",
        "an identity, of which an image has one",
    ),
    _ours(
        rb"var/lib/(systemd/random-seed|urandom/random-seed|mlocate/mlocate\.db|plocate/plocate\.db)",
        "made again by the machine",
    ),
    _ours(rb"var/lib/(man-db|apt)/(auto-update|periodic/.+)", "a time stamp"),
    _ours(rb"var/lib/dpkg/(lock|lock-frontend|triggers/Lock)", "an empty file"),
    _ours(rb"usr/share/vim/addons/doc/tags", "an index of help texts"),
    _ours(rb".+\.pyc", "Python compiles a source anew when its compiled file does not fit"),
]
