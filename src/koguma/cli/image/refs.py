# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands on branches, tags and the labels they yield."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from koguma.cli.errors import UsageFault
from koguma.cli.image import naming
from koguma.cli.image.common import Json, local_time, open_repository, print_json, print_table, say, update_labels
from koguma.images.errors import RefError

if TYPE_CHECKING:
    from koguma.images.labelfile import Label
    from koguma.images.refs import Ref
    from koguma.images.repository import Repository
    from koguma.images.retention import Kept

app = typer.Typer()
_UNLABELLED_SHOWN = 10
"""Of a long history nearly every label has expired; who wants to know of each asks for JSON."""


@app.command()
def branch(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME [START]]", help="The new branch, and the commit it starts from."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Move a branch that exists.")] = False,
    delete: Annotated[bool, typer.Option("--delete", "-d", "-D", help="Remove branches; as `rm` does.")] = False,
    move: Annotated[bool, typer.Option("--move", "-m", help="Rename: OLD NEW, or HEAD's to NEW.")] = False,
    remotes: Annotated[bool, typer.Option("--all", "-a", help="List where branches of remotes are, too.")] = False,
    remotes_only: Annotated[bool, typer.Option("--remotes", "-r", help="List only those of remotes.")] = False,
    contains: Annotated[str | None, typer.Option("--contains", help="List those whose history has this.")] = None,
    current: Annotated[bool, typer.Option("--show-current", help="Print HEAD's branch.")] = False,
    list_: Annotated[bool, typer.Option("--list", "-l", "-v", hidden=True, help="As without a name.")] = False,
    json: Json = False,
) -> None:
    """Make a branch, or list branches."""
    words = names or []
    if list_ and words:
        raise UsageFault(f"a list of branches takes no names, got {words[0]!r}; koguma image branch lists all")
    repository = open_repository(context)
    if current:
        print(repository.refs.head())
    elif delete:
        _remove(repository, "branch", words, json=json)
    elif move:
        _rename(repository, words)
    else:
        _at_most_two(words)
        shown = naming.Shown(remotes=remotes or remotes_only, own=not remotes_only, contains=contains)
        naming.branch(repository, *words, force=force, shown=shown, json=json)


@app.command()
def tag(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME [REVISION]]", help="The new tag, and the commit it names.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", "-d", help="Remove tags; as `rm` does.")] = False,
    list_: Annotated[bool, typer.Option("--list", "-l", hidden=True, help="As without a name.")] = False,
    json: Json = False,
) -> None:
    """Make a tag, or list tags."""
    words = names or []
    if list_ and words:
        raise UsageFault(f"a list of tags takes no names, got {words[0]!r}; koguma image tag lists all")
    repository = open_repository(context)
    if delete:
        _remove(repository, "tag", words, json=json)
    else:
        _at_most_two(words)
        naming.tag(repository, *words, json=json)


@app.command()
def rm(
    context: typer.Context, names: Annotated[list[str], typer.Argument(help="Branches and tags to remove.")]
) -> None:
    """Remove branches and tags; their commits stay until they are collected."""
    repository = open_repository(context)
    for name in names:
        _say_removed(repository, repository.remove(name))
    update_labels(repository)


@app.command()
def labels(
    context: typer.Context,
    pin: Annotated[list[str] | None, typer.Option("--pin", help="Keep this commit bootable for good.")] = None,
    unpin: Annotated[list[str] | None, typer.Option("--unpin", help="Let policy decide on it again.")] = None,
    json: Json = False,
) -> None:
    """Show what machines can boot, until when, and why other commits cannot be booted; pin what must stay."""
    repository = open_repository(context)
    for name in pin or []:
        repository.pin_label(name)
    for name in unpin or []:
        repository.unpin_label(name)
    state = update_labels(repository)
    if json:
        print_json(
            {
                "labels": [_label_document(item, state.kept.get(item.commit)) for item in state.labels],
                "unlabelled": [{"commit": item.commit, "reason": item.reason} for item in state.unlabelled],
            }
        )
        return
    print_table(
        [(item.name, item.kind, item.commit[:12], _kept_words(state.kept.get(item.commit))) for item in state.labels]
    )
    for missing in state.unlabelled[:_UNLABELLED_SHOWN]:
        print(f"{missing.commit[:12]} has no label: {missing.reason}")
    if (more := len(state.unlabelled) - _UNLABELLED_SHOWN) > 0:
        print(f"{more} more commits have no label; --json lists them")


def _label_document(label: Label, kept: Kept | None) -> dict[str, Any]:
    until = kept.until if kept else None
    return {
        "name": label.name,
        "kind": label.kind,
        "commit": label.commit,
        "kept": kept.why if kept else None,
        "expires": datetime.fromtimestamp(until, UTC).isoformat() if until is not None else None,
    }


def _kept_words(kept: Kept | None) -> str:
    if kept is None:
        return ""
    return f"until {local_time(kept.until)}" if kept.until is not None else kept.why


def _at_most_two(words: list[str]) -> None:
    if len(words) > 2:
        raise UsageFault(f"a name and a revision are all there is to say, got {words[2]!r} too")


def _remove(repository: Repository, kind: str, names: list[str], *, json: bool) -> None:
    """Remove the branches or tags of these names, all or, when one of them is none, nothing."""
    if not names:
        raise UsageFault(f"say which {kind} to remove; koguma image {kind} lists them")
    for name in names:
        found = repository.refs.find(name)
        if found is None or found.kind.word != kind:
            raise RefError(f"there is no {kind} {name!r} to remove; koguma image {kind} lists them")
    gone = [repository.remove(name) for name in dict.fromkeys(names)]
    if json:
        print_json([{"name": ref.name, "commit": ref.commit} for ref in gone])
    for ref in gone if not json else ():
        _say_removed(repository, ref)
    update_labels(repository)


def _rename(repository: Repository, words: list[str]) -> None:
    if not 1 <= len(words) <= 2:
        raise UsageFault("a branch is renamed by: koguma image branch -m [OLD] NEW")
    old, new = words if len(words) == 2 else (repository.refs.head(), words[0])
    print(repository.rename_branch(old, new).commit)
    update_labels(repository)


def _say_removed(repository: Repository, gone: Ref) -> None:
    from koguma.images.pins import labels_in_use

    if gone.name in labels_in_use(repository.path):
        say(f"machines boot by {gone.name}: they stay as they are, and find nothing when they boot again")
    print(f"{gone.kind.word} {gone.name} was {gone.commit[:12]}")
    say(f"bring it back with: koguma image {gone.kind.word} {gone.name} {gone.commit[:12]}")
