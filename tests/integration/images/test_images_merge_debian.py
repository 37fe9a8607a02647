"""Two branches of one Debian root, one with nginx and one with vim, from this machine's mirror, merged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from koguma.images.build import build
from koguma.images.edit import commit_edit, edit
from koguma.images.merge import Result, merge
from koguma.images.repository import Repository
from koguma.images.trees import lookup

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="mmdebstrap in root mode and edits need root"),
    pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed"),
]
RECIPE = """
suite = "bookworm"
variant = "apt"
exclude = ["/usr/share/doc/*", "/usr/share/locale/*"]
"""
CHECK = """
test -z "$(dpkg --audit)"
apt-get check -qq
nginx -v
vim --version >/dev/null
test "$(readlink -f /usr/bin/vi)" = /usr/bin/vim.basic
ldconfig -p | grep -q libsodium
ldconfig -p | grep -q libssl
test -z "$(dpkg --verify nginx vim libsodium23 libssl3 | grep -v /usr/share/doc)"
dpkg -s nginx vim | grep -c "^Status: install ok installed" | grep -qx 2
"""


def test_nginx_of_one_branch_and_vim_of_the_other_are_both_whole_in_their_merge(tmp_path: Path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(RECIPE)
    repository = Repository.init(tmp_path / "repository")
    base = build(repository, recipe, "base").commit
    tips = []
    for package in ("nginx", "vim"):
        repository.create_branch(package, "base")
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        assert edit(repository, package, install) == 0
        tips.append(commit_edit(repository, package, f"install {package}").commit.id)

    outcome = merge(repository, "vim", "nginx")

    assert (outcome.result, outcome.conflicts) == (Result.COMMITTED, ())
    assert outcome.commit.parents == tuple(tips)
    installed = {item.name for item in repository.diff(base.id, "nginx").packages}
    assert (
        installed
        == {item.name for package in tips for item in repository.diff(base.id, package).packages}
        >= {"nginx", "vim"}
    )
    # What only one side touched is what that side made of it; the rest is told.
    told = {item.path for item in outcome.notes} | {b"etc/ld.so.cache", b"var/cache/ldconfig/aux-cache"}
    changes = [{item.path for item in repository.diff(base.id, tip).files} for tip in tips]
    read = repository.objects.read
    roots = [repository.root(repository.resolve(name)) for name in ("nginx~1", "vim", "nginx")]
    for own, other, root in ((changes[0], changes[1], roots[0]), (changes[1], changes[0], roots[1])):
        for path in own - other - told:
            entry, merged = lookup(read, root, path), lookup(read, roots[2], path)
            assert entry is None or merged is None or entry.kind == ord("d") or entry == merged, path
            assert (entry is None) == (merged is None), path
    assert edit(repository, "nginx", ["sh", "-ec", CHECK]) == 0
