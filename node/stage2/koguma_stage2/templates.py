"""Renders the flavor's templates with the image's Jinja: sandboxed, and an undefined variable is an error.

A template sees `node`, `hostname`, `domain`, `uuid`, `flavor`, `address`, `interfaces`, `bonds`, `vlans`,
`dns_servers`, `ntp_servers`, `members` and `variables`; a variable whose name is none of these can also be said
without `variables.`.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from koguma_stage2 import files
from koguma_stage2.detail import own_address
from koguma_stage2.errors import TemplateError

KEYS = (
    "node", "hostname", "domain", "uuid", "flavor", "interfaces", "bonds", "vlans", "dns_servers", "ntp_servers",
    "members",
)  # fmt: skip
TEMPLATE_BYTES_MAX = 1024 * 1024
RELOAD_TIMEOUT_S = 60


def render_templates(root: Path, detail: dict[str, Any]) -> list[str]:
    """Render every template of `detail`; the reload commands of those whose target changed.

    Raises TemplateError that names every template that failed; the others are rendered, and a failed one's target is
    left as it was.
    """
    if not detail.get("templates"):
        return []
    environment, variables = _environment(), template_variables(detail)
    reloads, problems = [], []
    for template in detail["templates"]:
        try:
            if _render(root, environment, template, variables) and template.get("reload"):
                reloads.append(template["reload"])
        except TemplateError as error:
            problems.append(str(error))
    if problems:
        raise TemplateError("; ".join(problems))
    return reloads


def prepare() -> None:
    """Import Jinja ahead of time, where something else is waited for anyway."""
    _environment()


def template_variables(detail: dict[str, Any]) -> dict[str, Any]:
    variables = detail.get("variables") or {}
    own = {key: detail.get(key) for key in KEYS}
    return {**variables, **own, "address": own_address(detail), "variables": variables}


def run_reloads(commands: Iterable[str]) -> list[str]:
    """Run each command once; what went wrong, said for people. A daemon that fails to reload stops nothing."""
    problems = []
    for command in dict.fromkeys(commands):
        try:
            done = subprocess.run(
                shlex.split(command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=RELOAD_TIMEOUT_S,
                check=False,
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            problems.append(f"{command}: {error}")
        else:
            if done.returncode != 0:
                problems.append(f"{command}: status {done.returncode}: {done.stderr.strip()[-200:]}")
    return problems


def _environment() -> Any:
    # Imported here because Jinja takes longer to import than all the rest, and a machine may have no templates.
    from jinja2 import StrictUndefined  # noqa: PLC0415 - see above
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415 - see above

    # Not HTML: configuration files must come out as they are written.
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)


def _render(root: Path, environment: Any, template: dict[str, Any], variables: dict[str, Any]) -> bool:
    source = files.inside(root, template["source"])
    try:
        with source.open(encoding="utf-8") as file:
            text = file.read(TEMPLATE_BYTES_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        # The error's own text names the file where the root is mounted for now.
        why = error.strerror if isinstance(error, OSError) else error
        raise TemplateError(f"a template must be readable text: {why} ({template['source']})") from error
    if len(text) > TEMPLATE_BYTES_MAX:
        raise TemplateError(f"a template may have {TEMPLATE_BYTES_MAX} characters at most ({template['source']})")
    try:
        rendered = environment.from_string(text).render(variables)
    except Exception as error:  # a template is a program of the image's author and may raise anything
        line = getattr(error, "lineno", None) or _line_in_template(error)
        place = f"{template['source']}, line {line}" if line else template["source"]
        raise TemplateError(f"a template must render: {type(error).__name__}: {error} ({place})") from error
    return files.write(root, template["target"], rendered, int(template.get("mode") or "0644", 8))


def _line_in_template(error: BaseException) -> int | None:
    """The last line that the traceback has in a template; Jinja rewrites tracebacks to show template lines."""
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
