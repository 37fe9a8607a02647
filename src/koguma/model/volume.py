"""The volume that a node's root is on. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Target:
    """Where a machine finds a volume, and as whom it logs in."""

    portal: str
    """`HOST:PORT`."""
    name: str
    """The target's iSCSI qualified name."""
    lun: int
    user: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class RootVolume:
    """What is on record of it. It is recorded before it is made, so that none is ever forgotten at the storage."""

    name: str
    size_bytes: int
    secret: str = field(repr=False)
    """CHAP secret that the storage is asked to take from the machine."""
    commit: str | None = None
    """What it was made of; None until it was made."""
    target: Target | None = None
    """None while it is hidden."""


def initiator_of(uuid: str) -> str:
    """A machine's iSCSI qualified name."""
    return f"iqn.2026-01.koguma.node:{uuid}"


def account_of(uuid: str) -> str:
    """Its CHAP user."""
    return f"node-{uuid}"
