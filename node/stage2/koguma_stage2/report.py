"""koguma-report: says `installed` when the machine is up, then beats, and renders anew when the membership changes.

1. Wait until multi-user.target is reached. A machine whose rendering has failed says nothing.
2. Tell `userspace succeeded` and `installed`, again and again until the boot service has taken them.
3. A machine with a hand-over leaves for the networks of its use (`handover`), and this ends.
4. Every HEARTBEAT_S, tell the memory figures, and how the root's mirror is. When the answer names another members
   revision: fetch the members, write /etc/hosts and the templates, run the reload commands of those that changed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from koguma_node.boot_env import read_boot_env
from koguma_node.console import say, uptime_s
from koguma_node.errors import NodeError
from koguma_node.service import Service

from koguma_stage2 import files, handover, identity, memory, mirror, places, templates
from koguma_stage2.detail import check_members, load_detail

HEARTBEAT_S = 30.0
MULTI_USER_WAIT_S = 1800.0
DELIVERY_S = 3600.0
"""How long `installed` is tried; a boot service that is away that long will see the node by its heartbeat."""
REQUEST_S = 20.0
POLL_S = 0.05


def main() -> int:
    if not Path(places.BOOT_ENV).exists():
        say("this machine was not booted by Koguma; nothing to report")
        return 0
    values = read_boot_env(Path(places.BOOT_ENV))
    service = Service(values["KOGUMA_URL"], values["KOGUMA_UUID"], values["KOGUMA_TOKEN"])
    if not Path(places.RENDERED).exists():
        say("rendering has failed: this machine does not say installed")
        return 0
    if not _wait_for(Path(places.MULTI_USER), MULTI_USER_WAIT_S):
        service.report("userspace", "failed", f"multi-user.target must be reached within {MULTI_USER_WAIT_S:g} s")
        return 1
    service.report("userspace", "succeeded")
    if _deliver_installed(service) and _hand_over(Path("/")):
        return 0
    while True:
        time.sleep(HEARTBEAT_S)
        beat(service, Path("/"))


def _hand_over(root: Path) -> bool:
    """Whether the machine has left the provisioning network, where nobody hears its heartbeats."""
    detail = load_detail(files.inside(root, places.DETAIL))
    if not detail.get("handover"):
        return False
    for problem in handover.take_networks(root, detail):
        say(f"hand-over: {problem}")
    say("handed over to its networks")
    return True


def beat(service: Service, root: Path) -> None:
    """One heartbeat and what follows from its answer. Never raises: the next one comes soon."""
    try:
        answer = service.post("heartbeat", _body(root), time.monotonic() + REQUEST_S)
        detail = load_detail(files.inside(root, places.DETAIL))
        if answer.get("members_revision") not in (None, detail.get("members_revision")):
            members = service.get("members", time.monotonic() + REQUEST_S)
            for problem in templates.run_reloads(take_members(root, detail, members)):
                say(f"reload: {problem}")
    except (NodeError, OSError, KeyError) as error:
        say(f"heartbeat: {error}")


def take_members(root: Path, detail: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """Write what depends on the members; the reload commands to run. Raises NodeError and changes nothing else."""
    check_members(answer.get("members"))
    detail = {**detail, "members": answer["members"], "members_revision": answer["members_revision"]}
    files.write(root, places.HOSTS, identity.hosts(detail))
    reloads = templates.render_templates(root, detail)
    # Written last: should anything above fail, the next heartbeat tries again.
    files.write(root, places.DETAIL, json.dumps(detail, ensure_ascii=False), 0o600)
    return reloads


def _deliver_installed(service: Service) -> bool:
    try:
        service.post("installed", _body(Path("/")), time.monotonic() + DELIVERY_S)
        say("installed")
    except NodeError as error:
        say(f"installed was not delivered: {error}")
        return False
    return True


def _body(root: Path) -> dict[str, Any]:
    body = {"uptime_s": uptime_s(), "memory": memory.figures(root)}
    mirrored = mirror.figures(root)
    return {**body, "mirror": mirrored} if mirrored else body


def _wait_for(path: Path, timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while not path.exists():
        if time.monotonic() >= end:
            return False
        time.sleep(POLL_S)
    return True


if __name__ == "__main__":
    sys.exit(main())
