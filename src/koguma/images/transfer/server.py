"""`koguma image serve`: one repository over HTTP, for other sites to pull from and, if allowed, to push to.

```
GET  /<name>            a file of the layout FORMAT.md draws, with ranges: packs, indexes, refs, HEAD, shallow, …
GET  /v1/list?prefix=…  [[name, bytes], …] of packs/, refs/heads/, refs/tags/, signatures/
GET  /v1/refs           [[heads|tags, name, commit], …]
POST /v1/salvage        keep what interrupted pushes left
POST /v1/packs          a pack; 201 when every record was verified and it is there for good
POST /v1/refs           {"updates": […], "signatures": […], "author": "…"}; answers [{"problem": null | "…", …}, …]
```

Errors are `{"error": "<rule, value, place>"}`. What arrives is trusted in nothing: sizes are bounded, digests verified,
and refs move only to what is whole (`receiving`). A body that is silent or drips is given up, so that nobody holds what
others wait for. Serves no other file than those named.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import re
import stat
import time
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from koguma.errors import KogumaError
from koguma.images.commits import is_id
from koguma.images.refs import RefKind
from koguma.images.repository import Repository
from koguma.images.signatures import Signature, parse_signatures
from koguma.images.transfer.directory import DirectoryObjects
from koguma.images.transfer.errors import HostileRemoteError, RemoteError
from koguma.images.transfer.incoming import UploadFile, accept, salvage
from koguma.images.transfer.limits import (
    LISTING_BYTES_MAX,
    PACK_BYTES_MAX,
    RATE_MIN_BYTES_PER_S,
    REFS_MAX,
    STALL_S,
)
from koguma.images.transfer.receiving import RefUpdate, receive

_SERVED = re.compile(
    r"koguma-repository|HEAD|shallow|packs/pack-[0-9a-f]{32}\.(pack|idx)|packs/condemned|refs/(heads|tags)/[A-Za-z0-9%._+-]{1,300}"
    r"|signatures/(log|[0-9a-f]{32})"
)
_LISTED = ("packs/", "refs/heads/", "refs/tags/", "signatures/")
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")
_PIECE_BYTES = 1024 * 1024
_UPLOADS_MAX = 8
_NAME_MAX, _AUTHOR_MAX = 300, 200
_NO_LINE = {"Cc", "Cs", "Zl", "Zp"}
"""Kinds of characters that one line of text has none of: controls, halves of surrogate pairs, separators of lines."""

T = TypeVar("T")


@dataclass(frozen=True)
class Access:
    """Who may do what. Without tokens everybody who reaches the address may read, and push where that is allowed."""

    tokens: tuple[tuple[str, bool], ...] = ()
    """Each with whether it may push."""
    allow_push: bool = False

    def rights(self, authorization: str) -> tuple[bool, bool]:
        """Whether the bearer may read and may push."""
        if not self.tokens:
            return True, self.allow_push
        given = sha256(authorization.removeprefix("Bearer ").encode()).digest()
        read = push = False
        for token, may_push in self.tokens:  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(sha256(token.encode()).digest(), given):
                read, push = True, may_push and self.allow_push
        return read, push


def read_tokens(path: Path) -> tuple[tuple[str, bool], ...]:
    """The tokens of a file, one per line, `TOKEN` or `TOKEN read`; empty lines and those beginning with # are none."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise RemoteError(f"a token file must be readable: {error.strerror} ({path})") from None
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 2 or (len(words) == 2 and words[1] not in ("read", "push")) or len(words[0]) < 16:
            raise RemoteError(
                f"a line must be a token of 16 characters or more and the word read or push ({path}, line {number})"
            )
        found.append((words[0], words[1:] != ["read"]))
    if not found:
        raise RemoteError(f"a token file must have at least one token, it has none ({path})")
    return tuple(found)


class Served:
    """One repository and what may be done with it."""

    def __init__(self, repository: Repository, access: Access, on_push: Callable[[], None]) -> None:
        self._repository = repository
        self._access = access
        self._on_push = on_push
        self._blobs = DirectoryObjects(repository.path)
        self._uploads = asyncio.Semaphore(_UPLOADS_MAX)
        self._receiving = asyncio.Lock()
        """One push changes the repository at a time. Those that wait take none of the threads that readers need."""

    def application(self) -> Starlette:
        routes = [
            Route("/v1/list", self._guarded(self._list)),
            Route("/v1/refs", self._guarded(self._refs)),
            Route("/v1/refs", self._guarded(self._move, push=True), methods=["POST"]),
            Route("/v1/packs", self._guarded(self._receive_pack, push=True), methods=["POST"]),
            Route("/v1/salvage", self._guarded(self._salvage, push=True), methods=["POST"]),
            Route("/{name:path}", self._guarded(self._file)),
        ]
        return Starlette(routes=routes)

    def _guarded(
        self, handler: Callable[[Request], Awaitable[Response]], *, push: bool = False
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            may_read, may_push = self._access.rights(request.headers.get("authorization", ""))
            if not may_read:
                return _error(401, "a request must bear a token this server knows")
            if push and not may_push:
                return _error(403, "this server takes no pushes from this token; it must be started with --allow-push")
            try:
                return await handler(request)
            except ClientDisconnect:
                return Response(status_code=499)
            except (KogumaError, _SlowSenderError) as error:
                return _error(_status_of(error), str(error))

        return answer

    async def _list(self, request: Request) -> Response:
        prefix = request.query_params.get("prefix", "")
        if prefix not in _LISTED:
            return _error(404, f"a listing is of one of {', '.join(_LISTED)}, got {prefix[:80]!r}")
        blobs = await run_in_threadpool(lambda: list(self._blobs.list(prefix)))
        return JSONResponse([[blob.name, blob.size_bytes] for blob in blobs if _SERVED.fullmatch(blob.name)])

    async def _refs(self, _request: Request) -> Response:
        refs = await run_in_threadpool(self._repository.refs.all)
        return JSONResponse([[ref.kind.value, ref.name, ref.commit] for ref in refs])

    async def _file(self, request: Request) -> Response:
        # The path as it came: names of refs are percent-encoded on the disk, too.
        name = request.path_params["name"]
        if not _SERVED.fullmatch(name):
            return _error(404, f"there is no {name[:80]!r}")
        path = self._repository.path / name
        try:
            found = path.lstat()
        except OSError:
            return _error(404, f"there is no {name[:80]!r}")
        if not stat.S_ISREG(found.st_mode):
            return _error(404, f"there is no {name[:80]!r}")
        size = found.st_size
        span = _span(request.headers.get("range"), size)
        if span is None:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
        start, end = span
        headers = {"Content-Length": str(end - start), "Accept-Ranges": "bytes"}
        if "range" in request.headers:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        return StreamingResponse(
            _read(path, start, end),
            status_code=206 if "range" in request.headers else 200,
            headers=headers,
            media_type="application/octet-stream",
        )

    async def _receive_pack(self, request: Request) -> Response:
        """Write the body as it arrives. When the sender breaks off, the file stays and the next push salvages it."""
        announced = request.headers.get("content-length", "")
        if not announced.isdigit() or int(announced) > PACK_BYTES_MAX:
            return _error(
                413, f"a pack must announce its length, at most {PACK_BYTES_MAX} bytes, got {announced[:40]!r}"
            )
        async with self._uploads:
            upload = await run_in_threadpool(UploadFile, self._repository.path)
            try:
                pending: list[bytes] = []
                size = 0
                async for piece in _arriving(request):
                    pending.append(piece)
                    size += len(piece)
                    if size >= _PIECE_BYTES:
                        await run_in_threadpool(upload.write, b"".join(pending))
                        pending, size = [], 0
                await run_in_threadpool(upload.write, b"".join(pending))
                objects = await self._alone(self._accept, upload)
            except OSError as error:
                upload.path.unlink(missing_ok=True)
                return _error(507, f"a pack must fit on the server's disk: {error.strerror}")
            finally:
                upload.close()
        return JSONResponse({"objects": objects}, status_code=201)

    async def _salvage(self, _request: Request) -> Response:
        return JSONResponse({"objects": await self._alone(self._salvage_now)})

    async def _move(self, request: Request) -> Response:
        body = bytearray()
        async for piece in _arriving(request):
            body += piece
            if len(body) > LISTING_BYTES_MAX:
                return _error(413, f"a request to move refs has at most {LISTING_BYTES_MAX} bytes")
        try:
            document = json.loads(body)
            updates, signatures = _updates(document), _signatures(document)
            author = _line(document["author"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            return _error(400, f"a request to move refs must have the form the server's description gives: {error}")
        results = await self._alone(receive, self._repository, updates, signatures, author)
        if any(result.problem is None for result in results):
            self._on_push()
        return JSONResponse([{"problem": result.problem, "retry": result.retry} for result in results])

    async def _alone(self, work: Callable[..., T], *arguments: Any) -> T:
        async with self._receiving:
            return await run_in_threadpool(work, *arguments)

    def _accept(self, upload: UploadFile) -> int:
        with self._repository.objects.writing():
            return accept(self._repository, upload.path, "the pack that was sent")

    def _salvage_now(self) -> int:
        with self._repository.objects.writing():
            return salvage(self._repository.path)


class _SlowSenderError(Exception):
    """The body of a request is silent, or slower than an answer may be."""


async def _arriving(request: Request) -> AsyncIterator[bytes]:
    """A body as it arrives. Raises _SlowSenderError."""
    stream = aiter(request.stream())
    waited, got = 0.0, 0
    while True:
        started = time.monotonic()
        try:
            piece = await asyncio.wait_for(anext(stream), max(0, STALL_S + got / RATE_MIN_BYTES_PER_S - waited))
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise _SlowSenderError(
                f"what is sent must come at {RATE_MIN_BYTES_PER_S} bytes a second or more, got {got} bytes"
            ) from None
        waited += time.monotonic() - started
        got += len(piece)
        yield piece


def _line(text: object) -> str:
    """A line of text that somebody sent, cut to a bearable length."""
    if not isinstance(text, str) or any(unicodedata.category(char) in _NO_LINE for char in text):
        raise ValueError(f"an author is one line of text, got {str(text)[:80]!r}")
    return text[:_AUTHOR_MAX]


def _updates(document: Any) -> list[RefUpdate]:
    items = document["updates"]
    if not isinstance(items, list) or len(items) > REFS_MAX:
        raise ValueError(f"updates are a list of at most {REFS_MAX}")
    updates = []
    for item in items:
        kind, name, old, new = item["kind"], item["name"], item["old"], item["new"]
        if kind not in ("heads", "tags") or not isinstance(name, str) or len(name) > _NAME_MAX:
            raise ValueError(f"an update has a kind, heads or tags, and a name of at most {_NAME_MAX} characters")
        if not all(commit is None or is_id(commit) for commit in (old, new)) or (old is None and new is None):
            raise ValueError("old and new are commit ids or null")
        updates.append(RefUpdate(RefKind(kind), name, old, new, item.get("force") is True))
    return updates


def _signatures(document: Any) -> list[Signature]:
    lines = b"".join(Signature(*map(str, item)).line() for item in document.get("signatures", []))
    return list(parse_signatures(lines))


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None when there is no such range."""
    if header is None:
        return 0, size
    match = _RANGE.fullmatch(header)
    if match is None:
        return None
    start = int(match[1])
    end = min(int(match[2]) + 1, size) if match[2] else size
    return (start, end) if start < end else None


def _read(path: Path, start: int, end: int) -> Iterator[bytes]:
    """Opened when it is first read from: a response that nobody waits for any more must not hold a file."""
    with path.open("rb", buffering=0) as file:
        while start < end and (piece := os.pread(file.fileno(), min(_PIECE_BYTES, end - start), start)):
            start += len(piece)
            yield piece


def _status_of(error: Exception) -> int:
    if isinstance(error, KogumaError):
        return 422 if isinstance(error, HostileRemoteError) else 503 if error.retry else 409
    return 408


def _error(status: int, text: str) -> Response:
    # What of a body did not arrive yet is not waited for.
    return JSONResponse({"error": text}, status_code=status, headers={"Connection": "close"} if status == 408 else None)
