"""Renders this node's configuration into a root that stays: stage 1 runs it inside the root it wrote to a disk."""

from __future__ import annotations

import sys
from pathlib import Path

from koguma_node.errors import NodeError

from koguma_stage2 import places, render
from koguma_stage2.detail import load_detail


def main() -> int:
    root = Path("/")
    try:
        detail = load_detail(Path(places.KEPT) / "detail.json")
        render.render_all(root, detail)
    except (NodeError, OSError) as error:
        print(f"rendering: {error}", file=sys.stderr)
        return 1
    # systemd reads it before anything of Koguma's can run: the same machine has the same id at every boot.
    (root / "etc/machine-id").write_text(detail["uuid"].replace("-", "") + "\n", encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
