"""Which extended attributes of an archive a file can have on Linux.

Archives are made elsewhere, too: macOS gives every file `com.apple.provenance`, and no checkout could write that.
"""

from __future__ import annotations

from koguma.images.importing.paxheaders import ACL_TEXT
from koguma.images.trees import DIRECTORY, FILE, OVERLAY_XATTRS, SYMLINK, Xattrs

_OF_ALL = (b"security.", b"trusted.")
_OF_CONTENT = b"user."
_ACL, _DEFAULT_ACL = b"system.posix_acl_access", b"system.posix_acl_default"


def kept(xattrs: Xattrs, kind: int) -> Xattrs:
    """Those of a file of this kind that a tree is to have: all that can be set, without overlayfs' own."""
    return tuple(pair for pair in xattrs if _can_have(kind, pair[0]) and not pair[0].startswith(OVERLAY_XATTRS))


def left_out(xattrs: Xattrs, kind: int) -> list[bytes]:
    """The names of those that the system has no place for."""
    return [name.removeprefix(ACL_TEXT) for name, _ in xattrs if not _can_have(kind, name)]


def _can_have(kind: int, name: bytes) -> bool:
    plain = name.removeprefix(ACL_TEXT)
    if plain == _ACL:
        return kind != SYMLINK
    if plain == _DEFAULT_ACL:
        return kind == DIRECTORY
    if plain.startswith(_OF_CONTENT):
        return kind in (FILE, DIRECTORY) and plain != _OF_CONTENT
    return plain.startswith(_OF_ALL) and plain not in _OF_ALL
