# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that each starts fast
"""What `koguma image commit` does, as a function of a repository and of what was said."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from koguma.cli.errors import UsageFault
from koguma.cli.image.printing import finish, progress

if TYPE_CHECKING:
    from koguma.images.repository import Repository


def commit(
    repository: Repository,
    tree: str | Path | None = None,
    *,
    message: str | None = None,
    branch: str | None = None,
    author: str | None = None,
    keep_times: bool = False,
    wait: bool = True,
) -> None:
    """Commit a directory or, without one, the branch's pending edit; print the commit's id last.

    A directory needs a message; of an edit that a merge began the message is there already.
    """
    if message is not None and not message.strip():
        raise UsageFault(f"a commit's message says why, got {message!r}")
    branch = branch or repository.refs.head()
    with progress("reading") as told:
        if tree is None:
            from koguma.images.edit import commit_edit

            become_root(repository.path)
            done = commit_edit(repository, branch, message, author=author, keep_times=keep_times)
        else:
            done = repository.commit_tree(
                Path(tree), branch, message or "", author=author, keep_times=keep_times, progress=told
            )
    finish(repository, done, wait=wait)


def become_root(repository: Path, *, needed: bool = True) -> None:
    """Go on in a user namespace when nobody is root here: edits hold files of every owner.

    Where that is impossible a command that needs no root for everything it does may go on without.
    """
    if os.geteuid() == 0:
        return
    from koguma.images.errors import EditError
    from koguma.images.usernamespace import enter

    # Root has another default place for its repository, also the root of a user namespace.
    os.environ["KOGUMA_REPO"] = str(repository.absolute())
    try:
        enter(sys.argv[1:])
    except EditError:
        if needed:
            raise
