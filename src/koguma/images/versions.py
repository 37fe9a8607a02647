"""What the versions of dpkg, rpm and apk have in common: runs of digits that count as numbers, and epochs."""

from __future__ import annotations


def number(digits: str) -> int:
    """A run of the digits 0 to 9 as a number for comparisons with its like; a run of none is 0.

    It is read as hexadecimal: the order is the same, and decimal numbers of thousands of digits are a ValueError.
    """
    return int(digits or "0", 16)


def split_epoch(version: str) -> tuple[int, str]:
    """The epoch of a version of dpkg or rpm, as `number` gives it, and what follows; 0 where there is none."""
    head, colon, rest = version.partition(":")
    return (number(head), rest) if colon and head.isascii() and head.isdigit() else (0, version)
