from __future__ import annotations

from pathlib import Path

import pytest

from koguma.images.errors import PolicyError
from koguma.images.policy import LabelPolicy, Policy, SignaturePolicy, load_policy


def _load(folder: Path, text: str) -> Policy:
    (folder / "policy.toml").write_text(text)
    return load_policy(folder)


def test_a_repository_without_a_policy_has_the_defaults(tmp_path: Path) -> None:
    assert load_policy(tmp_path) == Policy(LabelPolicy(True, 10, 30, None, 60), SignaturePolicy(()))


def test_a_policy_says_what_it_says_and_leaves_the_rest_as_it_is(tmp_path: Path) -> None:
    policy = _load(
        tmp_path,
        '[labels]\nkeep_commits_per_branch = 3\nbudget_mib = 500\n[signatures]\nrequire_signed = ["release/*", "v*"]\n',
    )

    assert policy.labels == LabelPolicy(keep_commits_per_branch=3, keep_days=30, budget_mib=500)
    assert policy.signatures.requires("release/1")
    assert policy.signatures.requires("v1")
    assert not policy.signatures.requires("main")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[labels]\nkeep_commit = 3\n",
            r"\[labels\] has the keys enabled, keep_commits_per_branch, .*, got 'keep_commit'",
        ),
        ("[labels]\nkeep_days = -1\n", r"labels\.keep_days must be a whole number, 0 or more, got -1"),
        ("[labels]\nkeep_days = true\n", r"labels\.keep_days must be a whole number, 0 or more, got True"),
        ("[labels]\nenabled = 1\n", r"labels\.enabled must be true or false, got 1"),
        ("[label]\n", r"the tables \[labels\] and \[signatures\], got 'label'"),
        ("labels = 3\n", r"\[labels\] must be a table, got 3"),
        ('[signatures]\nrequire_signed = "v*"\n', r"signatures\.require_signed must be a list of patterns"),
        ("[labels\n", r"must be readable TOML: .*policy\.toml"),
    ],
)
def test_a_mistake_in_a_policy_is_named_with_its_key_and_file(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(PolicyError, match=problem) as raised:
        _load(tmp_path, text)
    assert str(tmp_path / "policy.toml") in str(raised.value)
