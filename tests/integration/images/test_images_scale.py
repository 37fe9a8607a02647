"""Nothing is lost at 200,000 files and 20 GB, and memory does not grow with either."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from koguma.images.repository import Repository
from koguma.images.trees import lookup, walk
from tests.property.images.test_images_formats_round_trip import witness

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="owners need root")]
GIBIBYTE = 1024**3
FOLDERS, FILES = 400, 500
LARGE = 4
LARGE_BYTES = 5 * GIBIBYTE
MEMORY_MAX_BYTES = 700 * 1024**2

_TIMED = """
import resource, subprocess, sys, time
start = time.monotonic()
done = subprocess.run(sys.argv[1:], stdin=sys.stdin)
print(time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(done.returncode)
"""


def _tree(path: Path) -> Path:
    """200,000 small files in 400 directories; four large ones, mostly holes, two of them equal: 20 GiB."""
    for folder in range(FOLDERS):
        below = path / "small" / f"{folder % 20}" / f"{folder}"
        below.mkdir(parents=True)
        for number in range(FILES):
            descriptor = os.open(below / f"file-{number}", os.O_WRONLY | os.O_CREAT, 0o600 + number % 64)
            os.write(descriptor, f"{folder % 300} {number}\n".encode() * (number % 7))
            os.close(descriptor)
    for number in range(LARGE):
        with (path / f"large{number}").open("wb") as file:
            for place in range(5):
                file.seek(place * GIBIBYTE + 12345)
                file.write(hashlib.sha256(b"%d %d" % (number // 2, place)).digest() * 4096)
            file.truncate(LARGE_BYTES)
    return path


def _measured(what: str, *arguments: str | Path, stdin: subprocess.Popen[bytes] | None = None) -> str:
    """Run koguma; its peak memory is limited. Returns what it printed last."""
    command = [sys.executable, "-c", _TIMED, sys.executable, "-m", "koguma", "image", *map(str, arguments)]
    done = subprocess.run(command, stdin=stdin.stdout if stdin else None, capture_output=True, text=True, check=True)
    *said, figures = done.stdout.splitlines()
    seconds, memory = figures.split()
    sys.stderr.write(f"{what}: {float(seconds):.1f} s, {int(memory) / 1024**2:.0f} MiB at most\n")
    assert int(memory) < MEMORY_MAX_BYTES
    return said[-1] if said else ""


def test_200000_files_and_20_gigabytes_come_and_go_whole(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree")
    expected = {f"large{number}": _digest(tree / f"large{number}") for number in (0, 2)}
    repository = Repository.init(tmp_path / "repository")
    here = ("--repo", repository.path)

    commit = _measured("commit", *here, "commit", "-b", "main", "-m", "m", tree)
    again = _measured("commit again", *here, "commit", "-b", "main", "-m", "m", tree)
    with subprocess.Popen(["tar", "-C", tree, "--sparse", "--format=pax", "-c", "."], stdout=subprocess.PIPE) as tar:
        imported = _measured("import of a tar", *here, "import", "-b", "tar", "-", stdin=tar)
    _measured("checkout", *here, "checkout", "main", tmp_path / "out")
    _measured("export", *here, "export", "main", "-o", tmp_path / "image")

    assert again == commit
    repository.objects.refresh()
    root = repository.root(repository.resolve("main"))
    assert repository.resolve(imported).tree == repository.resolve(commit).tree
    assert sum(1 for _ in walk(repository.objects.read, root)) == FOLDERS * FILES + FOLDERS + 20 + 1 + LARGE
    for name, digest in expected.items():
        entry = lookup(repository.objects.read, root, name.encode())
        assert entry is not None
        assert (entry.size, entry.digest.hex()) == (LARGE_BYTES, digest)
        assert _digest(tmp_path / "out" / name) == digest
        assert (tmp_path / "out" / name).stat().st_blocks * 512 < GIBIBYTE // 8
    before, after = (witness(os.fsencode(path / "small"), times=False) for path in (tree, tmp_path / "out"))
    assert before == after
    assert sum(path.stat().st_size for path in (repository.path / "packs").iterdir()) < GIBIBYTE // 4


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
