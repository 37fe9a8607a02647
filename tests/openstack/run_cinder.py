"""The volume driver `cinder` against a real Cinder and a real Glance behind a real Keystone.

    python -m tests.openstack.run_cinder [--work DIR]

1. Install the released cinder, glance, keystone and keystonemiddleware into an environment of their own.
2. Start them on SQLite and loopback ports (tests/openstack/block_storage.py says how, and with which back end).
3. Run the suite that every volume driver keeps against them: the one that the recorded APIs answer in `make test`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.openstack.block_storage import CLOUD, PACKAGES, block_storage
from tests.openstack.released import environment, version


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="where the environment is kept for the next time")
    work = (parser.parse_args().work or Path(tempfile.mkdtemp(prefix="koguma-cinder-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    python = environment(work / "venv", PACKAGES)
    with block_storage(work, python) as clouds:
        environ = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(clouds), "KOGUMA_TEST_CLOUD": CLOUD}
        command = [sys.executable, "-m", "pytest", "-q", "tests/contract/test_volumes.py", "-k", "cinder"]
        wrong = subprocess.run(command, env=environ, check=False).returncode
    versions = ", ".join(f"{package} {version(python, package)}" for package in PACKAGES)
    print(f"{versions}: {'as every volume driver' if not wrong else 'differences, see above'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
