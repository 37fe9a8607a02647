"""Fetch, pull and clone: from a remote into a repository.

No lock is held while bytes arrive, so gc and commits go on. When all is here, the packs are published under the
`objects` lock, everything the new refs lead to is looked up once more, and only then do refs move; should gc have taken
an object meanwhile that looked present before, it is fetched, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from koguma.contracts.errors import BlobMissing
from koguma.images.commits import decode_commit, history
from koguma.images.errors import ObjectMissingError, RefMovedError, RepositoryError
from koguma.images.files import remove_tree, storage_errors
from koguma.images.refs import Ref, RefKind
from koguma.images.repository import Repository, default_author
from koguma.images.shallow import change_shallow
from koguma.images.signatures import Signature, parse_signatures, receive_signatures
from koguma.images.transfer.ancestry import Complete, is_ancestor
from koguma.images.transfer.catalogue import Advertised, Catalogue
from koguma.images.transfer.downloading import Downloads
from koguma.images.transfer.errors import NotFastForwardError, RemoteError, TransferError
from koguma.images.transfer.incoming import FOLDER, PartFile, salvage
from koguma.images.transfer.remotes import DEFAULT, Remote, add_remote, check_url, find_remote, open_backend
from koguma.images.transfer.retrying import Backoff
from koguma.images.transfer.walk import Walk

_ROUNDS_MAX = 4
"""How often a fetch looks again for what went away while it ran: packs of the remote, objects of ours."""

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Moved:
    """A ref that a fetch changed."""

    ref: Ref
    old: str | None


@dataclass(frozen=True, slots=True)
class Fetched:
    moved: tuple[Moved, ...]
    advertised: Advertised
    objects: int = 0
    bytes: int = 0
    kept_tags: tuple[str, ...] = ()
    """Tags that name another commit here than at the remote; they stay as they are."""


@dataclass(slots=True)
class _Brought:
    objects: int = 0
    bytes: int = 0
    moved: list[Moved] = field(default_factory=list)
    kept_tags: list[str] = field(default_factory=list)


def fetch(
    repository: Repository,
    remote: Remote,
    *,
    branches: Sequence[str] | None = None,
    depth: int | None = None,
    unshallow: bool = False,
    progress: Progress | None = None,
    backoff: Backoff | None = None,
) -> Fetched:
    """Bring a remote's branches (all of them by default) to `refs/remotes/<remote>/…`, and its tags.

    `depth` leaves out what lies further back; `unshallow` brings what was left out before.
    """
    backend = open_backend(remote)
    catalogue = Catalogue(backend, cache_of(repository, remote), backoff)
    try:
        with storage_errors("a fetch"):
            return _Fetch(repository, remote, catalogue, progress, backoff).run(branches, depth, unshallow=unshallow)
    finally:
        catalogue.close()
        backend.close()


def pull(
    repository: Repository,
    remote: Remote,
    branch: str,
    *,
    depth: int | None = None,
    unshallow: bool = False,
    progress: Progress | None = None,
) -> tuple[Fetched, str]:
    """Fetch one branch and move the local branch of that name forward to it; the commit it is at then.

    Raises NotFastForwardError when both have commits the other does not have.
    """
    fetched = fetch(repository, remote, branches=[branch], depth=depth, unshallow=unshallow, progress=progress)
    new = fetched.advertised.get(RefKind.BRANCH, branch)
    if new is None:
        raise RemoteError(f"there is no branch {branch!r} at the remote ({remote.url})")
    return fetched, fast_forward(repository, branch, new, f"pull from {remote.name or remote.url}", remote.name)


def fast_forward(repository: Repository, branch: str, new: str, reason: str, remote: str = "") -> str:
    """Move a branch to a commit that contains all of it; a branch that is further on stays."""
    old = repository.refs.get(RefKind.BRANCH, branch)
    if old == new:
        return new
    if old is not None and not is_ancestor(repository.commit, old, new):
        if is_ancestor(repository.commit, new, old):
            return old
        theirs = f"{remote}/{branch}" if remote else new[:12]
        raise NotFastForwardError(
            f"branch {branch!r} and {theirs} both have commits the other lacks ({old[:12]}, {new[:12]}): merge needed; "
            f"merge them with: koguma image merge -b {branch} {theirs}"
        )
    repository.refs.update(RefKind.BRANCH, branch, new, old=old, author=default_author(), reason=reason)
    return new


def look(repository: Repository, name: str | None = None) -> tuple[Remote, Advertised]:
    """A remote and the refs it has now."""
    remote = find_remote(repository.path, name)
    backend = open_backend(remote)
    try:
        return remote, Catalogue(backend, cache_of(repository, remote)).advertised()
    finally:
        backend.close()


def clone(
    url: str,
    directory: Path,
    *,
    depth: int | None = None,
    token_file: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Repository, str | None]:
    """Make a repository of another one, `origin`; returns it and the branch it begins with.

    Nothing is made before the remote answers, and what was made goes when nothing could be fetched. A clone that was
    interrupted is continued by saying it again.
    """
    url = check_url(url)
    before = list(directory.iterdir()) if directory.is_dir() else None
    _require_answer(Remote(DEFAULT, url, str(token_file.absolute()) if token_file else None), directory)
    try:
        return _clone(url, directory, depth, token_file, progress)
    except BaseException:
        if not before and not _has_fetched(directory):
            for made in [directory] if before is None else list(directory.iterdir()):
                remove_tree(made)
        raise


def _clone(
    url: str, directory: Path, depth: int | None, token_file: Path | None, progress: Progress | None
) -> tuple[Repository, str | None]:
    repository = Repository.init(directory)
    try:
        remote = find_remote(repository.path, DEFAULT)
        if remote.url != url:
            raise RepositoryError(
                f"a clone needs a new directory or one it began itself, {str(directory)!r} is of {remote.url}; "
                f"clone into another one, or go on with that: koguma image --repo {directory} fetch"
            )
    except RemoteError:
        if repository.refs.every():
            raise RepositoryError(
                f"a clone needs a new or empty directory, got {str(directory)!r}; fetch into that with: koguma image "
                f"--repo {directory} remote add {DEFAULT} {url}, then koguma image --repo {directory} fetch"
            ) from None
        remote = add_remote(repository.path, DEFAULT, url, token_file)
    fetched = fetch(repository, remote, depth=depth, progress=progress)
    names = [ref.name for ref in fetched.advertised.refs if ref.kind is RefKind.BRANCH]
    head = fetched.advertised.head
    branch = head if head in names else next(iter(names), None)
    if branch:
        commit = fetched.advertised.get(RefKind.BRANCH, branch) or ""
        fast_forward(repository, branch, commit, f"clone of {url}", remote.name)
        repository.refs.set_head(branch)
    return repository, branch


def _require_answer(remote: Remote, directory: Path) -> None:
    """Raises what is wrong with the address, the token or the remote."""
    backend = open_backend(remote)
    try:
        Catalogue(backend, directory / "cache").advertised()
    finally:
        backend.close()


def _has_fetched(directory: Path) -> bool:
    """Whether a clone left something that its next attempt need not bring again."""
    return any(any((directory / name).glob("*")) for name in ("packs", FOLDER))


class _Fetch:
    """One fetch, step by step."""

    def __init__(
        self,
        repository: Repository,
        remote: Remote,
        catalogue: Catalogue,
        progress: Progress | None,
        backoff: Backoff | None,
    ) -> None:
        self._repository = repository
        self._remote = remote
        self._catalogue = catalogue
        self._progress = progress
        self._backoff = backoff

    def run(self, branches: Sequence[str] | None, depth: int | None, *, unshallow: bool) -> Fetched:
        advertised = self._catalogue.advertised()
        wanted = self._wanted(advertised, branches)
        with self._repository.objects.writing():
            salvage(self._repository.path)
        brought = self._bring(wanted, advertised, depth, whole=branches is None and depth is None, unshallow=unshallow)
        return Fetched(tuple(brought.moved), advertised, brought.objects, brought.bytes, tuple(brought.kept_tags))

    def _wanted(self, advertised: Advertised, branches: Sequence[str] | None) -> list[Ref]:
        """The refs to bring; tags only with all branches: one that nobody asked for may lead anywhere."""
        if branches is None:
            return list(advertised.refs)
        found = [ref for ref in advertised.refs if ref.kind is RefKind.BRANCH and ref.name in branches]
        absent = set(branches) - {ref.name for ref in found}
        if absent:
            names = ", ".join(sorted(ref.name for ref in advertised.refs if ref.kind is RefKind.BRANCH)) or "none"
            raise RemoteError(
                f"a branch must be at the remote to be fetched, {min(absent)!r} is not; it has {names} "
                f"({self._catalogue.place})"
            )
        return found

    def _bring(
        self, wanted: list[Ref], advertised: Advertised, depth: int | None, *, whole: bool, unshallow: bool
    ) -> _Brought:
        brought = _Brought()
        tips = list(dict.fromkeys(ref.commit for ref in wanted))
        last: Exception | None = None
        for _ in range(_ROUNDS_MAX):
            complete = self._complete(unshallow=unshallow)
            if all(complete(tip) for tip in tips):
                self._note_signatures()
                self._move(wanted, brought)
                return brought
            self._catalogue.refresh()
            try:
                if self._one_round(wanted, tips, advertised, depth, brought, complete, whole=whole):
                    return brought
            except (BlobMissing, ObjectMissingError) as error:
                last = error  # the remote's gc rewrote its packs meanwhile: look again, for the rest
                with self._repository.objects.writing():
                    salvage(self._repository.path)
        raise TransferError(f"a remote must keep what its refs lead to while it is read: {last}") from last

    def _one_round(
        self,
        wanted: list[Ref],
        tips: list[str],
        advertised: Advertised,
        depth: int | None,
        brought: _Brought,
        complete: Complete,
        *,
        whole: bool,
    ) -> bool:
        """Bring what is missing, publish it and move the refs; False when gc took something meanwhile."""
        store = self._repository.objects
        with Downloads(
            self._catalogue,
            store,
            lambda: PartFile(self._repository.path),
            backoff=self._backoff,
            progress=self._progress,
        ) as downloads:
            if whole:
                downloads.fetch_packs()
            plan = Walk(downloads.read_many, downloads.has, complete).run(
                tips, depth=depth, shallow=advertised.shallow, bases=complete.tips
            )
            downloads.fetch_files(plan.files)
            brought.objects += downloads.objects
            brought.bytes += downloads.bytes
            for part in downloads.parts:
                part.sync()
            with store.writing():
                for part in downloads.parts:
                    part.publish(whole={*plan.parts, *plan.present})
                store.refresh()
                if not all(store.contains(item) for item in (*plan.present, *plan.parts, *plan.files)):
                    return False
                plan.require_sizes(lambda item: store.describe(item).size)
                self._note_signatures()
                self._note_shallow(plan.boundary, {*plan.commits}, complete)
                self._move(wanted, brought)
        return True

    def _note_signatures(self) -> None:
        """Keep the signatures of commits that are here; a file that has those of others is read again next time."""
        store = self._repository.objects
        found: dict[Signature, None] = {}
        whole = []
        for name, content in self._catalogue.signatures():
            lines = list(parse_signatures(content))
            found.update((line, None) for line in lines if store.contains(bytes.fromhex(line.commit)))
            if all(line in found for line in lines):
                whole.append(name)
        receive_signatures(self._repository, found)
        self._catalogue.signatures_kept(whole)

    def _note_shallow(self, boundary: set[str], came: set[str], complete: Complete) -> None:
        """Commits whose parents are left out; those whose parents all came, or are here wholly, are ordinary again.

        That a parent's bytes are here does not make it one: they may be a file's.
        """
        repository = self._repository
        whole = [
            commit
            for commit in repository.shallow - boundary
            if repository.objects.contains(bytes.fromhex(commit))
            and all(parent in came or complete(parent) for parent in self._parents(commit))
        ]
        if boundary or whole:
            change_shallow(repository.path, add=boundary, remove=whole)
            repository.forget_shallow()

    def _parents(self, commit: str) -> tuple[str, ...]:
        return decode_commit(self._repository.objects.read_verified(bytes.fromhex(commit)), commit).parents

    def _complete(self, *, unshallow: bool) -> Complete:
        """What is known to be here wholly. To bring what was left out, nothing that lies above it may count."""
        repository = self._repository
        tips = [ref.commit for ref in repository.refs.every()]
        if unshallow and repository.shallow:
            tips = [tip for tip in tips if not any(c.id in repository.shallow for c in history(repository.commit, tip))]
        return Complete(repository.commit, repository.objects.contains, tips)

    def _move(self, wanted: list[Ref], brought: _Brought) -> None:
        """Let the refs follow, each on its own; nobody but us moves those of a remote."""
        for ref in wanted:
            if ref.kind is RefKind.TAG:
                here = self._repository.refs.get(RefKind.TAG, ref.name)
                if here is None and self._repository.refs.get(RefKind.BRANCH, ref.name) is None:
                    self._update(RefKind.TAG, ref.name, ref.commit, None)
                    brought.moved.append(Moved(ref, None))
                elif here != ref.commit:
                    brought.kept_tags.append(ref.name)
            elif self._remote.name:
                tracking = f"{self._remote.name}/{ref.name}"
                old = self._repository.refs.get(RefKind.REMOTE, tracking)
                if old != ref.commit:
                    self._update(RefKind.REMOTE, tracking, ref.commit, old)
                    brought.moved.append(Moved(Ref(tracking, RefKind.REMOTE, ref.commit), old))

    def _update(self, kind: RefKind, name: str, new: str, old: str | None) -> None:
        reason = f"fetch from {self._remote.name or self._remote.url}"
        try:
            self._repository.refs.update(kind, name, new, old=old, author=default_author(), reason=reason)
        except RefMovedError:
            if self._repository.refs.get(kind, name) != new:  # two fetches at once may bring the same
                raise


def cache_of(repository: Repository, remote: Remote) -> Path:
    """Where what is known of a remote is kept; may be deleted at any time while no command runs."""
    return repository.path / "cache" / "remotes" / sha256(remote.url.encode()).hexdigest()[:32]
