# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""What `koguma image log` and `koguma image diff` do, as functions of a repository and of what was said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from koguma.cli.errors import UsageFault, one_line
from koguma.cli.image.printing import decorations, local_time, message_lines, names_by_commit, print_json
from koguma.cli.image.showing import Form, commit_document, diff_document, print_diff, print_reboot
from koguma.images.revisions import is_symmetric, split_range

if TYPE_CHECKING:
    from koguma.images.commits import Commit
    from koguma.images.diff import Diff
    from koguma.images.pathspec import PathSpec
    from koguma.images.repository import Repository


def log(
    repository: Repository,
    *revisions: str,
    paths: Iterable[str] = (),
    limit: int | None = None,
    oneline: bool = False,
    graph: bool = False,
    everything: bool = False,
    author: str | None = None,
    since: str | None = None,
    until: str | None = None,
    grep: str | None = None,
    reverse: bool = False,
    parents_max: int | None = None,
    parents_min: int = 0,
    patch: bool = False,
    stat: bool = False,
    name_only: bool = False,
    json: bool = False,
) -> None:
    """Print commits and their ancestors, newest first; with paths, only those that changed them."""
    spec = _path_spec(paths)
    texts = list(revisions)
    if everything:
        texts += [ref.commit for ref in repository.refs.all()]
    commits = _wanted(repository.log(texts, spec, by_line=graph), author, since, until, grep)
    if parents_min or parents_max is not None:
        commits = (item for item in commits if parents_min <= len(item.parents) <= (parents_max or len(item.parents)))
    commits = islice(commits, limit)
    if reverse:
        commits = iter(list(commits)[::-1])
    if json:
        names = names_by_commit(repository)
        print_json([commit_document(item, names) for item in commits])
        return
    names = decorations(repository)
    form = Form(patch=patch, stat=stat, name_only=name_only)
    if graph and (reverse or not form.plain):
        raise UsageFault(
            "--graph draws commits alone and newest first: say it without --patch, --stat, --name-only, --reverse"
        )
    if graph:
        _draw(list(commits), names, oneline=oneline)
        return
    for item in commits:
        print("\n".join(_lines(item, names, oneline=oneline)))
        if not form.plain:
            print_diff(against_parent(repository, item.id, spec), repository.objects.read, form)
            print()


def diff(
    repository: Repository,
    old: str,
    new: str | None = None,
    *paths: str,
    dashed: Iterable[str] = (),
    patch: bool = False,
    stat: bool = False,
    shortstat: bool = False,
    name_only: bool = False,
    changelogs: bool = False,
    reboot: bool = False,
    json: bool = False,
) -> None:
    """Print what changed between two commits: packages, files, and what a reboot from one to the other means.

    `paths` must be in one of the trees, as a mistyped revision is not; `dashed` were said after two dashes.
    """
    if new is not None and split_range(old):
        paths, new = (new, *paths), None
    left, right = _ends(repository, old, new)
    for path in paths:
        _require_path(repository, left, right, path)
    spec = _path_spec([*paths, *dashed])
    changes = repository.diff(left, right, spec)
    form = Form(patch, stat, shortstat, name_only, changelogs)
    if json:
        print_json(diff_document(changes, None if spec else repository.reboot(left, right, changes)))
        return
    if not reboot:
        print_diff(changes, repository.objects.read, form)
    if reboot or (form.plain and not spec and changes.files):
        print() if not reboot else None
        print_reboot(repository.reboot(left, right, None if spec else changes))


def against_parent(repository: Repository, commit_id: str, paths: PathSpec | None) -> Diff:
    """What a commit changed against its first parent; the first commit changed nothing but is all new."""
    from koguma.images.diff import Diff

    found = repository.commit(commit_id)
    return repository.diff(found.parents[0], found.id, paths) if found.parents else Diff((), ())


def _require_path(repository: Repository, left: str, right: str, path: str) -> None:
    """RevisionError for a word that is no revision and is in neither tree: it is mistyped."""
    from koguma.images.errors import RevisionError
    from koguma.images.pathspec import PathSpec
    from koguma.images.trees import lookup

    read = repository.objects.read
    spec = PathSpec([path])
    if not spec.plain or any(
        lookup(read, repository.root(repository.commit(end)), spec.plain[0]) for end in (left, right)
    ):
        return
    raise RevisionError(f"a third word is a path of one of the commits, got {path!r}; if it is one, say it after: --")


def _path_spec(words: Iterable[str]) -> PathSpec | None:
    said = [*words]
    if not said:
        return None
    from koguma.images.pathspec import PathSpec

    return PathSpec(said)


def _wanted(
    commits: Iterator[Commit], author: str | None, since: str | None, until: str | None, grep: str | None
) -> Iterator[Commit]:
    if not any((author, since, until, grep)):
        return commits
    import re
    import time

    from koguma.images.dates import parse_time
    from koguma.images.errors import RevisionError

    try:
        by, says = re.compile(author or ""), re.compile(grep or "", re.MULTILINE)
    except re.error as error:
        raise RevisionError(f"--author and --grep take regular expressions: {error}, got {author or grep!r}") from None
    first = parse_time(since, time.time()) if since else 0
    last = parse_time(until, time.time()) if until else None
    return (
        item
        for item in commits
        if item.time >= first
        and (last is None or item.time <= last)
        and by.search(item.author)
        and says.search(item.message)
    )


def _lines(item: Commit, names: dict[str, list[str]], *, oneline: bool) -> list[str]:
    decoration = f" ({', '.join(names[item.id])})" if item.id in names else ""
    if oneline:
        return [f"{item.short_id}{decoration} {one_line(item.subject)}"]
    merge = [f"Merge:  {' '.join(parent[:12] for parent in item.parents)}"] if len(item.parents) > 1 else []
    return [
        f"commit {item.id}{decoration}",
        *merge,
        f"Author: {one_line(item.author)}",
        f"Date:   {local_time(item.time)}",
        "",
        *message_lines(item.message),
        "",
    ]


def _draw(commits: list[Commit], names: dict[str, list[str]], *, oneline: bool) -> None:
    """Print commits with the graph to their left; lines to commits that are not shown end."""
    from koguma.images.graph import Graph

    shown = {item.id for item in commits}
    graph = Graph()
    for item in commits:
        drawn = graph.draw(item.id, [parent for parent in item.parents if parent in shown])
        below = list(drawn.below)
        for number, line in enumerate(_lines(item, names, oneline=oneline)):
            left = drawn.first if number == 0 else below.pop(0) if below else drawn.padding
            print(f"{left.ljust(len(drawn.first))}{line}".rstrip())
        for left in below:
            print(left)


def _ends(repository: Repository, old: str, new: str | None) -> tuple[str, str]:
    """The two commits to compare: two words, or one that is a range."""
    from koguma.images.errors import RevisionError
    from koguma.images.history import merge_base

    ends = split_range(old) if new is None else None
    left, right = (repository.resolve(text).id for text in ends or (old, new or "HEAD"))
    if ends and is_symmetric(old):
        base = merge_base(repository.commit, left, right)
        if base is None:
            raise RevisionError(f"a...b needs commits with a history in common, got {old!r}")
        left = base
    return left, right
