"""The volume that a node's root is on. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RootVolume:
    """What is on record of it. It is recorded before it is made, so that none is ever forgotten at the storage."""

    name: str
    size_bytes: int
    secret: str = field(repr=False)
    """CHAP secret of the machine it is shown to."""
    commit: str | None = None
    """What it was made of; None until it was made."""
    portal: str = ""
    """Where machines find it; empty while it is hidden."""
    target: str = ""
    lun: int = 0


def initiator_of(uuid: str) -> str:
    """A machine's iSCSI qualified name."""
    return f"iqn.2026-01.koguma.node:{uuid}"


def account_of(uuid: str) -> str:
    """Its CHAP user."""
    return f"node-{uuid}"
