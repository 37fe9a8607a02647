# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image` commands on signatures and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koguma.cli.image.common import Json, open_repository, print_json, print_table, progress, say

app = typer.Typer()
keys = typer.Typer(no_args_is_help=True, help="List, add, rotate, revoke and export keys.")
app.add_typer(keys, name="keys")

Revision = Annotated[str, typer.Argument(help="A branch, tag, commit, expression, or a range `a..b`.")]
KeyId = Annotated[str, typer.Argument(help="The first digits of a key's id, four or more.")]
_STAGE1 = "machines learn of it by a new stage 1: koguma image build-stage1"


@app.command()
def sign(context: typer.Context, revision: Revision = "HEAD") -> None:
    """Sign commits with this repository's key; those that are signed by it stay as they are."""
    from koguma.images.signatures import sign_commit

    repository = open_repository(context)
    chosen = list(repository.log(revision)) if ".." in revision else [repository.resolve(revision)]
    for commit in chosen:
        print(f"{commit.short_id} signed by {', '.join(sign_commit(repository, commit.id))}")


@app.command()
def verify(context: typer.Context, revision: Revision = "HEAD", json: Json = False) -> None:
    """Say who signed commits; exit status 1 when one has no right signature of a trusted key."""
    from koguma.images.signatures import verify_commit

    repository = open_repository(context)
    chosen = list(repository.log(revision)) if ".." in revision else [repository.resolve(revision)]
    verdicts = [(commit, verify_commit(repository, commit.id)) for commit in chosen]
    if json:
        print_json(
            [
                {
                    "commit": commit.id,
                    "valid": list(verdict.valid),
                    "untrusted": list(verdict.untrusted),
                    "wrong": list(verdict.wrong),
                }
                for commit, verdict in verdicts
            ]
        )
    else:
        for commit, verdict in verdicts:
            words = [f"signed by {key}" for key in verdict.valid]
            words += [f"signature of {key}, which is not trusted here" for key in verdict.untrusted]
            words += [f"WRONG signature of {key}" for key in verdict.wrong]
            print(f"{commit.short_id} {', '.join(words) or 'not signed'}")
    failed = next(((commit, verdict) for commit, verdict in verdicts if not verdict.valid), None)
    if failed:
        commit, verdict = failed
        mend = (
            f"when you trust its owner, who has {verdict.untrusted[0]}, say: koguma image keys add FILE"
            if verdict.untrusted
            else f"sign it with: koguma image sign {commit.short_id}"
        )
        say(f"koguma: a commit must be signed by a trusted key, {commit.short_id} is not; {mend}")
        raise typer.Exit(1)


@keys.command("list")
def keys_list(context: typer.Context, json: Json = False) -> None:
    """List keys: the one that signs, those retiring, trusted and revoked ones."""
    from koguma.images.keyring import keys_of

    found = keys_of(open_repository(context).path)
    if json:
        print_json([{"id": key.id, "role": key.role} for key in found])
    else:
        print_table([(key.id, key.role) for key in found])


@keys.command("add")
def keys_add(
    context: typer.Context, file: Annotated[Path, typer.Argument(help="A public key (PEM), from `keys export`.")]
) -> None:
    """Trust another site's key; prints its id."""
    from koguma.images.errors import KeyringError
    from koguma.images.keyring import add_key

    try:
        pem = file.read_bytes()
    except OSError as error:
        raise KeyringError(f"a key to trust must be readable: {error.strerror} ({file})") from None
    print(add_key(open_repository(context).path, pem))
    say(_STAGE1)


@keys.command("rotate")
def keys_rotate(context: typer.Context) -> None:
    """Make a new signing key and sign with it what is signed; the old one goes on beside it until it is revoked."""
    from koguma.images.keyring import rotate_key

    with progress("signing"):
        new, old = rotate_key(open_repository(context))
    say(f"{old} signs beside it until: koguma image keys revoke {old}; {_STAGE1}")
    print(new)


@keys.command("revoke")
def keys_revoke(context: typer.Context, key: KeyId) -> None:
    """Trust a key no more; says which commits nobody trusted signs any longer."""
    from koguma.images.keyring import revoke_key

    identity, orphans = revoke_key(open_repository(context), key)
    for commit in orphans:
        print(f"{commit[:12]} is signed by no trusted key now")
    say(f"{identity} is not trusted any more; {_STAGE1}")


@keys.command("export")
def keys_export(
    context: typer.Context,
    key: Annotated[str | None, typer.Argument(help="A trusted key's id; the signing one's otherwise.")] = None,
) -> None:
    """Print the public half of a key, for `keys add` at another site."""
    from koguma.images.keyring import export_key

    print(export_key(open_repository(context).path, key).decode(), end="")
