"""koguma_stage2.volume: what a machine takes of the access to its root volume."""

from __future__ import annotations

from typing import Any

import pytest
from koguma_node.errors import NodeError
from koguma_stage2.volume import checked_access

ACCESS = {
    "initiator": "iqn.2026-01.koguma.node:9d6f",
    "target": "iqn.2010-10.org.openstack:volume-34584270-32e6-4e3c-8838-6fd5ab034010",
    "address": "192.0.2.7",
    "port": 3260,
    "lun": 0,
    "user": "node-9d6f",
    "secret": "jYJHHcF1JgXXmaV7",
}


@pytest.mark.parametrize("user", ["node-9d6f", "hZ7kQbXw3yTnVd9LmFpR"])
def test_users_of_tgt_and_of_cinder_are_taken(user: str) -> None:
    assert checked_access(ACCESS | {"user": user})["user"] == user


@pytest.mark.parametrize(
    "change", [{"user": "-u x"}, {"user": "a b"}, {"user": ""}, {"secret": "short"}, {"lun": True}, {"address": "host"}]
)
def test_another_form_is_refused_and_no_secret_shown(change: dict[str, Any]) -> None:
    with pytest.raises(NodeError) as caught:
        checked_access(ACCESS | change)
    assert ACCESS["secret"] not in str(caught.value)
