# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""`koguma image bisect`: find the commit that broke something, by hand or by a command.

Three ways to try a commit: a script that is told the commit, a command in the commit's tree, a machine that boots it.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Annotated, Any

import typer

from koguma.cli.client import ApiOption
from koguma.cli.errors import one_line
from koguma.cli.image.common import Json, become_root, open_repository, print_json, say

if TYPE_CHECKING:
    from koguma.images.bisect import Bisection, Step
    from koguma.images.commits import Commit
    from koguma.images.repository import Repository

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find the commit that broke something.",
)

Verdicted = Annotated[str | None, typer.Argument(help="The commit; the one to be tried otherwise.")]


@app.command()
def start(
    context: typer.Context,
    bad: Annotated[str, typer.Argument(help="A commit that is broken.")],
    good: Annotated[list[str], typer.Argument(help="Commits that work.")],
) -> None:
    """Begin a search between a broken commit and one that works; prints the commit to try."""
    search = _search(open_repository(context))
    with search.alone():
        _print_step(search.start(bad, good))


@app.command()
def good(context: typer.Context, revision: Verdicted = None) -> None:
    """Say that a commit works; prints the next one to try."""
    _tell(context, "good", revision)


@app.command()
def bad(context: typer.Context, revision: Verdicted = None) -> None:
    """Say that a commit is broken; prints the next one to try."""
    _tell(context, "bad", revision)


@app.command()
def skip(context: typer.Context, revision: Verdicted = None) -> None:
    """Say that a commit cannot be tried; prints the next one to try."""
    _tell(context, "skip", revision)


@app.command()
def reset(context: typer.Context) -> None:
    """End the search."""
    search = _search(open_repository(context))
    with search.alone():
        print("the search is over" if search.reset() else "no search was under way")


@app.command()
def log(context: typer.Context, json: Json = False) -> None:
    """Show what was said so far."""
    state = _search(open_repository(context)).state()
    if json:
        print_json([{"verdict": item.verdict, "commit": item.commit, "subject": item.subject} for item in state.log])
        return
    for item in state.log:
        print(f"{item.verdict:4} {item.commit[:12]} {one_line(item.subject)}")


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    context: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(help="Ends with status 0 for good, 125 for cannot be tried, 1 to 127 for bad."),
    ] = None,
    in_image: Annotated[
        bool, typer.Option("--in-image", help="Run it in the commit's tree, as in a container.")
    ] = False,
    boot: Annotated[
        str | None,
        typer.Option("--boot", metavar="NODE", help="Boot this node with each commit; run it there over ssh."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="How long a boot may take, in seconds.")] = 900,
    api: ApiOption = None,
    json: Json = False,
) -> None:
    """Try commit after commit until the first broken one is found.

    COMMAND is told the commit by KOGUMA_COMMIT, KOGUMA_LABEL and KOGUMA_REPO. With --boot and no COMMAND, a commit is
    good when the machine boots it.
    """
    from koguma.cli.errors import UsageFault

    words = command or []
    if in_image and boot is not None:
        raise UsageFault("say either --in-image or --boot, not both")
    if not words and boot is None:
        raise UsageFault("say what to run: koguma image bisect run COMMAND…, or boot each commit with --boot NODE")
    repository = open_repository(context)
    if in_image:
        become_root(context)
    search = _search(repository)
    with search.alone():
        if boot is not None:
            from koguma.cli.image.boottrial import BootTrial

            with BootTrial(repository, boot, words, timeout_s=timeout, api=api, say=say) as machine:
                step = search.run(machine.run, say)
        elif in_image:
            from koguma.images.trial import run_in_image

            step = search.run(lambda commit: run_in_image(repository, commit, words), say)
        else:
            step = search.run(lambda commit: _run_script(repository, commit, words), say)
    if json:
        found = step.found
        suspects = [item.id for item in step.suspects]
        print_json({"first_bad": found.id if found else None, "suspects": suspects})
    else:
        _print_step(step)


def _search(repository: Repository) -> Bisection:
    from koguma.images.bisect import Bisection

    return Bisection(repository)


def _tell(context: typer.Context, verdict: str, revision: str | None) -> None:
    from koguma.images.bisect import Verdict

    search = _search(open_repository(context))
    with search.alone():
        _print_step(search.tell(Verdict(verdict), revision))


def _run_script(repository: Repository, commit: Commit, command: list[str]) -> int:
    from koguma.cli.errors import Failed
    from koguma.images.commits import ABBREVIATED_DIGITS

    told: dict[str, Any] = {
        "KOGUMA_COMMIT": commit.id,
        "KOGUMA_LABEL": commit.id[:ABBREVIATED_DIGITS],
        "KOGUMA_REPO": str(repository.path),
    }
    try:
        status = subprocess.run(command, env={**os.environ, **told}, stdout=2, check=False).returncode
    except OSError as error:
        raise Failed(f"the command of a search must be one that runs: {error.strerror} ({command[0]})") from None
    return status if status >= 0 else 128 - status


def _print_step(step: Step) -> None:
    """The commit to try, or the answer, on standard output; how far the search is on standard error."""
    from koguma.images.bisect import describe

    if step.trial is not None:
        say(f"{describe(step)}; try this commit, then say: koguma image bisect good, bad or skip")
        print(f"{step.trial.id} {one_line(step.trial.subject)}")
    elif step.found is not None:
        print(f"{step.found.id} is the first bad commit: {one_line(step.found.subject)}")
    else:
        say("only commits that cannot be tried are left; the first bad one is one of these")
        for item in step.suspects:
            print(f"{item.id} {one_line(item.subject)}")
