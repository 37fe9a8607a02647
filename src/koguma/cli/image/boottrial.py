"""Tries commits by booting a machine with them: through the API, as `koguma node boot` does, then over ssh.

The machine boots each commit once. When the trials are over it is rebooted into what it boots usually.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from koguma.cli.client import ApiAway, Client
from koguma.cli.errors import Failed
from koguma.cli.ssh import run as run_over_ssh
from koguma.errors import KogumaError
from koguma.images.bisect import TRIAL_TAGS, remove_trial_tags
from koguma.images.commits import Commit
from koguma.images.repository import Repository

POLL_S = 0.5
BAD, CANNOT_BE_TRIED = 1, 125
_SSH_FAILED = 255
_SSH_WAIT_S = 60
_POWER_WAIT_S = 120


class BootTrial:
    """One machine that tries one commit after the other. Use it in a `with` block: it puts the machine back."""

    def __init__(
        self,
        repository: Repository,
        node: str,
        command: list[str],
        *,
        timeout_s: float,
        api: str | None,
        say: Callable[[str], None],
    ) -> None:
        self._repository = repository
        self._node = node
        self._command = command
        self._timeout_s = timeout_s
        self._client = Client(api)
        self._say = say
        self._booted = False
        self._reason = ""
        self._hangs = False

    def __enter__(self) -> Self:
        node = self._client.get("nodes", self._node)
        if node["provision_state"] != "active":
            raise Failed(
                f"a machine that tries commits must be active, it is {node['provision_state']!r} (node {node['name']});"
                f" choose one that nobody needs, and say: koguma node deploy {node['name']} --wait"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        remove_trial_tags(self._repository)
        if not self._booted:
            return
        self._say(f"{self._node} is rebooted into what it boots usually")
        try:
            # Forget a label for one boot that no machine came to ask for; the flavor's or the node's own label counts.
            self._client.put("nodes", self._node, "boot", body={"label": None, "once": True, "reboot": False})
            self._reboot(self._client.get("nodes", self._node))
        except KogumaError as fault:
            self._say(f"{self._node} could not be rebooted: {fault}")

    def run(self, commit: Commit) -> int:
        """Boot the commit; the exit status of the command on the machine, or whether it booted."""
        label = self._label(commit)
        if label is None:
            self._say(f"{commit.short_id} cannot be booted: {self._reason}")
            return CANNOT_BE_TRIED
        before = self._newest_boot()
        node = self._client.put("nodes", self._node, "boot", body={"label": label, "once": True, "reboot": False})
        self._booted = True
        self._reboot(node)
        record = self._wait_for_boot(before)
        self._hangs = record["outcome"] != "succeeded"
        if self._hangs:
            self._say(f"{self._node}: the boot {record['outcome']}: {record['reason']}")
            return BAD
        if record.get("commit") not in (None, commit.id):
            raise Failed(
                f"the machine must have booted {commit.short_id}, it booted {record['commit'][:12]}"
                f" (node {self._node}, label {label})"
            )
        return self._judge() if self._command else 0

    def _label(self, commit: Commit) -> str | None:
        """A label of the commit; None, and why is said, when it cannot be booted.

        A commit whose label has expired, or that no ref leads to, gets a tag for the time of the search.
        """
        if (found := self._label_now(commit)) is None:
            tag = TRIAL_TAGS + commit.short_id
            if self._repository.refs.find(tag) is None:
                self._repository.create_tag(tag, commit.id)
            found = self._label_now(commit)
        return found

    def _label_now(self, commit: Commit) -> str | None:
        state = self._repository.update_labels()
        names = {item.kind: item.name for item in state.labels if item.commit == commit.id}
        self._reason = next((item.reason for item in state.unlabelled if item.commit == commit.id), "it has no label")
        return names.get("commit") or next(iter(names.values()), None)

    def _reboot(self, node: dict[str, Any]) -> None:
        """Reboot a machine that runs, switch one that hangs off and on; what is under way ends first."""
        deadline = time.monotonic() + _POWER_WAIT_S
        while node["target_power_state"] is not None and time.monotonic() < deadline:
            time.sleep(POLL_S)
            node = self._client.get("nodes", self._node)
        action = "reboot" if node["provision_state"] == "active" and not self._hangs else "cycle"
        self._client.put("nodes", self._node, "power", body={"target": action})

    def _newest_boot(self) -> str | None:
        newest = self._client.get("nodes", self._node, "boots", limit=1)
        return newest[0]["id"] if newest else None

    def _wait_for_boot(self, before: str | None) -> dict[str, Any]:
        """The record of the boot that began after `before`, at its end; one that never ends counts as failed."""
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline:
            try:
                newest = self._client.get("nodes", self._node, "boots", limit=1)
            except ApiAway:
                newest = []
            if newest and newest[0]["id"] != before and newest[0]["outcome"] != "running":
                record: dict[str, Any] = newest[0]
                return record
            time.sleep(POLL_S)
        return {"outcome": "did not end", "reason": f"not within {self._timeout_s:g} s"}

    def _judge(self) -> int:
        """The command's exit status on the machine; ssh is tried again while the machine's own may still start."""
        deadline = time.monotonic() + _SSH_WAIT_S
        while True:
            status = run_over_ssh(self._client.get("nodes", self._node), "root", self._command)
            if status != _SSH_FAILED:
                return status
            if time.monotonic() > deadline:
                self._say(f"{self._node} booted, but ssh to it failed")
                return BAD
            time.sleep(1)
