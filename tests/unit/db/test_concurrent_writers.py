"""Several clients change one node at the same moment: each change is whole, and none is lost unseen."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client, override_settings

from koguma.db import nodes
from koguma.db.models import NodeRow, WorkRow
from koguma.lifecycle.errors import NodeBusy, VerbRefused
from koguma.model.states import Verb
from tests.unit import factories
from tests.unit.db.test_registrations import in_threads

pytestmark = pytest.mark.usefixtures("db")


def put(path: str, body: str, **headers: str) -> Any:
    return Client().generic("PATCH", f"/api/v1/{path}", body, content_type="application/json", headers=headers)


@pytest.fixture
def node() -> str:
    factories.register(1)
    NodeRow.objects.update(provision_state="available", goal=None, bmc_driver="fake-hardware")
    WorkRow.objects.update(wake_at=None, woken=False)
    return "node-1"


@pytest.mark.parametrize("turn", range(5))
def test_of_two_deployments_of_one_node_exactly_one_wins(node: str, turn: int) -> None:
    results = in_threads(2, lambda _: nodes.request_verb(node, Verb.DEPLOY))
    refused = [result for result in results if isinstance(result, Exception)]
    assert len(refused) == 1
    assert isinstance(refused[0], NodeBusy | VerbRefused)
    assert WorkRow.objects.get().flow == "deploy"


def test_of_many_deployments_over_the_api_exactly_one_wins(node: str) -> None:
    def deploy(_: int) -> int:
        answer = Client().put(f"/api/v1/nodes/{node}/provision", '{"target": "active"}', "application/json")
        return answer.status_code

    assert sorted(in_threads(8, deploy)) == [202] + [409] * 7


def test_of_many_patches_of_one_version_exactly_one_wins(node: str) -> None:
    seen = Client().get(f"/api/v1/nodes/{node}")["ETag"]

    def patch(number: int) -> int:
        body = f'{{"variables": {{"writer": "{number}"}}}}'
        return int(put(f"nodes/{node}", body, **{"If-Match": seen}).status_code)

    results = in_threads(8, patch)
    assert sorted(results) == [200] + [412] * 7
    winner = results.index(200)
    assert nodes.find(node).variables == {"writer": str(winner)}


def test_a_site_may_refuse_changes_that_name_no_version(node: str) -> None:
    with override_settings(KOGUMA_API_REQUIRE_IF_MATCH=True):
        assert put(f"nodes/{node}", '{"kexec": false}').status_code == 428
        assert put(f"nodes/{node}", '{"kexec": false}', **{"If-Match": "*"}).status_code == 200
        seen = Client().get(f"/api/v1/nodes/{node}")["ETag"]
        assert put(f"nodes/{node}", '{"kexec": true}', **{"If-Match": seen}).status_code == 200
        assert put(f"nodes/{node}", '{"kexec": false}', **{"If-Match": seen}).status_code == 412
