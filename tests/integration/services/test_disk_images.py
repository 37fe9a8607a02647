"""Disk images of others, fetched from a real HTTP server, and converted by the real qemu-img."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from koguma.contracts.errors import DiskImageRefused, DiskImageUnreachable
from koguma.errors import KogumaError
from koguma.images.errors import LimitError, TreeError
from koguma.model.disk_image import DiskImage
from koguma.services import disk_images
from koguma.services.disk_images import DiskImageShelf

MIB = 1 << 20
needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")


class Handler(SimpleHTTPRequestHandler):
    asked: list[str] = []

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A directory and the URL it is served at."""
    folder = tmp_path / "served"
    folder.mkdir()
    Handler.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def shelf(tmp_path: Path) -> DiskImageShelf:
    return DiskImageShelf(tmp_path / "disks")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def raw_disk(path: Path) -> Path:
    path.write_bytes((b"KOGUMA" * 1000).ljust(8192, b"\0") + bytes(4 * MIB))
    return path


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


@needs_qemu_img
def test_qcow2_becomes_raw_once_and_is_found_again(
    served: tuple[Path, str], shelf: DiskImageShelf, tmp_path: Path
) -> None:
    folder, url = served
    raw = raw_disk(tmp_path / "disk.raw")
    qemu_img("convert", "-f", "raw", "-O", "qcow2", "-c", raw, folder / "disk.qcow2")
    image = DiskImage(f"{url}/disk.qcow2", digest(folder / "disk.qcow2"), None, "qcow2")
    ready = shelf.ready(image)
    assert ready == DiskImage(f"disks/{image.sha256}.raw", digest(raw), raw.stat().st_size)
    assert ready.is_ready
    kept = tmp_path / ready.url
    assert kept.read_bytes() == raw.read_bytes()
    assert kept.stat().st_blocks * 512 < MIB, "holes stay holes"
    assert shelf.ready(image) == ready
    assert len(Handler.asked) == 1, "it is fetched once"


def test_raw_image_of_unknown_size_is_measured(served: tuple[Path, str], shelf: DiskImageShelf) -> None:
    folder, url = served
    raw = raw_disk(folder / "disk.raw")
    ready = shelf.ready(DiskImage(f"{url}/disk.raw", digest(raw), None))
    assert (ready.size_bytes, ready.sha256) == (raw.stat().st_size, digest(raw))


def test_other_content_than_promised_is_refused_and_leaves_nothing(
    served: tuple[Path, str], shelf: DiskImageShelf, tmp_path: Path
) -> None:
    folder, url = served
    raw_disk(folder / "disk.raw")
    with pytest.raises(DiskImageRefused, match="SHA-256 must be 0000"):
        shelf.ready(DiskImage(f"{url}/disk.raw", "0" * 64, None))
    assert [path.name for path in (tmp_path / "disks").iterdir()] == [f".{'0' * 64}.lock"]


@needs_qemu_img
def test_qcow2_that_names_another_file_or_is_encrypted_or_is_none_is_refused(
    served: tuple[Path, str], shelf: DiskImageShelf, tmp_path: Path
) -> None:
    folder, url = served
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow", folder / "backed", "10M")
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/data,data_file_raw=on", folder / "split", "10M")
    secret = ["--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"]
    for _ in range(50):  # it measures how fast it derives a key, and gives up when the kernel's clock is too coarse
        with suppress(subprocess.CalledProcessError):
            qemu_img("create", "-f", "qcow2", *secret, folder / "encrypted", "10M")
            break
    qemu_img("create", "-f", "qcow2", folder / "huge", "100T")
    (folder / "none").write_bytes(b"QFI\xfb")
    for name, kind in (("backed", TreeError), ("split", TreeError), ("encrypted", TreeError), ("none", TreeError),
                       ("huge", LimitError)):  # fmt: skip
        with pytest.raises(kind) as caught:
            shelf.ready(DiskImage(f"{url}/{name}", digest(folder / name), None, "qcow2"))
        assert not caught.value.retry
    assert not list((tmp_path / "disks").glob("*.raw"))


def test_what_is_not_there_is_refused_and_who_is_away_is_worth_a_retry(
    served: tuple[Path, str], shelf: DiskImageShelf
) -> None:
    _, url = served
    with pytest.raises(DiskImageRefused, match="status 404"):
        shelf.ready(DiskImage(f"{url}/nothing", "0" * 64, None))
    for place in ("http://127.0.0.1:1/x", "http://[bad"):
        with pytest.raises(DiskImageUnreachable) as caught:
            shelf.ready(DiskImage(place, "0" * 64, None))
        assert caught.value.retry


def test_image_that_is_too_large_is_refused_before_it_fills_the_disk(
    served: tuple[Path, str], shelf: DiskImageShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = served
    raw = raw_disk(folder / "disk.raw")
    monkeypatch.setattr(disk_images, "BYTES_MAX", MIB)
    with pytest.raises(KogumaError, match="may have"):
        shelf.ready(DiskImage(f"{url}/disk.raw", digest(raw), None))


def test_images_that_nobody_asked_for_in_a_month_go(
    served: tuple[Path, str], shelf: DiskImageShelf, tmp_path: Path
) -> None:
    folder, url = served
    old, new = folder / "old.raw", folder / "new.raw"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    shelf.ready(DiskImage(f"{url}/old.raw", digest(old), None))
    month_ago = time.time() - 31 * 86400
    for suffix in ("json", "raw"):
        os.utime(tmp_path / "disks" / f"{digest(old)}.{suffix}", (month_ago, month_ago))
    shelf.ready(DiskImage(f"{url}/new.raw", digest(new), None))
    assert [path.name for path in (tmp_path / "disks").glob("*.raw")] == [f"{digest(new)}.raw"]
