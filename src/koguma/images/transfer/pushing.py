"""Push: from a repository to a remote, which gets the objects it lacks, then moves its refs by compare and swap.

1. The remote says its refs and, by the indexes of its packs, what objects it has.
2. The walk from what is pushed back to what the remote's refs lead to gives what is missing there.
3. Packs are built to measure and sent; what arrived stays, whatever happens then, so a repeated push sends the rest.
4. Refs move. A branch only forward, unless the pusher says which commit it means to replace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from koguma.contracts.objects import ObjectBackend
from koguma.images.errors import ImageError, RefError, RefMovedError
from koguma.images.files import storage_errors
from koguma.images.refs import RefKind
from koguma.images.repository import Repository, default_author
from koguma.images.signatures import Signature, all_signatures
from koguma.images.transfer.ancestry import Complete, is_ancestor
from koguma.images.transfer.catalogue import Advertised, Catalogue
from koguma.images.transfer.errors import NotFastForwardError, RefRejectedError, RemoteError, TransferError
from koguma.images.transfer.fetching import cache_of
from koguma.images.transfer.http import HttpObjects
from koguma.images.transfer.outgoing import outgoing_packs
from koguma.images.transfer.receiving import RefResult, RefUpdate
from koguma.images.transfer.remotes import Remote, open_backend
from koguma.images.transfer.retrying import Backoff
from koguma.images.transfer.sinks import BlobSink, RepositorySink, ServedSink, Sink
from koguma.images.transfer.walk import Walk, one_by_one

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Pushed:
    results: tuple[RefResult, ...]
    objects: int
    bytes: int


def push(
    repository: Repository,
    remote: Remote,
    branches: Sequence[str],
    *,
    tags: bool = False,
    force_with_lease: bool = False,
    delete: bool = False,
    progress: Progress | None = None,
    backoff: Backoff | None = None,
) -> Pushed:
    """Push branches (and all tags) to the same names at a remote, or `delete` them there.

    With `force_with_lease` a branch may lose commits, provided it is still where our last fetch or push saw it. Raises
    NotFastForwardError before anything is sent, RefRejectedError when the remote moved none.
    """
    backend = open_backend(remote)
    catalogue = Catalogue(backend, cache_of(repository, remote), backoff)
    try:
        with storage_errors("a push"):
            job = _Push(repository, remote, catalogue, _sink(repository, remote, catalogue, backoff), progress)
            return job.run(branches, tags=tags, force=force_with_lease, delete=delete)
    finally:
        catalogue.close()
        backend.close()


def _sink(repository: Repository, remote: Remote, catalogue: Catalogue, backoff: Backoff | None) -> Sink:
    backend = catalogue.backend
    if isinstance(backend, HttpObjects):
        return ServedSink(backend, backoff)
    if "://" not in remote.url:
        return RepositorySink(Path(remote.url))
    return BlobSink(cast("ObjectBackend", backend), repository.path / "tmp", backoff)


class _Push:
    def __init__(
        self, repository: Repository, remote: Remote, catalogue: Catalogue, sink: Sink, progress: Progress | None
    ) -> None:
        self._repository = repository
        self._remote = remote
        self._catalogue = catalogue
        self._sink = sink
        self._progress = progress

    def run(self, branches: Sequence[str], *, tags: bool, force: bool, delete: bool) -> Pushed:
        self._sink.prepare()
        advertised = self._catalogue.advertised()
        updates = (
            self._removals(branches, advertised)
            if delete
            else self._updates(branches, advertised, tags=tags, force=force)
        )
        changes = [item for item in updates if item.old != item.new]
        objects, size, signatures = self._send([item.new for item in changes if item.new], advertised)
        results = self._sink.move(changes, signatures) if changes else []
        unchanged = [RefResult(item, None) for item in updates if item.old == item.new]
        # Also where nothing moved: a push that was killed after the remote's ref moved had no time to note it.
        self._remember([*results, *unchanged])
        if results and all(item.problem for item in results):
            raise RefRejectedError(f"the remote refused: {results[0].problem} ({self._catalogue.place})")
        return Pushed((*results, *unchanged), objects, size)

    def _updates(self, branches: Sequence[str], advertised: Advertised, *, tags: bool, force: bool) -> list[RefUpdate]:
        updates = []
        for name in branches:
            ref = self._repository.refs.find(name)
            if ref is None or ref.kind is RefKind.REMOTE:
                raise RefError(f"there is no branch or tag {name!r} to push; koguma image branch lists them")
            updates.append(self._update(ref.kind, name, ref.commit, advertised, force=force))
        if tags:
            named = {item.name for item in updates}
            updates += [
                self._update(ref.kind, ref.name, ref.commit, advertised, force=False)
                for ref in self._repository.refs.all()
                if ref.kind is RefKind.TAG and ref.name not in named
            ]
        return updates

    def _update(self, kind: RefKind, name: str, new: str, advertised: Advertised, *, force: bool) -> RefUpdate:
        old = advertised.get(kind, name)
        if force and kind is RefKind.BRANCH:
            seen = (
                self._repository.refs.get(RefKind.REMOTE, f"{self._remote.name}/{name}") if self._remote.name else None
            )
            if old != seen:
                raise RefMovedError(
                    f"branch {name!r} must be where the last fetch saw it to be replaced, that was "
                    f"{(seen or 'nowhere')[:12]}, it is at {(old or 'nothing')[:12]} ({self._catalogue.place}); "
                    f"look at it first: koguma image fetch {self._remote.name}"
                )
        elif old and old != new and not self._moves_forward(kind, old, new):
            raise NotFastForwardError(
                f"{kind.word} {name!r} may not lose commits, {new[:12]} does not contain the remote's {old[:12]}; "
                f"bring them in with: koguma image pull {self._remote.name} {name}"
            )
        return RefUpdate(kind, name, old, new, force)

    def _moves_forward(self, kind: RefKind, old: str, new: str) -> bool:
        if kind is RefKind.TAG or not self._repository.objects.contains(bytes.fromhex(old)):
            return False
        return is_ancestor(self._repository.commit, old, new)

    def _removals(self, names: Sequence[str], advertised: Advertised) -> list[RefUpdate]:
        updates = []
        for name in names:
            found = next((ref for ref in advertised.refs if ref.name == name), None)
            if found is None:
                raise RemoteError(f"there is no branch or tag {name!r} to remove ({self._catalogue.place})")
            updates.append(RefUpdate(found.kind, name, found.commit, None, force=True))
        return updates

    def _send(self, tips: list[str], advertised: Advertised) -> tuple[int, int, list[Signature]]:
        """Deliver what the remote lacks; how many objects and bytes, and the signatures of the new commits."""
        if not tips:
            return 0, 0, []
        store = self._repository.objects
        self._catalogue.refresh(to_stay=True)
        theirs = [ref.commit for ref in advertised.refs]
        complete = Complete(self._repository.commit, store.contains, theirs)
        plan = Walk(one_by_one(partial(store.read_part, verify=True)), self._catalogue.has, complete).run(
            tips, shallow=self._repository.shallow, bases=complete.tips
        )
        cut = plan.boundary - advertised.shallow
        if cut:
            raise TransferError(
                f"a push must bring all ancestors, those of {min(cut)[:12]} were left out here and are not at the "
                f"remote; bring them with: koguma image pull --unshallow ({self._catalogue.place})"
            )
        objects = size = 0
        for pack in outgoing_packs(store, plan.files, plan.parts):
            self._sink.send(pack)
            objects += len(pack.objects)
            size += pack.size_bytes
            if self._progress:
                self._progress(pack.size_bytes)
        signed = [item for item in all_signatures(self._repository.path) if item.commit in {*plan.commits, *tips}]
        return objects, size, signed

    def _remember(self, results: Sequence[RefResult]) -> None:
        """Note where the remote's branches are now."""
        for result in results:
            update = result.update
            if result.problem or update.kind is not RefKind.BRANCH or not self._remote.name:
                continue
            name = f"{self._remote.name}/{update.name}"
            refs = self._repository.refs
            old = refs.get(RefKind.REMOTE, name)
            try:
                if update.new is None:
                    if old:
                        refs.delete(RefKind.REMOTE, name, old=old)
                elif old != update.new:
                    refs.update(RefKind.REMOTE, name, update.new, old=old, author=default_author(), reason="push")
            except ImageError:
                continue  # a fetch at the same time noted it, or something newer
