"""What people who know git say, and what shells say for them: options that are called otherwise here, empty words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from koguma.cli.errors import UsageFault

OPTIONS_ELSEWHERE: Mapping[str, Mapping[str, str]] = {
    "": {
        "--repo": "it stands before the command: koguma image --repo DIR COMMAND",
        "-C": "the repository is named before the command: koguma image --repo DIR COMMAND",
        "--porcelain": "for programs there is --json",
        "--format": "for programs there is --json",
        "--pretty": "for programs there is --json",
        "--no-edit": "no editor is opened; another message is said by -m MESSAGE",
        "-e": "no editor is opened; the message is said by -m MESSAGE",
    },
    "branch": {
        "-u": "a branch follows the remote branch of its name",
        "-c": "koguma image branch NEW OLD makes a copy",
    },
    "checkout": {
        "-b": "koguma image branch NAME makes a branch, koguma image switch NAME chooses it",
        "-f": "a tree is written to a new directory",
    },
    "cherry-pick": {
        "-x": "a message that names the commit is made by itself",
        "-m": "the parent is said by --mainline N",
    },
    "clone": {
        "-b": "afterwards say: koguma image switch BRANCH",
        "--branch": "afterwards say: koguma image switch BRANCH",
        "--bare": "a repository has no work tree",
        "--mirror": "a repository has no work tree; fetch brings every branch",
    },
    "commit": {
        "--amend": "commits stay as they are; koguma image branch -f BRANCH HEAD~1 takes the last one off the branch",
        "-F": 'a message in a file is said by -m "$(cat FILE)"',
        "--file": 'a message in a file is said by -m "$(cat FILE)"',
        "-s": "commits are signed by the repository's key; see: koguma image verify",
        "-S": "commits are signed by the repository's key; see: koguma image verify",
    },
    "diff": {
        "--cached": "what a pending edit changed is told by: koguma image status",
        "--staged": "what a pending edit changed is told by: koguma image status",
        "--name-status": "the letters of the changes are shown without any option",
    },
    "fetch": {
        "--all": "say fetch for each of: koguma image remote list",
        "--prune": "tracking branches of a remote go with: koguma image remote remove NAME",
        "-p": "tracking branches of a remote go with: koguma image remote remove NAME",
        "--tags": "tags come by themselves",
    },
    "gc": {"--prune": "an age is said by --grace, for instance --grace 0", "--aggressive": "one run does everything"},
    "grep": {"-v": "lines without a word are not searched for", "-c": "lines are counted by: … | wc -l"},
    "log": {
        "--name-status": "say --stat or --name-only",
        "-S": "files are searched by: koguma image grep PATTERN a..b; messages by --grep",
        "-G": "files are searched by: koguma image grep PATTERN a..b; messages by --grep",
        "--follow": "say both names after two dashes: -- NEW OLD",
    },
    "merge": {"--squash": "say --no-commit, then commit", "--no-verify": "there are no hooks"},
    "pull": {"--rebase": "then say: koguma image cherry-pick a..b", "-f": "a branch only moves forward by pull"},
    "push": {
        "-f": "a branch is replaced by --force-with-lease",
        "--force": "a branch is replaced by --force-with-lease",
        "-u": "a branch follows the remote branch of its name",
        "--set-upstream": "a branch follows the remote branch of its name",
        "--all": "name the branches",
        "--dry-run": "what differs is told by: koguma image remote show NAME",
        "-n": "what differs is told by: koguma image remote show NAME",
    },
    "remote": {"-v": "addresses are listed by: koguma image remote list"},
    "revert": {"-n": "say --no-commit"},
    "show": {"-s": "a commit alone is shown by: koguma image log -1 REV"},
    "status": {"-s": "for programs there is --json", "--short": "for programs there is --json"},
    "tag": {
        "-a": "a tag is a name alone; the commit's message says why",
        "-m": "a tag is a name alone; the commit's message says why",
        "-s": "commits are signed, not tags; see: koguma image verify",
        "-f": "a tag stays where it is; koguma image tag -d NAME removes it",
        "--force": "a tag stays where it is; koguma image tag -d NAME removes it",
    },
}
"""Options of git's commands that the commands of these names do not have, and what to say instead."""

_FREE = ("bisect", "grep")
"""Commands of which a word may be empty: a shell's `sh -c ''`, a pattern that every line has."""


def refuse_empty(words: Sequence[str]) -> None:
    """UsageFault for an empty word or value: what an unset variable leaves must not mean HEAD or this directory."""
    said = list(_before_dashes(words))
    if any(command in said for command in _FREE):
        return
    for number, word in enumerate(said):
        if not word or (word.startswith("--") and word.endswith("=")):
            before = f" after {said[number - 1]!r}" if number and not word else ""
            raise UsageFault(f"a word may not be empty, got {word!r}{before}; is a variable unset?")


def _before_dashes(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if word == "--":
            return
        yield word
