"""Where this machine gets Debian from: its apt sources and the apt settings an image build needs to use them.

Nothing here ends up in a recipe; the mirror becomes part of a built image because its own apt must know one.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from koguma.images.debian import stanzas
from koguma.images.tools import run_tool

_SETTING = re.compile(r'Acquire::(https?::.+|Check-[A-Za-z-]+|Retries) "[^"]+";')


@dataclass(frozen=True, slots=True)
class Source:
    """One archive: where, and which suites and components of it this machine uses."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]


def machine_sources(etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """The machine's binary package sources, of both file formats."""
    files = [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*.list"))]
    found = [source for file in files if file.is_file() for source in _one_line_format(file.read_text())]
    for file in sorted((etc_apt / "sources.list.d").glob("*.sources")):
        found += _stanza_format(file.read_text())
    return found


def mirror_lines(suite: str, components: Sequence[str], sources: Iterable[Source]) -> list[str]:
    """`deb …` lines for a suite, its updates and its security fixes, from where the machine gets them itself.

    Empty when the machine's sources say nothing of Debian; the tool's own default serves then.
    """
    known = [source for source in sources if source.uri.rstrip("/").endswith(("/debian", "/debian-security"))]
    lines = []
    for wanted in (suite, f"{suite}-updates", f"{suite}-security"):
        uri = _uri_for(wanted, known)
        if uri and not (suite in ("sid", "unstable") and wanted != suite):
            lines.append(f"deb {uri} {wanted} {' '.join(components)}")
    return lines


def apt_settings() -> str:
    """This machine's apt settings on proxies, retries and dates, as apt.conf text: a mirror may need them."""
    if shutil.which("apt-config") is None:
        return ""
    lines = run_tool(["apt-config", "dump"], timeout_s=30).splitlines()
    return "".join(f"{line}\n" for line in lines if _SETTING.fullmatch(line))


def _uri_for(suite: str, sources: Sequence[Source]) -> str | None:
    for source in sources:
        if suite in source.suites:
            return source.uri
    security = suite.endswith("-security")
    for source in sources:
        if source.uri.rstrip("/").endswith("/debian-security") == security:
            return source.uri
    return None


def _one_line_format(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        words = re.sub(r"\[[^]]*\]", " ", line.partition("#")[0]).split()
        if len(words) >= 4 and words[0] == "deb":
            yield Source(words[1], (words[2],), tuple(words[3:]))


def _stanza_format(text: str) -> Iterator[Source]:
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in stanzas(plain):
        if "deb" in stanza.get("Types", "").split() and stanza.get("Enabled", "yes") != "no":
            suites, components = tuple(stanza.get("Suites", "").split()), tuple(stanza.get("Components", "").split())
            for uri in stanza.get("URIs", "").split():
                yield Source(uri, suites, components)
