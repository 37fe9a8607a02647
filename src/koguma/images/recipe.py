"""Recipes: a Debian root described in TOML, validated before anything is built.

suite = "bookworm"
packages = ["linux-image-amd64", "openssh-server"]
components = ["main"]            # default
variant = "minbase"              # mmdebstrap's; default
hostname = "compute"             # optional
node = true                      # install Koguma's node files; default false
exclude = ["/lib/modules/*/kernel/sound/*"]   # paths of packages that dpkg leaves out, now and at later upgrades
commands = ["systemctl enable ssh"]   # run in the root, in order, by its /bin/sh

[[files]]                        # written before the commands run
path = "/etc/motd"
content = "hello"                # or source = "motd", relative to the recipe
mode = "0644"                    # default; owner and group are root
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from koguma.images.errors import RecipeError

VARIANTS = ("essential", "apt", "minbase", "important", "standard")
_KEYS = {"suite", "packages", "components", "variant", "hostname", "node", "exclude", "commands", "files"}
_FILE_KEYS = {"path", "content", "source", "mode"}
_SUITE = re.compile(r"[a-z][a-z0-9-]{1,40}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?(=[A-Za-z0-9.+:~-]+)?")
_COMPONENT = re.compile(r"[a-z][a-z0-9/-]{0,40}")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PATH_PATTERN = re.compile(r"/[A-Za-z0-9_.*?/+-]+")
_MODE = re.compile(r"0?[0-7]{3,4}")


@dataclass(frozen=True, slots=True)
class RecipeFile:
    path: str
    """Absolute in the image."""
    content: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """A valid recipe, with the contents of the files it refers to."""

    suite: str
    packages: tuple[str, ...]
    components: tuple[str, ...]
    variant: str
    hostname: str | None
    node: bool
    exclude: tuple[str, ...]
    """dpkg's path-exclude patterns."""
    commands: tuple[str, ...]
    files: tuple[RecipeFile, ...]

    def digest(self) -> str:
        """SHA-256 over everything the recipe says: equal digests mean equal recipes."""
        return sha256(repr(self).encode()).hexdigest()


def load_recipe(path: Path) -> Recipe:
    """Read and validate a recipe. Raises RecipeError that says rule, value and place."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"a recipe must be readable: {error.strerror} ({path})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"a recipe must be TOML: {error} ({path})") from None
    try:
        return parse_recipe(document, path.parent)
    except RecipeError as error:
        raise RecipeError(f"{error} ({path})") from None


def parse_recipe(document: Mapping[str, Any], folder: Path) -> Recipe:
    """A recipe from its TOML tables; `source` of files is relative to `folder`."""
    _check_keys(document, _KEYS, "recipe")
    if "suite" not in document:
        raise RecipeError("a recipe must name its suite")
    hostname = document.get("hostname")
    if hostname is not None:
        _check(_HOST_NAME, hostname, "hostname")
    variant = document.get("variant", "minbase")
    if variant not in VARIANTS:
        raise RecipeError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    node = document.get("node", False)
    if not isinstance(node, bool):
        raise RecipeError(f"node must be true or false, got {node!r}")
    files = document.get("files", [])
    if not isinstance(files, list):
        raise RecipeError(f"files must be tables, got {files!r}")
    return Recipe(
        suite=_check(_SUITE, document["suite"], "suite"),
        packages=_texts(document, "packages", _PACKAGE),
        components=_texts(document, "components", _COMPONENT) or ("main",),
        variant=variant,
        hostname=hostname,
        node=node,
        exclude=_texts(document, "exclude", _PATH_PATTERN),
        commands=_texts(document, "commands", None),
        files=tuple(_file(item, folder) for item in files),
    )


def _file(item: Any, folder: Path) -> RecipeFile:
    if not isinstance(item, dict):
        raise RecipeError(f"a file must be a table, got {item!r}")
    _check_keys(item, _FILE_KEYS, "file")
    path = item.get("path")
    if not isinstance(path, str) or not path.startswith("/") or ".." in PurePosixPath(path).parts or path.endswith("/"):
        raise RecipeError(f"a file's path must be absolute and without '..', got {path!r}")
    if ("content" in item) == ("source" in item):
        raise RecipeError(f"a file must have either content or source, got {sorted(item)} (file {path})")
    mode = _check(_MODE, item.get("mode", "0644"), f"mode of file {path}")
    return RecipeFile(path, _content(item, folder, path), int(mode, 8))


def _content(item: Mapping[str, Any], folder: Path, path: str) -> bytes:
    text = item.get("content", item.get("source"))
    if not isinstance(text, str):
        raise RecipeError(f"a file's content and source must be texts, got {text!r} (file {path})")
    if "content" in item:
        return text.encode()
    try:
        return (folder / text).read_bytes()
    except OSError as error:
        raise RecipeError(f"a file's source must be readable: {error.strerror}, got {text!r} (file {path})") from None


def _texts(document: Mapping[str, Any], key: str, pattern: re.Pattern[str] | None) -> tuple[str, ...]:
    values = document.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise RecipeError(f"{key} must be a list of texts, got {values!r}")
    if pattern:
        for value in values:
            _check(pattern, value, key)
    return tuple(values)


def _check(pattern: re.Pattern[str], value: Any, place: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise RecipeError(f"{place} must match {pattern.pattern}, got {value!r}")
    return value


def _check_keys(document: Mapping[str, Any], known: set[str], place: str) -> None:
    if unknown := sorted(set(document) - known):
        raise RecipeError(f"a {place} has the keys {', '.join(sorted(known))}, got {', '.join(unknown)}")
