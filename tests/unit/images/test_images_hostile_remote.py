"""A remote that lies: nothing of it is used, no ref moves, and the error says what was wrong."""

from __future__ import annotations

import json
import random
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest
import zstandard
from starlette.requests import Request
from starlette.responses import Response

from koguma.contracts.errors import BackendUnreachable, ObjectBackendError
from koguma.contracts.objects import FakeObjects
from koguma.errors import KogumaError
from koguma.images import objects
from koguma.images.commits import Commit
from koguma.images.errors import CorruptError, ImageError
from koguma.images.fsck import fsck
from koguma.images.objects import BLOB, COMMIT, TREE
from koguma.images.packs import PACK_HEADER, RAW, RECORD, ZSTD, encode_index, record_header
from koguma.images.repository import Repository
from koguma.images.transfer import fetching, incoming, pushing, server, serving
from koguma.images.transfer.errors import HostileRemoteError, RemoteError
from koguma.images.transfer.fetching import fetch
from koguma.images.transfer.http import HttpObjects
from koguma.images.transfer.incoming import PACK_START, UploadFile, accept, salvage
from koguma.images.transfer.pushing import push
from koguma.images.transfer.remotes import add_remote, find_remote
from koguma.images.transfer.walk import Walk
from koguma.images.trees import DIRECTORY, FIFO, FILE, Entry, encode, encode_root
from tests.unit.images.making import make_repository, make_tree
from tests.unit.images.sites import AT_ONCE, odd_server, served


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeObjects:
    """A store to which an honest repository was pushed."""
    fake = FakeObjects()
    for module in (fetching, pushing):
        monkeypatch.setattr(module, "open_backend", lambda _: fake)
    repository = make_repository(tmp_path / "honest")
    files: dict[str, str | bytes] = {f"d/{number}": f"file {number} " * 50 for number in range(30)}
    repository.commit_tree(make_tree(tmp_path / "tree", files), "main", "first")
    add_remote(repository.path, "site", "s3://fake")
    push(repository, find_remote(repository.path, "site"), ["main"])
    return fake


@pytest.fixture
def victim(tmp_path: Path) -> Repository:
    victim = make_repository(tmp_path / "victim")
    add_remote(victim.path, "site", "s3://fake")
    return victim


def attempt(victim: Repository, expected: type[KogumaError], match: str) -> None:
    with pytest.raises(expected, match=match):
        fetch(victim, find_remote(victim.path, "site"), backoff=AT_ONCE)
    assert victim.refs.every() == []
    assert fsck(victim).problems == ()


def blob(fake: FakeObjects, suffix: str) -> str:
    return next(name for name in fake.blobs if name.endswith(suffix))


def record(kind: int, content: bytes, *, object_id: bytes | None = None, codec: int = RAW, size: int = -1) -> bytes:
    identity = object_id or sha256(content).digest()
    return record_header(identity, kind, codec, len(content) if size < 0 else size, content) + content


def serve_records(fake: FakeObjects, records: list[bytes], tip: str) -> None:
    """Replace what the store has by these records and one branch."""
    for name in [name for name in fake.blobs if name.startswith(("packs/", "refs/"))]:
        del fake.blobs[name]
    places, at = {}, PACK_HEADER.size
    for item in records:
        fields = RECORD.unpack(item[: RECORD.size])
        places[fields[6]] = (at, fields[4])
        at += len(item)
    index = encode_index(places, at)
    name = f"packs/pack-{sha256(index).hexdigest()[:32]}"
    fake.blobs[f"{name}.pack"] = PACK_START + b"".join(records)
    fake.blobs[f"{name}.idx"] = index
    fake.blobs["refs/heads/main"] = f"{tip}\n".encode()


def commit_of(entries: list[Entry], extra: list[bytes]) -> tuple[list[bytes], str]:
    top = encode(entries)
    root = encode_root(Entry(b"", DIRECTORY, 0o755, 0, 0, digest=sha256(top).digest()))
    content = Commit(sha256(root).hexdigest(), (), "me", 1, "evil").to_bytes()
    records = [record(TREE, top), record(TREE, root), record(COMMIT, content), *extra]
    return records, sha256(content).hexdigest()


LYING = Entry(b"liar", FILE, 0o644, 0, 0, size=3, digest=sha256(b"three").digest())


@pytest.mark.parametrize("whole", [True, False])
def test_a_flipped_byte_in_a_pack_is_found(fake: FakeObjects, victim: Repository, whole: bool) -> None:
    name = blob(fake, ".pack")
    data = bytearray(fake.blobs[name])
    data[len(data) // 2] ^= 1
    fake.blobs[name] = bytes(data)

    with pytest.raises(HostileRemoteError):
        fetch(victim, find_remote(victim.path, "site"), branches=None if whole else ["main"], backoff=AT_ONCE)
    assert victim.refs.every() == []


def test_a_digest_that_lies_is_found_though_every_checksum_is_right(fake: FakeObjects, victim: Repository) -> None:
    content = b"what the tree promises"
    entry = Entry(b"sshd", FILE, 0o755, 0, 0, size=len(content), digest=sha256(content).digest())
    evil = record(BLOB, b"what the remote gives!", object_id=sha256(content).digest())
    serve_records(fake, *commit_of([entry], [evil]))

    attempt(victim, HostileRemoteError, "its content has another digest")


def test_a_pack_that_breaks_off_is_found(fake: FakeObjects, victim: Repository) -> None:
    name = blob(fake, ".pack")
    fake.blobs[name] = fake.blobs[name][:-100]

    attempt(victim, ObjectBackendError, "bytes asked for")


def test_an_index_that_is_not_what_its_name_says_is_found(fake: FakeObjects, victim: Repository) -> None:
    name = blob(fake, ".idx")
    data = bytearray(fake.blobs[name])
    data[2000] ^= 1
    fake.blobs[name] = bytes(data)

    attempt(victim, HostileRemoteError, "digest is not the one in its name")


@pytest.mark.parametrize(("at", "match"), [(0, "ascend|fanout"), (1040 + 3, "ascend|fanout")])
def test_an_index_with_a_right_digest_must_still_make_sense(
    fake: FakeObjects, victim: Repository, at: int, match: str
) -> None:
    name = blob(fake, ".idx")
    data = bytearray(fake.blobs.pop(name))
    if at:
        data[1040:1072], data[1072:1104] = data[1072:1104], data[1040:1072]
    else:
        struct.pack_into("<I", data, 16, 99)
    body = bytes(data[:-32])
    index = body + sha256(body).digest()
    pack = f"packs/pack-{sha256(index).hexdigest()[:32]}"
    fake.blobs[f"{pack}.idx"] = index
    fake.blobs[f"{pack}.pack"] = fake.blobs.pop(name.replace(".idx", ".pack"))

    attempt(victim, HostileRemoteError, match)


def test_a_place_outside_the_pack_is_refused(fake: FakeObjects, victim: Repository) -> None:
    index = encode_index({b"\1" * 32: (1 << 40, 100)}, 5000)
    name = f"packs/pack-{sha256(index).hexdigest()[:32]}"
    fake.blobs[f"{name}.idx"], fake.blobs[f"{name}.pack"] = index, b""

    attempt(victim, HostileRemoteError, "outside the pack")


def test_a_small_frame_that_unfolds_to_gigabytes_is_refused_in_bounded_memory(
    fake: FakeObjects, victim: Repository
) -> None:
    import resource

    frame = zstandard.ZstdCompressor(level=1, write_content_size=False).compressobj()
    bomb = b"".join(frame.compress(bytes(64 << 20)) for _ in range(32)) + frame.flush()
    promised = sha256(b"small").digest()
    entry = Entry(b"a", FILE, 0o644, 0, 0, size=100, digest=promised)
    serve_records(fake, *commit_of([entry], [record(BLOB, bomb, object_id=promised, codec=ZSTD, size=len(bomb) * 2)]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    attempt(victim, HostileRemoteError, "must be what its id says")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB; the bomb is 2 GiB


def test_a_frame_that_announces_another_size_is_refused(fake: FakeObjects, victim: Repository) -> None:
    # The frame's header claims 1 TiB: a decompressor that believed it would allocate that.
    frame = b"\x28\xb5\x2f\xfd" + b"\xe0" + struct.pack("<Q", 1 << 40) + b"\x01\x00\x00"
    promised = sha256(b"x").digest()
    entry = Entry(b"a", FILE, 0o644, 0, 0, size=100, digest=promised)
    serve_records(fake, *commit_of([entry], [record(BLOB, frame, object_id=promised, codec=ZSTD, size=100)]))

    attempt(victim, HostileRemoteError, "another size|cannot be decompressed")


def test_a_size_beyond_any_file_is_refused(fake: FakeObjects, victim: Repository) -> None:
    promised = sha256(b"x").digest()
    entry = Entry(b"a", FILE, 0o644, 0, 0, size=1 << 62, digest=promised)
    serve_records(fake, *commit_of([entry], [record(BLOB, b"x", object_id=promised, codec=ZSTD, size=1 << 62)]))

    attempt(victim, HostileRemoteError, "at most")


@pytest.mark.parametrize("branches", [["main"], None], ids=["asked for by one", "in a whole pack"])
def test_a_file_must_have_the_size_its_tree_says(
    fake: FakeObjects, victim: Repository, branches: list[str] | None
) -> None:
    serve_records(fake, *commit_of([LYING], [record(BLOB, b"three")]))

    with pytest.raises(HostileRemoteError, match="must have the 3 bytes its tree says"):
        fetch(victim, find_remote(victim.path, "site"), branches=branches, backoff=AT_ONCE)
    assert victim.refs.every() == []


def test_a_new_size_of_an_old_file_is_not_believed(fake: FakeObjects, victim: Repository, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "mine", {"liar": "three"})
    victim.commit_tree(tree, "mine", "it has five bytes")
    serve_records(fake, *commit_of([LYING], []))

    with pytest.raises(HostileRemoteError, match="must have the 3 bytes its tree says"):
        fetch(victim, find_remote(victim.path, "site"), backoff=AT_ONCE)
    assert [ref.name for ref in victim.refs.every()] == ["mine"]


@pytest.mark.parametrize("branches", [["main"], None], ids=["asked for by one", "in a whole pack"])
def test_a_large_file_must_have_the_size_its_tree_says(
    fake: FakeObjects, victim: Repository, branches: list[str] | None
) -> None:
    content = random.Random(1).randbytes(6 << 20)
    liar = Entry(b"liar", FILE, 0o644, 0, 0, size=5, digest=sha256(content).digest())
    serve_records(fake, *commit_of([liar], [record(BLOB, content)]))

    with pytest.raises(HostileRemoteError, match="must have the 5 bytes its tree says"):
        fetch(victim, find_remote(victim.path, "site"), branches=branches, backoff=AT_ONCE)
    assert victim.refs.every() == []


@pytest.mark.parametrize("branches", [["main"], None], ids=["asked for by one", "in a whole pack"])
def test_a_file_larger_than_any_tree_is_not_read_as_one(
    fake: FakeObjects, victim: Repository, branches: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = bytes(5000)
    monkeypatch.setattr(objects, "TREE_BYTES_MAX", 4000)
    monkeypatch.setattr(objects, "content_of", lambda *_: pytest.fail("it was read"))
    entry = Entry(b"d", DIRECTORY, 0o755, 0, 0, digest=sha256(large).digest())
    serve_records(fake, *commit_of([entry], [record(BLOB, large)]))

    with pytest.raises(ImageError, match="a tree or commit has at most 4000 bytes, got 5000"):
        fetch(victim, find_remote(victim.path, "site"), branches=branches, backoff=AT_ONCE)
    assert victim.refs.every() == []


def test_of_the_trees_of_a_layer_one_is_held_at_a_time() -> None:
    leaves = [encode([Entry(b"%d" % number, FIFO, 0o644, 0, 0)]) for number in range(5)]
    top = encode(
        [Entry(b"%d" % at, DIRECTORY, 0o755, 0, 0, digest=sha256(leaf).digest()) for at, leaf in enumerate(leaves)]
    )
    root = encode_root(Entry(b"", DIRECTORY, 0o755, 0, 0, digest=sha256(top).digest()))
    commit = Commit(sha256(root).hexdigest(), ("1" * 64,) * 3, "me", 1, "a text of megabytes").to_bytes()
    contents = {sha256(item).digest(): item for item in (*leaves, top, root, commit)}
    noted = []

    def read(ids: Iterable[bytes], kind: int) -> Iterator[tuple[bytes, bytes]]:
        for object_id in ids:
            noted.append(len(walk.plan.parts))
            yield object_id, contents[object_id]

    walk = Walk(read, lambda _: False, lambda _: False)
    tip = sha256(commit).hexdigest()
    plan = walk.run([tip], shallow=[tip])

    assert noted[-5:] == [3, 4, 5, 6, 7]
    assert [(item.parents, item.message) for item in plan.commits.values()] == [(("1" * 64,), "")]


@pytest.mark.parametrize("name", [b"../../etc/passwd", b"..", b"a\0b", b"/etc"])
def test_names_that_lead_out_of_a_tree_are_refused(fake: FakeObjects, victim: Repository, name: bytes) -> None:
    entry = Entry(name, FILE, 0o644, 0, 0, size=1, digest=sha256(b"x").digest())
    serve_records(fake, *commit_of([entry], [record(BLOB, b"x")]))

    attempt(victim, KogumaError, "is no file name")


@pytest.mark.parametrize(("levels", "taken"), [(2100, True), (2101, False)])
def test_a_tree_that_is_its_own_child_cannot_be_made_and_deep_ones_end(
    fake: FakeObjects, victim: Repository, levels: int, taken: bool
) -> None:
    leaf = encode([])
    records, digest = [record(TREE, leaf)], sha256(leaf).digest()
    for _ in range(levels):
        tree = encode([Entry(b"d", DIRECTORY, 0o755, 0, 0, digest=digest)])
        records.append(record(TREE, tree))
        digest = sha256(tree).digest()
    root = encode_root(Entry(b"", DIRECTORY, 0o755, 0, 0, digest=digest))
    content = Commit(sha256(root).hexdigest(), (), "me", 1, "deep").to_bytes()
    serve_records(fake, [*records, record(TREE, root), record(COMMIT, content)], sha256(content).hexdigest())

    if taken:
        assert fetch(victim, find_remote(victim.path, "site"), backoff=AT_ONCE).moved
    else:
        attempt(victim, HostileRemoteError, "at most 2100 below each other")


def test_an_object_that_is_nowhere_is_named(fake: FakeObjects, victim: Repository) -> None:
    entry = Entry(b"a", FILE, 0o644, 0, 0, size=1, digest=b"\7" * 32)
    serve_records(fake, *commit_of([entry], []))

    attempt(victim, KogumaError, "07070707.* is in no pack")


@pytest.mark.parametrize("name", ["..%2F..%2Fkeys%2Fsigning.pem", "%2e%2e", "a..b", "x" * 200, "HEAD", "deadbeef01"])
def test_refs_with_names_no_ref_may_have_are_refused(fake: FakeObjects, victim: Repository, name: str) -> None:
    fake.blobs[f"refs/heads/{name}"] = fake.blobs["refs/heads/main"]

    attempt(victim, HostileRemoteError, "branch or tag name")


def test_a_ref_that_holds_no_id_is_refused(fake: FakeObjects, victim: Repository) -> None:
    fake.blobs["refs/heads/main"] = b"../../../etc/passwd\n"

    attempt(victim, HostileRemoteError, "64 hex digits")


# Over HTTP


def answering(routes: dict[str, Callable[[BaseHTTPRequestHandler], None]]) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        route = routes.get(handler.path.partition("?")[0])
        if route:
            route(handler)
        else:
            send(b"{}", 404)(handler)

    return answer


def send(body: bytes, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


MARKER = send(b"koguma-repository/1\n")


def http_attempt(
    victim: Repository,
    routes: dict[str, Callable[[BaseHTTPRequestHandler], None]],
    expected: type[KogumaError],
    match: str,
) -> None:
    with odd_server(answering({"/koguma-repository": MARKER, **routes})) as url:
        add_remote(victim.path, "odd", url)
        with pytest.raises(expected, match=match):
            fetch(victim, find_remote(victim.path, "odd"), backoff=AT_ONCE)
    assert victim.refs.every() == []


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def test_an_answer_without_end_is_cut(victim: Repository) -> None:
    http_attempt(victim, {"/v1/refs": endless}, ObjectBackendError, "may have at most")


def test_a_redirect_is_not_followed(victim: Repository) -> None:
    redirect = send(b"", 302, Location="http://169.254.169.254/latest/meta-data")
    http_attempt(victim, {"/v1/refs": redirect}, ObjectBackendError, "got 302")


def test_an_answer_that_is_no_json_is_refused(victim: Repository) -> None:
    http_attempt(victim, {"/v1/refs": send(b"[" * 100_000)}, ObjectBackendError, "must be JSON")
    assert victim.refs.every() == []


@pytest.mark.parametrize(
    "document", [{"a": 1}, [["heads", "../x", "0" * 64]], [["remotes", "x", "0" * 64]], [[1, 2, 3]], [["heads", "x"]]]
)
def test_refs_of_another_form_are_refused(victim: Repository, document: object) -> None:
    http_attempt(victim, {"/v1/refs": send(json.dumps(document).encode())}, HostileRemoteError, "remote's")


@pytest.mark.parametrize(
    "listed", [[["packs/../../x", 1]], [["packs/.x", 1]], [["refs/heads/x", 1]], [["packs/x", -1.5]], 7]
)
def test_listings_of_another_form_are_refused(victim: Repository, listed: object) -> None:
    refs = send(json.dumps([["heads", "main", "1" * 64]]).encode())
    http_attempt(
        victim, {"/v1/refs": refs, "/v1/list": send(json.dumps(listed).encode())}, ObjectBackendError, "listing"
    )


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (send(b"x" * 50, 206, Content_Range="bytes 0-49/99"), "must be the one asked for"),
        (send(b"x" * 100, 200), "got 200"),
        (send(b"x" * 5, 206, Content_Range="bytes 10-19/99"), "broke off after 5"),
        (send(b"x" * 11, 206, Content_Range="bytes 10-19/99"), "goes on"),
        (send(b"x" * 5, 206, Content_Range="bytes 10-19/99", Content_Length="10"), "answer|broke off"),
    ],
)
def test_a_range_with_a_wrong_length_is_refused(answer: Callable[[BaseHTTPRequestHandler], None], match: str) -> None:
    def closing(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        answer(handler)

    with odd_server(closing) as url:
        backend = HttpObjects(url)
        with pytest.raises(ObjectBackendError, match=match):
            list(backend.read_range("packs/x", 10, 10))
        backend.close()


def test_silence_ends(victim: Repository) -> None:
    done = threading.Event()
    with odd_server(lambda _: done.wait(20) and None) as url:
        backend = HttpObjects(url, stall_s=0.2)
        with pytest.raises(BackendUnreachable, match="timed out"):
            backend.get("HEAD", bytes_max=10)
        done.set()


def test_an_answer_that_only_drips_is_cut() -> None:
    def dripping(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"x")
            time.sleep(0.02)

    with odd_server(dripping) as url:
        backend = HttpObjects(url, stall_s=0.3)
        with pytest.raises(BackendUnreachable, match="bytes a second or more"):
            backend.get("HEAD", bytes_max=1_000_000)


def _go_on_with_100() -> Iterator[bytes]:
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n"


def _drip_a_head() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX: "
    while time.sleep(0.02) is None:
        yield b"x"


def _send_trailers() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    while True:
        yield b"X: y\r\n"


def _drip_an_error() -> Iterator[bytes]:
    yield b"HTTP/1.1 500 Oops\r\nContent-Length: 1000\r\n\r\n"
    while time.sleep(0.02) is None:
        yield b"x"


@pytest.mark.parametrize("said", [_go_on_with_100, _drip_a_head, _send_trailers, _drip_an_error])
def test_no_answer_holds_a_client_for_ever(said: Callable[[], Iterator[bytes]]) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        for piece in said():
            handler.wfile.write(piece)

    with odd_server(answer) as url:
        backend = HttpObjects(url, stall_s=0.2)
        with pytest.raises(BackendUnreachable, match=r"timed out|bytes a second or more"):
            backend.get("HEAD", bytes_max=100)


def test_a_connection_is_used_again_and_has_all_its_time() -> None:
    ports = set()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        ports.add(handler.client_address[1])
        send(b"hello")(handler)

    with odd_server(answer) as url:
        backend = HttpObjects(url, stall_s=5)
        for _ in range(3):
            assert backend.get("HEAD", bytes_max=100).data == b"hello"
        assert [connection.sock.gettimeout() for connection in backend._idle] == [5]
        backend.close()
    assert len(ports) == 1


def test_a_slow_line_has_time_for_every_small_piece_it_sends() -> None:
    from koguma.images.transfer.http import _small

    pieces = [*_small(bytes(200_000)), *_small(iter([bytes(5 << 20), b"rest"]))]
    assert max(map(len, pieces)) == 64 * 1024
    assert sum(map(len, pieces)) == 200_000 + (5 << 20) + 4


def test_what_a_remote_says_is_shown_without_control_characters(victim: Repository) -> None:
    said = send(json.dumps({"error": "\x1b[2Jgone\r\nkoguma: all is well"}).encode(), 418)
    http_attempt(victim, {"/v1/refs": said}, ObjectBackendError, r"\?\[2Jgone\?\?koguma")


# What a server gets


@pytest.fixture
def site(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "site")


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"not a pack", "must start with"),
        (PACK_START + b"x" * 60, "kind and codec|damaged"),
        (PACK_START + record(BLOB, b"content")[:-1], "breaks off"),
        (PACK_START + record(BLOB, b"content", object_id=b"\1" * 32), "another digest"),
        (PACK_START + record(BLOB, b"content") + b"rest", "breaks off"),
        (PACK_START + record(BLOB, b"content") * 2, "each once"),
    ],
)
def test_a_pack_that_is_not_what_it_says_is_refused_whole(site: Repository, body: bytes, match: str) -> None:
    with served(site.path) as url:
        answer = httpx.post(f"{url}/v1/packs", content=body)

    assert answer.status_code == 422
    assert re.search(match, answer.json()["error"])
    assert [path.name for path in (site.path / "packs").iterdir()] == []
    assert list((site.path / "incoming").iterdir()) == []


def test_a_ref_to_what_is_not_whole_does_not_move(site: Repository) -> None:
    entry = Entry(b"a", FILE, 0o644, 0, 0, size=1, digest=b"\7" * 32)
    records, tip = commit_of([entry], [])
    update = {"kind": "heads", "name": "main", "old": None, "new": tip, "force": True}
    with served(site.path) as url:
        refused = httpx.post(f"{url}/v1/packs", content=PACK_START + b"".join(records))
        answer = httpx.post(f"{url}/v1/refs", json={"updates": [update], "author": "me"}).json()

    assert refused.status_code == 422
    assert "object 07070707" in refused.json()["error"]
    assert "must be whole" in answer[0]["problem"]
    assert site.refs.every() == []


def test_a_ref_to_a_tree_whose_bytes_came_as_a_file_moves_only_with_what_the_tree_needs(site: Repository) -> None:
    folder = encode([Entry(b"a", FILE, 0o644, 0, 0, size=1, digest=b"\7" * 32)])
    digest = sha256(folder).digest()
    copy = Entry(b"copy", FILE, 0o644, 0, 0, size=len(folder), digest=digest)
    records, tip = commit_of([copy, Entry(b"d", DIRECTORY, 0o755, 0, 0, digest=digest)], [record(BLOB, folder)])

    assert "object 07070707" in push_by_hand(site, records, tip)


def test_a_ref_to_a_file_of_another_size_does_not_move(site: Repository) -> None:
    assert "must have the 3 bytes its tree says, got 5" in push_by_hand(
        site, *commit_of([LYING], [record(BLOB, b"three")])
    )


@pytest.mark.parametrize("before", [True, False])
def test_a_tree_that_names_a_large_file_as_a_directory_is_refused(
    site: Repository, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = bytes(5000)
    monkeypatch.setattr(objects, "TREE_BYTES_MAX", 4000)
    entry = Entry(b"d", DIRECTORY, 0o755, 0, 0, digest=sha256(large).digest())
    records, _ = commit_of([entry], [] if before else [record(BLOB, large)])
    with served(site.path) as url:
        if before:
            assert httpx.post(f"{url}/v1/packs", content=PACK_START + record(BLOB, large)).status_code == 201
        answer = httpx.post(f"{url}/v1/packs", content=PACK_START + b"".join(records))

    assert answer.status_code == 422
    assert re.search("a tree or commit has at most 4000 bytes, object .* has 5000", answer.json()["error"])


def test_a_pack_has_so_many_records_and_no_more(site: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "RECORDS_MAX", 2)
    upload = UploadFile(site.path)
    upload.write(PACK_START + b"".join(record(BLOB, b"%d" % number) for number in range(3)))
    upload.close()

    with pytest.raises(HostileRemoteError, match="at most 2 objects"):
        accept(site, upload.path, "test")


def test_what_is_larger_than_any_tree_is_no_tree_for_gc(site: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    from koguma.images.reachable import Reached, ignore, mark_tree

    large = bytes(5000)
    monkeypatch.setattr(objects, "TREE_BYTES_MAX", 4000)
    with site.objects.writing() as writer:
        digest = writer.add(BLOB, large)
    monkeypatch.setattr(objects, "content_of", lambda *_: pytest.fail("it was read"))

    with pytest.raises(CorruptError, match="at most 4000 bytes, got 5000"):
        site.objects.read_part(digest)
    reached = Reached()
    mark_tree(site.objects, digest, reached, ignore)
    assert reached.walked == set()


def push_by_hand(site: Repository, records: list[bytes], tip: str) -> str:
    """Send these and ask for a branch; why it was refused."""
    update = {"kind": "heads", "name": "main", "old": None, "new": tip, "force": True}
    with served(site.path) as url:
        assert httpx.post(f"{url}/v1/packs", content=PACK_START + b"".join(records)).status_code == 201
        (answer,) = httpx.post(f"{url}/v1/refs", json={"updates": [update], "author": "me"}).json()
    assert site.refs.every() == []
    return str(answer["problem"])


@pytest.mark.parametrize(
    "name",
    [
        "../keys/signing.pem",
        "keys/signing.pem",
        "%2e%2e/etc/passwd",
        "packs/../keys/signing.pem",
        "logs/heads/main",
        "remotes.json",
    ],
)
def test_a_server_gives_no_file_but_those_of_the_layout(site: Repository, name: str) -> None:
    with served(site.path) as url:
        backend = HttpObjects(url)
        with backend.request("GET", f"/{name}") as response:
            assert response.status == 404
            response.read()
        backend.close()


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"updates": 1},
        {"updates": [{"kind": "remotes", "name": "x", "old": None, "new": "0" * 64}], "author": ""},
        {"updates": [{"kind": "heads", "name": "x", "old": None, "new": "../x"}], "author": ""},
        {"updates": [{"kind": "heads", "name": "x", "old": None, "new": None}], "author": ""},
        {"updates": [{"kind": "heads", "name": "x" * 301, "old": None, "new": "0" * 64}], "author": ""},
        {"updates": [], "author": "\ud800"},
        {"updates": [], "author": "me\nand you"},
        {"updates": [], "author": ["me"]},
        {"updates": [], "author": "me", "signatures": [["0" * 64, "0" * 16, "\ud800"]]},
    ],
)
def test_a_request_of_another_form_is_refused(site: Repository, document: object) -> None:
    with served(site.path) as url:
        answer = httpx.post(f"{url}/v1/refs", content=json.dumps(document))
    assert answer.status_code == 400
    assert "must have the form" in answer.json()["error"]


def test_a_ref_with_dots_is_not_made(site: Repository) -> None:
    content = Commit("0" * 64, (), "me", 1, "m").to_bytes()
    update = {"kind": "heads", "name": "../../x", "old": None, "new": sha256(content).hexdigest()}
    with served(site.path) as url:
        answer = httpx.post(f"{url}/v1/refs", json={"updates": [update], "author": "me"}).json()
    assert "name" in answer[0]["problem"]


def test_an_upload_without_a_length_or_beyond_the_limit_is_refused(
    site: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PACK_BYTES_MAX", 1000)
    with served(site.path) as url:
        assert httpx.post(f"{url}/v1/packs", content=b"x" * 1001).status_code == 413
        assert httpx.post(f"{url}/v1/packs", content=iter([b"x" * 10])).status_code == 413


def test_uploads_that_are_silent_give_their_places_back(site: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STALL_S", 0.1)
    with served(site.path) as url, ExitStack() as stack:
        silent = [begun(url, "/v1/packs", 1000, stack) for _ in range(server._UPLOADS_MAX)]
        answer = httpx.post(f"{url}/v1/packs", content=PACK_START + record(BLOB, b"content"), timeout=10)
        assert [connection.recv(12) for connection in silent] == [b"HTTP/1.1 408"] * len(silent)

    assert answer.status_code == 201


def test_pushes_that_wait_keep_no_reader_waiting(site: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived, done = [], threading.Event()
    salvage_at_once = server.Served._salvage

    async def counted(self: server.Served, request: Request) -> Response:
        arrived.append(request)
        return await salvage_at_once(self, request)

    monkeypatch.setattr(server.Served, "_salvage", counted)
    monkeypatch.setattr(server.Served, "_salvage_now", lambda _: done.wait(20) and 0)
    with served(site.path) as url, ExitStack() as stack:
        try:
            for _ in range(45):  # more than there are threads
                begun(url, "/v1/salvage", 0, stack)
            while len(arrived) < 45:
                time.sleep(0.01)
            assert httpx.get(f"{url}/v1/refs", timeout=5).json() == []
        finally:
            done.set()


def begun(url: str, path: str, length: int, stack: ExitStack) -> socket.socket:
    """A connection with a request whose body does not come."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
    return connection


def test_labels_follow_the_next_push_whatever_went_wrong_with_the_last(
    site: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    updates = []

    def update(repository: Repository) -> None:
        updates.append(repository)
        if len(updates) == 1:
            raise RuntimeError("something nobody thought of")

    monkeypatch.setattr(Repository, "update_labels", update)
    labels = serving._Labels(site.path)
    for _ in range(2):
        labels.later()
        labels.wait()

    assert len(updates) == 2
    assert "labels must follow a push" in caplog.text


def test_what_an_interrupted_upload_left_is_kept_as_far_as_it_is_right(site: Repository) -> None:
    upload = UploadFile(site.path)
    upload.write(PACK_START + record(BLOB, b"whole") + record(BLOB, b"cut short")[:-3])
    assert salvage(site.path) == 0  # its writer is alive
    upload.close()

    assert salvage(site.path) == 1
    assert salvage(site.path) == 0
    site.objects.refresh()
    assert site.objects.read(sha256(b"whole").digest()) == b"whole"
    assert fsck(site).problems == ()


def test_an_upload_that_is_taken_for_dead_before_it_is_locked_begins_anew(
    site: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = incoming.fcntl.flock, []

    def salvaged_before(descriptor: int, operation: int) -> None:
        if not taken:
            taken.append(True)
            assert salvage(site.path) == 0
        lock(descriptor, operation)

    monkeypatch.setattr(incoming.fcntl, "flock", salvaged_before)
    upload = UploadFile(site.path)
    upload.write(PACK_START + record(BLOB, b"whole"))

    assert accept(site, upload.path, "test") == 1
    upload.close()


def test_an_interrupted_upload_that_lies_leaves_nothing(site: Repository) -> None:
    upload = UploadFile(site.path)
    upload.write(PACK_START + record(BLOB, b"a lie", object_id=b"\1" * 32))
    upload.close()

    assert salvage(site.path) == 0
    assert list((site.path / incoming.FOLDER).iterdir()) == []


def test_a_record_with_a_right_checksum_of_wrong_fields_is_refused(site: Repository) -> None:
    raw = RECORD.pack(0, BLOB, 7, 0, 3, 3, sha256(b"abc").digest())[4:]
    upload = UploadFile(site.path)
    upload.write(PACK_START + struct.pack("<I", zlib.crc32(b"abc", zlib.crc32(raw))) + raw + b"abc")
    upload.close()

    with pytest.raises(HostileRemoteError, match="kind and codec"):
        accept(site, upload.path, "test")


def test_a_remote_that_is_no_repository_is_said_to_be_none(victim: Repository) -> None:
    http_attempt(victim, {"/koguma-repository": send(b"<html>")}, RemoteError, "must have the format")
