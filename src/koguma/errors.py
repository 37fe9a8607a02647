"""The root of Koguma's own errors: what a person or a caller can act on, as against a defect of ours."""

from __future__ import annotations


class KogumaError(Exception):
    """Something Koguma refuses or could not do; the message says rule, value and place."""

    retry = False
    """Whether the same attempt may succeed later without anybody changing anything."""
