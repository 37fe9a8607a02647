"""Labels: names machines can boot by, one for every branch, tag and commit that policy keeps. Decides what
`boot/labels.json` says.

`update_labels` is the ref-update hook. It works from what it finds, not from what happened: whatever was interrupted,
the next run completes. labels.json names only artifacts that are there; it is published anew as each is finished, heads
of branches first, so that what somebody waits for does not wait for the rest. `publish_labels` is its quick half, done
at every change of a ref: no artifact is made, so a branch keeps its label on the last commit that has one until the
artifact of the new one is there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from koguma.errors import KogumaError
from koguma.images.artifacts import (
    artifact_path,
    artifact_sizes,
    clear_leftovers,
    ensure_artifact,
    reason_not_bootable,
    remove_artifact,
)
from koguma.images.commits import ABBREVIATED_DIGITS, Commit, history
from koguma.images.errors import CorruptError, ImageError
from koguma.images.expired import Expired, read_expired, write_expired
from koguma.images.files import locked, storage_errors, write_atomically
from koguma.images.in_use import led_to, remember_use, remembered_use
from koguma.images.labelfile import Label, encode_labels, labels_path, read_labels
from koguma.images.pins import labels_in_use, pins
from koguma.images.policy import Policy, load_policy
from koguma.images.refs import Ref, RefKind
from koguma.images.retention import Found, Kept, Plan, plan_retention
from koguma.images.rootimages import forget_images

if TYPE_CHECKING:
    from koguma.images.repository import Repository

_CORES_PER_ARTIFACT = 4
"""Making one image uses some cores well: more than one artifact at a time pays with more."""


class Unlabelled(NamedTuple):
    """A commit that machines cannot boot, and why."""

    commit: str
    reason: str


class LabelState(NamedTuple):
    labels: tuple[Label, ...]
    unlabelled: tuple[Unlabelled, ...]
    kept: Mapping[str, Kept]
    """Commit -> why it keeps its artifact, and until when."""


class _Observed(NamedTuple):
    """What a plan is made from and what it decides, read together under the lock."""

    refs: Sequence[Ref]
    refused: Sequence[tuple[str, str]]
    """Commits of refs that policy forbids to boot and pinned ones that cannot be read, each with the reason."""
    commits: Mapping[str, Commit]
    """Every commit a ref, a pin or a label in use leads to: heads first, the newest of them first."""
    published: Mapping[str, Label]
    used: Mapping[str, Sequence[str]]
    """Labels that machines boot by, and the commits each of them leads to, or led to last."""
    policy: Policy
    plan: Plan


def update_labels(repository: Repository, progress: Callable[[str, int], None] | None = None) -> LabelState:
    """Make the artifacts that are missing, publish the labels, let expired ones go; says which commits have none.

    One artifact that cannot be made keeps no other from being made. Raises StorageError at the end when the system
    refused something: a full disk. `progress` is told what is being made and the bytes taken in.
    """
    refused: list[OSError] = []

    def ensure(commit: Commit) -> tuple[str, str | None]:
        told = (lambda size: progress(commit.short_id, size)) if progress else None
        try:
            reason = ensure_artifact(repository, commit, told)
        except KogumaError as error:
            reason = f"its artifact could not be made: {error}"
        except OSError as error:
            refused.append(error)
            reason = f"its artifact could not be made: {error.strerror or error}"
        if reason is None:
            publish_labels(repository)
        return commit.id, reason

    with storage_errors("a label"):
        with _alone(repository):
            clear_leftovers(repository.path / "boot" / "artifacts")
            seen = _publish(repository)
            missing = _missing(repository, seen)
            if not missing:
                _remove_expired(repository, seen)
        reasons: dict[str, str | None] = {}
        if missing:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - mostly nothing is missing

            with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // _CORES_PER_ARTIFACT)) as pool:
                reasons = dict(pool.map(ensure, missing))
            with _alone(repository):
                seen = _publish(repository)
                _remove_expired(repository, seen)
        if refused:
            raise refused[0]
        return _state(repository, seen, reasons)


def _missing(repository: Repository, seen: _Observed) -> list[Commit]:
    """The commits whose artifacts are to be made, in the order in which they are."""
    if not seen.policy.labels.enabled:
        return []
    return [
        commit
        for commit in seen.commits.values()
        if commit.id in seen.plan.kept
        and not _ready(repository, commit)
        and reason_not_bootable(repository, commit) is None
    ]


def publish_labels(repository: Repository) -> None:
    """Let labels.json follow the refs, as far as the artifacts are there. Makes nothing, so it takes milliseconds."""
    with storage_errors("a label"), _alone(repository):
        _publish(repository)


def _alone(repository: Repository) -> Any:
    return locked(repository.path / "locks" / "labels", timeout_s=600, what="the labels")


def _publish(repository: Repository) -> _Observed:
    seen = _observe(repository)
    labels = _labels(repository, seen)
    leads = {label.name: label.commit for label in labels}
    # Before labels.json says something else: machines may boot by the name of a branch that was removed just now.
    remember_use(repository.path, {name: leads.get(name, led[0]) for name, led in seen.used.items() if led})
    path = labels_path(repository.path)
    data = encode_labels(labels)
    if not path.exists() or path.read_bytes() != data:
        write_atomically(path, data)
    return seen


def _observe(repository: Repository) -> _Observed:
    policy = load_policy(repository.path)
    refs, refused = repository.labelled_refs()
    commit_of = cache(repository.commit)
    histories = {ref.commit: list(history(commit_of, ref.commit)) for ref in refs}
    heads = sorted((found[0] for found in histories.values()), key=lambda commit: -commit.time)
    commits = {commit.id: commit for commit in heads}
    for found in histories.values():
        for commit in found:
            commits.setdefault(commit.id, commit)
    remembered = remembered_use(repository.path)
    published = _published(repository, refs, remembered)
    used = {name: led_to(repository, name, published, remembered) for name in sorted(labels_in_use(repository.path))}
    pinned = pins(repository.path)
    in_use = _in_use(repository, refs, published, used)
    for identity in (*pinned, *in_use):
        try:
            commits.setdefault(identity, commit_of(identity))
        except ImageError as error:
            if not _ready(repository, identity):
                refused.append((identity, str(error)))
    plan = plan_retention(
        policy.labels,
        Found(
            refs=refs,
            histories=histories,
            pinned=tuple(pinned),
            in_use=in_use,
            sizes=artifact_sizes(repository.path) if policy.labels.budget_mib is not None else {},
            evicted={
                commit: item.evicted_at_mib
                for commit, item in read_expired(repository.path).items()
                if item.evicted_at_mib is not None
            },
        ),
        int(time.time()),
    )
    return _Observed(refs, refused, commits, published, used, policy, plan)


def _published(repository: Repository, refs: Sequence[Ref], remembered: Mapping[str, str]) -> dict[str, Label]:
    """The labels by name; where they are lost or damaged, those of branches that machines boot by."""
    known = {
        ref.name: Label(ref.name, ref.kind.word, remembered[ref.name])
        for ref in refs
        if ref.kind is RefKind.BRANCH and ref.name in remembered
    }
    with suppress(CorruptError):
        known |= {label.name: label for label in read_labels(repository.path)}
    return known


def _in_use(
    repository: Repository, refs: Sequence[Ref], published: Mapping[str, Label], used: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Commits that a boot service's machines boot, and those that are still the label of a ref that moved on."""
    found = {commit: f"label {name} of a machine" for name, commits in used.items() for commit in commits}
    for ref in refs:
        before = published.get(ref.name)
        if before and before.commit != ref.commit and not _ready(repository, ref.commit):
            found.setdefault(before.commit, f"label {ref.name} until the new commit is bootable")
    return found


def _ready(repository: Repository, commit: Commit | str) -> bool:
    identity = commit if isinstance(commit, str) else commit.id
    return artifact_path(repository.path, identity).is_dir()


def _labels(repository: Repository, seen: _Observed) -> list[Label]:
    labels = []
    for ref in seen.refs:
        before = seen.published.get(ref.name)
        if _ready(repository, ref.commit):
            labels.append(Label(ref.name, ref.kind.word, ref.commit))
        elif before and before.kind == ref.kind.word and _still_bootable(repository, seen, ref, before):
            labels.append(before)
    kept = [*seen.commits, *(commit for commit in seen.plan.kept if commit not in seen.commits)]
    return labels + [
        Label(commit[:ABBREVIATED_DIGITS], "commit", commit)
        for commit in kept
        if commit in seen.plan.kept and _ready(repository, commit)
    ]


def _still_bootable(repository: Repository, seen: _Observed, ref: Ref, before: Label) -> bool:
    """Whether a ref's label stays where it was: the new commit's artifact is on its way, the old one's is there."""
    on_its_way = seen.policy.labels.enabled and reason_not_bootable(repository, seen.commits[ref.commit]) is None
    return on_its_way and _ready(repository, before.commit)


def _remove_expired(repository: Repository, seen: _Observed) -> None:
    """Note artifacts whose label went, and remove those whose grace is over: a machine may be fetching them."""
    noted = read_expired(repository.path)
    now = int(time.time())
    expired: dict[str, Expired] = {}
    for folder in sorted((repository.path / "boot" / "artifacts").iterdir()):
        commit = folder.name
        if commit.startswith(".") or commit in seen.plan.kept:
            continue
        item = _expiry(seen, commit, noted.get(commit), now)
        if item.since + seen.policy.labels.grace_minutes * 60 <= now:
            remove_artifact(repository.path, commit)
            if item.evicted_at_mib is None:
                continue
        expired[commit] = item
    for commit in seen.plan.evicted:
        expired.setdefault(commit, _expiry(seen, commit, noted.get(commit), now))
    if expired != noted:
        write_expired(repository.path, expired)
    forget_images(repository.path, {commit.tree for commit in seen.commits.values() if commit.id in seen.plan.kept})


def _expiry(seen: _Observed, commit: str, noted: Expired | None, now: int) -> Expired:
    """What is to be noted of a commit without a label."""
    budget = seen.policy.labels.budget_mib if commit in seen.plan.evicted else None
    if noted is None or noted.since > now:
        return Expired(now, budget)
    if budget is None or noted.evicted_at_mib is None:
        return Expired(noted.since, budget)
    return noted if noted.evicted_at_mib >= budget else Expired(now, budget)  # it had come back meanwhile


def _state(repository: Repository, seen: _Observed, reasons: Mapping[str, str | None]) -> LabelState:
    unlabelled = [Unlabelled(commit, reason) for commit, reason in seen.refused]
    for commit in seen.commits.values():
        if commit.id in seen.plan.expired:
            why = f"its label expired: {seen.plan.expired[commit.id]}; koguma image labels --pin {commit.short_id}"
            unlabelled.append(Unlabelled(commit.id, why))
        elif not _ready(repository, commit):
            off = None if seen.policy.labels.enabled else "labels are turned off ([labels] enabled in policy.toml)"
            why = reasons.get(commit.id) or reason_not_bootable(repository, commit) or off or "it is not made yet"
            unlabelled.append(Unlabelled(commit.id, why))
    return LabelState(tuple(_labels(repository, seen)), tuple(unlabelled), dict(seen.plan.kept))
