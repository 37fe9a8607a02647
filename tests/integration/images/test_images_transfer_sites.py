"""Transfers as an operator makes them: the command line, a served repository with TLS and tokens, an S3 store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from koguma.images.fsck import fsck
from koguma.images.repository import Repository
from koguma.images.transfer.errors import NotFastForwardError
from koguma.images.transfer.fetching import clone, fetch, pull
from koguma.images.transfer.pushing import push
from koguma.images.transfer.remotes import add_remote, find_remote
from tests.unit.images.making import listing, make_repository, make_tree
from tests.unit.images.sites import make_bucket, s3_server

pytestmark = pytest.mark.slow

Image = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def image() -> Image:
    def run(repository: Path, *arguments: str, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "koguma", "image", "--repo", str(repository), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=120, env=os.environ | environment
        )
        assert done.returncode == status, done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("moto", reason="needs moto, an S3-compatible server")
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as url:
        yield url


def test_a_site_works_from_an_s3_store(s3: str, tmp_path: Path) -> None:
    make_bucket(s3, "images")
    files: dict[str, str | bytes] = {f"d{number % 5}/f{number}": os.urandom(30_000) for number in range(100)}
    tree = make_tree(tmp_path / "tree", files)
    origin = make_repository(tmp_path / "origin")
    origin.commit_tree(tree, "release/1", "first")
    add_remote(origin.path, "s3", "s3://images/site/a")
    pushed = push(origin, find_remote(origin.path, "s3"), ["release/1"])
    copy, branch = clone("s3://images/site/a", tmp_path / "copy")

    assert branch == "release/1"
    assert pushed.objects == fsck(copy).objects
    (tree / "d1/f1").write_text("changed")
    copy.commit_tree(tree, "release/1", "second")
    assert push(copy, find_remote(copy.path, "origin"), ["release/1"]).objects == 5
    assert pull(origin, find_remote(origin.path, "s3"), "release/1")[1] == copy.resolve("release/1").id
    origin.checkout("release/1", tmp_path / "out")
    assert listing(tmp_path / "out") == listing(tree)

    (tree / "d1/f1").write_text("one way")
    origin.commit_tree(tree, "release/1", "one way")
    (tree / "d1/f1").write_text("another way")
    copy.commit_tree(tree, "release/1", "another way")
    push(origin, find_remote(origin.path, "s3"), ["release/1"])
    with pytest.raises(NotFastForwardError):
        push(copy, find_remote(copy.path, "origin"), ["release/1"])
    fetch(copy, find_remote(copy.path, "origin"))
    push(copy, find_remote(copy.path, "origin"), ["release/1"], force_with_lease=True)
    assert fetch(origin, find_remote(origin.path, "s3")).moved[0].ref.commit == copy.resolve("release/1").id
    assert fsck(origin).problems == fsck(copy).problems == ()


def test_a_day_of_two_sites(image: Image, tmp_path: Path) -> None:
    certificate, key, tokens, token = (tmp_path / name for name in ("cert.pem", "key.pem", "tokens", "token"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    token.write_text("a-secret-of-the-sites\n")
    shutil.copy(token, tokens)
    tree = make_tree(tmp_path / "tree", {"etc/motd": "hello"})
    here, there = tmp_path / "here", tmp_path / "there"
    image(there, "init")
    image(there, "commit", "-b", "main", "-m", "first", str(tree), "--no-wait")
    options = ["--tls-cert", certificate, "--tls-key", key, "--token-file", tokens, "--allow-push"]
    server = subprocess.Popen(
        [sys.executable, "-m", "koguma", "image", "--repo", there, "serve", "--listen", "127.0.0.1:0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().decode().strip()
        assert url.startswith("https://127.0.0.1:")
        distrusted = image(here, "clone", url, "--token-file", str(token), "--no-labels", status=1)
        assert "certificate must be trusted" in distrusted.stderr
        refused = image(tmp_path / "none", "clone", url, "--no-labels", status=1, SSL_CERT_FILE=str(certificate))
        assert "token" in refused.stderr

        def mine(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
            return image(here, *arguments, status=status, SSL_CERT_FILE=str(certificate))

        mine("clone", url, "--token-file", str(token), "--no-labels")
        exported = image(there, "keys", "export").stdout
        (tmp_path / "there.pem").write_text(exported)
        assert "not trusted here" in mine("verify", status=1).stdout
        added = mine("keys", "add", str(tmp_path / "there.pem")).stdout.strip()
        assert f"signed by {added}" in mine("verify").stdout

        (tree / "etc/motd").write_text("second")
        second = mine("commit", "-b", "main", "-m", "second", str(tree), "--no-wait").stdout.strip()
        assert json.loads(mine("push", "--json").stdout)["refs"][0]["new"] == second
        assert image(there, "log", "-n", "1", "--json").stdout.count(second) == 1
        shown = json.loads(mine("remote", "show", "--json").stdout)
        assert shown["refs"] == [{"kind": "branch", "name": "main", "commit": second, "state": "up to date"}]
        assert json.loads(mine("remote", "list", "--json").stdout) == [{"name": "origin", "url": url}]
        assert mine("pull", "--no-wait").stdout.strip() == second
        assert "0 objects" in mine("fetch").stderr
        mine("remote", "remove", "origin")
        assert "there is no remote 'origin'" in mine("push", status=1).stderr
        everything = (here / "remotes.json").read_text() + refused.stderr + distrusted.stderr
        assert "a-secret-of-the-sites" not in everything
    finally:
        server.terminate()
        _, errors = server.communicate(timeout=60)
    assert b"Traceback" not in errors
    with Repository.open(there) as repository:
        assert fsck(repository).problems == ()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--listen", "0.0.0.0:0"], "--token-file"),
        (["--listen", "nowhere"], "ADDRESS:PORT"),
        (["--tls-cert", "/none.pem"], "both --tls-cert and --tls-key"),
        (["--tls-cert", "/none.pem", "--tls-key", "/none.pem"], "certificate"),
        (["--token-file", "/none"], "token file must be readable"),
    ],
)
def test_a_server_that_would_not_be_safe_does_not_start(
    image: Image, tmp_path: Path, options: list[str], match: str
) -> None:
    image(tmp_path / "repository", "init")

    failed = image(tmp_path / "repository", "serve", *options, status=1)
    assert match in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_directories_as_deep_as_can_be_committed_are_cloned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, folder = make_repository(tmp_path / "a"), make_tree(tmp_path / "deep", {})
    monkeypatch.chdir(folder)
    for _ in range(1500):
        Path("d").mkdir()
        monkeypatch.chdir("d")
    repository.commit_tree(folder, "main", "deep")
    copy, _ = clone(str(repository.path), tmp_path / "copy")
    monkeypatch.chdir(tmp_path)

    assert copy.resolve("main").id == repository.resolve("main").id
    subprocess.run(["rm", "-r", folder], check=True)  # pytest's own clearing calls itself for each level
