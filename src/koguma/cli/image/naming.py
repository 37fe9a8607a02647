"""What `koguma image branch` and `koguma image tag` do, as functions of a repository and of what was said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from koguma.cli.errors import one_line
from koguma.cli.image.printing import print_json, update_labels

if TYPE_CHECKING:
    from koguma.images.refs import Ref
    from koguma.images.repository import Repository


class Shown(NamedTuple):
    """Which branches a list has."""

    remotes: bool = False
    own: bool = True
    contains: str | None = None
    """Only those whose history has this commit."""


def branch(
    repository: Repository,
    name: str | None = None,
    start: str = "HEAD",
    *,
    force: bool = False,
    shown: Shown = Shown(),
    json: bool = False,
) -> None:
    """Make a branch and print its commit, or list branches."""
    if name is None:
        _list(repository, _chosen(repository, shown), head=repository.refs.head(), json=json)
    elif force and repository.refs.find(name):
        _made(repository, repository.move_branch(name, start), json=json)
    else:
        _made(repository, repository.create_branch(name, start), json=json)


def tag(repository: Repository, name: str | None = None, start: str = "HEAD", *, json: bool = False) -> None:
    """Make a tag and print its commit, or list tags."""
    if name is None:
        _list(repository, _of_kind(repository, "tag"), head="", json=json)
    else:
        _made(repository, repository.create_tag(name, start), json=json)


def _chosen(repository: Repository, shown: Shown) -> list[Ref]:
    refs = _of_kind(repository, "branch") if shown.own else []
    refs += repository.refs.remotes() if shown.remotes else []
    if shown.contains is None:
        return refs
    from koguma.images.history import ancestors  # noqa: PLC0415 - for this alone

    wanted = repository.resolve(shown.contains).id
    return [ref for ref in refs if wanted in ancestors(repository.commit, [ref.commit])]


def _made(repository: Repository, ref: Ref, *, json: bool) -> None:
    update_labels(repository)
    if json:
        print_json({"name": ref.name, "commit": ref.commit})
    else:
        print(ref.commit)


def _of_kind(repository: Repository, kind: str) -> list[Ref]:
    return [ref for ref in repository.refs.all() if ref.kind.word == kind]


def _list(repository: Repository, refs: Iterable[Ref], *, head: str, json: bool) -> None:
    if json:
        print_json([{"name": ref.name, "commit": ref.commit} for ref in refs])
        return
    for ref in refs:
        mark = "*" if ref.name == head else " "
        print(f"{mark} {ref.name} {ref.commit[:12]} {one_line(repository.commit(ref.commit).subject)}")
