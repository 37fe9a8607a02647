# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands that search in what commits hold: who changed a line, which files have a word."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from koguma.cli.errors import UsageFault, one_line
from koguma.cli.image.common import Json, open_repository, print_json, printable
from koguma.cli.image.paths import WithPaths, paths_said
from koguma.cli.image.showing import write_bytes

if TYPE_CHECKING:
    from koguma.images.blame import BlamedEntry, BlamedLine
    from koguma.images.commits import Commit
    from koguma.images.grep import Hit
    from koguma.images.repository import Repository

app = typer.Typer()


@app.command(cls=WithPaths)
def blame(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[REVISION] PATH", help="A commit, HEAD otherwise; a file or directory of it."),
    ] = None,
    json: Json = False,
) -> None:
    """Show which commit last changed each line of a text file, or each entry of a directory."""
    from koguma.images.blame import blame_entries, blame_lines
    from koguma.images.lookup import find_path
    from koguma.images.owners import owners

    repository = open_repository(context)
    revision, path = _blamed(repository, words or [], paths_said(context))
    commit = repository.resolve(revision)
    where, _ = find_path(repository, commit, path)
    arguments = (repository.commit, repository.objects.read, repository.root, commit.id, where)
    belongs = owners(repository.objects.read, repository.root(commit), where)
    lines = blame_lines(*arguments)
    entries = blame_entries(*arguments) if lines is None else []
    if json:
        print_json(_blame_document(where, belongs, lines, entries))
        return
    if belongs:
        print(f"/{printable(where)} belongs to {one_line(', '.join(belongs[:8]))}{' …' if len(belongs) > 8 else ''}\n")
    commits = [line.commit for line in lines or []] + [entry.commit for entry in entries]
    author = max((len(one_line(commit.author)) for commit in commits), default=0)
    for line in lines or []:
        write_bytes(f"{_who(line.commit, author)} {line.number:>4}) ".encode() + line.content.rstrip(b"\n") + b"\n")
    for entry in entries:
        print(f"{_who(entry.commit, author)} /{printable(entry.path)}  {one_line(entry.commit.subject)}")


def _blamed(repository: Repository, words: list[str], dashed: list[str]) -> tuple[str, str]:
    """Revision and path, in either order: who blames a file names it first, git names it last."""
    from koguma.images.errors import RevisionError

    if len(words) > 2 or len(dashed) > 1 or len(words) + len(dashed) not in (1, 2):
        raise UsageFault("one file is looked at: koguma image blame [REVISION] PATH")
    if dashed:
        return (words[0] if words else "HEAD"), dashed[0]
    if len(words) == 1:
        return "HEAD", words[0]
    try:
        repository.resolve(words[0])
    except RevisionError:
        return words[1], words[0]
    return words[0], words[1]


def _who(commit: Commit, width: int) -> str:
    day = datetime.fromtimestamp(commit.time, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
    return f"{commit.short_id} {one_line(commit.author).ljust(width)} {day}"


def _blame_document(
    path: bytes, belongs: tuple[str, ...], lines: list[BlamedLine] | None, entries: list[BlamedEntry]
) -> dict[str, Any]:
    document: dict[str, Any] = {"path": "/" + printable(path), "packages": list(belongs)}
    if lines is not None:
        document["lines"] = [
            {
                "number": item.number,
                "commit": item.commit.id,
                "original_number": item.original,
                "author": item.commit.author,
                "text": item.content.decode("utf-8", errors="backslashreplace").rstrip("\n"),
            }
            for item in lines
        ]
    else:
        document["entries"] = [
            {"path": "/" + printable(item.path), "commit": item.commit.id, "author": item.commit.author}
            for item in entries
        ]
    return document


@app.command(cls=WithPaths)
def grep(
    context: typer.Context,
    words_said: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATTERN [REVISION]...",
            help="A regular expression, for a line at a time; where to search, HEAD otherwise.",
        ),
    ] = None,
    regexp: Annotated[
        str | None, typer.Option("--regexp", "-e", help="The pattern, when it begins with a dash.")
    ] = None,
    extended: Annotated[bool, typer.Option("--extended-regexp", "-E", hidden=True, help="As always.")] = False,  # noqa: ARG001 - git's
    ignore_case: Annotated[bool, typer.Option("--ignore-case", "-i", help="Letters match in either case.")] = False,
    files_only: Annotated[bool, typer.Option("--files-with-matches", "-l", help="Only the names of files.")] = False,
    numbers: Annotated[bool, typer.Option("--line-number", "-n", help="Number the lines.")] = False,
    fixed: Annotated[bool, typer.Option("--fixed-strings", "-F", help="The pattern is plain text.")] = False,
    words: Annotated[bool, typer.Option("--word-regexp", "-w", help="Only whole words match.")] = False,
    text: Annotated[bool, typer.Option("--text", "-a", help="Search binary files line by line, too.")] = False,
    no_binary: Annotated[bool, typer.Option("-I", help="Leave binary files out.")] = False,
    json: Json = False,
) -> None:
    """Search the files of a commit without checking it out; exit status 1 when nothing matches."""
    from koguma.images.grep import Searcher, compile_pattern
    from koguma.images.pathspec import PathSpec

    repository = open_repository(context)
    revisions = list(words_said or ())
    if regexp is None and not revisions:
        raise UsageFault(
            "say what to search for: koguma image grep PATTERN [REVISION]...; -e PATTERN when it begins with -"
        )
    pattern = revisions.pop(0) if regexp is None else regexp
    compiled = compile_pattern(pattern, fixed=fixed, ignore_case=ignore_case, words=words)
    searcher = Searcher(repository.objects, compiled, text=text, first=files_only)
    paths = PathSpec(paths_said(context))
    documents: list[dict[str, Any]] = []
    found = False
    for name, commit in _commits(repository, revisions or ["HEAD"]):
        place = f"{name}:".encode() if revisions else b""
        for hit in searcher.search(repository.root(commit), paths):
            if hit.binary and no_binary:
                continue
            found = True
            if json:
                documents.append(_hit_document(commit, hit))
            else:
                _print_hit(place + _safe(hit.path), hit, files_only=files_only, numbers=numbers)
    if json:
        print_json(documents)
    if not found:
        raise typer.Exit(1)


def _commits(repository: Repository, revisions: list[str]) -> list[tuple[str, Commit]]:
    """The commits to search, each with the name it was asked for by; a range names each of its commits by its id."""
    from koguma.images.revisions import split_range

    found: list[tuple[str, Commit]] = []
    for text in revisions:
        if split_range(text):
            found += [(item.short_id, item) for item in repository.log(text)]
        else:
            found.append((text, repository.resolve(text)))
    return found


def _safe(path: bytes) -> bytes:
    return b"/" + printable(path).encode()


def _print_hit(place: bytes, hit: Hit, *, files_only: bool, numbers: bool) -> None:
    if files_only:
        write_bytes(place + b"\n")
    elif hit.binary:
        write_bytes(b"Binary file " + place + b" matches\n")
    for number, line in () if files_only else hit.lines:
        write_bytes(place + b":" + (f"{number}:".encode() if numbers else b"") + line + b"\n")


def _hit_document(commit: Commit, hit: Hit) -> dict[str, Any]:
    return {
        "commit": commit.id,
        "path": "/" + printable(hit.path),
        "binary": hit.binary,
        "lines": [
            {"number": number, "text": os.fsdecode(line).encode("utf-8", "backslashreplace").decode()}
            for number, line in hit.lines
        ],
    }
