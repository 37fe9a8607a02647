"""koguma-render: makes this machine the node that `detail` describes. Runs once, before the network and SSH start.

1. Check detail.json as a whole; what is not well formed changes nothing.
2. Write identity and network files, set the host name.
3. Render the flavor's templates.
4. Tell the phase `render`; on failure with its reason, and the machine never says `installed`.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

from koguma_node.console import say
from koguma_node.errors import NodeError
from koguma_node.service import Service
from koguma_stage2 import files, identity, network, places, templates
from koguma_stage2.boot_env import read_boot_env
from koguma_stage2.detail import load_detail


def render_all(root: Path) -> dict[str, Any]:
    """Write every file of `<root>/run/koguma/detail.json`; the detail. Raises NodeError."""
    detail = load_detail(files.inside(root, places.DETAIL))
    ssh = files.inside(root, places.ROOT_SSH)
    ssh.mkdir(mode=0o700, parents=True, exist_ok=True)
    ssh.chmod(0o700)
    for path, (content, mode) in identity.identity_files(detail).items():
        files.write(root, path, content, mode)
    for path, content in network.networkd_files(detail).items():
        files.write(root, path, content)
    templates.render_templates(root, detail)
    return detail


def main() -> int:
    root = Path("/")
    if not Path(places.BOOT_ENV).exists():
        say("this machine was not booted by Koguma; nothing to render")
        return 0
    values = read_boot_env(Path(places.BOOT_ENV))
    service = Service(values["KOGUMA_URL"], values["KOGUMA_UUID"], values["KOGUMA_TOKEN"])
    service.report("render", "started")
    try:
        detail = render_all(root)
        socket.sethostname(detail["hostname"])
    except (NodeError, OSError) as error:
        say(f"render failed: {error}")
        service.report("render", "failed", str(error))
        return 1
    files.write(root, places.RENDERED, "")
    service.report("render", "succeeded")
    return 0


if __name__ == "__main__":
    sys.exit(main())
