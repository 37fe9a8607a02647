"""What an operator decided about a repository: `policy.toml` at its root, written by hand and read at every use.

Owns the file's tables and keys (drawn in FORMAT.md) and refuses what it does not know, so that a mistyped key is not a
policy silently left out. Acts on nothing: `labels` and `retention` follow [labels], whoever moves refs [signatures].
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from koguma.images.errors import PolicyError

FILE_NAME = "policy.toml"


class LabelPolicy(NamedTuple):
    """Which commits keep a boot artifact. Heads of branches, tags, and what is pinned or in use always keep theirs."""

    enabled: bool = True
    """False: nothing is made bootable; for a repository that only keeps trees."""
    keep_commits_per_branch: int = 10
    """The newest commits of each branch."""
    keep_days: int = 30
    """And every commit younger than this."""
    budget_mib: int | None = None
    """Disk space for artifacts; beyond it those expire that would expire next. None: no limit."""
    grace_minutes: int = 60
    """How long an artifact stays after its label went: a machine may be fetching it."""


class SignaturePolicy(NamedTuple):
    """Which refs may only move to signed commits."""

    require_signed: tuple[str, ...] = ()
    """Patterns of branch and tag names: `release/*`, `*`."""

    def requires(self, name: str) -> bool:
        """Whether the commits of a branch or tag of this name must be signed."""
        return any(fnmatchcase(name, pattern) for pattern in self.require_signed)


class Policy(NamedTuple):
    labels: LabelPolicy = LabelPolicy()
    signatures: SignaturePolicy = SignaturePolicy()


def load_policy(repository: Path) -> Policy:
    """The policy of the repository at this path; the defaults where there is no file. Raises PolicyError."""
    path = repository / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
        import tomllib  # noqa: PLC0415 - few repositories have a policy

        document = tomllib.loads(text)
    except FileNotFoundError:
        return Policy()
    except (OSError, ValueError) as error:
        raise PolicyError(f"a policy must be readable TOML: {error} ({path})") from None
    for name in document:
        if name not in ("labels", "signatures"):
            raise PolicyError(f"a policy has the tables [labels] and [signatures], got {name!r} ({path})")
    labels = _table(document, "labels", LabelPolicy, path)
    signatures = _table(document, "signatures", SignaturePolicy, path)
    return Policy(
        LabelPolicy(**{name: _label_value(value, name, path) for name, value in labels.items()}),
        SignaturePolicy(
            **{name: _patterns(value, f"signatures.{name}", path) for name, value in signatures.items()},
        ),
    )


def _table(document: Mapping[str, Any], name: str, kind: type[LabelPolicy | SignaturePolicy], path: Path) -> Any:
    table = document.get(name, {})
    known = kind._fields
    if not isinstance(table, dict):
        raise PolicyError(f"[{name}] must be a table, got {table!r} ({path})")
    for key in table:
        if key not in known:
            raise PolicyError(f"[{name}] has the keys {', '.join(known)}, got {key!r} ({path})")
    return table


def _label_value(value: object, key: str, path: Path) -> Any:
    if key == "enabled":
        if not isinstance(value, bool):
            raise PolicyError(f"labels.enabled must be true or false, got {value!r} ({path})")
        return value
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise PolicyError(f"labels.{key} must be a whole number, 0 or more, got {value!r} ({path})")
    return value


def _patterns(value: object, key: str, path: Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise PolicyError(f'{key} must be a list of patterns such as "release/*", got {value!r} ({path})')
    return tuple(value)
