"""Flavor: what machines of a role boot."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from koguma.model.layout import Layout


class RootMethod(StrEnum):
    """Where a node's root file system lives."""

    RAM = "ram"  # fetched and verified into memory
    NFS = "nfs"  # copied into memory from a read-only export
    ISCSI = "iscsi"  # a volume of a SAN
    DISK = "disk"  # written to a local disk


@dataclass(frozen=True)
class Template:
    """A Jinja template inside the image and where its rendering goes on the node."""

    source: str
    target: str
    mode: str = "0644"
    reload: str | None = None
    """The unit to reload when a later rendering differs."""


@dataclass(frozen=True)
class Flavor:
    name: str
    label: str
    root_method: RootMethod = RootMethod.RAM
    kernel_args: str = ""
    overlay_size_bytes: int = 0
    """Limit of the writable layer in memory; 0 lets stage 2 choose half of the memory."""
    templates: tuple[Template, ...] = ()
    variables: dict[str, Any] = field(default_factory=dict)
    requirements: dict[str, Any] = field(default_factory=dict)
    """What a machine must have: memory_bytes, cpu_count, architecture."""
    layout: Layout = field(default_factory=Layout)
    version: int = 1
