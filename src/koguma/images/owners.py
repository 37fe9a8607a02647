"""Which installed package a path belongs to, by what dpkg, rpm and apk wrote down about it."""

from __future__ import annotations

from koguma.images.debian import read_list, read_text
from koguma.images.trees import DIRECTORY, FILE, Entry, Read, decode, resolve

_INFO = b"var/lib/dpkg/info"


def owners(read: Read, root: Entry, path: bytes) -> tuple[str, ...]:
    """The packages that brought a path, several for a directory; none for what an edit or a build made."""
    names = _names(path)
    return tuple(sorted({*_dpkg(read, root, names), *_rpm(read, root, names), *_apk(read, root, names)}))


def _names(path: bytes) -> set[bytes]:
    """Names the path may be known by: /bin/sh of a package is /usr/bin/sh in a merged tree."""
    path = path.strip(b"/")
    return {path, path.removeprefix(b"usr/")}


def _dpkg(read: Read, root: Entry, names: set[bytes]) -> list[str]:
    info = resolve(read, root, _INFO)
    if info is None or info[1].kind != DIRECTORY:
        return []
    wanted = [b"\n/" + name + b"\n" for name in names]
    found = []
    for entry in decode(read(info[1].digest)):
        if entry.kind == FILE and entry.name.endswith(b".list") and entry.size:
            content = b"\n" + read_list(read, entry, _INFO + b"/" + entry.name)
            if any(line in content for line in wanted):
                found.append(entry.name.removesuffix(b".list").decode())
    return found


def _rpm(read: Read, root: Entry, names: set[bytes]) -> list[str]:
    from koguma.images.rpm import headers  # noqa: PLC0415 - only trees with rpm need it

    return [header.label for header in headers(read, root) if not names.isdisjoint(header.files())]


def _apk(read: Read, root: Entry, names: set[bytes]) -> list[str]:
    from koguma.images.apk import DATABASES  # noqa: PLC0415 - only trees with apk need it

    found = []
    wanted = {name.decode(errors="replace") for name in names}
    for database in DATABASES:
        package = ""
        inside: set[str] = set()
        for line in read_text(read, root, database).splitlines():
            kind, _, value = line.partition(":")
            if kind == "P":
                package = value
            elif kind == "F":
                inside = {name.removeprefix(f"{value}/") for name in wanted if name.startswith(f"{value}/")}
                inside = inside if value else wanted
                if value in wanted:
                    found.append(package)
            elif kind == "R" and value in inside:
                found.append(package)
    return found
