"""The cinder driver's own: images uploaded once, workers killed at any request, what it refuses, and its errors. What
every volume driver keeps is in test_volumes.py.
"""

from __future__ import annotations

import contextlib
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from koguma.contracts.errors import VolumeError, VolumeRefused, VolumeUnreachable
from koguma.contracts.volumes import Initiator, VolumeAccess, VolumeDriver
from koguma.drivers.volume import open_volumes
from koguma.drivers.volume.cinder import cloud, images
from tests.contract.cinder_api import CLOUD, PASSWORD, TOKEN, CinderApi, secret_of

LIMIT_S = 20.0
MIB = 1 << 20
ONE = Initiator("iqn.2026-01.koguma.node:one", "one", "s3cretpw1234")
TWO = Initiator("iqn.2026-01.koguma.node:two", "two", "s3cretpw5678")
UPLOAD = r"PUT /image/v2/images/[^/]+/file"
GONE: Any = ...


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / f"{'c0ffee' * 10}abcd-{8 * MIB}.img"
    path.write_bytes(b"KOGUMA" * 1000 + bytes(MIB))
    return path


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "PAUSE_FIRST_S", 0.01)


def opened() -> VolumeDriver:
    return open_volumes(VolumeAccess("cinder", CLOUD))


def made(image: Path, name: str = "root") -> VolumeDriver:
    driver = opened()
    driver.create(name, image, 8 * MIB, timeout_s=LIMIT_S)
    return driver


def the_volume(cinder: CinderApi) -> dict[str, Any]:
    (volume,) = cinder.volumes.values()
    return volume


# --- images


def test_an_image_is_uploaded_once_for_all_volumes_that_are_made_of_it(cinder: CinderApi, image: Path) -> None:
    made(image, "a").create("b", image, 8 * MIB, timeout_s=LIMIT_S)
    made(image, "c")
    assert cinder.count(UPLOAD) == 1
    (uploaded,) = cinder.images.values()
    assert cinder.contents[uploaded["id"]] == image.read_bytes()
    assert (uploaded["name"], uploaded["koguma_image"]) == (f"koguma-{image.stem}", image.stem)
    assert (uploaded["disk_format"], uploaded["visibility"]) == ("raw", "private")
    assert [volume["size"] for volume in cinder.volumes.values()] == [1, 1, 1]


def test_workers_that_need_an_image_at_once_upload_it_once(cinder: CinderApi, image: Path) -> None:
    cinder.upload_takes_s = 0.5
    failures: list[VolumeError] = []

    def work(name: str) -> None:
        try:
            made(image, name)
        except VolumeError as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(f"n{number}",)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    assert (cinder.count(UPLOAD), len(cinder.images), len(cinder.volumes)) == (1, 1, 4)


@pytest.mark.parametrize("status", ["queued", "saving"])
def test_an_upload_under_way_is_waited_for_and_an_abandoned_one_is_begun_again(
    cinder: CinderApi, image: Path, status: str
) -> None:
    driver = made(image)
    (first,) = cinder.images.values()
    first |= {"status": status, "size": None}
    with pytest.raises(VolumeUnreachable, match=f"must become active in time, it is '{status}'"):
        driver.create("b", image, 8 * MIB, timeout_s=0.5)
    assert cinder.count(UPLOAD) == 1
    cinder.age(images.ABANDONED_S + 1)
    driver.create("b", image, 8 * MIB, timeout_s=LIMIT_S)
    (second,) = cinder.images.values()
    assert second["id"] != first["id"]
    assert cinder.count(UPLOAD) == 2


@pytest.mark.parametrize("change", [{"size": 5}, {"size": None}, {"status": "killed"}])
def test_an_image_that_was_cut_short_is_made_again(cinder: CinderApi, image: Path, change: dict[str, Any]) -> None:
    driver = made(image)
    (first,) = cinder.images.values()
    first |= change
    driver.create("b", image, 8 * MIB, timeout_s=LIMIT_S)
    assert cinder.count(UPLOAD) == 2
    assert first["id"] not in cinder.images


def test_an_upload_that_fails_leaves_no_image(cinder: CinderApi, image: Path) -> None:
    cinder.fault = lambda method, path: (503, "busy") if (method, path[-5:]) == ("PUT", "/file") else None
    with pytest.raises(VolumeUnreachable, match="503"):
        made(image)
    assert not cinder.images
    cinder.fault = lambda _method, _path: None
    made(image)


def test_an_image_that_an_administrator_deactivated_is_refused(cinder: CinderApi, image: Path) -> None:
    driver = made(image)
    for item in cinder.images.values():
        item["status"] = "deactivated"
    with pytest.raises(VolumeRefused, match="an administrator deactivated it"):
        driver.create("b", image, 8 * MIB, timeout_s=LIMIT_S)


def test_an_image_that_does_not_fit_is_not_uploaded(cinder: CinderApi, image: Path) -> None:
    with pytest.raises(VolumeRefused, match="that fits"):
        opened().create("small", image, 1000, timeout_s=LIMIT_S)
    assert not cinder.images


# --- volumes


def test_a_volume_that_cinder_cannot_make_is_removed_and_made_by_the_next_call(cinder: CinderApi, image: Path) -> None:
    cinder.becomes = ["creating", "error"]

    def asked(method: str, path: str) -> tuple[int, Any] | None:
        if path.endswith("/messages"):
            text = "schedule allocate volume:Could not find any available weighted backend."
            return 200, {"messages": [{"resource_uuid": the_volume(cinder)["id"], "user_message": text}]}
        return None

    cinder.fault = asked
    with pytest.raises(VolumeUnreachable, match="Could not find any available weighted backend"):
        made(image)
    assert not cinder.volumes
    cinder.becomes = ["creating", "available"]
    made(image)


def test_a_volume_that_was_whole_once_is_never_removed_for_an_error(cinder: CinderApi, image: Path) -> None:
    driver = made(image)
    the_volume(cinder)["status"] = "error"
    driver.create("root", image, 8 * MIB, timeout_s=LIMIT_S)
    with pytest.raises(VolumeUnreachable, match="must be available to be shown, it is 'error'"):
        driver.show("root", ONE, timeout_s=LIMIT_S)
    assert len(cinder.volumes) == 1


def test_a_volume_that_is_not_made_in_time_is_made_by_the_next_call(cinder: CinderApi, image: Path) -> None:
    cinder.becomes = ["creating"]
    with pytest.raises(VolumeUnreachable, match="must become available, it is 'creating'"):
        opened().create("root", image, 8 * MIB, timeout_s=0.5)
    with pytest.raises(VolumeUnreachable, match="must be whole"):
        opened().show("root", ONE, timeout_s=LIMIT_S)
    cinder.becomes = ["creating", "available"]
    made(image)
    assert len(cinder.volumes) == 1


def test_of_two_volumes_of_one_name_the_oldest_counts_and_both_are_deleted(cinder: CinderApi, image: Path) -> None:
    driver = made(image)
    first = the_volume(cinder)
    second = cinder.volumes[cinder.copy_of(first["id"])]
    second["created_at"] = "2999-01-01T00:00:00.000000"
    del second["metadata"]["koguma_made"]
    assert driver.show("root", ONE, timeout_s=LIMIT_S).name.endswith(first["id"])
    driver.hide("root", timeout_s=LIMIT_S)
    driver.delete("root", timeout_s=LIMIT_S)
    assert not cinder.volumes


def test_a_copy_of_a_volume_that_somebody_made_is_not_ours(cinder: CinderApi, image: Path) -> None:
    driver = made(image)
    copy = cinder.copy_of(the_volume(cinder)["id"])
    cinder.volumes[copy]["created_at"] = "2000-01-01T00:00:00.000000"
    driver.delete("root", timeout_s=LIMIT_S)
    assert list(cinder.volumes) == [copy]
    assert driver.volumes(timeout_s=LIMIT_S) == {}


def test_volumes_of_others_are_left_alone_even_where_cinder_does_not_filter(cinder: CinderApi, image: Path) -> None:
    driver = made(image, "a")
    driver.create("b", image, 8 * MIB, timeout_s=LIMIT_S)
    stranger = cinder.copy_of(next(iter(cinder.volumes)))
    cinder.volumes[stranger]["metadata"] = {}
    every = cinder.volumes_listed

    def unfiltered(query: dict[str, str]) -> tuple[int, Any]:
        return every({key: value for key, value in query.items() if key != "metadata"} | {"limit": "1"})

    cinder.volumes_listed = unfiltered  # type: ignore[method-assign]
    assert set(driver.volumes(timeout_s=LIMIT_S)) == {"a", "b"}
    driver.delete("a", timeout_s=LIMIT_S)
    assert set(driver.volumes(timeout_s=LIMIT_S)) == {"b"}
    assert stranger in cinder.volumes


# --- who a volume is shown to


def test_a_machine_is_named_to_cinder_only_after_the_attachment_was_noted(cinder: CinderApi, image: Path) -> None:
    driver = made(image)
    cinder.requests.clear()
    target = driver.show("root", ONE, timeout_s=LIMIT_S)
    volume, (attachment,) = the_volume(cinder), cinder.attachments.values()
    assert (target.portal, target.lun, target.user) == ("192.0.2.7:3260", 0, "hZ7kQbXw3yTnVd9LmFpR")
    assert target.secret == secret_of(volume["id"])
    assert cinder.connectors[attachment["id"]]["initiator"] == ONE.name
    assert (volume["status"], volume["metadata"]["koguma_attachment"]) == ("in-use", attachment["id"])
    assert volume["metadata"]["koguma_initiator"] == ONE.name
    order = [
        "POST /volume/v3/attachments",
        f"POST /volume/v3/volumes/{volume['id']}/metadata",
        f"PUT /volume/v3/attachments/{attachment['id']}",
        f"POST /volume/v3/attachments/{attachment['id']}/action",
    ]
    assert [line for line in cinder.requests if line in order] == order
    driver.hide("root", timeout_s=LIMIT_S)
    assert set(volume["metadata"]) == {"koguma_name", "koguma_size_bytes", "koguma_made"}


def test_a_reservation_that_nobody_noted_let_nobody_in_and_goes(cinder: CinderApi, image: Path) -> None:
    driver = made(image)
    left = cinder.attach(the_volume(cinder)["id"])
    assert driver.volumes(timeout_s=LIMIT_S)["root"].initiator is None
    driver.show("root", ONE, timeout_s=LIMIT_S)
    assert left["id"] not in cinder.attachments
    driver.hide("root", timeout_s=LIMIT_S)
    cinder.attach(the_volume(cinder)["id"])
    driver.delete("root", timeout_s=LIMIT_S)
    assert not cinder.volumes


@pytest.mark.parametrize("status", ["reserved", "attaching", "attached"])
def test_a_volume_that_nova_uses_is_neither_shown_nor_deleted(cinder: CinderApi, image: Path, status: str) -> None:
    driver = made(image)
    cinder.attach(the_volume(cinder)["id"], "0a1b2c3d-0000-4000-8000-000000000000")["status"] = status
    with pytest.raises(VolumeRefused, match=r"must be hidden first.*somebody else"):
        driver.show("root", ONE, timeout_s=LIMIT_S)
    with pytest.raises(VolumeRefused, match="must be hidden first"):
        driver.delete("root", timeout_s=LIMIT_S)


def test_a_show_that_cinder_failed_with_is_begun_again(cinder: CinderApi, image: Path) -> None:
    driver = made(image)
    driver.show("root", ONE, timeout_s=LIMIT_S)
    (failed,) = cinder.attachments.values()
    failed |= {"status": "error_attaching", "connection_info": {}}
    driver.show("root", ONE, timeout_s=LIMIT_S)
    (attachment,) = cinder.attachments.values()
    assert (attachment["status"], attachment["id"] != failed["id"]) == ("attached", True)


def test_a_volume_of_which_another_worker_reserves_an_attachment_is_worth_a_retry(
    cinder: CinderApi, image: Path
) -> None:
    driver = made(image)
    said = {"badRequest": {"code": 400, "message": "status must be available or downloading to reserve"}}
    cinder.fault = lambda method, path: (400, said) if method == "POST" and path.endswith("/attachments") else None
    with pytest.raises(VolumeUnreachable, match="to reserve"):
        driver.show("root", ONE, timeout_s=LIMIT_S)


REFUSED = [
    ({"driver_volume_type": "fibre_channel"}, "must be iscsi.*fibre_channel"),
    ({"driver_volume_type": GONE}, "must be iscsi"),
    ({"auth_method": GONE, "auth_username": GONE, "auth_password": GONE}, "use_chap_auth"),
    ({"auth_password": "short"}, "12 to 16 letters"),
    ({"auth_password": GONE}, "12 to 16 letters"),
    ({"auth_username": "a b"}, "auth_username"),
    ({"target_portal": "storage.example:3260"}, "target_portal"),
    ({"target_portal": GONE}, "target_portal"),
    ({"target_iqn": ["iqn.2010-10.org.openstack:x"]}, "target_iqn"),
    ({"target_lun": True}, "target_lun"),
    ({"target_lun": "0"}, "target_lun"),
    ({"encrypted": True}, "may not be encrypted"),
    ({"access_mode": "ro"}, "must be writable"),
]


@pytest.mark.parametrize(("said", "rule"), REFUSED)
def test_what_a_machine_cannot_use_is_refused_and_taken_back(
    cinder: CinderApi, image: Path, said: dict[str, Any], rule: str
) -> None:
    driver = made(image)
    cinder.connection = said
    with pytest.raises(VolumeRefused, match=rule) as caught:
        driver.show("root", ONE, timeout_s=LIMIT_S)
    assert secret_of(the_volume(cinder)["id"]) not in str(caught.value)
    assert not cinder.attachments
    assert driver.volumes(timeout_s=LIMIT_S)["root"].initiator is None


def test_a_volume_that_two_machines_could_use_is_refused(cinder: CinderApi, image: Path) -> None:
    driver = made(image)
    the_volume(cinder)["multiattach"] = True
    with pytest.raises(VolumeRefused, match="may not be multiattach"):
        driver.show("root", ONE, timeout_s=LIMIT_S)
    assert not cinder.attachments


# --- workers that are killed


STEPS: list[tuple[str, Callable[[VolumeDriver, Path], Any]]] = [
    ("create", lambda driver, image: driver.create("root", image, 8 * MIB, timeout_s=LIMIT_S)),
    ("show", lambda driver, _image: driver.show("root", ONE, timeout_s=LIMIT_S)),
    ("hide", lambda driver, _image: driver.hide("root", timeout_s=LIMIT_S)),
    ("delete", lambda driver, _image: driver.delete("root", timeout_s=LIMIT_S)),
]


@pytest.mark.parametrize("number", range(len(STEPS)), ids=[name for name, _ in STEPS])
def test_a_worker_that_is_killed_at_any_request_leaves_nothing_twice(
    cinder: CinderApi, image: Path, number: int
) -> None:
    """Every request in turn is the last of its worker: it is served, and the worker never learns of it."""
    step, cut, reached = STEPS[number][1], 0, True
    while reached:
        for before in STEPS[:number]:
            before[1](opened(), image)
        cinder.cut_at = len(cinder.requests) + cut
        with contextlib.suppress(VolumeUnreachable):
            step(opened(), image)
        reached = len(cinder.requests) > cinder.cut_at
        cinder.cut_at = None
        cinder.age(images.ABANDONED_S + 1)
        assert step(opened(), image) == step(opened(), image)
        assert len(cinder.volumes) == (0 if number == 3 else 1)
        assert len(cinder.attachments) == (1 if number == 1 else 0)
        assert len(cinder.images) == 1
        opened().hide("root", timeout_s=LIMIT_S)
        opened().delete("root", timeout_s=LIMIT_S)
        if number == 0:
            cinder.images.clear()
            cinder.image_ids.clear()
        cut += 1
    assert cut > 5


def test_after_a_kill_a_volume_is_not_shown_to_another_while_the_first_may_be_let_in(
    cinder: CinderApi, image: Path
) -> None:
    made(image)
    for pattern in (r"POST .*/metadata", r"PUT .*/attachments/.*", r"POST .*/action"):

        def cut(method: str, path: str, pattern: str = pattern) -> tuple[int, Any] | None:
            if re.fullmatch(pattern, f"{method} {path}"):
                cinder.cut_at = len(cinder.requests) - 1
            return None

        cinder.fault = cut
        with pytest.raises(VolumeUnreachable):
            opened().show("root", ONE, timeout_s=LIMIT_S)
        cinder.fault, cinder.cut_at = lambda _method, _path: None, None
        with pytest.raises(VolumeRefused, match=r"is shown to iqn.*one"):
            opened().show("root", TWO, timeout_s=LIMIT_S)
        opened().show("root", ONE, timeout_s=LIMIT_S)
        opened().hide("root", timeout_s=LIMIT_S)


# --- errors


@pytest.mark.parametrize("part", ["/identity", "/image", "/volume"])
@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_service_that_is_busy_is_worth_a_retry(cinder: CinderApi, image: Path, part: str, status: int) -> None:
    cinder.fault = lambda _method, path: (status, "<html>busy</html>") if path.startswith(part) else None
    with pytest.raises(VolumeUnreachable) as caught:
        made(image)
    assert caught.value.retry
    assert CLOUD in str(caught.value)


@pytest.mark.parametrize("status", [400, 403, 404, 409])
def test_what_cinder_forbids_is_refused_in_its_words(cinder: CinderApi, image: Path, status: int) -> None:
    driver = made(image)
    said = {"forbidden": {"code": status, "message": "Policy doesn't allow\nvolume:get_all"}}
    cinder.fault = lambda _method, path: (status, said) if path.endswith("/detail") else None
    with pytest.raises(VolumeRefused, match=rf"{status}: Policy doesn't allow volume:get_all \(cloud {CLOUD}\)"):
        driver.volumes(timeout_s=LIMIT_S)


def test_a_quota_that_is_used_up_is_worth_a_retry(cinder: CinderApi, image: Path) -> None:
    said = {"overLimit": {"code": 413, "message": "VolumeLimitExceeded: Maximum number of volumes allowed (10)"}}
    cinder.fault = lambda method, path: (413, said) if (method, path[-8:]) == ("POST", "/volumes") else None
    with pytest.raises(VolumeUnreachable, match="Maximum number of volumes allowed"):
        made(image)


def test_a_password_that_is_wrong_is_refused_and_not_shown(
    cinder: CinderApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    clouds = tmp_path / "clouds.yaml"
    clouds.write_text(clouds.read_text().replace(PASSWORD, "WrongSecret99"))
    with pytest.raises(VolumeRefused, match="requires authentication") as caught:
        opened().volumes(timeout_s=LIMIT_S)
    assert "WrongSecret99" not in str(caught.value) + caplog.text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("clouds: {}\n", f"must be described in clouds.yaml.*{CLOUD}"),
        ("clouds: [\n", "must be described in clouds.yaml"),
        (f"clouds: {{{CLOUD}: {{auth: {{username: x}}}}}}\n", CLOUD),
    ],
)
def test_a_cloud_that_is_not_described_is_refused(cinder: CinderApi, tmp_path: Path, text: str, rule: str) -> None:
    (tmp_path / "clouds.yaml").write_text(text)
    with pytest.raises(VolumeRefused, match=rule):
        opened().volumes(timeout_s=LIMIT_S)


@pytest.mark.parametrize("service", ["image", "block-storage"])
def test_a_cloud_without_the_service_is_refused(cinder: CinderApi, image: Path, service: str) -> None:
    every = cinder.token

    def without(body: Any) -> tuple[int, Any]:
        status, answer = every(body)
        answer["token"]["catalog"] = [item for item in answer["token"]["catalog"] if item["type"] != service]
        return status, answer

    cinder.token = without  # type: ignore[method-assign]
    with pytest.raises(VolumeRefused, match=service):
        made(image)


def test_a_cloud_that_is_away_is_worth_a_retry(cinder: CinderApi) -> None:
    cinder.close()
    with pytest.raises(VolumeUnreachable):
        opened().volumes(timeout_s=LIMIT_S)


def test_a_service_that_hangs_is_left_at_the_deadline(cinder: CinderApi, image: Path) -> None:
    driver = made(image)

    def hang(_method: str, path: str) -> tuple[int, Any] | None:
        time.sleep(3)
        return None

    cinder.fault = hang
    started = time.monotonic()
    with pytest.raises(VolumeUnreachable):
        driver.volumes(timeout_s=0.5)
    assert time.monotonic() - started < 2
    cinder.fault = lambda _method, _path: None


ODD: list[tuple[str, Any]] = [
    ("GET .*/volumes/detail", None),
    ("GET .*/volumes/detail", []),
    ("GET .*/volumes/detail", "<html>a proxy's page</html>"),
    ("GET .*/volumes/detail", {"volumes": "no"}),
    ("GET .*/volumes/detail", {"volumes": [5]}),
    ("GET .*/volumes/detail", {"volumes": [{"id": "../../etc", "metadata": {}}]}),
    ("GET .*/volumes/detail", {"volumes": [{"id": "0a1b2c3d-0000-4000-8000-000000000000", "metadata": None}]}),
    ("GET .*/attachments", {"attachments": [{"id": 5}]}),
    ("POST .*/attachments", {"attachment": {}}),
    ("PUT .*/attachments/.*", {"attachment": {"connection_info": None}}),
    ("PUT .*/attachments/.*", {}),
    ("GET .*/images/.*", {"status": 5}),
    ("GET .*/images/.*", {"status": "queued"}),
    ("GET .*/images/.*", {"status": "queued", "created_at": "yesterday"}),
]


@pytest.mark.parametrize(("request_form", "body"), ODD)
def test_an_answer_of_another_form_is_refused(cinder: CinderApi, image: Path, request_form: str, body: Any) -> None:
    driver = made(image)
    cinder.fault = lambda method, path: (200, body) if re.fullmatch(request_form, f"{method} {path}") else None

    def ask() -> None:
        driver.create("b", image, 8 * MIB, timeout_s=LIMIT_S)
        driver.show("root", ONE, timeout_s=LIMIT_S)

    with pytest.raises(VolumeRefused, match=CLOUD):
        ask()


def test_no_secret_is_logged_or_shown(cinder: CinderApi, image: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    driver = made(image)
    target = driver.show("root", ONE, timeout_s=LIMIT_S)
    driver.show("root", ONE, timeout_s=LIMIT_S)
    with pytest.raises(VolumeRefused):
        driver.show("root", replace(ONE, secret="short"), timeout_s=LIMIT_S)
    shown = caplog.text + repr(target) + repr(vars(driver))
    for secret in (target.secret, ONE.secret, PASSWORD, TOKEN):
        assert secret not in shown


def test_only_those_who_open_such_a_storage_load_the_library() -> None:
    program = (
        "import sys, koguma.drivers.volume.cinder, koguma.services.volume_site; sys.exit('openstack' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
