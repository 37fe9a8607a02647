"""Microversions, the documents at the root, and the form of errors."""

from __future__ import annotations

import pytest

from tests.unit.api.ironic.client import Ironic


def test_the_root_tells_which_versions_there_are(ironic: Ironic) -> None:
    document = ironic("GET", "/").json
    assert document["default_version"]["id"] == "v1"
    assert (document["versions"][0]["min_version"], document["versions"][0]["version"]) == ("1.1", "1.115")


@pytest.mark.parametrize(
    ("version", "has", "has_not"), [("1.1", "nodes", "allocations"), ("1.52", "allocations", "runbooks")]
)
def test_v1_lists_what_its_microversion_knows(ironic: Ironic, version: str, has: str, has_not: str) -> None:
    document = ironic("GET", "/v1/", version=version).json
    assert has in document
    assert has_not not in document
    assert document[has][0]["href"] == f"http://api.test/v1/{has}/"


def test_a_microversion_is_asked_for_by_either_header(ironic: Ironic) -> None:
    old = ironic("GET", "/v1", version="1.31")
    new = ironic("GET", "/v1", version=None, OpenStack_API_Version="compute 2.1, baremetal 1.31")
    for answer in (old, new):
        assert answer.headers["x-openstack-ironic-api-version"] == "1.31"
        assert answer.headers["openstack-api-version"] == "baremetal 1.31"
        assert answer.headers["x-openstack-ironic-api-minimum-version"] == "1.1"
        assert answer.headers["x-openstack-ironic-api-maximum-version"] == "1.115"
    assert ironic("GET", "/v1", version="latest").headers["x-openstack-ironic-api-version"] == "1.115"
    assert ironic("GET", "/v1", version=None).headers["x-openstack-ironic-api-version"] == "1.1"


@pytest.mark.parametrize("version", ["1.0", "1.116", "2.0", "nonsense", "1"])
def test_a_microversion_that_is_not_spoken_is_refused_with_those_that_are(ironic: Ironic, version: str) -> None:
    answer = ironic("GET", "/v1/nodes", version=version)
    assert answer.status == 406
    assert answer.headers["x-openstack-ironic-api-maximum-version"] == "1.115"
    assert answer.fault


def test_an_unknown_path_or_method_is_an_error_in_ironics_form(ironic: Ironic) -> None:
    assert ironic("GET", "/v1/nonsense").status == 404
    answer = ironic("PATCH", "/v1/drivers")
    assert (answer.status, answer.fault) == (405, "PATCH is not possible here, possible: GET")
    assert ironic("POST", "/v1/nodes", b"{nonsense").status == 400


def test_the_native_api_is_beside_it(ironic: Ironic) -> None:
    ironic.node(name="shared")
    assert [node["name"] for node in ironic("GET", "/api/v1/nodes").json] == ["shared"]
    native = ironic("GET", "/api/v1/nodes/shared").json
    assert (native["provision_state"], native["bmc"]["driver"]) == ("enroll", "fake-hardware")


def test_what_nobody_answers_is_refused_in_ironics_form(ironic: Ironic) -> None:
    for path in ("/v2", "/nope", "/v1/nope"):
        answer = ironic("GET", path)
        assert (answer.status, answer.fault) == (404, "The resource could not be found.")


def test_arguments_that_ironic_refuses_are_refused(ironic: Ironic) -> None:
    ironic.node(name="n1")
    assert ironic("GET", "/v1/nodes?limit=0").fault.startswith("Limit must be positive")
    assert ironic("GET", "/v1/nodes?fault=none").status == 400
    assert ironic("GET", "/v1/nodes?chassis_uuid=f4f7f908-c14a-4f07-9246-fbc36d0ad3de").status == 404
    assert ironic("PUT", "/v1/nodes/n1/states/power", {"target": "power on", "more": 1}).status == 400
    assert ironic("PUT", "/v1/nodes/n1/states/raid", {"x": 1}).status == 400
    assert ironic("PUT", "/v1/nodes/n1/traits", {}).status == 400
    assert ironic("PUT", "/v1/nodes/n1/traits/CUSTOM_A", {"x": 1}).status == 400
    assert ironic("GET", "/v1/nodes/n1/traits", version="1.36").status == 406
    assert set(ironic("GET", "/v1/nodes/n1/volume").json) == {"connectors", "targets", "links"}
