"""Tells the image repository which labels this site's machines boot by, so that none of them expires.

Called when the boot service starts and for every newer snapshot. A repository that cannot be written to keeps what it
was told before.
"""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from koguma.errors import KogumaError
from koguma.images.pins import announce_use
from koguma.model.snapshot import Snapshot

log = logging.getLogger(__name__)


def labels_of(snapshot: Snapshot) -> set[str]:
    """The labels of all nodes, those of a single boot too."""
    found = {node.boot.label for node in snapshot.nodes}
    return found | {node.boot.once.label for node in snapshot.nodes if node.boot.once and node.boot.once.label}


def announce(snapshot: Snapshot, repository: Path) -> None:
    """Write down what is in use. Never fails: a boot service that only reads the repository still serves."""
    if not snapshot.nodes or not (repository / "boot").is_dir():
        return
    try:
        announce_use(repository, f"boot-{socket.gethostname()}", sorted(labels_of(snapshot)))
    except (OSError, KogumaError) as error:
        log.warning("the repository cannot be told which labels are in use", extra={"reason": str(error)})
