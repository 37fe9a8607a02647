"""What an honest remote never exceeds. Everything that arrives over a wire is held against these."""

from __future__ import annotations

REFS_MAX = 20_000
"""Refs one remote may have; an operator has hundreds."""
REF_BYTES_MAX = 4096
LISTING_BYTES_MAX = 16 * 1024 * 1024
"""A listing of refs or packs, in an HTTP answer."""
PACKS_MAX = 50_000
RECORDS_MAX = 10_000_000
"""Objects of one pack."""
INDEX_BYTES_MAX = 512 * 1024 * 1024
"""An index of so many."""
OBJECT_BYTES_MAX = 1 << 40
"""One file; also the most that one payload may grow to when it is decompressed."""
COMMITS_MAX = 5_000_000
ENTRIES_MAX = 200_000_000
SIGNATURES_BYTES_MAX = 256 * 1024 * 1024
PACK_BYTES_MAX = 64 * 1024 * 1024 * 1024
STALL_S = 60.0
"""A connection that is silent for so long is given up."""
RATE_MIN_BYTES_PER_S = 4096
"""And one that is slower than this for longer."""
