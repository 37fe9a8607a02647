"""Files of stanzas (dpkg's status, apt's extended_states, debconf's databases) merge by stanza, and these by field.

A stanza is what stands between empty lines: fields `Name: value`, continued on lines that begin with a space. Values
are kept as bytes, with their line breaks, so that what nobody changed comes out as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from koguma.images.merging.conflicts import Content, Disagreement, Problem
from koguma.images.merging.keyed import differ, merge_tables, pick

Stanza = dict[bytes, bytes]
Key = tuple[bytes, ...]

_PACKAGE_KEY = (b"Package", b"Architecture")
_SETS = {b"Owners": b",", b"Triggers-Pending": b" ", b"Triggers-Awaited": b","}
"""Fields that hold a set of words, and what separates these."""
_LINES = (b"Conffiles",)
"""Fields that hold a line per path."""


def merge_dpkg_status(base: bytes | None, ours: bytes, theirs: bytes) -> Content:
    """dpkg's status and available. A package of which both sides changed version or state is a conflict as a whole."""
    return _merge(base, ours, theirs, _PACKAGE_KEY, Problem.PACKAGE)


def merge_extended_states(base: bytes | None, ours: bytes, theirs: bytes) -> Content:
    """Which packages apt installed by itself. A mistake costs an `apt autoremove` too many or too few, so none asks."""
    merged = _merge(base, ours, theirs, _PACKAGE_KEY, Problem.RECORD)
    if not merged.disagreements:
        return merged
    return Content(merged.data, note="ours was kept where the sides disagree on what apt installed by itself")


def merge_debconf(base: bytes | None, ours: bytes, theirs: bytes) -> Content:
    """debconf's answers and templates."""
    return _merge(base, ours, theirs, (b"Name",), Problem.RECORD)


def parse(content: bytes, key_fields: tuple[bytes, ...]) -> dict[Key, Stanza]:
    """Stanzas by the values of their key fields. Raises ValueError for anything else than distinct stanzas."""
    found: dict[Key, Stanza] = {}
    for block in content.split(b"\n\n"):
        stanza = _parse_stanza(block)
        if not stanza:
            continue
        key = tuple(stanza.get(name, b"").strip() for name in key_fields)
        if not key[0] or key in found:
            raise ValueError(f"a stanza must have a {key_fields[0].decode()} of its own, got {block[:60]!r}")
        found[key] = stanza
    return found


def _parse_stanza(block: bytes) -> Stanza:
    stanza: Stanza = {}
    name = b""
    for line in block.split(b"\n"):
        if not line.strip(b" \t"):
            continue
        if line[:1] in (b" ", b"\t") and name:
            stanza[name] += b"\n" + line
            continue
        name, colon, value = line.partition(b":")
        if not colon or not name or name in stanza:
            raise ValueError(f"a stanza has lines 'Name: value', each name once, got {line[:60]!r}")
        stanza[name] = value
    return stanza


def write(stanzas: Iterable[Stanza]) -> bytes:
    return b"".join(b"".join(b"%b:%b\n" % item for item in stanza.items()) + b"\n" for stanza in stanzas)


def _merge(base: bytes | None, ours: bytes, theirs: bytes, key_fields: tuple[bytes, ...], problem: Problem) -> Content:
    disagreements: list[Disagreement] = []
    undecided: set[Key] = set()

    def decide(key: Key, before: Stanza | None, left: Stanza | None, right: Stanza | None) -> Stanza | None:
        subject = b":".join(part for part in key if part).decode(errors="replace")
        if left is None or right is None:
            undecided.add(key)
            told = ("removed it", "changed it") if left is None else ("changed it", "removed it")
            disagreements.append(Disagreement(problem, *told, subject=subject))
            return left or right
        if problem is Problem.PACKAGE and (clash := _package_clash(before or {}, left, right)):
            undecided.add(key)
            disagreements.append(Disagreement(problem, *clash, subject=subject))
            return left
        stanza, unmerged = _merge_fields(before or {}, left, right)
        if unmerged:
            undecided.add(key)
            fields = ", ".join(name.decode(errors="replace") for name in unmerged)
            changed = f"changed {fields}"
            disagreements.append(Disagreement(problem, changed, changed, subject=subject))
        return stanza

    parts = (parse(base or b"", key_fields), parse(ours, key_fields), parse(theirs, key_fields))
    merged = merge_tables(*parts, decide)
    agreed = write(stanza for key, stanza in merged.items() if key not in undecided)
    return Content(write(merged.values()), tuple(disagreements), agreed)


def _package_clash(before: Stanza, left: Stanza, right: Stanza) -> tuple[str, str] | None:
    """What each side made of the package, if these two do not go together."""
    identity = [(side.get(b"Version"), _words(side)[-1:]) for side in (before, left, right)]
    if not differ(*identity):
        return None
    return _package_state(left), _package_state(right)


def _package_state(stanza: Stanza) -> str:
    state = b" ".join(_words(stanza)[-1:]) or b"installed"
    version = stanza.get(b"Version", b"").strip()
    return f"has {version.decode(errors='replace')} {state.decode(errors='replace')}"


def _words(stanza: Stanza) -> list[bytes]:
    """Want, flag and state of a package."""
    return stanza.get(b"Status", b"").split()


def _merge_fields(before: Stanza, left: Stanza, right: Stanza) -> tuple[Stanza, list[bytes]]:
    unmerged: list[bytes] = []

    def decide(name: bytes, b: bytes | None, o: bytes | None, t: bytes | None) -> bytes | None:
        merge = _field_merge(name)
        if merge is None or o is None or t is None:
            unmerged.append(name)
            return o if o is not None else t
        merged = merge(b or b"", o, t)
        if merged is None:
            unmerged.append(name)
            return o
        return merged

    return merge_tables(before, left, right, decide), unmerged


def _field_merge(name: bytes) -> Callable[[bytes, bytes, bytes], bytes | None] | None:
    if name in _SETS:
        return lambda b, o, t: _merge_sets(b, o, t, _SETS[name])
    if name in _LINES:
        return _merge_lines
    if name == b"Status":
        return _merge_words
    return None


def _merge_sets(base: bytes, ours: bytes, theirs: bytes, separator: bytes) -> bytes:
    before, left, right = (
        {word.strip(): True for word in value.split(separator) if word.strip()} for value in (base, ours, theirs)
    )
    joint = b", " if separator == b"," else separator
    return b" " + joint.join(merge_tables(before, left, right, lambda _key, _b, o, t: o or t))


def _merge_lines(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    clashes: list[bytes] = []

    def decide(key: bytes, _before: bytes | None, left: bytes | None, right: bytes | None) -> bytes | None:
        clashes.append(key)
        return left or right

    tables = [
        {(line.split() or [b""])[0]: line for line in value.split(b"\n") if line.strip()}
        for value in (base, ours, theirs)
    ]
    merged = merge_tables(tables[0], tables[1], tables[2], decide)
    return None if clashes else b"".join(b"\n" + line for line in merged.values())


def _merge_words(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    words = [value.split() for value in (base, ours, theirs)]
    before, left, right = (part if len(part) == 3 else [b""] * 3 for part in words)
    if b"" in (left[0], right[0]) or any(differ(*three) for three in zip(before, left, right, strict=True)):
        return None
    return b" " + b" ".join(pick(*three) for three in zip(before, left, right, strict=True))
