"""Where objects can be had again: another repository that holds what this one lost.

Owns the Protocol and the choice of a source by its name. `fsck --repair-from` asks; a local repository answers here,
remotes answer in modules of their own, which add their opener to `_OPENERS`. What a source gives is not trusted: who
asked verifies every digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from koguma.images.errors import CorruptError, ObjectMissingError, RepositoryError

if TYPE_CHECKING:
    from koguma.images.objects import ObjectStore
    from koguma.images.repository import Repository


class SourcedObject(NamedTuple):
    """An object as a source gives it."""

    id: bytes
    """SHA-256 of the content, 32 bytes, as it was asked for."""
    kind: int
    """BLOB, TREE or COMMIT of `objects`."""
    content: Iterable[bytes]
    """The whole content in pieces; a source may end it with a KogumaError. Use it up before asking for the next."""


class ObjectSource(Protocol):
    """Somewhere else that may hold objects."""

    @property
    def name(self) -> str:
        """What messages call it; without credentials."""

    def fetch(self, ids: Iterable[bytes]) -> Iterator[SourcedObject]:
        """Those of the objects the source has, in any order; the others are left out."""

    def close(self) -> None:
        """Let go of files and connections."""


class LocalSource:
    """A repository directory of this machine."""

    def __init__(self, path: Path) -> None:
        """Raises RepositoryError when there is no repository at `path`."""
        from koguma.images.repository import Repository  # noqa: PLC0415 - it imports what imports this

        self._repository = Repository.open(path)

    @property
    def name(self) -> str:
        return str(self._repository.path)

    def fetch(self, ids: Iterable[bytes]) -> Iterator[SourcedObject]:
        store = self._repository.objects
        for object_id in ids:
            try:
                kind = store.describe(object_id).kind
            except (ObjectMissingError, CorruptError):
                continue  # damaged here as well: as good as absent
            yield SourcedObject(object_id, kind, _readable(store, object_id))

    def close(self) -> None:
        self._repository.close()


def open_source(repository: Repository, text: str) -> ObjectSource:
    """The source a person named: the path of another repository, or whatever a remote's opener knows.

    Raises RepositoryError when nobody knows it.
    """
    for opener in _OPENERS:
        if source := opener(repository, text):
            return source
    raise RepositoryError(
        f"a source must be the directory of a repository or the name of a remote, got {text!r} ({repository.path})"
    )


def _open_local(repository: Repository, text: str) -> ObjectSource | None:
    path = Path(text)
    if not path.is_dir():
        return None
    if path.resolve() == repository.path.resolve():
        raise RepositoryError(f"a repository cannot be repaired from itself, got {text!r}")
    return LocalSource(path)


def _readable(store: ObjectStore, object_id: bytes) -> Iterator[bytes]:
    yield from store.chunks(object_id)


Opener = Callable[["Repository", str], ObjectSource | None]
"""Opens what a text names, or None when the text is not of its kind."""


def _open_remote(repository: Repository, text: str) -> ObjectSource | None:
    from koguma.images.transfer.source import open_remote_source  # noqa: PLC0415 - it imports what imports this

    return open_remote_source(repository, text)


_OPENERS: tuple[Opener, ...] = (_open_local, _open_remote)
"""Asked in this order."""
