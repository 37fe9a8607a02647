"""Other repositories by name: `remotes.json` of a repository, and what their addresses mean.

An address is `http://…` or `https://…` (what `koguma image serve` offers), `s3://bucket/prefix`, or a directory.
Addresses carry no credentials: a token is in a file or in KOGUMA_REMOTE_TOKEN, S3's are where AWS's tools look.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from koguma.contracts.objects import ReadableBackend
from koguma.images.files import locked, storage_errors, write_atomically
from koguma.images.transfer.errors import RemoteError

FILE_NAME = "remotes.json"
DEFAULT = "origin"
TOKEN_VARIABLE = "KOGUMA_REMOTE_TOKEN"  # noqa: S105 - the name of a variable
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


@dataclass(frozen=True, slots=True)
class Remote:
    name: str
    url: str
    token_file: str | None = None
    """A file whose first line is the bearer token; never the token itself."""


def check_url(url: str) -> str:
    """An address in its normal form: directories become absolute. Raises RemoteError."""
    if "://" not in url:
        return str(Path(url).expanduser().absolute())
    parts = urlsplit(url)
    shown = f"{parts.scheme}://…"
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.username is not None or parts.password is not None:
        raise RemoteError(
            f"an address may not carry credentials: say --token-file or set {TOKEN_VARIABLE}; got {shown}"
        )
    if parts.scheme == "file":
        return str(Path(parts.path).absolute())
    if parts.scheme not in ("http", "https", "s3") or not parts.hostname or port == 0 or parts.query or parts.fragment:
        raise RemoteError(
            f"an address is http://HOST[:PORT][/PATH], https://…, s3://BUCKET[/PREFIX] or a directory, got {url!r}"
        )
    return url.rstrip("/")


def remotes(repository: Path) -> dict[str, Remote]:
    """All remotes by name."""
    path = repository / FILE_NAME
    try:
        document = json.loads(path.read_bytes())
        return {name: Remote(name, str(item["url"]), item.get("token_file")) for name, item in document.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RemoteError(f"the list of remotes must be JSON by name: {error} ({path})") from None


def find_remote(repository: Path, text: str | None) -> Remote:
    """A remote by its name; an address or directory stands for itself. Raises RemoteError."""
    known = remotes(repository)
    name = text or DEFAULT
    if name in known:
        return known[name]
    if "://" in name or "/" in name:
        return Remote("", check_url(name))
    listed = f"there are {', '.join(known)}" if known else "there is none yet"
    raise RemoteError(f"there is no remote {name!r}, {listed}; add it with: koguma image remote add {name} URL")


def add_remote(repository: Path, name: str, url: str, token_file: Path | None = None) -> Remote:
    """Name another repository. Raises RemoteError when the name is taken or refused."""
    if not _NAME.fullmatch(name) or ".." in name or name in ("add", "remove", "list", "show"):
        raise RemoteError(f"a remote's name must be 1 to 40 letters, digits and . _ -, got {name!r}")
    remote = Remote(name, check_url(url), str(token_file.absolute()) if token_file else None)
    with _changing(repository) as known:
        if name in known:
            raise RemoteError(
                f"a remote named {name!r} exists already ({known[name].url}); remove it with: "
                f"koguma image remote remove {name}"
            )
        _write(repository, {**known, name: remote})
    return remote


def remove_remote(repository: Path, name: str) -> Remote:
    """Forget a remote. What was fetched from it stays until its tracking refs are gone and gc runs."""
    with _changing(repository) as known:
        gone = known.pop(name, None)
        if gone is None:
            raise RemoteError(f"there is no remote {name!r}; koguma image remote list shows them")
        _write(repository, known)
    return gone


def open_backend(remote: Remote) -> ReadableBackend:
    """What reads the blobs of a remote."""
    if "://" not in remote.url:
        from koguma.images.transfer.directory import DirectoryObjects  # noqa: PLC0415 - one kind is needed at a time

        return DirectoryObjects(Path(remote.url))
    if remote.url.startswith("s3://"):
        from koguma.images.transfer.s3 import S3Objects  # noqa: PLC0415 - loads a large library

        return S3Objects(remote.url)
    from koguma.images.transfer.http import HttpObjects  # noqa: PLC0415

    return HttpObjects(remote.url, token_of(remote))


def token_of(remote: Remote) -> str | None:
    """The bearer token for a remote. Raises RemoteError when its file cannot be read or holds something else."""
    if remote.token_file is None:
        token = os.environ.get(TOKEN_VARIABLE)
        place = TOKEN_VARIABLE
    else:
        place = remote.token_file
        try:
            token = next(iter(Path(remote.token_file).read_text(encoding="utf-8").split()), "")
        except OSError as error:
            raise RemoteError(f"a token file must be readable: {error.strerror} ({place})") from None
    if token is not None and not re.fullmatch(r"[!-~]{8,512}", token):
        raise RemoteError(f"a token must be 8 to 512 printable characters without spaces ({place})")
    return token


@contextmanager
def _changing(repository: Path) -> Iterator[dict[str, Remote]]:
    lock = repository / "locks" / "remotes"
    with storage_errors("changing remotes"), locked(lock, timeout_s=60, what="the list of remotes"):
        yield remotes(repository)


def _write(repository: Path, known: dict[str, Remote]) -> None:
    document = {
        name: {"url": item.url} | ({"token_file": item.token_file} if item.token_file else {})
        for name, item in sorted(known.items())
    }
    write_atomically(repository / FILE_NAME, json.dumps(document, indent=1).encode() + b"\n", mode=0o600)
