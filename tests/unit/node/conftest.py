"""The code of machines is no installed package: its tests find it where install.sh and build-stage1 find it."""

from __future__ import annotations

import sys
from pathlib import Path

NODE = Path(__file__).resolve().parents[3] / "node"
sys.path[:0] = [str(NODE / part) for part in ("common", "stage1", "stage2")]
