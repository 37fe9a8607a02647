"""The list of Debian packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from koguma.lab import lab, packages
from koguma.lab.errors import ToolsMissingError


def test_the_list_is_printed_by_a_bare_python() -> None:
    """It runs before the virtual environment exists, so neither site packages nor the package's own may be needed."""
    module = Path(packages.__file__)
    done = subprocess.run([sys.executable, "-I", "-S", str(module)], capture_output=True, text=True, check=True)
    names = done.stdout.splitlines()
    assert names == list(packages.PACKAGES)
    assert "qemu-system-x86" in names


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packages.PACKAGES, "no-such-package", ("no-such-program", "/no/such/file"))
    assert packages.missing()["no-such-package"] == ["no-such-program", "/no/such/file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="asks for root first")
def test_the_message_says_how_to_install_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packages.PACKAGES, "no-such-package", ("no-such-program",))
    with pytest.raises(ToolsMissingError, match=r"no-such-package \(for no-such-program\).*apt-get install"):
        lab.require_tools()
