"""Runs the functional bare-metal tests of the released openstacksdk against a fresh server, one after the other and
with four workers, and says how many passed.

    python tests/openstack/run_sdk.py [--work DIR] [--url URL] [stestr's arguments, such as a test's name]

1. Install the released package, and what its tests import, into an environment of their own.
2. Take the tests from the source distribution of the same version.
3. Start `koguma up` on an empty directory (once for each run), or use the server at --url.
4. Run stestr and count.

It exits with status 0 when every test of both runs passed and none was skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("openstacksdk", "stestr", "fixtures", "testtools", "oslotest", "requests-mock", "ddt", "jsonschema")
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 40.0

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
    python = environment(work)
    tests = source(work, python)
    results = []
    for name, how in (("one after the other", ["--serial"]), ("with 4 workers", ["--concurrency", "4"])):
        with server(work) if arguments.url is None else contextlib.nullcontext(arguments.url) as url:
            results.append((name, run(tests, python, url, how, more)))
    for name, (passed, failed, skipped, seconds) in results:
        counts = f"{passed} passed, {failed} failed, {skipped} skipped, {seconds:.0f} s"
        print(f"openstacksdk {version(python)}, {name}: {counts}")
    return 0 if all(passed and not failed and not skipped for _, (passed, failed, skipped, _) in results) else 1


def environment(work: Path) -> Path:
    """The Python of the environment with the released package."""
    directory = work.absolute() / "venv"
    python = directory / "bin" / "python"
    if not python.exists():
        venv.create(directory, with_pip=True)
        pip(python, "install", "--quiet", *PACKAGES)
    return python


def source(work: Path, python: Path) -> Path:
    """The unpacked source distribution of the installed version."""
    name = f"openstacksdk-{version(python)}"
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
            f"openstacksdk=={version(python)}",
        )
        with tarfile.open(work / f"{name}.tar.gz") as archive:
            archive.extractall(work, filter="data")
    return (work / name).absolute()


def version(python: Path) -> str:
    command = [str(python), "-c", "from importlib.metadata import version; print(version('openstacksdk'))"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def pip(python: Path, *arguments: str) -> None:
    subprocess.run([str(python), "-m", "pip", "--disable-pip-version-check", *arguments], check=True)


@contextlib.contextmanager
def server(work: Path) -> Iterator[str]:
    """A fresh `koguma up`; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    state = tempfile.mkdtemp(prefix="koguma-sdk-")
    log = work / "koguma.log"
    command = [sys.executable, "-m", "koguma", "up", "--state", state, "--api", address, "--auth", "none", "--no-boot"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_for(f"http://{address}/v1/conductors", process, log)
            yield f"http://{address}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_TIMEOUT_S)
            subprocess.run(["rm", "-rf", state], check=False)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a worker is there as well."""
    deadline = time.monotonic() + START_TIMEOUT_S
    request = urllib.request.Request(url, headers={"X-OpenStack-Ironic-API-Version": "1.115"})
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
            if b'"hostname"' in answer.read():
                return
        time.sleep(0.2)
    raise SystemExit(f"the server must answer within {START_TIMEOUT_S:.0f} s; it said:\n{log.read_text()[-4000:]}")


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
    stestr = [str(python.parent / "stestr"), "--test-path", "./openstack/tests/functional/baremetal", "--top-dir", "./"]
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
