"""`koguma events`: what happened to nodes, and what happens."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from koguma.cli.client import ApiAway, ApiOption, Client
from koguma.cli.output import JsonOption, print_json, print_table, short_time

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="What happens to nodes: list and follow.")

AGAIN_S = 1.0


@app.callback(invoke_without_command=True)
def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")] = False,
    after: Annotated[str | None, typer.Option(help="Begin after the event with this id.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="created, deleted, provision, power, maintenance or status; several by comma.")
    ] = None,
    node: Annotated[str | None, typer.Option(help="Only this node (name or UUID).")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, without --follow.")] = 100,
    api: ApiOption = None,
    as_json: JsonOption = False,
) -> None:
    """Transitions of nodes, oldest first. --json --follow prints one object a line."""
    client = Client(api)
    uuid = client.get("nodes", node)["uuid"] if node else None
    if follow:
        for event in _followed(client, after, kind, uuid):
            print(json.dumps(event) if as_json else _line(event), flush=True)
        return
    found = client.get("events", after=after, kind=kind, node=uuid, limit=limit)
    if as_json:
        print_json(found)
        return
    rows = [(event["id"], short_time(event["at"]), event["name"], event["kind"], _what(event)) for event in found]
    print_table(("id", "at (UTC)", "node", "kind", "what"), rows, "nothing has happened yet")


def _followed(client: Client, last: str | None, kind: str | None, node: str | None) -> Iterator[dict[str, Any]]:
    """A server that is away is waited for, and nothing of what happened meanwhile is missed."""
    away = False
    while True:
        try:
            for event in client.events(last, kind=kind, node=node):
                last, away = event["id"], False
                yield event
        except ApiAway as error:
            if last is None and not away:
                raise
            if not away:
                print(f"koguma: {error}; trying again", file=sys.stderr)
            away = True
        time.sleep(AGAIN_S)


def _line(event: dict[str, Any]) -> str:
    return f"{short_time(event['at'])}  {event['name']:<20} {event['kind']:<12} {_what(event)}"


def _what(event: dict[str, Any]) -> str:
    state, before = event["provision_state"], event["previous_provision_state"]
    if event["kind"] == "provision":
        text = f"{before} -> {state}"
    elif event["kind"] == "power":
        text = str(event["power_state"])
    elif event["kind"] == "maintenance":
        text = "in maintenance" if event["maintenance"] else "out of maintenance"
    else:
        text = state
    return f"{text}  {event['status_code']}" + (f": {event['status']}" if event["status"] else "")
