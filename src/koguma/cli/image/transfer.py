# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands that move commits between repositories."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koguma.cli.image.common import (
    Json,
    labels_later,
    open_repository,
    path_of,
    print_json,
    print_table,
    progress,
    say,
    update_labels,
)

if TYPE_CHECKING:
    from koguma.images.repository import Repository
    from koguma.images.transfer.fetching import Fetched

app = typer.Typer()
remote = typer.Typer(no_args_is_help=True, help="Name other repositories.")
app.add_typer(remote, name="remote")

RemoteName = Annotated[str | None, typer.Argument(help="A remote's name, else an address; origin otherwise.")]
Depth = Annotated[int | None, typer.Option("--depth", min=1, help="At most so many commits of each line.")]
TokenFile = Annotated[Path | None, typer.Option("--token-file", help="A file whose first word is the bearer token.")]
Unshallow = Annotated[bool, typer.Option("--unshallow", help="Bring what --depth left out before.")]


@remote.command("add")
def remote_add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What to call it.")],
    url: Annotated[str, typer.Argument(help="http(s)://HOST:PORT/PATH, s3://BUCKET/PREFIX or a directory.")],
    token_file: TokenFile = None,
) -> None:
    """Name another repository."""
    from koguma.images.transfer.remotes import add_remote

    print(add_remote(open_repository(context).path, name, url, token_file).url)


@remote.command("rm", hidden=True)
@remote.command("remove")
def remote_remove(context: typer.Context, name: Annotated[str, typer.Argument(help="The remote.")]) -> None:
    """Forget a remote and where its branches were; commits stay until they are collected."""
    from koguma.images.refs import RefKind
    from koguma.images.transfer.remotes import remove_remote

    repository = open_repository(context)
    remove_remote(repository.path, name)
    for ref in repository.refs.remotes():
        if ref.name.startswith(f"{name}/"):
            repository.refs.delete(RefKind.REMOTE, ref.name, old=ref.commit)


@remote.command("list")
def remote_list(context: typer.Context, json: Json = False) -> None:
    """List remotes and their addresses."""
    from koguma.images.transfer.remotes import remotes

    known = remotes(open_repository(context).path)
    if json:
        print_json([{"name": item.name, "url": item.url} for item in known.values()])
    else:
        print_table([(item.name, item.url) for item in known.values()])


@remote.command("show")
def remote_show(
    context: typer.Context, name: Annotated[str, typer.Argument(help="The remote.")] = "origin", json: Json = False
) -> None:
    """Ask a remote for its branches and tags, and compare them with what is here."""
    from koguma.images.refs import RefKind
    from koguma.images.transfer.fetching import look

    repository = open_repository(context)
    found, advertised = look(repository, name)
    rows = []
    for ref in advertised.refs:
        if ref.kind is RefKind.BRANCH:
            tracked = repository.refs.get(RefKind.REMOTE, f"{found.name}/{ref.name}")
        else:
            tracked = repository.refs.get(RefKind.TAG, ref.name)
        state = "up to date" if tracked == ref.commit else "to be fetched" if tracked is None else "changed"
        rows.append((ref, state))
    if json:
        refs = [{"kind": r.kind.word, "name": r.name, "commit": r.commit, "state": state} for r, state in rows]
        print_json({"name": found.name, "url": found.url, "head": advertised.head, "refs": refs})
        return
    print(f"{found.url}, HEAD is {advertised.head or 'not set'}")
    print_table([(ref.kind.word, ref.name, ref.commit[:12], state) for ref, state in rows])


@app.command()
def clone(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="http(s)://HOST:PORT/PATH, s3://BUCKET/PREFIX or a directory.")],
    directory: Annotated[Path | None, typer.Argument(help="The new repository; --repo's otherwise.")] = None,
    depth: Depth = None,
    token_file: TokenFile = None,
    labels: Annotated[
        bool, typer.Option("--labels/--no-labels", help="Make boot artifacts afterwards, in the background.")
    ] = True,
) -> None:
    """Make a repository of another one; it is called `origin` there. Said again, it continues an interrupted clone."""
    from koguma.images.transfer.fetching import clone as clone_it

    with progress("cloning") as told:
        repository, branch = clone_it(
            url, directory or path_of(context), depth=depth, token_file=token_file, progress=told
        )
    if branch is None:
        say("the remote has no branch yet")
    elif labels:
        labels_later(repository)
    print(repository.path)


@app.command()
def fetch(
    context: typer.Context,
    name: RemoteName = None,
    branches: Annotated[list[str] | None, typer.Argument(help="Branches; all, and tags, otherwise.")] = None,
    depth: Depth = None,
    unshallow: Unshallow = False,
    json: Json = False,
) -> None:
    """Bring a remote's branches to `<remote>/<branch>`, and its tags; nothing of yours moves."""
    from koguma.images.transfer.fetching import fetch as fetch_it
    from koguma.images.transfer.remotes import find_remote

    repository = open_repository(context)
    with progress("fetching") as told:
        done = fetch_it(
            repository,
            find_remote(repository.path, name),
            branches=branches or None,
            depth=depth,
            unshallow=unshallow,
            progress=told,
        )
    _print_fetched(done, json=json)


@app.command()
def pull(
    context: typer.Context,
    name: RemoteName = None,
    branch: Annotated[str | None, typer.Argument(help="The branch; HEAD's otherwise.")] = None,
    depth: Depth = None,
    unshallow: Unshallow = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the label to be bootable.")] = True,
) -> None:
    """Fetch a branch and move yours of that name forward to it; prints the commit it is at last."""
    from koguma.images.transfer.fetching import pull as pull_it
    from koguma.images.transfer.remotes import find_remote

    repository = open_repository(context)
    with progress("pulling") as told:
        _, commit = pull_it(
            repository,
            find_remote(repository.path, name),
            branch or repository.refs.head(),
            depth=depth,
            unshallow=unshallow,
            progress=told,
        )
    _labels(repository, wait=wait)
    print(commit)


@app.command()
def push(
    context: typer.Context,
    name: RemoteName = None,
    branches: Annotated[list[str] | None, typer.Argument(help="Branches and tags; HEAD's branch otherwise.")] = None,
    force_with_lease: Annotated[
        bool, typer.Option("--force-with-lease", help="Replace a branch that is still where the last fetch saw it.")
    ] = False,
    tags: Annotated[bool, typer.Option("--tags", help="And all tags.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them at the remote.")] = False,
    json: Json = False,
) -> None:
    """Send branches and tags to a remote; exit status 1 when it moved one of them not."""
    from koguma.images.transfer.pushing import push as push_it
    from koguma.images.transfer.remotes import find_remote

    if delete and not branches:
        raise typer.BadParameter("--delete needs the names of the branches and tags to remove")
    repository = open_repository(context)
    with progress("pushing") as told:
        done = push_it(
            repository,
            find_remote(repository.path, name),
            branches or ([] if tags else [repository.refs.head()]),
            tags=tags,
            force_with_lease=force_with_lease,
            delete=delete,
            progress=told,
        )
    if json:
        refs = [
            {
                "kind": item.update.kind.word,
                "name": item.update.name,
                "old": item.update.old,
                "new": item.update.new,
                "problem": item.problem,
            }
            for item in done.results
        ]
        print_json({"refs": refs, "objects": done.objects, "bytes": done.bytes})
    else:
        for item in done.results:
            change = f"{(item.update.old or 'new')[:12]} -> {(item.update.new or 'removed')[:12]}"
            state = "up to date" if item.update.old == item.update.new else change
            print(f"{item.update.kind.word} {item.update.name} {'refused' if item.problem else state}")
        say(f"{done.objects} objects, {done.bytes:,d} bytes sent")
    refused = [item for item in done.results if item.problem]
    if refused:
        say(f"koguma: {refused[0].problem}")
        raise typer.Exit(1)


@app.command()
def serve(
    context: typer.Context,
    listen: Annotated[str, typer.Option(help="ADDRESS:PORT; port 0 takes a free one.")] = "127.0.0.1:8470",
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM), for HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    allow_push: Annotated[bool, typer.Option("--allow-push", help="Take pushes.")] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="Tokens, one per line, each with the word read or push behind it.")
    ] = None,
) -> None:
    """Offer this repository to other sites over HTTP until it is stopped; prints the address first."""
    from koguma.images.transfer.serving import serve as serve_it

    serve_it(
        open_repository(context),
        listen,
        tls_cert=tls_cert,
        tls_key=tls_key,
        allow_push=allow_push,
        token_file=token_file,
        ready=lambda url: print(url, flush=True),
        say=say,
    )


def _labels(repository: Repository, *, wait: bool) -> None:
    if wait:
        update_labels(repository)
    else:
        labels_later(repository)


def _print_fetched(done: Fetched, *, json: bool) -> None:
    if json:
        moved = [
            {"kind": item.ref.kind.word, "name": item.ref.name, "old": item.old, "new": item.ref.commit}
            for item in done.moved
        ]
        print_json({"refs": moved, "objects": done.objects, "bytes": done.bytes, "kept_tags": list(done.kept_tags)})
        return
    for item in done.moved:
        print(f"{item.ref.kind.word} {item.ref.name} {(item.old or 'new')[:12]} -> {item.ref.commit[:12]}")
    for tag in done.kept_tags:
        say(f"tag {tag} names another commit here than at the remote and stays; remove it first to take theirs")
    say(f"{done.objects} objects, {done.bytes:,d} bytes")
