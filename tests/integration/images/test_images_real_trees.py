"""Roots of real distributions: imported as tar and as OCI image, compared, exported."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from koguma.images.formats import export_as
from koguma.images.importing import import_source
from koguma.images.repository import Repository
from koguma.images.trees import lookup
from tests.integration.images import trees
from tests.property.images.test_images_formats_round_trip import witness
from tests.unit.images.making import make_repository

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="rpm and mmdebstrap need root here")]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repository")


def _fedora(work: Path) -> tuple[Path, Path]:
    old = trees.make_fedora_like(work / "old", trees.fedora_packages(), work / "rpms")
    subprocess.run(["cp", "-a", old, work / "new"], check=True)
    return old, trees.upgrade_fedora_like(work / "new", trees.fedora_packages(minor=1), work / "rpms")


def _alpine(work: Path) -> tuple[Path, Path]:
    roots = [work / "old", work / "new"]
    for minor, root in enumerate(roots):
        trees.make_alpine_like(root, trees.alpine_packages(minor=minor))
    return roots[0], roots[1]


KINDS = [
    pytest.param(
        _fedora,
        trees.RPM_DATABASE,
        id="fedora-like",
        marks=pytest.mark.skipif(bool(trees.missing_rpm_tools()), reason="rpm is not installed"),
    ),
    pytest.param(
        _alpine,
        trees.APK_DATABASE,
        id="alpine-like",
        marks=pytest.mark.skipif(not trees.BUSYBOX.exists(), reason="a static busybox is not installed"),
    ),
]


@pytest.mark.parametrize(("make", "database"), KINDS)
def test_a_root_of_another_distribution_comes_in_as_tar_and_as_image(
    repository: Repository, tmp_path: Path, make: Callable[[Path], tuple[Path, Path]], database: str
) -> None:
    old, new = make(tmp_path)
    expected = [repository.commit_tree(root, name, "m").commit for root, name in ((old, "old"), (new, "new"))]
    for root in (old, new):
        subprocess.run(["tar", "-C", root, "--zstd", "-cf", f"{root}.tar.zst", "."], check=True)
        imported = import_source(repository, f"{root}.tar.zst", f"tar-{root.name}", "m").commit
        assert imported.tree == repository.resolve(root.name).tree

    export_as(repository, "new", "oci-archive", tmp_path / "image", base="old")
    image = import_source(repository, f"oci-archive:{tmp_path / 'image'}", "image", "m").commit

    assert image.tree == expected[1].tree
    changes = {file.path.decode(): file.change for file in repository.diff("old", "image").files}
    assert changes.items() >= {"usr/bin/tool": "changed", "usr/bin/old": "removed", "usr/bin/added": "added"}.items()
    assert changes[database] == "changed"
    entry = lookup(repository.objects.read, repository.root(image), database.encode())
    assert entry is not None
    assert repository.objects.read(entry.digest) == (new / database).read_bytes()


@pytest.mark.parametrize(("make", "database"), KINDS)
@pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")
def test_layers_that_another_tool_made_are_the_root_it_made_them_of(
    repository: Repository, tmp_path: Path, make: Callable[[Path], tuple[Path, Path]], database: str
) -> None:
    """umoci makes an image of the old root, then a layer of what differs in the new one, whiteouts included."""
    old, new = make(tmp_path)
    layout = tmp_path / "layout"

    def umoci(*arguments: str | Path) -> None:
        subprocess.run(["umoci", *arguments], check=True, capture_output=True)

    umoci("init", "--layout", layout)
    umoci("new", "--image", f"{layout}:it")
    for number, root in enumerate((old, new)):
        bundle = tmp_path / f"bundle{number}"
        umoci("unpack", "--image", f"{layout}:it", bundle)
        subprocess.run(["rsync", "-aHAXc", "--delete", f"{root}/", f"{bundle}/rootfs/"], check=True)
        umoci("repack", "--image", f"{layout}:it", bundle)

    imported = import_source(repository, f"oci:{layout}:it", "image", "m").commit

    assert imported.tree == repository.commit_tree(new, "new", "m").commit.tree
    assert database


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed")
@pytest.mark.parametrize("suite", ["bookworm", pytest.param("trixie", marks=pytest.mark.long)])
def test_a_debian_root_comes_in_and_goes_out_as_it_is(repository: Repository, tmp_path: Path, suite: str) -> None:
    tar = trees.debian_tar(suite, tmp_path / "root.tar")
    (tmp_path / "tree").mkdir()
    subprocess.run(
        ["tar", "-C", tmp_path / "tree", "--xattrs", "--xattrs-include=*", "-xpf", tar], check=True, capture_output=True
    )

    imported = import_source(repository, str(tar), suite, "m").commit

    assert imported.tree == repository.commit_tree(tmp_path / "tree", "directory", "m").commit.tree
    export_as(repository, suite, "oci-archive", tmp_path / "image")
    again = import_source(repository, f"oci-archive:{tmp_path / 'image'}", "again", "m").commit
    assert again.tree == imported.tree
    (tmp_path / "mnt").mkdir()
    before = witness(os.fsencode(tmp_path / "tree"), times=False)
    for image_format in ("squashfs", "erofs"):
        export_as(repository, suite, image_format, tmp_path / image_format)
        mount = ["mount", "-t", image_format, "-o", "loop,ro", str(tmp_path / image_format), str(tmp_path / "mnt")]
        subprocess.run(mount, check=True)
        try:
            assert witness(os.fsencode(tmp_path / "mnt"), times=False) == before
        finally:
            subprocess.run(["umount", str(tmp_path / "mnt")], check=True)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed")
def test_from_bookworm_to_trixie_the_diff_names_packages(repository: Repository, tmp_path: Path) -> None:
    for suite in ("bookworm", "trixie"):
        tar = trees.debian_tar(suite, tmp_path / f"{suite}.tar")
        import_source(repository, str(tar), suite, "m")

    packages = {item.name: item.change for item in repository.diff("bookworm", "trixie").packages}

    assert packages["libc6"] == "upgraded"
    assert packages["base-files"] == "upgraded"
