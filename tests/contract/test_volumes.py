"""What every volume driver keeps: run against the fake, a real tgtd, where an initiator logs in over iSCSI, and the
recorded APIs of OpenStack's Cinder (or the real ones, see `make test-cinder`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from koguma.contracts.errors import UnknownVolumeDriver, VolumeRefused, VolumeUnreachable
from koguma.contracts.volumes import FakeVolumes, Initiator, VolumeAccess, VolumeDriver
from koguma.drivers.volume import open_volumes
from koguma.drivers.volume.tgt.driver import TgtVolumes
from koguma.model.volume import Target
from tests.contract.cinder_api import CLOUD
from tests.contract.tgt_storage import TOOLS, TgtStorage, can_transfer, login, qemu_io

LIMIT_S = 60.0
MIB = 1 << 20
ONE = Initiator("iqn.2026-01.koguma.node:one", "one", "s3cretpw1234")
TWO = Initiator("iqn.2026-01.koguma.node:two", "two", "s3cretpw5678")


@dataclass
class Bench:
    driver: VolumeDriver
    refuses: Callable[[Target, Initiator], str | None] | None
    """Logs in as a machine does; None where there is nothing to log in to."""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TgtStorage]:
    if any(shutil.which(tool, path="/usr/bin:/usr/sbin") is None for tool in TOOLS):
        pytest.skip("needs tgt and libiscsi-bin")
    storage = TgtStorage(tmp_path_factory.mktemp("tgt"))
    yield storage
    storage.close()


@pytest.fixture(params=["fake", pytest.param("tgt", marks=pytest.mark.root), "cinder"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "fake":
        return Bench(FakeVolumes(), None)
    if request.param == "tgt":
        storage: TgtStorage = request.getfixturevalue("storage")
        return _emptied(Bench(open_volumes(storage.access), login))
    if real := os.environ.get("KOGUMA_TEST_CLOUD"):
        return _emptied(Bench(open_volumes(VolumeAccess("cinder", real)), None))
    request.getfixturevalue("cinder")
    return Bench(open_volumes(VolumeAccess("cinder", CLOUD)), None)


def _emptied(bench: Bench) -> Bench:
    driver = bench.driver
    for name in driver.volumes(timeout_s=LIMIT_S):
        driver.hide(name, timeout_s=LIMIT_S)
        driver.delete(name, timeout_s=LIMIT_S)
    return bench


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "root.img"
    path.write_bytes(b"KOGUMA" * 1000 + bytes(MIB))
    return path


def test_a_volume_is_made_of_an_image_once_and_keeps_its_size(bench: Bench, image: Path) -> None:
    for _ in range(2):
        made = bench.driver.create("node1-root", image, 8 * MIB, timeout_s=LIMIT_S)
        assert (made.name, made.size_bytes, made.initiator) == ("node1-root", 8 * MIB, None)
    assert dict(bench.driver.volumes(timeout_s=LIMIT_S)) == {"node1-root": made}
    with pytest.raises(VolumeRefused, match="must have"):
        bench.driver.create("node1-root", image, 9 * MIB, timeout_s=LIMIT_S)


def test_a_volume_is_shown_to_one_machine_until_it_is_hidden(bench: Bench, image: Path) -> None:
    bench.driver.create("node1-root", image, 8 * MIB, timeout_s=LIMIT_S)
    target = bench.driver.show("node1-root", ONE, timeout_s=LIMIT_S)
    assert bench.driver.show("node1-root", ONE, timeout_s=LIMIT_S) == target
    with pytest.raises(VolumeRefused, match=r"must be hidden first.*node:one") as caught:
        bench.driver.show("node1-root", TWO, timeout_s=LIMIT_S)
    assert not caught.value.retry
    assert bench.driver.volumes(timeout_s=LIMIT_S)["node1-root"].initiator == ONE.name
    if bench.refuses:
        assert bench.refuses(target, ONE) is None
        assert "Authentication failure" in (bench.refuses(target, replace(ONE, secret="wrong1234567")) or "")
        assert "not found" in (bench.refuses(target, TWO) or "")
    for _ in range(2):
        bench.driver.hide("node1-root", timeout_s=LIMIT_S)
    if bench.refuses:
        assert bench.refuses(target, ONE)
    moved = bench.driver.show("node1-root", TWO, timeout_s=LIMIT_S)
    if bench.refuses:
        assert bench.refuses(moved, TWO) is None
        assert bench.refuses(moved, ONE)


def test_a_volume_that_is_shown_is_not_deleted(bench: Bench, image: Path) -> None:
    bench.driver.create("node1-root", image, 8 * MIB, timeout_s=LIMIT_S)
    bench.driver.show("node1-root", ONE, timeout_s=LIMIT_S)
    with pytest.raises(VolumeRefused, match="must be hidden first"):
        bench.driver.delete("node1-root", timeout_s=LIMIT_S)
    bench.driver.hide("node1-root", timeout_s=LIMIT_S)
    for _ in range(2):
        bench.driver.delete("node1-root", timeout_s=LIMIT_S)
    assert bench.driver.volumes(timeout_s=LIMIT_S) == {}


def test_two_volumes_are_served_side_by_side(bench: Bench, image: Path) -> None:
    for name, machine in (("a", ONE), ("b", TWO)):
        bench.driver.create(name, image, 4 * MIB, timeout_s=LIMIT_S)
        target = bench.driver.show(name, machine, timeout_s=LIMIT_S)
        if bench.refuses:
            assert bench.refuses(target, machine) is None
    bench.driver.hide("a", timeout_s=LIMIT_S)
    if bench.refuses:
        assert bench.refuses(target, TWO) is None


@pytest.mark.parametrize("name", ["", "../x", "A", "a b", "-x", "x" * 64, "a/b"])
def test_a_name_that_is_none_is_refused(bench: Bench, image: Path, name: str) -> None:
    with pytest.raises(VolumeRefused, match="name must be"):
        bench.driver.create(name, image, 8 * MIB, timeout_s=LIMIT_S)


@pytest.mark.parametrize(
    "initiator",
    [replace(ONE, name="node1"), replace(ONE, secret="short"), replace(ONE, user="--op"), replace(ONE, user="")],
)
def test_an_initiator_that_is_none_is_refused(bench: Bench, image: Path, initiator: Initiator) -> None:
    bench.driver.create("node1-root", image, 8 * MIB, timeout_s=LIMIT_S)
    with pytest.raises(VolumeRefused):
        bench.driver.show("node1-root", initiator, timeout_s=LIMIT_S)
    assert bench.driver.volumes(timeout_s=LIMIT_S)["node1-root"].initiator is None


def test_a_volume_that_does_not_exist_is_not_shown(bench: Bench) -> None:
    with pytest.raises(VolumeRefused, match="must exist"):
        bench.driver.show("nothing", ONE, timeout_s=LIMIT_S)
    bench.driver.hide("nothing", timeout_s=LIMIT_S)


def test_secrets_do_not_show() -> None:
    assert ONE.secret not in repr(ONE)


def test_no_driver_of_an_unknown_name_is_opened() -> None:
    for name in ("nope", "../fake", "fake.x", ""):
        with pytest.raises(UnknownVolumeDriver):
            open_volumes(VolumeAccess(name, "/x"))
    assert isinstance(open_volumes(VolumeAccess("fake", "a")), FakeVolumes)


# --- tgt's own


@pytest.mark.root
class TestTgt:
    def test_content_is_the_images_and_outlives_a_move_and_a_restart(self, storage: TgtStorage, image: Path) -> None:
        driver = open_volumes(storage.access)
        driver.create("moved", image, 8 * MIB, timeout_s=LIMIT_S)
        driver.show("moved", ONE, timeout_s=LIMIT_S)
        path = storage.directory / "moved.img"
        assert path.read_bytes() == image.read_bytes() + bytes(8 * MIB - image.stat().st_size)
        assert path.stat().st_blocks * 512 < 2 * MIB, "holes stay holes"
        storage.restart()
        assert driver.volumes(timeout_s=LIMIT_S)["moved"].initiator is None
        target = driver.show("moved", TWO, timeout_s=LIMIT_S)
        assert login(target, TWO) is None
        assert path.read_bytes()[:6] == b"KOGUMA"

    def test_what_a_machine_wrote_survives_a_power_cut_and_is_there_for_its_replacement(
        self, storage: TgtStorage, image: Path
    ) -> None:
        if not can_transfer():
            pytest.skip("needs qemu-utils and qemu-block-extra")
        driver = open_volumes(storage.access)
        driver.create("survivor", image, 8 * MIB, timeout_s=LIMIT_S)
        target = driver.show("survivor", ONE, timeout_s=LIMIT_S)
        assert "4b4f47554d41" in qemu_io(target, ONE, "read -v 0 512").replace(" ", "")  # the image's own words
        assert "wrote 4096/4096" in qemu_io(target, ONE, "write -f -P 0xab 1M 4k")
        storage.restart()
        driver.hide("survivor", timeout_s=LIMIT_S)
        target = driver.show("survivor", TWO, timeout_s=LIMIT_S)
        assert "read 4096/4096" in qemu_io(target, TWO, "read -P 0xab 1M 4k")
        assert "verification failed" not in qemu_io(target, TWO, "read -P 0xab 1M 4k")

    def test_a_show_that_was_cut_short_is_begun_again(self, storage: TgtStorage, image: Path) -> None:
        driver = open_volumes(storage.access)
        driver.create("cut", image, 8 * MIB, timeout_s=LIMIT_S)
        environ = {"TGT_IPC_SOCKET": str(storage.directory / "tgtd"), "PATH": "/usr/bin:/usr/sbin"}
        target = ["--tid", "77", "-T", "iqn.2026-01.koguma.volume:cut"]
        subprocess.run(
            ["tgtadm", "--lld", "iscsi", "--mode", "target", "--op", "new", *target], env=environ, check=True
        )
        assert login(driver.show("cut", ONE, timeout_s=LIMIT_S), ONE) is None

    def test_an_image_that_does_not_fit_leaves_nothing(self, storage: TgtStorage, image: Path) -> None:
        driver = open_volumes(storage.access)
        with pytest.raises(VolumeRefused, match="that fits"):
            driver.create("small", image, 1000, timeout_s=LIMIT_S)
        assert not list(storage.directory.glob("*small*"))

    def test_a_storage_that_is_away_or_hangs_is_worth_a_retry(self, tmp_path: Path) -> None:
        with pytest.raises(VolumeUnreachable) as caught:
            open_volumes(VolumeAccess("tgt", str(tmp_path))).volumes(timeout_s=10)
        assert caught.value.retry
        tool = tmp_path / "tgtadm"
        tool.write_text("#!/bin/sh\nexec sleep 30\n")
        tool.chmod(0o755)
        started = time.monotonic()
        with pytest.raises(VolumeUnreachable, match="within"):
            TgtVolumes(VolumeAccess("tgt", str(tmp_path)), program=str(tool)).volumes(timeout_s=1)
        assert time.monotonic() - started < 5
