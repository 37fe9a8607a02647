"""What stage 2 refuses to render."""

from __future__ import annotations

from koguma_node.errors import NodeError


class DetailError(NodeError):
    """detail.json says something that must not be written to this machine."""


class TemplateError(NodeError):
    """A template of the flavor could not be rendered."""
