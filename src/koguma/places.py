"""Where a site's files are, for commands that need to know nothing else of its configuration.

Validating the whole of it (`koguma.config`) takes longer than what most commands on images do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEARCH_PATHS = (Path("koguma.toml"), Path("/etc/koguma/koguma.toml"))


def default_state_dir() -> Path:
    return Path("/var/lib/koguma") if os.geteuid() == 0 else Path.home() / ".local/state/koguma"


def configuration_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file that KOGUMA_CONFIG names, else the first of SEARCH_PATHS that exists."""
    if named := environ.get("KOGUMA_CONFIG"):
        return Path(named)
    return next((path for path in SEARCH_PATHS if path.is_file()), None)


REPOSITORY_MARKER = "koguma-repository"
"""The file that makes a directory an image repository."""


def repository_here() -> Path | None:
    """The image repository that is the current directory, as git has it. Only one's own and root's: whoever puts one in
    a common place must not get what is meant for another."""
    try:
        owner = os.stat(REPOSITORY_MARKER).st_uid  # noqa: PTH116 - loads nothing
    except OSError:
        return None
    return Path.cwd() if owner in (0, os.geteuid()) else None


def repository(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The image repository; None when the configuration has a mistake there, about which `koguma.config` says more."""
    values = _values(configuration_file(environ))
    if values is None:
        return None
    images = values.get("images", {})
    own = environ.get("KOGUMA_IMAGES_REPOSITORY", images.get("repository") if isinstance(images, dict) else images)
    state_dir = environ.get("KOGUMA_STATE_DIR", values.get("state_dir", str(default_state_dir())))
    if not isinstance(state_dir, str) or not Path(state_dir).is_absolute() or not isinstance(own, str | None):
        return None
    return Path(state_dir) / "images" if own is None else Path(own)


def _values(file: Path | None) -> dict[str, Any] | None:
    if file is None:
        return {}
    import tomllib  # noqa: PLC0415 - most sites of one machine have no file

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
