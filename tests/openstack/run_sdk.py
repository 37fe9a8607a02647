"""Runs the functional bare-metal tests of the released openstacksdk against a fresh server, one after the other and
with four workers, and says how many passed.

    python -m tests.openstack.run_sdk [--work DIR] [--url URL] [stestr's arguments, such as a test's name]

1. Install the released package, and what its tests import, into an environment of their own.
2. Take the tests from the source distribution of the same version.
3. Start `koguma up` on an empty directory (once for each run), or use the server at --url.
4. Run stestr and count. The tests of a module stay with one worker: one of them expects that no allocations exist but
   its own, and others of its module make some.

It exits with status 0 when every test of both runs passed and none was skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

from tests.openstack.released import environment, pip, server, version

NAME = "openstacksdk"
MODULE = r".+\.test_\w+\.(?=Test)"
"""Of a test's id, by which stestr keeps tests together."""
PACKAGES = (NAME, "stestr", "fixtures", "testtools", "oslotest", "requests-mock", "ddt", "jsonschema")

CLOUD = """
clouds:
  koguma: &cloud
    auth_type: none
    auth:
      endpoint: {url}
    baremetal_endpoint_override: {url}
    has_compute: false
    has_image: false
  devstack: *cloud
  devstack-admin: *cloud
  devstack-alt: *cloud
  devstack-system-admin: *cloud
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="where the environment is kept for the next time")
    parser.add_argument("--url", help="a server that runs already")
    arguments, more = parser.parse_known_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="koguma-openstacksdk-"))
    python = environment(work / "venv", PACKAGES)
    tests = source(work, python)
    results = []
    for name, how in (("one after the other", ["--serial"]), ("with 4 workers", ["--concurrency", "4"])):
        with server(work) if arguments.url is None else contextlib.nullcontext(arguments.url) as url:
            results.append((name, run(tests, python, url, how, more)))
    for name, (passed, failed, skipped, seconds) in results:
        counts = f"{passed} passed, {failed} failed, {skipped} skipped, {seconds:.0f} s"
        print(f"openstacksdk {version(python, 'openstacksdk')}, {name}: {counts}")
    return 0 if all(passed and not failed and not skipped for _, (passed, failed, skipped, _) in results) else 1


def source(work: Path, python: Path) -> Path:
    """The unpacked source distribution of the installed version."""
    name = f"openstacksdk-{version(python, 'openstacksdk')}"
    if not (work / name).is_dir():
        pip(
            python,
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--dest",
            str(work),
            f"openstacksdk=={version(python, 'openstacksdk')}",
        )
        with tarfile.open(work / f"{name}.tar.gz") as archive:
            archive.extractall(work, filter="data")
    return (work / name).absolute()


def run(tests: Path, python: Path, url: str, how: list[str], more: list[str]) -> tuple[int, int, int, float]:
    """Passed, failed, skipped, seconds."""
    (tests / "clouds.yaml").write_text(CLOUD.format(url=url), encoding="utf-8")
    environ = {
        **os.environ,
        "OS_CLIENT_CONFIG_FILE": str(tests / "clouds.yaml"),
        "OS_CLOUD": "koguma",
        "OS_STDOUT_CAPTURE": "1",
        "OS_STDERR_CAPTURE": "1",
        "OS_TEST_TIMEOUT": "120",
    }
    stestr = [
        str(python.parent / "stestr"), "--test-path", "./openstack/tests/functional/baremetal", "--top-dir", "./",
        "--group-regex", MODULE,
    ]  # fmt: skip
    began = time.monotonic()
    done = subprocess.run(
        [*stestr, "run", *how, *more], cwd=tests, env=environ, text=True, stdout=subprocess.PIPE, check=False
    )
    print(done.stdout)
    counts = [int(match[1]) if (match := re.search(rf" - {word}: +(\d+)", done.stdout)) else 0
              for word in ("Passed", "Failed", "Skipped")]  # fmt: skip
    return counts[0], counts[1], counts[2], time.monotonic() - began


if __name__ == "__main__":
    raise SystemExit(main())
