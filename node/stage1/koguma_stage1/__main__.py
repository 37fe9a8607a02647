"""Entry point of stage 1, started once by /init."""

from __future__ import annotations

import time

from koguma_node.console import say
from koguma_node.errors import NodeError
from koguma_node.service import Service
from koguma_node.watchdog import Watchdog

from koguma_stage1 import power
from koguma_stage1.arguments import read_arguments
from koguma_stage1.context import Context
from koguma_stage1.runner import FAILURE_PAUSE_S, run_steps


def main() -> None:
    try:
        arguments = read_arguments()
    except NodeError as error:
        say(f"{error}; rebooting in {FAILURE_PAUSE_S:g} seconds")
        time.sleep(FAILURE_PAUSE_S)
        power.reboot()
    say(f"stage 1: {arguments.mode}, machine {arguments.uuid}, {arguments.url}")
    run_steps(Context(arguments, Service(arguments.url, arguments.uuid, arguments.token), Watchdog()))


main()
