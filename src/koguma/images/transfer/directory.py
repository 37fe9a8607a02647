"""Blobs in a directory, also on a mounted file system such as NFS. The names are the names of the files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from koguma.contracts.errors import BackendRefused, BlobChanged, BlobMissing, ObjectBackendError
from koguma.contracts.objects import CHUNK_BYTES, Blob, Versioned, check_size
from koguma.images.files import locked, sync_directory, sync_file, write_atomically


class DirectoryObjects:
    """One directory of blobs. Conditional writes take the lock file `locks/refs`, as a repository's own do."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.place = str(directory)

    def list(self, prefix: str) -> Iterator[Blob]:
        folder = self._directory / prefix
        with self._errors(prefix):
            names = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208 - thousands of packs may lie here
        for name in names:
            path = folder / name
            if not name.startswith(".") and path.is_file():
                yield Blob(prefix + name, path.stat().st_size)

    def get(self, name: str, *, bytes_max: int) -> Versioned:
        with self._errors(name), (self._directory / name).open("rb") as file:
            check_size(name, os.fstat(file.fileno()).st_size, bytes_max, self.place)
            data = file.read(bytes_max)
        return Versioned(data, sha256(data).hexdigest())

    def read_range(self, name: str, offset: int, length: int) -> Iterator[bytes]:
        with self._errors(name), (self._directory / name).open("rb", buffering=0) as file:
            end = offset + length
            while offset < end:
                piece = os.pread(file.fileno(), min(CHUNK_BYTES, end - offset), offset)
                if not piece:
                    raise ObjectBackendError(
                        f"a blob must have the {end} bytes asked for, got {offset} ({name}, {self.place})"
                    )
                offset += len(piece)
                yield piece

    def put(self, name: str, data: bytes | Path) -> None:
        path = self._directory / name
        with self._errors(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, bytes):
                write_atomically(path, data)
                return
            temporary = path.with_name(f".new-{os.getpid()}-{os.urandom(6).hex()}")
            try:
                shutil.copyfile(data, temporary)
                sync_file(temporary)
                temporary.rename(path)
            finally:
                temporary.unlink(missing_ok=True)
            sync_directory(path.parent)

    def put_if(self, name: str, data: bytes, version: str | None) -> str:
        path = self._directory / name
        with self._errors(name):
            (self._directory / "locks").mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self._directory / "locks" / "refs", timeout_s=60, what="the refs"):
                current = sha256(path.read_bytes()).hexdigest() if path.exists() else None
                if current != version:
                    raise BlobChanged(f"a blob must be unchanged to be replaced, {name!r} is not ({self.place})")
                write_atomically(path, data)
        return sha256(data).hexdigest()

    def delete(self, name: str) -> None:
        with self._errors(name):
            (self._directory / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is held open."""

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise BlobMissing(f"a blob must be there to be read, there is no {name!r} ({self.place})") from None
        except OSError as error:
            raise BackendRefused(f"{name!r} must be readable and writable: {error.strerror} ({self.place})") from None
