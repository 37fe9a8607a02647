"""Edits by somebody who is not root, in a user namespace with the ids that /etc/subuid lends.

The machine is this one under an overlay that lends ids to nobody, lets everybody open /dev/fuse, as Debian does, and
lets nobody look at where Python is installed. Nothing of it is left.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from koguma.images.build import build
from koguma.images.edit import commit_edit, edit
from koguma.images.fsck import fsck
from koguma.images.repository import Repository
from koguma.images.trees import lookup
from tests.unit.images.making import make_tree

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="a machine of its own needs root"),
    pytest.mark.skipif(shutil.which("newuidmap") is None, reason="uidmap is not installed"),
]
NOBODY = 65534
_MACHINE = """set -eu
work=$1 lent=$2; shift 2
mount --make-rprivate /
mount -t tmpfs -o mode=0755 koguma /mnt
mkdir /mnt/upper /mnt/work /mnt/root
root=/mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work koguma $root
for place in "$@"; do [ "$place" != -- ] || break; chmod 0755 "$root$place"; shift; done; shift
printf %s "$lent" >$root/etc/subuid; printf %s "$lent" >$root/etc/subgid
for place in proc sys dev; do mount --rbind /$place $root/$place; done
mknod -m 0666 /mnt/fuse c 10 229; mount --bind /mnt/fuse $root/dev/fuse
mount --bind "$work" $root/srv
cd $root; mkdir -p old; pivot_root . old; cd /srv; umount -l /old
exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
"""


def _closed_places() -> list[str]:
    """Directories on the way to Python that nobody may enter."""
    ends = {Path(sys.executable).absolute(), Path(sys.executable).resolve(), Path(__file__).resolve()}
    ways = {parent for end in ends for parent in end.parents}
    return sorted(str(way) for way in ways if not way.stat().st_mode & 0o001)


class Somebody:
    """A user who is not root, with a directory of their own."""

    def __init__(self, home: Path, lent: str = "nobody:200000:65536\n") -> None:
        self.home = home
        self.lent = lent
        home.mkdir(exist_ok=True)
        os.chown(home, NOBODY, NOBODY)

    def koguma(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        koguma = [sys.executable, "-m", "koguma", "image", "--repo", "repository", *arguments]
        machine = ["unshare", "--mount", "--", "sh", "-c", _MACHINE, "sh", str(self.home), self.lent, *_closed_places()]
        done = subprocess.run(
            [*machine, "--", *koguma],
            env={"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "HOME": "/srv", "USER": "nobody"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done


@pytest.fixture
def somebody(tmp_path: Path) -> Somebody:
    return Somebody(tmp_path / "home")


def _commit_of(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.split()[-1]


def test_who_is_not_root_edits_files_of_every_owner(somebody: Somebody, small_root: Path, tmp_path: Path) -> None:
    tree = make_tree(Path(shutil.copytree(small_root, tmp_path / "tree", symlinks=True)), {"etc/secret": "for uid 33"})
    os.chown(tree / "etc/secret", 33, 33)
    (tree / "etc/secret").chmod(0o600)
    subprocess.run(["tar", "-C", tree, "-cf", somebody.home / "root.tar", "."], check=True)
    somebody.koguma("init")
    start = _commit_of(somebody.koguma("import", "root.tar", "-b", "main"))
    script = (
        "set -e; cat /etc/secret >/dev/null; mkdir /x; echo more >>/etc/secret; chown 101:102 /x; chmod 2755 /x;"
        " echo s >/x/s; chmod 4755 /x/s; rm /etc/old; rm -r /opt/d; mkdir /opt/d; echo n >/opt/d/new;"
        " test -c /dev/null; test -r /proc/self/status; test -d /sys/class"
    )
    somebody.koguma("edit", "main", "--", "sh", "-c", script)
    said = somebody.koguma("status").stdout

    done = _commit_of(somebody.koguma("commit", "-m", "without root", "-b", "main"))

    assert "A /x/s" in said
    # The same edit by root is the same commit but for who made it.
    with Repository.init(tmp_path / "roots") as roots:
        subprocess.run(["chown", "-R", "0:0", somebody.home / "repository"], check=True)
        roots.commit_tree(tree, "main", "m", remember=False)
        edit(roots, "main", ["sh", "-c", script])
        expected = commit_edit(roots, "main", "by root").commit
        with Repository.open(somebody.home / "repository") as repository:
            assert repository.resolve(done).parents == (start,)
            assert repository.resolve(done).tree == expected.tree
            assert fsck(repository).problems == ()
            secret = lookup(repository.objects.read, repository.root(repository.resolve(done)), b"etc/secret")
            assert secret is not None
            assert (secret.uid, secret.mode) == (33, 0o600)


def test_who_is_not_root_settles_a_conflict_and_discards_an_edit(somebody: Somebody, small_root: Path) -> None:
    subprocess.run(["tar", "-C", small_root, "-cf", somebody.home / "root.tar", "."], check=True)
    somebody.koguma("init")
    somebody.koguma("import", "root.tar", "-b", "main")
    somebody.koguma("branch", "other", "main")
    for branch in ("main", "other"):
        script = f"echo {branch} >/etc/motd; chown 7:8 /etc/motd; rm /etc/old"
        somebody.koguma("edit", branch, "--", "sh", "-c", script)
        somebody.koguma("commit", "-b", branch, "-m", branch)

    merged = somebody.koguma("merge", "other", "-b", "main", check=False)

    assert merged.returncode == 1
    assert "/etc/motd" in merged.stdout
    somebody.koguma("resolved", "-b", "main", "/etc/motd", "--theirs")
    somebody.koguma("commit", "-b", "main")
    assert somebody.koguma("show", "main:/etc/motd").stdout == "other\n"
    somebody.koguma("edit", "main", "--", "sh", "-c", "mkdir /y; chown 9:9 /y; touch /y/z; chmod 0 /y")
    somebody.koguma("edit", "main", "--discard")
    assert not (somebody.home / "repository" / "edit" / "main").exists()


@pytest.mark.parametrize("lent", ["", "nobody:200000:1000\n", "somebodyelse:200000:65536\n"])
def test_without_ids_lent_an_edit_says_what_root_has_to_do(tmp_path: Path, small_root: Path, lent: str) -> None:
    somebody = Somebody(tmp_path / "home", lent)
    subprocess.run(["tar", "-C", small_root, "-cf", somebody.home / "root.tar", "."], check=True)
    somebody.koguma("init")
    somebody.koguma("import", "root.tar", "-b", "main")

    refused = somebody.koguma("edit", "main", "--", "true", check=False)

    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert re.search(
        r"65535 ids lent to nobody, got \d+ \(/etc/subuid\); as root: usermod --add-subuids", refused.stderr
    )


RECIPE = """
suite = "bookworm"
variant = "apt"
exclude = ["/usr/share/doc/*", "/usr/share/locale/*"]
"""


@pytest.mark.long
@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed")
def test_who_is_not_root_installs_packages(somebody: Somebody, tmp_path: Path) -> None:
    """openssh-server brings a user of its own, setgid programs and a postinst that changes owners."""
    (tmp_path / "small.toml").write_text(RECIPE)
    with Repository.init(tmp_path / "built") as built:
        build(built, tmp_path / "small.toml", "base")
        built.checkout("base", tmp_path / "tree")
    subprocess.run(["tar", "-C", tmp_path / "tree", "-cf", somebody.home / "root.tar", "."], check=True)
    somebody.koguma("init")
    somebody.koguma("import", "root.tar", "-b", "main")

    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "openssh-server"]
    somebody.koguma("edit", "main", "--", *install)
    # /run is empty in every edit, as after a boot; there sshd's unit makes its directory.
    look = 'test -z "$(dpkg --audit)"; apt-get check -qq; mkdir /run/sshd; sshd -t'
    somebody.koguma("edit", "main", "--", "sh", "-ec", look)
    done = _commit_of(somebody.koguma("commit", "-b", "main", "-m", "ssh"))

    subprocess.run(["chown", "-R", "0:0", somebody.home / "repository"], check=True)
    with Repository.open(somebody.home / "repository") as repository:
        assert "openssh-server" in {item.name for item in repository.diff("main~1", "main").packages}
        agent = lookup(repository.objects.read, repository.root(repository.resolve(done)), b"usr/bin/ssh-agent")
        assert agent is not None
        assert (agent.uid, agent.gid != 0, agent.mode) == (0, True, 0o2755)
