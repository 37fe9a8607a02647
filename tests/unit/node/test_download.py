from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
from boot_service import Answer, serving
from koguma_node import download
from koguma_node.errors import NodeError, UnverifiedError

DATA = os.urandom(3 * 1024 * 1024 + 17)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.time, "sleep", lambda _seconds: None)


def fetch(url: str, target: Path, digest: str = DIGEST, size_bytes: int = len(DATA), left_s: float = 30) -> None:
    download.fetch_verified(url, target, "kernel", size_bytes, digest, time.monotonic() + left_s)


def test_a_file_with_the_promised_digest_arrives_whole(tmp_path: Path) -> None:
    with serving(Answer(200, DATA)) as server:
        fetch(f"{server.url}/kernel", tmp_path / "kernel")
    assert (tmp_path / "kernel").read_bytes() == DATA


def test_a_flipped_byte_is_refused_with_both_digests_and_the_place_and_leaves_nothing(tmp_path: Path) -> None:
    flipped = bytes([DATA[0] ^ 1]) + DATA[1:]
    with serving(Answer(200, flipped)) as server, pytest.raises(UnverifiedError) as refused:
        fetch(f"{server.url}/kernel", tmp_path / "kernel")
    got = hashlib.sha256(flipped).hexdigest()
    assert str(refused.value) == f"kernel: SHA-256 must be {DIGEST}, got {got} ({server.url}/kernel)"
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_download_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    half = 1_000_000
    with serving(Answer(200, DATA[:half], length=len(DATA)), Answer(206, DATA[half:])) as server:
        fetch(f"{server.url}/kernel", tmp_path / "kernel")
    assert (tmp_path / "kernel").read_bytes() == DATA
    assert server.requests[1].headers["Range"] == f"bytes={half}-"


def test_a_download_that_stays_truncated_is_refused_after_two_resumes(tmp_path: Path) -> None:
    cut = Answer(200, DATA[:1000], length=len(DATA))
    with serving(cut, Answer(206, b"", length=10)) as server, pytest.raises(UnverifiedError, match="got 1000 bytes"):
        fetch(f"{server.url}/kernel", tmp_path / "kernel")
    assert len(server.requests) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_answers_a_range_with_the_whole_file_does_not_corrupt_it(tmp_path: Path) -> None:
    cut, whole = Answer(200, DATA[:1000], length=len(DATA)), Answer(200, DATA)
    with serving(cut, whole) as server, pytest.raises(UnverifiedError, match="got 1000 bytes"):
        fetch(f"{server.url}/kernel", tmp_path / "kernel")


def test_a_file_longer_than_promised_is_refused(tmp_path: Path) -> None:
    with serving(Answer(200, DATA + b"more")) as server, pytest.raises(UnverifiedError, match=r"size must be .* bytes"):
        fetch(f"{server.url}/kernel", tmp_path / "kernel")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with serving(Answer(404, b"")) as server, pytest.raises(UnverifiedError, match="got 0 bytes"):
        fetch(f"{server.url}/kernel", tmp_path / "kernel")


def test_a_file_larger_than_memory_is_not_even_asked_for(tmp_path: Path) -> None:
    with serving(Answer(200, DATA)) as server, pytest.raises(NodeError, match="bytes of memory are needed"):
        fetch(f"{server.url}/kernel", tmp_path / "kernel", size_bytes=1 << 60)
    assert server.requests == []


def test_a_download_that_takes_too_long_ends_with_what_came(tmp_path: Path) -> None:
    with serving(Answer(200, DATA)) as server, pytest.raises(NodeError, match="must end in time"):
        fetch(f"{server.url}/kernel", tmp_path / "kernel", left_s=-1)
