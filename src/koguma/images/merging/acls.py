"""An access ACL holds a copy of the permission bits: what `chmod` does to a file that has one.

The attribute `system.posix_acl_access` is a version and, little-endian, 2 bytes tag, 2 bytes permissions, 4 bytes id
per entry (the kernel's include/uapi/linux/posix_acl_xattr.h).
"""

from __future__ import annotations

import struct

from koguma.images.trees import Entry

ACCESS_ACL = b"system.posix_acl_access"

_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_VERSION = 2
_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20


def follow_mode(entry: Entry) -> Entry:
    """The entry with what its access ACL, if it has one, says of the mode set to its mode, as chmod does it.

    An ACL that cannot be read stays as it is.
    """
    xattrs = dict(entry.xattrs)
    acl = xattrs.get(ACCESS_ACL, b"")
    if not acl or len(acl) % _ENTRY.size != _HEADER.size or _HEADER.unpack_from(acl)[0] != _VERSION:
        return entry
    items = list(_ENTRY.iter_unpack(acl[_HEADER.size :]))
    group = _MASK if any(tag == _MASK for tag, _, _ in items) else _GROUP_OBJ
    bits = {_USER_OBJ: entry.mode >> 6 & 7, group: entry.mode >> 3 & 7, _OTHER: entry.mode & 7}
    parts = [_ENTRY.pack(tag, bits.get(tag, permissions), user) for tag, permissions, user in items]
    xattrs[ACCESS_ACL] = acl[: _HEADER.size] + b"".join(parts)
    return entry._replace(xattrs=tuple(sorted(xattrs.items())))
