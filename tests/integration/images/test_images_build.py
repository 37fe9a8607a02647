"""A real build with mmdebstrap from this machine's mirror, then the maintenance cycle: edit with apt, commit, diff."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from koguma.images.build import RECIPE_NOTE, build
from koguma.images.edit import commit_edit, edit
from koguma.images.repository import Repository
from koguma.images.trees import decode, resolve

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="mmdebstrap in root mode and edits need root"),
    pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed"),
]
RECIPE = """
suite = "bookworm"
hostname = "small"
exclude = ["/usr/share/doc/*"]
commands = ["echo made by a command > /root/command", "test -e /etc/issue.new"]
[[files]]
path = "/etc/issue.new"
content = "hello"
mode = "0640"
"""


def _names(repository: Repository, revision: str, path: bytes) -> set[bytes]:
    found = resolve(repository.objects.read, repository.root(repository.resolve(revision)), path)
    assert found is not None
    return {entry.name for entry in decode(repository.objects.read(found[1].digest))}


def test_a_recipe_is_built_edited_with_apt_and_the_diff_names_the_package(tmp_path: Path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(RECIPE)
    repository = Repository.init(tmp_path / "repository")

    built = build(repository, recipe, "small")

    assert built.created
    assert built.commit.notes[RECIPE_NOTE]
    assert _names(repository, "small", b"root") >= {b"command"}
    found = resolve(repository.objects.read, repository.root(built.commit), b"etc/issue.new")
    assert found is not None
    assert (found[1].mode, repository.objects.read(found[1].digest)) == (0o640, b"hello")
    assert b"00koguma-build" not in _names(repository, "small", b"etc/apt/apt.conf.d")
    assert b"resolv.conf" not in _names(repository, "small", b"etc")
    assert not any(name.endswith(b".deb") for name in _names(repository, "small", b"var/cache/apt/archives"))
    assert list((repository.path / "cache" / "debs" / "bookworm").glob("*.deb"))
    assert list((repository.path / "tmp").iterdir()) == []
    again = build(repository, recipe, "small")
    assert (again.created, again.commit.id) == (False, built.commit.id)

    repository.create_branch("next", "small")
    assert edit(repository, "next", ["apt-get", "install", "-y", "-qq", "tree"]) == 0
    commit_edit(repository, "next", "tree")

    diff = repository.diff("small", "next")
    assert [(item.name, item.change) for item in diff.packages] == [("tree", "installed")]
    paths = {file.path.decode() for file in diff.files}
    assert "usr/bin/tree" in paths
    assert not any(
        path.startswith(("var/lib/apt/lists", "var/cache/apt", "run/", "tmp/", "usr/share/doc")) for path in paths
    )
    assert "usr/sbin/policy-rc.d" not in paths
