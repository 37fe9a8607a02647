"""What a tree laid out as the upper layer of an overlay shows, held against the tree itself."""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koguma.images.draft import Folder, store_root
from koguma.images.hashing import FileHasher
from koguma.images.overlay import apply_upper
from koguma.images.repository import Repository
from koguma.images.upperlayer import lay_out
from tests.property.images.test_images_round_trip import Gardener, _mounted, differences

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and mounts need root"),
    pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed"),
]
few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(st.integers(0, 2**32))
def test_a_layer_laid_out_over_one_tree_shows_the_other_and_is_committed_as_it(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    base = tmp_path_factory.mktemp("layer")
    for name in ("tree", "upper", "work", "merged"):
        (base / name).mkdir()
    gardener = Gardener(seed)
    gardener.grow(os.fsencode(base / "tree"))
    repository = Repository.init(base / "repository")
    lower = repository.root(repository.commit_tree(base / "tree", "main", "m").commit)
    repository.checkout("main", base / "lower")
    gardener.change(os.fsencode(base / "tree"))
    (base / "tree").chmod(0o711)
    wanted = repository.commit_tree(base / "tree", "main", "m").commit

    lay_out(repository.objects, lower, repository.root(wanted), base / "upper")

    layers = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work,redirect_dir=off,metacopy=off,index=off"
    with _mounted("-t", "overlay", "-o", layers, "overlay", str(base / "merged")):
        assert differences(base / "tree", base / "merged", "--no-times") == ""
    draft = Folder(lower, repository.objects.read)
    with repository.objects.writing() as writer:
        with FileHasher(writer) as hasher:
            apply_upper(os.fsencode(base / "upper"), draft, hasher)
        assert store_root(draft, writer).hex() == wanted.tree
