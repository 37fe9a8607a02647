"""The image repository side by side with OSTree, restic, git and casync, on the same Debian trees.

    make bench-images

1. v1 is committed to a new repository of every tool in turn, then again unchanged, then v2, then diff and fsck; the
   tools take turns within a round, so that a slower minute of the host slows all of them. Medians of five rounds with
   the trees in the page cache (warm), of five with an empty one (cold, as root); tools that no aim is held against
   take part in one.
2. What only Koguma has: commits of an edit, boot labels, exports beside mksquashfs alone, memory, short commands.
3. The same small edit committed over trees of 1, 4 and 16 times the size.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from images_peers import KOGUMA, Command, Peer, compile_koguma, installed_peers, plain_environ, run
from images_trees import Trees, added_sources, growing_tree, trees
from results import Row, publish, row

OURS, BARE = "Koguma", "OSTree bare"
STEPS = ("first commit", "unchanged again", "v2 from a plain tree", "diff", "fsck")
AIMS = {"first commit": 0.35, "unchanged again": 0.05, "v2 from a plain tree": 0.25, "diff": 0.25, "fsck": 0.8}
"""At most so many times OSTree bare's."""
PACKAGE = "openssl"
"""What the edit upgrades: in the release, and newer among its security fixes."""
BYTES_PER_SECOND = 50e6
"""What hashing and compressing a package's bytes may take beside the 0.3 s of a commit of an edit."""
KOGUMA_MEMORY_MAX_MB = 200
MKSQUASHFS = ("-comp", "zstd", "-Xcompression-level", "3", "-reproducible", "-no-exports", "-no-progress", "-quiet",
              "-noappend", "-no-recovery", "-mem", "512M")  # fmt: skip

Runs = dict[tuple[str, str], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--other-runs", type=int, default=1, help="Rounds with the peers that no aim is held against.")
    parser.add_argument("--cold-runs", type=int, default=5, help="Rounds with an empty page cache, as root.")
    parser.add_argument("--counts", type=int, nargs="+", default=(1, 4, 16), help="Of growth: sizes of the tree.")
    parser.add_argument("--scale", choices=("small", "full"), default="full", help="Which trees: full is the aim's.")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/koguma-bench-images"), help="Kept: the trees.")
    parser.add_argument("--only", action="append", choices=tuple(PARTS), help="A part of it; can be said again.")
    parser.add_argument("--peers", default="", help="Names of peers, by comma; otherwise all that are installed.")
    parser.add_argument("--note", default="", help="The circumstances, for the results' file.")
    parser.add_argument("--dry", action="store_true", help="Print the table only, leave the results' file as it is.")
    options = parser.parse_args()
    compile_koguma()
    made = trees(options.folder / "trees", options.scale)
    rows: list[Row] = []
    for name, part in PARTS.items():
        if not options.only or name in options.only:
            with tempfile.TemporaryDirectory(dir=options.folder, prefix="run-") as scratch:
                rows += part(made, Path(scratch), options)
    publish("images", rows, write=not options.dry, keep=bool(options.only), note=options.note)


def peers_rows(made: Trees, scratch: Path, options: argparse.Namespace) -> list[Row]:
    runs: Runs = {}
    cold_runs = 0 if os.geteuid() else options.cold_runs
    chosen = options.peers.split(",") if options.peers else None
    for temperature, count in (("warm", options.runs), ("cold", cold_runs)):
        for number in range(count):
            wanted = chosen if number < options.other_runs and temperature == "warm" else [OURS, BARE]
            one_round(made, scratch, temperature, runs, wanted)
            print(f"{temperature}: round {number + 1} of {count} is done", flush=True)
    rows = []
    for (what, peer), found in sorted(runs.items(), key=lambda item: item[0]):
        unit = "MB" if what.startswith("stored") else "files" if what.startswith("inodes") else "s"
        rows.append(row(f"{what}, {peer}", found, unit, peer=peer))
    for step, aim in AIMS.items():
        for temperature in ("warm", "cold"):
            ours, theirs = runs.get((f"{step}, {temperature}", OURS)), runs.get((f"{step}, {temperature}", BARE))
            if ours and theirs:
                ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
                rows.append(row(f"{step}, {temperature} / {BARE}", ratios, "x", at_most=aim, peer=BARE))
    for what in ("stored bytes of v1 and v2", "inodes of v1 and v2"):
        if (what, "restic") in runs and (what, OURS) in runs:
            # Stored bytes hardly vary from round to round, and restic takes part in fewer of them.
            ratios = [mine / other for mine, other in zip(runs[what, OURS], runs[what, "restic"], strict=False)]
            rows.append(row(f"{what} / restic", ratios, "x", at_most=1, peer="restic"))
    return rows


def one_round(made: Trees, scratch: Path, temperature: str, runs: Runs, only: list[str] | None) -> None:
    """Every step, and in every step all tools one after the other."""
    peers = [peer for peer in installed_peers(scratch) if only is None or peer.name in only]
    for peer in peers:
        for command in peer.init():
            run(command, peer.environ())
        without_labels(peer.repository, peer.name)

    def step(what: str, commands: Callable[[Peer], list[Command]]) -> None:
        for peer in peers:
            if wanted := commands(peer):
                runs.setdefault((f"{what}, {temperature}", peer.name), []).append(
                    timed(wanted, temperature, peer.environ())
                )

    settle(made.v1, made.v2)
    step("first commit", lambda peer: peer.commit(made.v1, "v1"))
    step("unchanged again", lambda peer: peer.commit(made.v1, "v1"))
    step("v2 from a plain tree", lambda peer: peer.commit(made.v2, "v2"))
    # Unchanged commits are commits to the peers, so that v1 against v2 is the last two of each.
    step("diff", lambda peer: [command] if (command := peer.diff()) else [])
    step("fsck", lambda peer: [command] if (command := peer.fsck()) else [])
    for peer in peers:
        size, files = stored(peer.repository)
        runs.setdefault(("stored bytes of v1 and v2", peer.name), []).append(size / 1e6)
        runs.setdefault(("inodes of v1 and v2", peer.name), []).append(files)
        shutil.rmtree(peer.repository)
        shutil.rmtree(f"{peer.repository}-cache", ignore_errors=True)


def edit_rows(made: Trees, scratch: Path, options: argparse.Namespace) -> list[Row]:
    """Edits, labels, whole small processes."""
    starts, commits, labels, bytes_changed = [], [], [], 0
    image = Image(scratch / "edit")
    image("init")
    first = image("commit", "-b", "main", "-m", "v1", str(made.v1))  # with its label
    image("edit", "main", "--", "true")  # the first edit of a day fetches package lists
    image("edit", "main", "--discard")
    for number in range(options.runs):
        branch = f"edit-{number}"
        image("branch", branch, "main")
        starts.append(image("edit", branch, "--", "true"))
        image("edit", branch, "--", "sh", "-c", added_sources() + f"apt-get install -qy --only-upgrade {PACKAGE}")
        without_labels(image.repository)
        commits.append(image("commit", "-b", branch, "-m", "upgrade"))
        with_labels(image.repository)
        labels.append(image("labels"))
        found = json.loads(run(image.command("diff", f"{branch}~1", branch, "--json")))
        bytes_changed = sum(item["new_size_bytes"] for item in found["files"])
        if not any(item["name"] == PACKAGE and item["change"] == "upgraded" for item in found["packages"]):
            raise RuntimeError(f"the edit must upgrade {PACKAGE}, got {found['packages']}")
    allowed = 0.3 + bytes_changed / BYTES_PER_SECOND
    with_label = [commit + label for commit, label in zip(commits, labels, strict=True)]
    note = f"{bytes_changed / 1e6:.1f} MB of files changed"
    return [
        row("first commit, to its bootable label", [first], "s", note="what `commit` does unless --no-wait is said"),
        row("edit -- true, its label is there", starts, "s"),
        row("commit of an edit that upgraded one package", commits, "s", at_most=round(allowed, 3), note=note),
        row("the same, to its bootable label", with_label, "s", at_most=10),
        *(
            row(f"koguma image {words[0]}", [image(*words) for _ in range(options.runs)], "s", at_most=0.25)
            for words in (("log", "main"), ("branch",), ("tag",))
        ),
        row(
            "koguma image branch NAME",
            [image("branch", f"n{number}", "main") for number in range(options.runs)],
            "s",
            at_most=0.25,
        ),
        row(
            "koguma image tag NAME",
            [image("tag", f"t{number}", "main") for number in range(options.runs)],
            "s",
            at_most=0.25,
        ),
    ]


def export_rows(made: Trees, scratch: Path, options: argparse.Namespace) -> list[Row]:
    """Exports beside mksquashfs of the same tree with the same settings, and what both take of memory."""
    image = Image(scratch / "export")
    image("init")
    without_labels(image.repository)
    memory = {"commit": [peak_mb(image.command("commit", "-b", "main", "-m", "v1", str(made.v1)))]}
    ours, theirs, ours_mb, theirs_mb = [], [], [], []
    for _ in range(options.runs):
        for times_s, megabytes, command in (
            (ours, ours_mb, image.command("export", "main", "--format", "squashfs", "-o", str(scratch / "a.img"))),
            (theirs, theirs_mb, ["mksquashfs", str(made.v1), str(scratch / "a.img"), *MKSQUASHFS]),
        ):
            times_s.append(timed([command], "warm"))
            (scratch / "a.img").unlink()
            megabytes.append(peak_mb(command))
            (scratch / "a.img").unlink()
    with_labels(image.repository)
    image("labels")
    kept = [
        image("export", "main", "--format", "squashfs", "-o", str(scratch / f"kept-{number}.img"))
        for number in range(options.runs)
    ]
    without_labels(image.repository)
    image("commit", "-b", "main", "-m", "v2", str(made.v2))
    following = [
        image("export", "main", "--format", "squashfs", "-o", str(scratch / f"v2-{number}.img"))
        for number in range(options.runs)
    ]
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    beside = [mine - other for mine, other in zip(ours_mb, theirs_mb, strict=True)]
    return [
        row("export to squashfs", ours, "s"),
        row("export of a commit that has its label", kept, "s", note="a copy of the label's root image"),
        row("export of v2 when v1 has its label", following, "s", note="blocks of v1's root image are taken over"),
        row("mksquashfs of the plain tree", theirs, "s", peer="mksquashfs"),
        row("export to squashfs / mksquashfs", ratios, "x", at_most=1.15, peer="mksquashfs"),
        row("memory of a first commit", memory["commit"], "MB", at_most=KOGUMA_MEMORY_MAX_MB),
        row("memory of an export beside mksquashfs's", beside, "MB", at_most=KOGUMA_MEMORY_MAX_MB, peer="mksquashfs"),
    ]


def growth_rows(_: Trees, scratch: Path, options: argparse.Namespace) -> list[Row]:
    """One small edit over trees of 1, 4 and 16 times the size: edit to commit must not grow with them."""
    rows = []
    for count in options.counts:
        tree = growing_tree(options.folder / "trees", count)
        image = Image(scratch / f"growth-{count}")
        image("init")
        without_labels(image.repository)
        first = image("commit", "-b", "main", "-m", "first", str(tree))
        image("edit", "main", "--", "true")  # the first edit of a day fetches package lists
        image("edit", "main", "--discard")
        starts, commits, again = [], [], []
        for number in range(options.runs):
            starts.append(image("edit", "main", "--", "sh", "-c", f"echo {number} > /etc/motd"))
            commits.append(image("commit", "-b", "main", "-m", f"edit {number}"))
        image("commit", "-b", "plain", "-m", "again", str(tree))
        for number in range(options.runs):
            (tree / "etc" / "motd").write_text(f"{time.time_ns()}\n")
            again.append(image("commit", "-b", "plain", "-m", f"{number}", str(tree)))
        size = run(["du", "-sm", "--apparent-size", str(tree)]).split()[0]
        files = run(["du", "-s", "--inodes", str(tree)]).split()[0]
        note = f"{size} MiB, {files} files"
        rows += [
            row(f"first commit at {count}x", [first], "s", note=note),
            row(f"edit of one file at {count}x, without a label", starts, "s", note=note),
            row(f"commit of that edit at {count}x", commits, "s", at_most=0.3, note=note),
            row(f"commit of a plain tree with one file changed at {count}x", again, "s", note=note),
        ]
        shutil.rmtree(image.repository)
    return rows


PARTS: dict[str, Callable[[Trees, Path, argparse.Namespace], list[Row]]] = {
    "peers": peers_rows,
    "edits": edit_rows,
    "export": export_rows,
    "growth": growth_rows,
}


class Image:
    """`koguma image` on one repository; a call gives its seconds."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository

    def command(self, *words: str) -> Command:
        return [str(KOGUMA), "image", "--repo", str(self.repository), *words]

    def __call__(self, *words: str) -> float:
        return timed([self.command(*words)], "warm")


def without_labels(repository: Path, peer: str = OURS) -> None:
    """No other tool makes something bootable of a commit, so labels are measured apart."""
    if peer == OURS:
        (repository / "policy.toml").write_text("[labels]\nenabled = false\n")


def with_labels(repository: Path) -> None:
    (repository / "policy.toml").unlink()


def timed(commands: list[Command], temperature: str, environ: dict[str, str] | None = None) -> float:
    """Seconds of these whole processes; `cold` empties the page cache before."""
    run(["sync"])
    if temperature == "cold":
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    started = time.monotonic()
    for command in commands:
        run(command, environ)
    return time.monotonic() - started


def settle(*paths: Path) -> None:
    """Read the trees once, so that warm is warm for the first tool, too."""
    for path in paths:
        subprocess.run(["tar", "-C", str(path), "-cf", "/dev/stdout", "."], stdout=subprocess.DEVNULL, check=True)


def stored(repository: Path) -> tuple[int, int]:
    """Bytes and inodes of a repository."""
    found = [path.lstat() for path in repository.rglob("*")]
    return sum(status.st_blocks * 512 for status in found), len(found)


def peak_mb(command: Command) -> float:
    """The most memory a command's processes had at one time, shared pages counted once per process (RSS)."""
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=plain_environ()) as process:
        ended = threading.Event()
        threading.Thread(target=lambda: (process.wait(), ended.set()), daemon=True).start()
        while not ended.wait(0.02):
            peak = max(peak, sum(map(resident, descendants(process.pid))))
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peak / 1e6


def descendants(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue  # it ended meanwhile
    return found


def resident(pid: int) -> int:
    """Bytes of memory that are a process's own or mapped privately; pages of mapped pack files are the system's."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem")))


if __name__ == "__main__":
    main()
