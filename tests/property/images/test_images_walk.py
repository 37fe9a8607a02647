"""The walk that finds what a destination lacks: whatever it has already, afterwards nothing is missing."""

from __future__ import annotations

import random
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from koguma.images.commits import Commit
from koguma.images.transfer.ancestry import Complete
from koguma.images.transfer.walk import Walk, one_by_one
from koguma.images.trees import DIRECTORY, FILE, Entry, decode, encode, encode_root, read_root


class World:
    """A random history over random trees, as a source has it."""

    def __init__(self, seed: int, commits: int) -> None:
        self.chance = random.Random(seed)
        self.objects: dict[bytes, bytes] = {}
        self.history: list[str] = []
        for number in range(commits):
            parents = self.chance.sample(self.history, min(len(self.history), self.chance.choice([0, 1, 1, 1, 2])))
            self.history.append(self.commit(parents, number))

    def put(self, content: bytes) -> bytes:
        digest = sha256(content).digest()
        self.objects[digest] = content
        return digest

    def tree(self, depth: int) -> bytes:
        entries = []
        for name in self.chance.sample(b"abcdef", self.chance.randint(0, 4)):
            if depth and self.chance.random() < 0.6:
                entries.append(Entry(bytes([name]), DIRECTORY, 0o755, 0, 0, digest=self.tree(depth - 1)))
            else:
                content = b"%d" % self.chance.randint(0, 12)
                entries.append(Entry(bytes([name]), FILE, 0o644, 0, 0, size=len(content), digest=self.put(content)))
        return self.put(encode(entries))

    def commit(self, parents: list[str], number: int) -> str:
        root = self.put(encode_root(Entry(b"", DIRECTORY, 0o755, 0, 0, digest=self.tree(3))))
        return self.put(Commit(root.hex(), tuple(parents), "me", number, "m").to_bytes()).hex()

    def read_commit(self, commit: str) -> Commit:
        from koguma.images.commits import decode_commit

        return decode_commit(self.objects[bytes.fromhex(commit)], commit)

    def reachable(self, tips: list[str], *, parents: bool = True) -> set[bytes]:
        found: set[bytes] = set()
        waiting = list(tips)
        while waiting:
            commit = self.read_commit(waiting.pop())
            if bytes.fromhex(commit.id) in found:
                continue
            found |= {bytes.fromhex(commit.id), bytes.fromhex(commit.tree)}
            below = [read_root(self.objects.__getitem__, bytes.fromhex(commit.tree)).digest]
            while below:
                tree = below.pop()
                found.add(tree)
                for entry in decode(self.objects[tree]):
                    found.add(entry.digest)
                    below += [entry.digest] if entry.kind == DIRECTORY else []
            waiting += commit.parents if parents else []
        return found


@given(st.integers(0, 10**9), st.integers(1, 8), st.floats(0, 1), st.booleans())
def test_nothing_is_missing_afterwards_and_nothing_is_brought_twice(
    seed: int, commits: int, share: float, whole: bool
) -> None:
    world = World(seed, commits)
    known = [item for item in world.history if whole and world.chance.random() < 0.4]
    # What refs lead to is there wholly; of the rest there may be anything: an earlier transfer was cut short.
    there = world.reachable(known) | {item for item in world.objects if world.chance.random() < share}
    tips = world.chance.sample(world.history, world.chance.randint(1, len(world.history)))
    complete = Complete(world.read_commit, there.__contains__, known)
    plan = Walk(one_by_one(lambda item, _: world.objects[item]), there.__contains__, complete).run(
        tips, bases=complete.tips
    )

    brought = {*plan.parts, *plan.files}
    assert brought.isdisjoint(there)
    assert world.reachable(tips) <= there | brought
    assert brought <= world.reachable(tips)
    assert plan.present.keys() <= there
    assert not plan.boundary


@given(st.integers(0, 10**9), st.integers(1, 8), st.integers(1, 3))
def test_a_shallow_walk_brings_its_commits_wholly_and_says_where_it_ended(seed: int, commits: int, depth: int) -> None:
    world = World(seed, commits)
    tip = world.history[-1]
    plan = Walk(one_by_one(lambda item, _: world.objects[item]), lambda _: False, lambda _: False).run(
        [tip], depth=depth
    )

    assert {*plan.parts, *plan.files} == world.reachable(list(plan.commits), parents=False)
    for commit in plan.commits.values():
        if commit.id not in plan.boundary:
            assert set(commit.parents) <= plan.commits.keys()
