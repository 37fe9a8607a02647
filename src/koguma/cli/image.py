# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image`: works on a repository directory, without any server, as git does.

Results go to standard output and nothing else does; progress is shown on a terminal only. Imports what a command needs
when the command runs: `koguma image log` must be there within a quarter of a second.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from koguma.images.commits import Commit
    from koguma.images.diff import Diff
    from koguma.images.labels import LabelState
    from koguma.images.repository import Committed, Repository

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Image repositories: commit, branch, diff, edit and export root file systems.",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Branch = Annotated[str, typer.Option("--branch", "-b", help="The branch to commit to; made when there is none.")]
Message = Annotated[str, typer.Option("--message", "-m", help="Why; the first line is the subject.")]


@app.callback()
def _image(
    context: typer.Context,
    repo: Annotated[
        Path | None,
        typer.Option("--repo", envvar="KOGUMA_REPO", help="The repository; otherwise the one of the configuration."),
    ] = None,
) -> None:
    context.obj = repo


@app.command()
def init(context: typer.Context) -> None:
    """Make a repository and its signing key; one that is there stays as it is."""
    from koguma.images.repository import Repository

    print(Repository.init(_path(context)).path)


@app.command()
def commit(
    context: typer.Context,
    branch: Branch,
    message: Message,
    tree: Annotated[Path | None, typer.Argument(help="A directory; otherwise the branch's pending edit.")] = None,
    author: Annotated[str | None, typer.Option(help="Otherwise KOGUMA_AUTHOR, else user@host.")] = None,
    keep_times: Annotated[
        bool, typer.Option("--keep-times", help="Record modification times; they are normalised otherwise.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the label to be bootable.")] = True,
) -> None:
    """Commit a directory, or what `edit` changed; prints the commit's id last."""
    repository = _open(context)
    with _progress("reading") as told:
        if tree is None:
            from koguma.images.edit import commit_edit

            done = commit_edit(repository, branch, message, author=author, keep_times=keep_times)
        else:
            done = repository.commit_tree(tree, branch, message, author=author, keep_times=keep_times, progress=told)
    _finish(repository, done, wait=wait)


@app.command()
def build(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="A recipe (TOML).")],
    branch: Branch,
    message: Annotated[str | None, typer.Option("--message", "-m")] = None,
    force: Annotated[bool, typer.Option("--force", help="Build again although the recipe did not change.")] = False,
) -> None:
    """Build a Debian root from a recipe and commit it; prints the commit's id last."""
    from koguma.images.build import build as build_image

    repository = _open(context)
    done = build_image(repository, recipe, branch, message, force=force, say=_say)
    _finish(repository, done, wait=True)


@app.command("import")
def import_(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="A directory, a tar file (plain or compressed), or - for a tar on standard input.")
    ],
    branch: Branch,
    message: Annotated[str | None, typer.Option("--message", "-m")] = None,
) -> None:
    """Commit a root file system made elsewhere; prints the commit's id last."""
    from koguma.images.importing import import_source

    repository = _open(context)
    with _progress("reading") as told:
        done = import_source(repository, source, branch, message or f"import {source}", progress=told)
    _finish(repository, done, wait=True)


@app.command()
def branch(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="The new branch; without it, branches are listed.")] = None,
    start: Annotated[str, typer.Argument(help="The commit it starts from.")] = "HEAD",
    force: Annotated[bool, typer.Option("--force", "-f", help="Move a branch that exists.")] = False,
    json: Json = False,
) -> None:
    """Make a branch, or list branches."""
    _make_or_list(context, "branch", name, start, json=json, force=force)


@app.command()
def tag(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="The new tag; without it, tags are listed.")] = None,
    start: Annotated[str, typer.Argument(help="The commit it names.")] = "HEAD",
    json: Json = False,
) -> None:
    """Make a tag, or list tags."""
    _make_or_list(context, "tag", name, start, json=json, force=False)


@app.command()
def log(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(help="A branch, tag, commit, `branch~2`, or a range `a..b`.")] = "HEAD",
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="At most so many commits.")] = None,
    oneline: Annotated[bool, typer.Option("--oneline", help="One line per commit.")] = False,
    json: Json = False,
) -> None:
    """Show a commit and its ancestors, newest first."""
    from itertools import islice

    repository = _open(context)
    names = _names_by_commit(repository)
    commits = islice(repository.log(revision), limit)
    if json:
        _print_json([_commit_document(item, names) for item in commits])
        return
    for item in commits:
        decoration = f" ({', '.join(names[item.id])})" if item.id in names else ""
        if oneline:
            print(f"{item.short_id}{decoration} {item.subject}")
        else:
            print(f"commit {item.id}{decoration}\nAuthor: {item.author}\nDate:   {_time(item.time)}\n")
            print("".join(f"    {line}\n" for line in item.message.splitlines()))


@app.command()
def show(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(help="A branch, tag, commit or expression.")] = "HEAD",
    json: Json = False,
) -> None:
    """Show one commit and what it changed against its parent."""
    repository = _open(context)
    found = repository.resolve(revision)
    changes = repository.diff(found.parents[0], found.id) if found.parents else None
    if json:
        document = _commit_document(found, _names_by_commit(repository))
        document["diff"] = _diff_document(changes) if changes else None
        _print_json(document)
        return
    print(f"commit {found.id}\ntree   {found.tree}")
    for parent in found.parents:
        print(f"parent {parent}")
    print(f"Author: {found.author}\nDate:   {_time(found.time)}\n")
    print("".join(f"    {line}\n" for line in found.message.splitlines()))
    if changes:
        _print_diff(changes)


@app.command()
def diff(
    context: typer.Context,
    old: Annotated[str, typer.Argument(help="A revision, or a range `a..b`.")],
    new: Annotated[str | None, typer.Argument(help="A revision; HEAD otherwise.")] = None,
    stat: Annotated[bool, typer.Option("--stat", help="Only packages and the numbers of files.")] = False,
    json: Json = False,
) -> None:
    """Show what changed between two commits, by package and by file."""
    from koguma.images.revisions import split_range

    ends = split_range(old) if new is None else None
    left, right = ends or (old, new or "HEAD")
    changes = _open(context).diff(left, right)
    if json:
        _print_json(_diff_document(changes))
    else:
        _print_diff(changes, stat=stat)


@app.command()
def edit(
    context: typer.Context,
    branch: Annotated[str, typer.Argument(help="The branch whose head to change.")],
    command: Annotated[list[str] | None, typer.Argument(help="What to run in it; a shell otherwise.")] = None,
    discard: Annotated[bool, typer.Option("--discard", help="Throw the pending edit away first.")] = False,
) -> None:
    """Change a branch's head in a work tree of its own; `commit -b BRANCH -m MESSAGE` keeps the changes.

    Packages can be installed, the host's network works, services do not start. Say `edit BRANCH -- COMMAND…`; the exit
    status is the command's. A pending edit is continued.
    """
    from koguma.images import edit as editing

    repository = _open(context)
    if discard:
        editing.discard(repository, branch)
        if not command:
            return
    status = editing.edit(repository, branch, command or [], say=_say)
    raise typer.Exit(status)


@app.command()
def export(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(help="A branch, tag, commit or expression.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    format: Annotated[str, typer.Option("--format", help="squashfs or erofs.")] = "squashfs",
) -> None:
    """Write a commit's tree as an image; the same commit gives the same bytes."""
    repository = _open(context)
    with _progress("exporting") as told:
        found = repository.export(revision, format, output, told)
    if format == "squashfs":
        from koguma.images.export import attributes_lost

        lost = attributes_lost(repository.objects, repository.root(found))
        if lost:
            _say(f"squashfs cannot hold POSIX ACLs, {len(lost)} paths are without ({_text(lost[0])} …); erofs can")
    print(output)


@app.command()
def labels(context: typer.Context, json: Json = False) -> None:
    """Show what machines can boot, and why other commits cannot be booted."""
    repository = _open(context)
    state = _update_labels(repository)
    if json:
        _print_json(
            {
                "labels": [{"name": item.name, "kind": item.kind, "commit": item.commit} for item in state.labels],
                "unlabelled": [{"commit": item.commit, "reason": item.reason} for item in state.unlabelled],
            }
        )
        return
    _print_table([(item.name, item.kind, item.commit[:12]) for item in state.labels])
    for missing in state.unlabelled:
        print(f"{missing.commit[:12]} has no label: {missing.reason}")


@app.command()
def rm(
    context: typer.Context, names: Annotated[list[str], typer.Argument(help="Branches and tags to remove.")]
) -> None:
    """Remove branches and tags; their commits stay until they are collected."""
    repository = _open(context)
    for name in names:
        gone = repository.remove(name)
        print(f"{gone.kind.word} {name} was {gone.commit[:12]}")
    _update_labels(repository)


@app.command()
def checkout(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(help="A branch, tag, commit or expression.")],
    directory: Annotated[Path, typer.Argument(help="A new or empty directory.")],
) -> None:
    """Write a commit's tree to a directory."""
    repository = _open(context)
    with _progress("writing") as told:
        found = repository.checkout(revision, directory, told)
    print(found.id)


@app.command()
def reflog(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A branch or tag.")] = "HEAD",
    json: Json = False,
) -> None:
    """Show where a branch has been, newest first; `branch@{1}` names the commit before the last change."""
    repository = _open(context)
    name = repository.refs.head() if name == "HEAD" else name
    changes = repository.reflog(name)
    if json:
        _print_json(
            [{"old": c.old, "new": c.new, "time": c.time, "author": c.author, "reason": c.reason} for c in changes]
        )
        return
    for number, change in enumerate(changes):
        print(f"{change.new[:12]} {name}@{{{number}}} {_time(change.time)} {change.reason}")


@app.command()
def fsck(context: typer.Context, json: Json = False) -> None:
    """Check every stored byte and that everything referred to is there; exit status 1 when something is wrong."""
    from koguma.images.fsck import fsck as check

    repository = _open(context)
    with _progress("checking") as told:
        report = check(repository, told)
    if json:
        _print_json({"objects": report.objects, "packs": report.packs, "problems": list(report.problems)})
    else:
        for problem in report.problems:
            print(problem)
        print(f"{report.packs} packs, {report.objects} objects, {len(report.problems)} problems")
    if report.problems:
        print("koguma: the repository is damaged; the problems are listed on standard output", file=sys.stderr)
        raise typer.Exit(1)


@app.command("build-stage1")
def build_stage1(
    context: typer.Context,
    suite: Annotated[str, typer.Option(help="The Debian suite stage 1 is made of.")] = "bookworm",
) -> None:
    """Build stage 1, the small system that registers machines and boots commits; prints its id last."""
    from koguma.images.stage1 import build_stage1 as build_it

    print(build_it(_open(context).path, suite=suite, progress=_say))


# What the commands share


def _path(context: typer.Context) -> Path:
    given: Path | None = context.obj
    if given is not None:
        return given
    from koguma.config import load

    return load().repository


def _open(context: typer.Context) -> Repository:
    from koguma.images.repository import Repository

    return Repository.open(_path(context))


def _finish(repository: Repository, done: Committed, *, wait: bool) -> None:
    """Let the label follow the commit, then print the id, last."""
    if not done.created:
        _say("nothing changed, so there is no new commit")
    if wait:
        state = _update_labels(repository)
        for missing in state.unlabelled:
            if missing.commit == done.commit.id:
                _say(f"no label: {missing.reason}")
    else:
        _labels_later(repository)
    print(done.commit.id)


def _labels_later(repository: Repository) -> None:
    """Start a process of its own that makes the artifact; should it die, the next command that needs labels does it."""
    import subprocess

    command = [sys.executable, "-m", "koguma", "image", "--repo", str(repository.path), "labels"]
    null = subprocess.DEVNULL
    subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)


def _update_labels(repository: Repository) -> LabelState:
    with _progress("making the boot artifact") as told:
        return repository.update_labels((lambda _, size: told(size)) if told else None)


def _make_or_list(context: typer.Context, kind: str, name: str | None, start: str, *, json: bool, force: bool) -> None:
    repository = _open(context)
    if name is not None:
        if force and repository.refs.find(name):
            ref = repository.move_branch(name, start)
        else:
            ref = repository.create_branch(name, start) if kind == "branch" else repository.create_tag(name, start)
        _update_labels(repository)
        print(ref.commit)
        return
    refs = [ref for ref in repository.refs.all() if ref.kind.word == kind]
    if json:
        _print_json([{"name": ref.name, "commit": ref.commit} for ref in refs])
        return
    head = repository.refs.head() if kind == "branch" else ""
    for ref in refs:
        mark = "*" if ref.name == head else " "
        print(f"{mark} {ref.name} {ref.commit[:12]} {repository.commit(ref.commit).subject}")


def _names_by_commit(repository: Repository) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for ref in repository.refs.all():
        names.setdefault(ref.commit, []).append(f"tag: {ref.name}" if ref.kind.word == "tag" else ref.name)
    return names


def _commit_document(commit: Commit, names: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "commit": commit.id,
        "tree": commit.tree,
        "parents": list(commit.parents),
        "author": commit.author,
        "time": datetime.fromtimestamp(commit.time, UTC).isoformat(),
        "message": commit.message,
        "notes": dict(commit.notes),
        "refs": [name.removeprefix("tag: ") for name in names.get(commit.id, [])],
    }


def _diff_document(diff: Diff) -> dict[str, Any]:
    """Paths that are not UTF-8 are given with surrogate escapes turned into `\\xNN`."""
    return {
        "packages": [
            {
                "name": item.name,
                "architecture": item.architecture,
                "change": item.change,
                "old_version": item.old_version,
                "new_version": item.new_version,
            }
            for item in diff.packages
        ],
        "files": [
            {
                "path": "/" + _text(item.path),
                "change": item.change,
                "kind": item.kind,
                "aspects": list(item.aspects),
                "old_size_bytes": item.old_size,
                "new_size_bytes": item.new_size,
            }
            for item in diff.files
        ],
    }


def _print_diff(diff: Diff, *, stat: bool = False) -> None:
    for package in diff.packages:
        versions = " -> ".join(version for version in (package.old_version, package.new_version) if version)
        print(f"{package.change:10} {package.name}:{package.architecture} {versions}")
    if diff.packages:
        print()
    if not stat:
        for file in diff.files:
            aspects = f" ({', '.join(file.aspects)})" if file.aspects else ""
            print(f"{ {'added': 'A', 'removed': 'D', 'changed': 'M'}[file.change] } /{_text(file.path)}{aspects}")
        if diff.files:
            print()
    counts = [
        f"{sum(item.change == change for item in diff.files)} {change}" for change in ("added", "removed", "changed")
    ]
    grown = sum(item.new_size - item.old_size for item in diff.files)
    print(f"{len(diff.packages)} packages; files: {', '.join(counts)}; {grown:+,d} bytes")


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_json(document: object) -> None:
    import json

    print(json.dumps(document, indent=2, ensure_ascii=False))


def _text(path: bytes) -> str:
    """A path fit for printing: bytes that are not UTF-8 and control characters appear as `\\xNN`."""
    text = path.decode("utf-8", errors="backslashreplace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def _say(text: str) -> None:
    """Words for a person: never on standard output, which carries results."""
    print(text, file=sys.stderr)


class _progress:  # noqa: N801 - used like a function
    """Shows the bytes worked through after a second, on a terminal only; gives None elsewhere."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Any = None
        self._done = 0
        self._task: Any = None
        self._from = 0.0

    def __enter__(self) -> Callable[[int], None] | None:
        if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            return None
        import time

        self._from = time.monotonic() + 1
        return self._tell

    def _tell(self, size: int) -> None:
        import time

        self._done += size
        if self._bar is None and time.monotonic() >= self._from:
            from rich.console import Console
            from rich.progress import DownloadColumn, Progress, SpinnerColumn, TimeElapsedColumn, TransferSpeedColumn

            columns = ("{task.description}", DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
            self._bar = Progress(SpinnerColumn(), *columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._what, total=None)
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
