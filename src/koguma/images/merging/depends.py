"""Whether the packages of a merged root still have what they need, by what dpkg's status says of them.

Each side may be whole and both together not: one upgraded a library, the other installed what needs its old version.
Only what is broken in the merge and on no side is told. Architectures are not looked at; `apt-get check` in an edit is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from koguma.images.debian import STATUS, compare_versions, stanzas
from koguma.images.merging.conflicts import Conflict, Problem

_PRESENT = ("installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending")
_RELATION = re.compile(
    r"\s*([A-Za-z0-9][A-Za-z0-9+.-]*)(?::[a-z0-9-]+)?\s*(?:\(\s*(<<|<=|=|>=|>>|<|>)\s*([^)\s]+)\s*\))?\s*"
)
_HOLDS = {
    "<<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    "<": lambda order: order <= 0,
    "=": lambda order: order == 0,
    ">=": lambda order: order >= 0,
    ">": lambda order: order >= 0,
    ">>": lambda order: order > 0,
}


@dataclass(frozen=True, slots=True)
class _Clause:
    """One thing that one package asks for."""

    package: str
    field: str
    text: str


def broken_dependencies(ours: bytes, theirs: bytes, merged: bytes) -> list[Conflict]:
    """What packages lack in the merged status file and lack in neither of the two it was made of."""
    sides = [_System(content) for content in (ours, theirs, merged)]
    known = set(sides[0].broken()) | set(sides[1].broken())
    return [_conflict(clause, sides[0], sides[1], sides[2]) for clause in sides[2].broken() if clause not in known]


def _conflict(clause: _Clause, ours: _System, theirs: _System, merged: _System) -> Conflict:
    verb = "breaks" if clause.field in ("Conflicts", "Breaks") else "needs"
    asks = f"has {clause.package}, which {verb} {clause.text}"
    other = "has " + (", ".join(merged.versions_of(clause.text)) or "none of them")
    version = merged.versions.get(clause.package)
    from_theirs = theirs.versions.get(clause.package) == version != ours.versions.get(clause.package)
    told = (other, asks) if from_theirs else (asks, other)
    return Conflict(STATUS, Problem.DEPENDS, *told, subject=clause.package)


class _System:
    """What is installed, and what that provides, needs and cannot stand."""

    def __init__(self, status: bytes) -> None:
        self.versions: dict[str, str] = {}
        self._provided: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
        """By name: who provides it, and in which version."""
        self._asks: list[_Clause] = []
        for stanza in stanzas(status.decode("utf-8", "replace")):
            words = stanza.get("Status", "").split()
            if "Package" in stanza and words[-1:] and words[-1] in _PRESENT:
                self._add(stanza)

    def _add(self, stanza: dict[str, str]) -> None:
        name, version = stanza["Package"], stanza.get("Version", "")
        self.versions[name] = version
        self._provided[name].append((name, version))
        for clause in filter(str.strip, stanza.get("Provides", "").split(",")):
            found = _RELATION.fullmatch(clause)
            if found:
                self._provided[found[1]].append((name, found[3]))
        for field in ("Pre-Depends", "Depends", "Conflicts", "Breaks"):
            self._asks += [
                _Clause(name, field, clause.strip()) for clause in stanza.get(field, "").split(",") if clause.strip()
            ]

    def broken(self) -> Iterator[_Clause]:
        for clause in self._asks:
            negative = clause.field in ("Conflicts", "Breaks")
            met = any(self._met(relation, clause.package if negative else None) for relation in clause.text.split("|"))
            if met == negative:
                yield clause

    def versions_of(self, text: str) -> list[str]:
        names = [found[1] for relation in text.split("|") if (found := _RELATION.fullmatch(relation))]
        return [f"{name} {self.versions[name]}" for name in names if name in self.versions]

    def _met(self, relation: str, but: str | None) -> bool:
        """Whether something installed (another package than `but`) answers to a relation."""
        found = _RELATION.fullmatch(relation)
        if found is None:
            return but is None  # a form that dpkg knows and we do not is nobody's conflict
        name, operator, wanted = found.groups()
        for provider, version in self._provided.get(name, ()):
            if provider == but:
                continue
            if operator is None or (version is not None and _HOLDS[operator](compare_versions(version, wanted))):
                return True
        return False
