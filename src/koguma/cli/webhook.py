"""`koguma webhook`: who is told of events over HTTP."""

from __future__ import annotations

import secrets
import sys
from typing import Annotated

import typer

from koguma.cli.client import ApiOption, Client
from koguma.cli.output import JsonOption, print_json, print_table, short_time

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Who is told of events over HTTP.",
)

Name = Annotated[str, typer.Argument(help="The webhook's name.")]


@app.command("list")
def list_webhooks(api: ApiOption = None, as_json: JsonOption = False) -> None:
    """All webhooks, how far they are, and what went wrong."""
    found = Client(api).get("webhooks")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            item["name"],
            item["url"],
            ",".join(item["kinds"]) or "every",
            "yes" if item["enabled"] else "no",
            short_time(item["delivered_at"]) if item["delivered_at"] else "",
            item["tries"],
            item["last_error"],
        )
        for item in found
    ]
    print_table(("name", "url", "kinds", "enabled", "delivered (UTC)", "failed", "last error"), rows, "no webhooks yet")


@app.command()
def create(
    name: Name,
    url: Annotated[str, typer.Argument(help="Where events are posted to.")],
    kind: Annotated[list[str] | None, typer.Option(help="Only events of this kind; may be said again.")] = None,
    secret: Annotated[
        str | None, typer.Option(envvar="KOGUMA_WEBHOOK_SECRET", help="What signs; one is made without.")
    ] = None,
    api: ApiOption = None,
) -> None:
    """Tell a receiver of what happens from now on; prints the secret that signs."""
    made = secret or secrets.token_urlsafe(32)
    Client(api).post("webhooks", body={"name": name, "url": url, "secret": made, "kinds": kind or []})
    if secret is None:
        print("the receiver checks signatures with this secret, which is shown only now:", file=sys.stderr)
        print(made)


@app.command()
def enable(name: Name, api: ApiOption = None) -> None:
    """Go on telling it, beginning with what it missed."""
    Client(api).patch("webhooks", name, body={"enabled": True})


@app.command()
def disable(name: Name, api: ApiOption = None) -> None:
    """Tell it nothing for now."""
    Client(api).patch("webhooks", name, body={"enabled": False})


@app.command()
def delete(name: Name, api: ApiOption = None) -> None:
    """Forget it."""
    Client(api).delete("webhooks", name)
