"""Which commits keep a boot artifact, and until when: a plan made from the policy and what was found.

Pure: the clock and everything found are arguments, and planning again changes nothing. `labels` finds and acts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from koguma.images.commits import TIME_MAX_S, Commit
from koguma.images.policy import LabelPolicy
from koguma.images.refs import Ref

_DAY_S = 86400
_MIB = 1024 * 1024


class Kept(NamedTuple):
    """Why a commit keeps its artifact."""

    why: str
    for_good: bool
    """It does not end by time or for want of space, but when the operator moves, removes or unpins something."""
    until: int | None = None
    """Seconds since 1970; None when no time ends it."""


class Found(NamedTuple):
    """What the plan is made from."""

    refs: Sequence[Ref]
    histories: Mapping[str, Sequence[Commit]]
    """Commit id of a ref -> the commit and its ancestors, newest first."""
    pinned: Collection[str] = ()
    in_use: Mapping[str, str] = MappingProxyType({})
    """Commit -> what it is used for, for instance "label compute of a machine"."""
    sizes: Mapping[str, int] = MappingProxyType({})
    """Commit -> bytes of its artifact, where there is one."""
    evicted: Mapping[str, int] = MappingProxyType({})
    """Commits that lost their artifact for want of space, and the budget it was, in MiB: a lasting reason or a larger
    budget brings it back.
    """


class Plan(NamedTuple):
    """Every commit that was looked at is in one of the two."""

    kept: Mapping[str, Kept]
    expired: Mapping[str, str]
    """Commit -> why it is not kept."""
    evicted: frozenset[str]
    """Of the expired, those that lack of space is the reason of."""


def plan_retention(policy: LabelPolicy, found: Found, now: int) -> Plan:
    """Decide for every commit of every history, and for what is pinned or in use beside them.

    1. Heads of branches, tags, pinned commits and those in use stay for good.
    2. The newest of each branch stay, and what is young.
    3. While what stays takes more than the budget, the oldest that does not stay for good goes.
    """
    kept = _for_good(found)
    for ref in found.refs:
        for number, commit in enumerate(found.histories[ref.commit]):
            if commit.id not in kept and (reason := _for_a_time(policy, ref, number, commit, now)):
                kept[commit.id] = reason
    commits = {commit.id: commit for history in found.histories.values() for commit in history}
    evicted = {item for item in kept if not kept[item].for_good and _stays_evicted(policy, found.evicted.get(item))}
    evicted |= _over_budget(policy, found, {item: kept[item] for item in kept if item not in evicted}, commits)
    expired = {
        item: _why_expired(policy, space=item in evicted) for item in commits if item not in kept or item in evicted
    }
    return Plan({item: kept[item] for item in kept if item not in evicted}, expired, frozenset(evicted))


def _for_good(found: Found) -> dict[str, Kept]:
    kept: dict[str, Kept] = {}
    for ref in found.refs:
        kept.setdefault(ref.commit, Kept(f"{ref.kind.word} {ref.name}", for_good=True))
    for commit in found.pinned:
        kept.setdefault(commit, Kept("pinned", for_good=True))
    for commit, use in found.in_use.items():
        kept.setdefault(commit, Kept(f"in use: {use}", for_good=True))
    return kept


def _for_a_time(policy: LabelPolicy, ref: Ref, number: int, commit: Commit, now: int) -> Kept | None:
    if ref.kind.word == "branch" and number < policy.keep_commits_per_branch:
        return Kept(f"one of the newest {policy.keep_commits_per_branch} of {ref.name}", for_good=False)
    until = min(commit.time + policy.keep_days * _DAY_S, TIME_MAX_S)
    if until > now:
        return Kept(f"younger than {policy.keep_days} days", for_good=False, until=until)
    return None


def _stays_evicted(policy: LabelPolicy, evicted_at_mib: int | None) -> bool:
    return evicted_at_mib is not None and policy.budget_mib is not None and policy.budget_mib <= evicted_at_mib


def _over_budget(
    policy: LabelPolicy, found: Found, kept: Mapping[str, Kept], commits: Mapping[str, Commit]
) -> set[str]:
    if policy.budget_mib is None:
        return set()
    size = sum(found.sizes.get(item, 0) for item in kept)
    goes: set[str] = set()
    removable = [item for item, reason in kept.items() if not reason.for_good and found.sizes.get(item)]
    for item in sorted(removable, key=lambda item: (commits[item].time, item)):
        if size <= policy.budget_mib * _MIB:
            break
        goes.add(item)
        size -= found.sizes[item]
    return goes


def _why_expired(policy: LabelPolicy, *, space: bool) -> str:
    if space:
        return f"artifacts may take {policy.budget_mib} MiB and it was the oldest"
    return (
        f"it is older than {policy.keep_days} days and not one of the newest {policy.keep_commits_per_branch}"
        f" of a branch"
    )
