"""Writes the root: the commit's files into the new file system, or a whole-disk image as it comes.

A commit's root image is fetched into memory and verified before it is mounted. A disk image is larger than memory: it
is written while it is hashed, all but its beginning, without which nothing can boot it; that follows once the digest
is right.
"""

from __future__ import annotations

from koguma_node.console import say
from koguma_node.download import fetch_verified

from koguma_stage1.context import Context
from koguma_stage1.disk import image, tools

OUTCOME = "the disk holds the verified root"
PHASE = "disk"
TIMEOUT_S = 3600.0
COPY_TIMEOUT_S = 1800.0


def run(context: Context) -> None:
    if wanted := context.profile["disk"]["image"]:
        image.write(context.required_disks()[0], wanted, context.deadline)
        return
    source, target = context.work / "source", context.work / "root"
    for folder in (source, target):
        folder.mkdir(exist_ok=True)
    root = context.manifest["files"]["root"]
    file = context.work / root["name"]
    url = context.profile["artifact_url"].rstrip("/") + "/" + root["name"]
    fetch_verified(url, file, root["name"], root["size_bytes"], root["sha256"], context.deadline)
    tools.mount(context.manifest["root_format"], str(file), str(source), "ro,loop")
    # A deployment that is cut short begins again on an empty disk: nothing is gained by waiting for barriers meanwhile.
    tools.mount("ext4", context.required_root().device, str(target), "nobarrier,noatime")
    tools.run(["/usr/lib/koguma/cp", "-a", f"{source}/.", str(target)], COPY_TIMEOUT_S)
    tools.unmount(str(source))
    file.unlink()
    say("the root is copied")
