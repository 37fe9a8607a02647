"""The image repository: git for root file systems. The façade the command line and other programs use.

Wires objects, refs and the operations on them; the operations themselves are in modules of their own, imported when
they are used, because reading a log must not load what makes a squashfs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from koguma.images import revisions
from koguma.images.commits import Commit, check_time, check_words, decode_commit, is_id
from koguma.images.errors import CorruptError, ImageError, RefError, RepositoryError, RevisionError, SignatureError
from koguma.images.files import storage_errors, write_atomically
from koguma.images.history import ancestors, in_order
from koguma.images.objects import COMMIT, ObjectStore, ObjectWriter, part_bytes_max
from koguma.images.refs import DEFAULT_BRANCH, Ref, RefChange, RefKind, Refs, check_ref_name
from koguma.images.shallow import read_shallow
from koguma.images.trees import Entry, read_root
from koguma.places import REPOSITORY_MARKER

if TYPE_CHECKING:
    from koguma.images.diff import Diff
    from koguma.images.labelfile import Label
    from koguma.images.labels import LabelState
    from koguma.images.pathspec import PathSpec
    from koguma.images.reboot import Reboot

FORMAT = b"koguma-repository/1\n"
_PRIVATE = ("packs", "cache", "cache/stat", "edit", "tmp", "locks")
_PUBLIC = ("boot", "boot/artifacts", "boot/stage1")

Progress = Callable[[int], None]


class Committed(NamedTuple):
    """The outcome of a commit."""

    commit: Commit
    created: bool
    """False: the tree is the one the branch already has, so there was nothing to commit."""
    left_out: tuple[bytes, ...] = ()
    """Names of extended attributes that an archive had and Linux has no place for."""


class Repository:
    """One repository directory. Cheap to open; safe to use from several processes at once."""

    def __init__(self, path: Path) -> None:
        """Use `open` or `init`."""
        self.path = path
        self.objects = ObjectStore(path / "packs", path / "locks" / "objects")
        self.refs = Refs(path, is_there=self._is_stored, permit=self._permit)
        self.refs.changed = self._labels_follow

    @classmethod
    def init(cls, path: Path) -> Repository:
        """Make a repository with a signing key. One whose making was cut short is completed."""
        with storage_errors("a new repository"):
            return cls._init(path.absolute())

    @classmethod
    def _init(cls, path: Path) -> Repository:
        if (
            not (path / REPOSITORY_MARKER).exists()
            and path.exists()
            and any(path.iterdir())
            and not (path / "packs").is_dir()
        ):
            raise RepositoryError(f"a new repository needs a new or empty directory, got {str(path)!r}")
        path.mkdir(parents=True, exist_ok=True)
        for name in _PRIVATE:
            (path / name).mkdir(mode=0o700, exist_ok=True)
        for name in _PUBLIC:
            (path / name).mkdir(mode=0o755, exist_ok=True)
        from koguma.images.signing import create_keys  # noqa: PLC0415 - slow to load

        create_keys(path / "keys")
        refs = Refs(path)
        refs.create_directories()
        if not (path / REPOSITORY_MARKER).exists():
            refs.set_head(DEFAULT_BRANCH)
            write_atomically(path / REPOSITORY_MARKER, FORMAT)
        repository = cls.open(path)
        if not (path / "boot" / "labels.json").exists():
            repository.update_labels()
        return repository

    @classmethod
    def open(cls, path: Path) -> Repository:
        """Open a repository. Raises RepositoryError when there is none of this format."""
        try:
            marker = (path / REPOSITORY_MARKER).read_bytes()
        except OSError:
            raise RepositoryError(
                f"there is no image repository at {str(path)!r}; make one with: koguma image --repo {path} init"
            ) from None
        if marker != FORMAT:
            raise RepositoryError(f"a repository must have the format {FORMAT!r}, got {marker[:80]!r} ({path})")
        return cls(path.absolute())

    def close(self) -> None:
        """Let go of the files it holds open; for programs that go on after using a repository."""
        self.objects.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading

    def commit(self, commit_id: str) -> Commit:
        """A commit by its whole id. One whose parents were left out by a shallow pull is given without parents."""
        found = decode_commit(self.objects.read_part(bytes.fromhex(commit_id), COMMIT, verify=True), commit_id)
        return found._replace(parents=()) if commit_id in self.shallow else found

    @cached_property
    def shallow(self) -> frozenset[str]:
        """Commits whose parents a shallow pull left out."""
        return read_shallow(self.path)

    def forget_shallow(self) -> None:
        """Read the list of shallow commits again at its next use."""
        self.__dict__.pop("shallow", None)

    def resolve(self, revision: str) -> Commit:
        """The commit an expression names: `compute`, `v1~2`, `3f2a91`, `HEAD`, `compute@{1}`. Raises RevisionError."""
        return self.commit(revisions.resolve(revision, self.refs, self.objects, self.commit))

    def root(self, commit: Commit) -> Entry:
        """The root directory of a commit's tree."""
        return read_root(self.objects.read_verified, bytes.fromhex(commit.tree))

    def log(
        self, revision: str | Sequence[str] = "HEAD", paths: PathSpec | None = None, *, by_line: bool = False
    ) -> Iterator[Commit]:
        """Commits and their ancestors, newest first, none before all that were made of it.

        `a..b`: those of b that a does not have; `a...b`: those only one has; `^a`: none of a's. With `paths` only the
        commits that changed them. `by_line` keeps lines of history together, for drawing.
        """
        texts = [revision] if isinstance(revision, str) else revision
        chosen = revisions.select(texts, lambda text: self.resolve(text).id, self.commit)
        without = ancestors(self.commit, chosen.unwanted)
        if not paths:
            return in_order(self.commit, chosen.wanted, without=without, by_line=by_line)
        from koguma.images.pathlog import path_history  # noqa: PLC0415 - see the module's docstring

        return path_history(
            self.commit,
            self.objects.read,
            self.root,
            chosen.wanted,
            paths,
            without=without,
            unwanted=chosen.unwanted,
            by_line=by_line,
        )

    def reflog(self, name: str) -> list[RefChange]:
        """What a branch or tag was, newest first."""
        ref = self._ref(name)
        return self.refs.log(ref.kind, ref.name)

    def diff(self, old: str, new: str, paths: PathSpec | None = None) -> Diff:
        """What changed from one revision to another, by file and by package; with `paths`, those files alone."""
        from koguma.images.diff import diff_trees  # noqa: PLC0415 - see the module's docstring

        return diff_trees(self.objects.read, self.root(self.resolve(old)), self.root(self.resolve(new)), paths)

    def reboot(self, old: str, new: str, diff: Diff | None = None) -> Reboot:
        """What a reboot from one revision to another means for a machine; `diff` is theirs, where it is at hand."""
        from koguma.images.reboot import reboot_meaning  # noqa: PLC0415

        before, after = self.resolve(old), self.resolve(new)
        changes = diff or self.diff(before.id, after.id)
        images = tuple(self._image_bytes(commit) for commit in (before, after))
        return reboot_meaning(self.objects.read, self.root(before), self.root(after), changes, (images[0], images[1]))

    def _image_bytes(self, commit: Commit) -> int | None:
        try:
            return (self._artifact(commit.id) / "root.squashfs").stat().st_size
        except OSError:
            return None

    def checkout(self, revision: str, destination: Path, progress: Progress | None = None) -> Commit:
        """Write a commit's tree to a new or empty directory."""
        from koguma.images.checkout import checkout  # noqa: PLC0415

        commit = self.resolve(revision)
        with storage_errors("a checkout"):
            checkout(self.objects, self.root(commit), destination, progress)
        return commit

    def export(self, revision: str, image_format: str, output: Path, progress: Progress | None = None) -> Commit:
        """Write a commit's tree as a squashfs or erofs image, the same bytes every time."""
        from koguma.images.export import check_output, export  # noqa: PLC0415
        from koguma.images.rootimages import copy_kept_image, donor_of  # noqa: PLC0415

        commit = self.resolve(revision)
        check_output(output)
        with storage_errors("an export"):
            if image_format == "squashfs" and copy_kept_image(self, commit.tree, output):
                return commit
            root, scratch, donor = self.root(commit), self.path / "tmp", donor_of(self, commit)
            export(self.objects, commit.tree, root, image_format, output, scratch, progress, donor)
        return commit

    def labels(self) -> list[Label]:
        """The labels as they are published now."""
        from koguma.images.labelfile import read_labels  # noqa: PLC0415

        return read_labels(self.path)

    def is_labelled(self, commit: str) -> bool:
        """Whether every branch and tag on this commit is a label that leads to it, and its artifact is there.

        Under a policy, which may say otherwise by now, the answer is no; where labels.json is damaged, it is, too.
        """
        try:
            named = {label.name for label in self.labels() if label.commit == commit}
        except CorruptError:
            return False
        refs = {ref.name for ref in self.refs.all() if ref.commit == commit}
        return self._artifact(commit).is_dir() and refs <= named and not (self.path / "policy.toml").exists()

    def labelled_refs(self) -> tuple[list[Ref], list[tuple[str, str]]]:
        """The refs that may yield labels; and the commits of those that policy forbids, with the reason."""
        found, refused = [], []
        for ref in self.refs.all():
            try:
                self._permit(ref.kind, ref.name, ref.commit)
                found.append(ref)
            except SignatureError as error:
                refused.append((ref.commit, str(error)))
        return found, refused

    def root_image(self, tree: str) -> Path | None:
        """A squashfs of this tree that was made before, for a commit or for an edit."""
        from koguma.images.rootimages import kept_image  # noqa: PLC0415

        cached = kept_image(self.path, tree)
        if cached.exists():
            return cached
        for ref in self.refs.all():
            for commit_id in (ref.commit, *self.commit(ref.commit).parents):
                image = self._artifact(commit_id) / "root.squashfs"
                if image.exists() and self.commit(commit_id).tree == tree:
                    return image
        return None

    # Changing

    def commit_tree(
        self,
        tree: Path,
        branch: str,
        message: str,
        *,
        author: str | None = None,
        notes: Mapping[str, str] | None = None,
        keep_times: bool = False,
        remember: bool = True,
        one_file_system: bool = False,
        progress: Progress | None = None,
    ) -> Committed:
        """Commit a directory to a branch, which is created when there is none. Labels follow with `update_labels`.

        `remember` keeps a stat cache, so that a commit of the same directory reads only what changed.
        """
        from koguma.images.scan import scan  # noqa: PLC0415

        check_ref_name(branch)
        check_words(author or default_author(), message)  # before a long walk
        base = self.refs.get(RefKind.BRANCH, branch)
        with self.objects.writing() as writer:
            root = scan(
                tree,
                self.objects,
                writer,
                self.path / "cache" / "stat",
                remember=remember,
                keep_times=keep_times,
                one_file_system=one_file_system,
                progress=progress,
            )
            commit = self.add_commit(writer, root, [base] if base else [], message, author=author, notes=notes)
            writer.finish()
            return self.publish(commit, branch, base)

    def add_commit(
        self,
        writer: ObjectWriter,
        root: bytes,
        parents: Sequence[str],
        message: str,
        *,
        author: str | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> Commit:
        """Store a commit of a stored tree; when its only parent has that very tree, that parent is the answer."""
        if len(parents) == 1 and (parent := self.commit(parents[0])).tree == root.hex():
            return parent
        commit = Commit(
            tree=root.hex(),
            parents=tuple(parents),
            author=author or default_author(),
            time=int(time.time()),
            message=message.replace("\r\n", "\n").strip(),
            notes=dict(notes or {}),
        )
        check_words(commit.author, commit.message)
        check_time(commit.time)
        content = commit.to_bytes()
        if len(content) > part_bytes_max(COMMIT):
            raise ImageError(
                f"a commit with its message and notes has at most {part_bytes_max(COMMIT)} bytes, got {len(content)}"
            )
        return commit._replace(id=writer.add(COMMIT, content).hex())

    def publish(self, commit: Commit, branch: str, base: str | None) -> Committed:
        """Point the branch at the commit, unless it moved meanwhile. Call it while its writer is open, finished:
        gc leaves alone what a writer found until then."""
        if commit.id == base:
            return Committed(commit, created=False)
        self.sign(commit)
        reason = f"commit: {commit.subject}"
        self.refs.update(RefKind.BRANCH, branch, commit.id, old=base, author=commit.author, reason=reason)
        self.refs.set_head(branch)
        return Committed(commit, created=True)

    def create_branch(self, name: str, start: str = "HEAD") -> Ref:
        return self._create(RefKind.BRANCH, name, start)

    def create_tag(self, name: str, start: str = "HEAD") -> Ref:
        return self._create(RefKind.TAG, name, start)

    def move_branch(self, name: str, to: str) -> Ref:
        """Point an existing branch at another commit; `name@{1}` leads back."""
        commit, old = self.resolve(to), self._ref(name)
        self.refs.update(
            RefKind.BRANCH, name, commit.id, old=old.commit, author=default_author(), reason=f"moved to {to}"
        )
        return Ref(name, RefKind.BRANCH, commit.id)

    def rename_branch(self, old: str, new: str) -> Ref:
        """Give a branch another name; its log goes with it, and HEAD when it is that branch.

        Raises RefError when the new name is refused or taken, EditError when an edit of the branch is pending.
        """
        from koguma.images.sessions import require_none_pending  # noqa: PLC0415 - see the module's docstring

        self.refs.require_free(new)
        with require_none_pending(self, old), require_none_pending(self, new):
            return self.refs.rename(old, new, author=default_author())

    def remove(self, name: str) -> Ref:
        """Remove a branch or tag, but not the branch that HEAD is. Its commits stay until gc."""
        ref = self._ref(name)
        if ref.kind is RefKind.BRANCH and ref.name == self.refs.head():
            raise RefError(
                f"HEAD is branch {ref.name!r}, which may not be removed; choose another first:"
                " koguma image switch BRANCH"
            )
        self.refs.delete(ref.kind, ref.name, old=ref.commit)
        return ref

    def pin_label(self, name: str) -> str:
        """Keep a commit bootable whatever the policy says; `update_labels` makes its artifact. Returns its id."""
        from koguma.images.pins import pin  # noqa: PLC0415

        commit = self.resolve(name).id
        with storage_errors("a pin"):
            pin(self.path, commit, name)
        return commit

    def unpin_label(self, name: str) -> str:
        """Let the policy decide on a pinned commit again. Raises PolicyError when it is not pinned."""
        from koguma.images.pins import unpin  # noqa: PLC0415

        try:
            commit = self.resolve(name).id
        except RevisionError:
            commit = None
        with storage_errors("a pin"):
            return unpin(self.path, name, commit)

    def update_labels(self, progress: Callable[[str, int], None] | None = None) -> LabelState:
        """Make missing boot artifacts, publish labels, let expired ones go, say which commits have none and why."""
        from koguma.images.labels import update_labels  # noqa: PLC0415

        return update_labels(self, progress)

    def _artifact(self, commit: str) -> Path:
        return self.path / "boot" / "artifacts" / commit

    def _is_stored(self, commit: str) -> bool:
        self.objects.refresh()
        return self.objects.readable(bytes.fromhex(commit))

    def _labels_follow(self) -> None:
        """Publish what a change of a ref makes of the labels. What fails here the next update of labels mends."""
        from koguma.images.labels import publish_labels  # noqa: PLC0415

        with suppress(ImageError):
            publish_labels(self)

    def _create(self, kind: RefKind, name: str, start: str) -> Ref:
        check_ref_name(name)
        commit = self.resolve(start)
        if self.refs.get(kind, name):
            mend = f"branch -f {name} {start}" if kind is RefKind.BRANCH else f"rm {name}"
            raise RefError(f"a {kind.word} named {name!r} exists already; to have another: koguma image {mend}")
        self.refs.update(kind, name, commit.id, old=None, author=default_author(), reason=f"created from {start}")
        return Ref(name, kind, commit.id)

    def sign(self, commit: Commit) -> None:
        """Sign what is committed here, when a signing key is here."""
        if (self.path / "keys" / "signing.pem").exists():
            from koguma.images.signatures import sign_commit  # noqa: PLC0415 - slow to load

            sign_commit(self, commit.id)

    def _permit(self, kind: RefKind, name: str, commit: str) -> None:
        """Refuse to move a ref whose commits must be signed to one that is not."""
        if not (self.path / "policy.toml").exists():
            return
        from koguma.images.policy import load_policy  # noqa: PLC0415 - see the module's docstring

        if load_policy(self.path).signatures.requires(name):
            from koguma.images.signatures import require_signature  # noqa: PLC0415 - slow to load

            require_signature(self, kind, name, commit)

    def _ref(self, name: str) -> Ref:
        ref = self.refs.find(name)
        if ref is None:
            raise RefError(f"there is no branch or tag {name!r}; koguma image branch lists them")
        return ref


def default_author() -> str:
    """KOGUMA_AUTHOR, else user@host."""
    if named := os.environ.get("KOGUMA_AUTHOR"):
        return named
    return f"{os.environ.get('USER') or _user_name()}@{os.uname().nodename}"


def _user_name() -> str:
    """As the system knows it: timers and services have no USER."""
    import pwd  # noqa: PLC0415 - most have a USER

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


__all__ = ["Committed", "Repository", "default_author", "is_id"]
