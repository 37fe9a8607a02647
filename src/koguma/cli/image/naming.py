"""What `koguma image branch` and `koguma image tag` do, as functions of a repository and of what was said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from koguma.cli.errors import one_line
from koguma.cli.image.printing import print_json, update_labels

if TYPE_CHECKING:
    from koguma.images.refs import Ref
    from koguma.images.repository import Repository


def branch(
    repository: Repository,
    name: str | None = None,
    start: str = "HEAD",
    *,
    force: bool = False,
    remotes: bool = False,
    json: bool = False,
) -> None:
    """Make a branch and print its commit, or list branches, with `remotes` those of remotes too."""
    if name is None:
        others = repository.refs.remotes() if remotes else []
        _list(repository, [*_of_kind(repository, "branch"), *others], head=repository.refs.head(), json=json)
    elif force and repository.refs.find(name):
        _made(repository, repository.move_branch(name, start))
    else:
        _made(repository, repository.create_branch(name, start))


def tag(repository: Repository, name: str | None = None, start: str = "HEAD", *, json: bool = False) -> None:
    """Make a tag and print its commit, or list tags."""
    if name is None:
        _list(repository, _of_kind(repository, "tag"), head="", json=json)
    else:
        _made(repository, repository.create_tag(name, start))


def _made(repository: Repository, ref: Ref) -> None:
    update_labels(repository)
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
