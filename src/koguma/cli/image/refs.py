"""`koguma image` commands on branches, tags and the labels they yield."""

from __future__ import annotations

from typing import Annotated

import typer

from koguma.cli.image.common import Json, open_repository, print_json, print_table, update_labels

app = typer.Typer()


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
def rm(
    context: typer.Context, names: Annotated[list[str], typer.Argument(help="Branches and tags to remove.")]
) -> None:
    """Remove branches and tags; their commits stay until they are collected."""
    repository = open_repository(context)
    for name in names:
        gone = repository.remove(name)
        print(f"{gone.kind.word} {name} was {gone.commit[:12]}")
    update_labels(repository)


@app.command()
def labels(context: typer.Context, json: Json = False) -> None:
    """Show what machines can boot, and why other commits cannot be booted."""
    repository = open_repository(context)
    state = update_labels(repository)
    if json:
        print_json(
            {
                "labels": [{"name": item.name, "kind": item.kind, "commit": item.commit} for item in state.labels],
                "unlabelled": [{"commit": item.commit, "reason": item.reason} for item in state.unlabelled],
            }
        )
        return
    print_table([(item.name, item.kind, item.commit[:12]) for item in state.labels])
    for missing in state.unlabelled:
        print(f"{missing.commit[:12]} has no label: {missing.reason}")


def _make_or_list(context: typer.Context, kind: str, name: str | None, start: str, *, json: bool, force: bool) -> None:
    repository = open_repository(context)
    if name is not None:
        if force and repository.refs.find(name):
            ref = repository.move_branch(name, start)
        else:
            ref = repository.create_branch(name, start) if kind == "branch" else repository.create_tag(name, start)
        update_labels(repository)
        print(ref.commit)
        return
    refs = [ref for ref in repository.refs.all() if ref.kind.word == kind]
    if json:
        print_json([{"name": ref.name, "commit": ref.commit} for ref in refs])
        return
    head = repository.refs.head() if kind == "branch" else ""
    for ref in refs:
        mark = "*" if ref.name == head else " "
        print(f"{mark} {ref.name} {ref.commit[:12]} {repository.commit(ref.commit).subject}")
