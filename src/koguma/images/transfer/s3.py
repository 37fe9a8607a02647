"""Blobs in a bucket of an S3-compatible store, by obstore.

Credentials come from where AWS's tools look (environment, instance role) and are in no address and no message. A blob
is replaced conditionally by If-Match, created by If-None-Match: the store must honour both, as AWS does since 2024.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from obstore.store import S3Config

import obstore
from obstore import exceptions
from obstore.store import S3Store

from koguma.contracts.errors import (
    BackendRefused,
    BackendUnreachable,
    BlobChanged,
    BlobMissing,
    ObjectBackendError,
)
from koguma.contracts.objects import CHUNK_BYTES, Blob, Versioned, check_size

_PART_BYTES = 16 * 1024 * 1024


class S3Objects:
    """One prefix of a bucket: `s3://bucket/prefix`. AWS_ENDPOINT_URL names a store other than AWS's."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        prefix = parts.path.strip("/")
        self.place = f"s3://{parts.netloc}/{prefix}".rstrip("/")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        config: S3Config = {"conditional_put": "etag"}
        if endpoint:
            config["endpoint"] = endpoint
        if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
            config["region"] = "us-east-1"
        self._store = S3Store(
            parts.netloc,
            prefix=prefix or None,
            config=config,
            client_options={"allow_http": (endpoint or "").startswith("http://"), "timeout": "120s"},
            retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=60)},
        )

    def list(self, prefix: str) -> Iterator[Blob]:
        with self._errors(prefix):
            result = obstore.list_with_delimiter(self._store, prefix.rstrip("/"))
        for item in sorted(result["objects"], key=lambda item: item["path"]):
            yield Blob(prefix + item["path"].rpartition("/")[2], item["size"])

    def get(self, name: str, *, bytes_max: int) -> Versioned:
        with self._errors(name):
            result = obstore.get(self._store, name)
            check_size(name, result.meta["size"], bytes_max, self.place)
            version = result.meta["e_tag"]
            data = bytes(result.bytes())
        if not version:
            raise ObjectBackendError(f"an S3 store must give every object an ETag, {name!r} has none ({self.place})")
        return Versioned(data, version)

    def read_range(self, name: str, offset: int, length: int) -> Iterator[bytes]:
        got = 0
        with self._errors(name):
            result = obstore.get(self._store, name, options={"range": (offset, offset + length)})
            for piece in result.stream(min_chunk_size=CHUNK_BYTES):
                got += len(piece)
                if got > length:
                    break
                yield bytes(piece)
        if got != length:
            raise ObjectBackendError(
                f"a range must have the {length} bytes asked for, got {got} ({name} at {offset}, {self.place})"
            )

    def put(self, name: str, data: bytes | Path) -> None:
        with self._errors(name):
            obstore.put(self._store, name, data, mode="overwrite", chunk_size=_PART_BYTES)

    def put_if(self, name: str, data: bytes, version: str | None) -> str:
        with self._errors(name):
            mode: Any = "create" if version is None else {"e_tag": version}
            result = obstore.put(self._store, name, data, mode=mode, use_multipart=False)
        if not result["e_tag"]:
            raise ObjectBackendError(f"an S3 store must give every object an ETag, {name!r} has none ({self.place})")
        return result["e_tag"]

    def delete(self, name: str) -> None:
        with self._errors(name):
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                return

    def close(self) -> None:
        """obstore's connections end with the process."""

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise BlobMissing(f"a blob must be there to be read, there is no {name!r} ({self.place})") from None
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            raise BlobChanged(f"a blob must be unchanged to be replaced, {name!r} is not ({self.place})") from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
            raise BackendRefused(
                f"an S3 store must accept the credentials of the environment, it refused {name!r} ({self.place})"
            ) from None
        except (exceptions.BaseError, OSError) as error:
            raise BackendUnreachable(
                f"an S3 store must answer: {_first_line(error)} ({name!r}, {self.place})"
            ) from None


def _first_line(error: BaseException) -> str:
    """The head of obstore's message; its body repeats the whole request."""
    return str(error).strip().partition("\n")[0][:300]
