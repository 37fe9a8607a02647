"""Images made as their developers make them, judged by the machine that boots them.

One machine is enough: KOGUMA_TEST_SITE_BOOT may name the directory of a site that is kept (docs/developing/images.md).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .sites import Site

pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3600)]
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
COMMITS, PLANTED = 64, 23
TRIALS_MAX = 6
MADE = ("with-nginx", "with-vim", "history", "broken")


@pytest.fixture
def repository(site: Site) -> Iterator[Path]:
    """The site's repository; the branches made by a test go, and so does the policy it wrote."""
    path = site.state / "images"
    _forget(site, path)
    yield path
    _forget(site, path)


def _forget(site: Site, repository: Path) -> None:
    (repository / "policy.toml").unlink(missing_ok=True)
    site.koguma("image", "switch", "compute", check=False)
    for branch in MADE:
        site.koguma("image", "edit", branch, "--discard", check=False)
        site.koguma("image", "rm", branch, check=False)


def _boot_once(site: Site, label: str) -> str:
    """Boot the first node by a label, once; gives its name."""
    name = str(site.nodes()[0]["name"])
    before = site.boots(name)[0]["id"]
    site.koguma("node", "boot", name, "--label", label, "--once")
    boot = site.wait_for_boot(name, before, timeout_s=600)
    assert boot["label"] == label
    assert boot["commit"] == site.json("image", "log", label)[0]["commit"]
    return name


@pytest.fixture
def plain(site: Site) -> Iterator[str]:
    """The first node in a flavor without templates: those of compute nodes are for images that have them."""
    name = str(site.nodes()[0]["name"])
    if "plain" not in {flavor["name"] for flavor in site.json("flavor", "list")}:
        site.koguma("flavor", "create", "plain", "--label", "compute", "--root-method", "ram")
    site.koguma("node", "set-flavor", name, "plain")
    yield name
    site.koguma("node", "set-flavor", name, "compute")


@pytest.mark.usefixtures("plain")
def test_trixie_built_from_a_recipe_boots_into_memory(site: Site) -> None:
    site.koguma("image", "build", str(RECIPES / "minimal.toml"), "-b", "minimal")

    name = _boot_once(site, "minimal")

    assert "VERSION_CODENAME=trixie" in site.ssh(name, "cat /etc/os-release").stdout
    assert site.ssh(name, "findmnt -no FSTYPE /").stdout.strip() == "overlay"
    assert site.ssh(name, "uname -r").stdout.strip() == _kernel_of(site, "minimal")
    assert site.ssh(name, "hostname").stdout.strip() == name
    assert site.ssh(name, "systemctl list-units --failed --no-legend --plain").stdout == ""
    difference = site.koguma("image", "diff", "compute", "minimal").stdout
    assert re.search(r"^upgraded +libc6:amd64 2\.36\S* -> 2\.41", difference, re.M), difference[:4000]


def _kernel_of(site: Site, label: str) -> str:
    shown = site.koguma("image", "show", f"{label}:/boot", check=True).stdout
    found = re.search(r"vmlinuz-(\S+)", shown)
    assert found, shown
    return found.group(1)


@pytest.mark.usefixtures("repository")
def test_nginx_of_one_branch_and_vim_of_the_other_run_on_a_machine_that_boots_their_merge(site: Site) -> None:
    for branch, package in (("with-nginx", "nginx"), ("with-vim", "vim")):
        site.koguma("image", "branch", branch, "compute")
        site.koguma("image", "edit", branch, "--", "apt-get", "install", "-y", "--no-install-recommends", package)
        site.koguma("image", "commit", "-b", branch, "-m", f"Add {package}")

    merged = site.koguma("image", "merge", "with-vim", "-b", "with-nginx").stdout.split()[-1]

    commit = site.json("image", "log", "with-nginx")[0]
    assert commit["commit"] == merged
    assert len(commit["parents"]) == 2
    name = _boot_once(site, "with-nginx")
    assert site.ssh(name, "dpkg --audit").stdout == ""
    site.ssh(name, "apt-get check")
    assert site.ssh(name, "systemctl is-active nginx").stdout.strip() == "active"
    page = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1/').read())"
    assert "nginx" in site.ssh(name, f'python3 -c "{page}"').stdout
    assert "VIM - Vi IMproved" in site.ssh(name, "vim --version").stdout
    assert site.ssh(name, "systemctl list-units --failed --no-legend --plain").stdout == ""


def _grow(site: Site, repository: Path, tree: Path) -> dict[int, str]:
    """64 commits on top of compute, each with a new setting; one of them breaks a service by the way. Their ids."""
    (repository / "policy.toml").write_text("[labels]\nenabled = false\n")
    site.koguma("image", "branch", "history", "compute")
    site.koguma("image", "checkout", "compute", str(tree))
    ids = {}
    for number in range(1, COMMITS + 1):
        (tree / "etc/generation").write_text(f"{number}\n")
        if number == PLANTED:
            (tree / "etc/chrony/chrony.conf").write_text("pool 10.77.0.1\nthis is not a directive\n")
        done = site.koguma("image", "commit", "-b", "history", "-m", f"generation {number}", str(tree))
        ids[number] = done.stdout.split()[-1]
    # Nobody keeps an artifact of every commit: those of old ones expired, and a trial makes its own.
    (repository / "policy.toml").write_text("[labels]\nkeep_commits_per_branch = 1\nkeep_days = 0\n")
    return ids


def test_bisect_finds_the_bad_commit_among_64_in_six_boots(site: Site, repository: Path, tmp_path: Path) -> None:
    node = str(site.nodes()[0]["name"])
    try:
        ids = _grow(site, repository, tmp_path / "tree")
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "tree")], check=False)
    before = {boot["id"] for boot in site.boots(node)}
    site.koguma("image", "bisect", "start", "history", "compute")

    try:
        search = ["image", "bisect", "run", "--boot", node, "--", "systemctl", "is-active", "--quiet", "chrony"]
        done = site.koguma(*search, timeout_s=3000)
    finally:
        site.koguma("image", "bisect", "reset")

    assert f"{ids[PLANTED]} is the first bad commit: generation {PLANTED}" in done.stdout
    site.wait_for("the node is back", lambda: site.boots(node)[0]["label"] == "compute", 300)
    site.wait_for("its boot ends", lambda: site.boots(node)[0]["outcome"] == "succeeded", 600)
    tried = [boot for boot in site.boots(node) if boot["id"] not in before and boot["label"] != "compute"]
    assert 1 <= len(tried) <= TRIALS_MAX
    assert {boot["outcome"] for boot in tried} == {"succeeded"}
    assert len({boot["commit"] for boot in tried}) == len(tried)
    assert [tag for tag in site.json("image", "tag") if tag["name"].startswith("bisect/")] == []


def test_bisect_finds_the_commit_that_a_machine_cannot_boot(site: Site, repository: Path) -> None:
    """Without a command a commit is good when the machine boots it; one that does not costs no hand."""
    node = str(site.nodes()[0]["name"])
    (repository / "policy.toml").write_text("[labels]\nenabled = false\n")
    site.koguma("image", "branch", "broken", "compute")
    ids = []
    for words in ("echo 1 >/etc/generation", "echo '{{ unclosed' >/etc/nova/nova.conf.tpl", "echo 3 >/etc/generation"):
        site.koguma("image", "edit", "broken", "--", "sh", "-c", words)
        ids.append(site.koguma("image", "commit", "-b", "broken", "-m", words).stdout.split()[-1])
    (repository / "policy.toml").write_text("[labels]\nkeep_commits_per_branch = 1\nkeep_days = 0\n")
    site.koguma("image", "bisect", "start", "broken", "compute")

    try:
        done = site.koguma("image", "bisect", "run", "--boot", node, timeout_s=3000)
    finally:
        site.koguma("image", "bisect", "reset")

    assert f"{ids[1]} is the first bad commit" in done.stdout
    site.wait_for("the node is back", lambda: site.boots(node)[0]["label"] == "compute", 300)
    site.wait_for("its boot ends", lambda: site.boots(node)[0]["outcome"] == "succeeded", 600)
