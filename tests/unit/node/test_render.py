"""The renderer on a fake root directory: one golden case per kind of file, and what it refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from koguma_node.service import Service
from koguma_stage2 import files, render, report, templates
from koguma_stage2.bring_root import render_root
from koguma_stage2.detail import check_detail, load_detail
from koguma_stage2.errors import DetailError, TemplateError

GOLDEN = Path(__file__).parent / "golden"
UUID = "6f1c2b58-0c1e-4f0e-9d0a-5f6d1c9a7b11"
DETAIL: dict[str, Any] = {
    "node": "node-1",
    "uuid": UUID,
    "hostname": "node-1",
    "domain": "lab.koguma",
    "flavor": "compute",
    "interfaces": [
        {
            "mac": "52:54:00:00:00:01",
            "name": "eth0",
            "addresses": ["10.77.0.11/24"],
            "gateway": "10.77.0.1",
            "mtu": 1500,
            "vlan": None,
            "parent": None,
            "bond": None,
        },
        {"mac": "52:54:00:00:00:02", "name": "eth1", "addresses": [], "gateway": None, "mtu": None, "bond": "bond0"},
    ],
    "bonds": [
        {
            "name": "bond0",
            "mode": "802.3ad",
            "interfaces": ["52:54:00:00:00:02", "52:54:00:00:00:03"],
            "addresses": [],
            "gateway": None,
            "mtu": 9000,
        }
    ],
    "vlans": [
        {
            "name": "vlan200",
            "parent": "bond0",
            "vlan": 200,
            "addresses": ["10.78.0.11/24"],
            "gateway": None,
            "mtu": 1500,
        }
    ],
    "dns_servers": ["10.77.0.1"],
    "ntp_servers": ["10.77.0.1", "10.77.0.2"],
    "ssh_authorized_keys": ["ssh-ed25519 AAAA operator"],
    "ssh_host_keys": {
        "ssh_host_ed25519_key": "-----BEGIN-----\nx\n-----END-----",
        "ssh_host_ed25519_key.pub": "ssh-ed25519 B",
    },
    "templates": [
        {"source": "/etc/nova/nova.conf.tpl", "target": "/etc/nova/nova.conf", "mode": "0640", "reload": "true"}
    ],
    "variables": {"transport_url": "rabbit://u:p@10.77.0.5/"},
    "members": [
        {"name": "node-1", "address": "10.77.0.11", "flavor": "compute"},
        {"name": "node-2", "address": "10.77.0.12", "flavor": "compute"},
    ],
    "members_revision": "r1",
}
NOVA = Path(__file__).resolve().parents[3] / "recipes/compute/nova.conf.tpl"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/nova").mkdir(parents=True)
    (tmp_path / "etc/nova/nova.conf.tpl").write_text(NOVA.read_text())
    return tmp_path


def detail(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(DETAIL), **changes}


def template(text: str, root: Path, **changes: Any) -> dict[str, Any]:
    (root / "etc/t.tpl").write_text(text)
    return detail(templates=[{"source": "/etc/t.tpl", "target": "/etc/t", "mode": "0644", "reload": None, **changes}])


@pytest.mark.parametrize(
    "path",
    [
        "etc/hostname",
        "etc/hosts",
        "etc/resolv.conf",
        "etc/nova/nova.conf",
        "etc/systemd/network/10-koguma-eth0.network",
        "etc/systemd/network/10-koguma-eth1.network",
        "etc/systemd/network/10-koguma-bond0.netdev",
        "etc/systemd/network/10-koguma-bond0.network",
        "etc/systemd/network/10-koguma-bond0-525400000003.network",
        "etc/systemd/network/10-koguma-vlan200.netdev",
        "etc/systemd/network/10-koguma-vlan200.network",
        "etc/systemd/timesyncd.conf.d/koguma.conf",
        "etc/chrony/sources.d/koguma.sources",
        "root/.ssh/authorized_keys",
    ],
)
def test_each_kind_of_file_is_rendered_as_in_its_golden_case(root: Path, path: str) -> None:
    render.render_all(root, detail())
    assert (root / path).read_text() == (GOLDEN / path.replace("/", "%")).read_text()


def test_secrets_are_readable_by_root_only(root: Path) -> None:
    render.render_all(root, detail())
    modes = {
        "root/.ssh": 0o700,
        "root/.ssh/authorized_keys": 0o600,
        "etc/ssh/ssh_host_ed25519_key": 0o600,
        "etc/ssh/ssh_host_ed25519_key.pub": 0o644,
        "etc/nova/nova.conf": 0o640,
    }
    assert {path: (root / path).stat().st_mode & 0o777 for path in modes} == modes
    assert (root / "etc/ssh/ssh_host_ed25519_key").read_text().endswith("-----END-----\n")


def test_rendering_again_writes_nothing(root: Path) -> None:
    render.render_all(root, detail())
    before = {path: path.stat().st_ino for path in root.rglob("*")}
    render.render_all(root, detail())
    assert {path: path.stat().st_ino for path in root.rglob("*")} == before


def test_a_link_that_the_image_has_in_a_file_s_place_is_replaced_not_followed(root: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (root / "etc/resolv.conf").symlink_to(victim)
    render.render_all(root, detail())
    assert victim.read_text() == "untouched"
    assert "nameserver 10.77.0.1" in (root / "etc/resolv.conf").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hostname": "node-1\n127.0.0.1 evil"}, "hostname must be a host name"),
        ({"uuid": UUID.upper()}, "uuid must be a UUID"),
        ({"domain": "a b"}, "domain must be a domain name"),
        ({"interfaces": [{"mac": "52:54:00:00:00:0g", "name": "eth0"}]}, r"interfaces\[0\]\.mac must be a MAC"),
        ({"interfaces": [{"mac": "52:54:00:00:00:01", "name": "../eth0"}]}, r"interfaces\[0\]\.name must be an"),
        (
            {"interfaces": [{"mac": "52:54:00:00:00:01", "name": "eth0", "addresses": ["10.0.0.1/24\nDNS=6.6.6.6"]}]},
            r"interfaces\[0\]\.addresses\[0\] must be an address",
        ),
        ({"interfaces": ["eth0"]}, r"interfaces\[0\] must be an object"),
        ({"bonds": [{"name": "bond0", "mode": "other", "interfaces": []}]}, r"bonds\[0\]\.mode must be one of"),
        ({"vlans": [{"name": "v", "parent": "eth0", "vlan": 4095}]}, r"vlans\[0\]\.vlan must be a VLAN id"),
        ({"dns_servers": ["resolver"]}, r"dns_servers\[0\] must be an IP address"),
        ({"members": [{"name": "a b", "address": "10.0.0.1"}]}, r"members\[0\]\.name must be a host name"),
        ({"members": {"a": 1}}, "members must be a list"),
        ({"ssh_authorized_keys": ["k1\nk2"]}, r"ssh_authorized_keys\[0\] must be one line"),
        ({"ssh_host_keys": {"../authorized_keys": "x"}}, "ssh_host_keys must be named like"),
        (
            {"templates": [{"source": "/a", "target": "/b", "mode": "rw"}]},
            r"templates\[0\]\.mode must be an octal mode",
        ),
    ],
)
def test_a_value_that_would_write_more_than_it_says_is_refused(changes: dict[str, Any], message: str) -> None:
    check_detail(detail())
    with pytest.raises(DetailError, match=message):
        check_detail(detail(**changes))


def test_a_private_key_is_not_shown_when_it_is_refused() -> None:
    with pytest.raises(DetailError) as refused:
        check_detail(detail(ssh_host_keys={"ssh_host_ed25519_key": ["SECRET"]}))
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize("path", ["etc/x", "/etc/../root/x", "/etc//x", "/etc/./x", "/etc/x\n", "/"])
def test_a_path_that_is_not_plain_and_absolute_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DetailError, match="a path must be absolute"):
        files.write(tmp_path, path, "x")
    assert list(tmp_path.iterdir()) == []


def test_an_undefined_variable_is_named_with_its_line_and_leaves_the_target_as_it_was(root: Path) -> None:
    (root / "etc/t").write_text("old")
    with pytest.raises(TemplateError) as failed:
        templates.render_templates(root, template("a\nb {{ missing }}\n", root))
    assert "'missing' is undefined (/etc/t.tpl, line 2)" in str(failed.value)
    assert (root / "etc/t").read_text() == "old"


@pytest.mark.parametrize(
    "text",
    [
        "{% for %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ variables.clear() }}",
        "{{ 1 / 0 }}",
        "{% include '/etc/shadow' %}",
    ],
)
def test_a_template_that_breaks_or_breaks_out_is_refused(root: Path, text: str) -> None:
    with pytest.raises(TemplateError, match=r"a template must render: .*/etc/t\.tpl"):
        templates.render_templates(root, template(text, root))
    assert not (root / "etc/t").exists()


def test_one_failing_template_does_not_keep_the_others_from_being_rendered(root: Path) -> None:
    changed = template("{{ missing }}", root)
    changed["templates"] += detail()["templates"]
    with pytest.raises(TemplateError):
        templates.render_templates(root, changed)
    assert (root / "etc/nova/nova.conf").exists()


def test_a_missing_template_and_a_target_outside_are_refused(root: Path) -> None:
    with pytest.raises(TemplateError, match="must be readable text"):
        templates.render_templates(root, detail(templates=[{"source": "/none", "target": "/x"}]))
    with pytest.raises(DetailError, match="a path must be absolute"):
        templates.render_templates(root, template("x", root, target="/../x"))


class Spoken(Service):
    """A service that answers from a script and remembers what was said."""

    def __init__(self, **answers: dict[str, Any]) -> None:
        super().__init__("http://unused", UUID, "token")
        self.answers = answers
        self.said: list[tuple[str, str, str | None]] = []

    def report(self, phase: str, state: str, reason: str | None = None, data: dict[str, Any] | None = None) -> None:
        self.said.append((phase, state, reason))

    def get(self, name: str, deadline: float) -> dict[str, Any]:
        return self.answers[name]

    def post(self, name: str, body: dict[str, Any], deadline: float) -> dict[str, Any]:
        return self.answers[name]


def test_a_failed_rendering_is_told_with_its_reason_and_the_machine_is_not_rendered(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "detail.json").write_text(json.dumps(template("{{ missing }}", root)))
    monkeypatch.setattr("koguma_stage2.places.DETAIL", str(tmp_path / "detail.json"))
    monkeypatch.setattr("koguma_stage2.places.RENDERED", str(tmp_path / "rendered"))
    service = Spoken()
    render_root(service, root)
    assert [(phase, state) for phase, state, _ in service.said] == [("render", "started"), ("render", "failed")]
    assert "'missing' is undefined" in str(service.said[1][2])
    assert not (tmp_path / "rendered").exists()


def test_new_members_are_written_and_the_changed_template_s_reload_is_run(root: Path, tmp_path: Path) -> None:
    (root / "run/koguma").mkdir(parents=True)
    marker = tmp_path / "reloaded"
    start = detail(templates=[{**detail()["templates"][0], "reload": f"touch {marker}"}])
    (root / "run/koguma/detail.json").write_text(json.dumps(start))
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text("MemTotal: 2048 kB\nMemAvailable: 1024 kB\n")
    render.render_all(root, start)
    members = {
        "members": [*DETAIL["members"], {"name": "node-3", "address": "10.77.0.13", "flavor": "compute"}],
        "members_revision": "r2",
    }
    service = Spoken(heartbeat={"members_revision": "r2"}, members=members)
    report.beat(service, root)
    assert "10.77.0.13 node-3.lab.koguma node-3" in (root / "etc/hosts").read_text()
    assert "node-3" in (root / "etc/nova/nova.conf").read_text()
    assert load_detail(root / "run/koguma/detail.json")["members_revision"] == "r2"
    assert marker.exists()

    marker.unlink()
    report.beat(service, root)
    assert not marker.exists()


def test_hostile_members_change_nothing(root: Path) -> None:
    (root / "run/koguma").mkdir(parents=True)
    (root / "run/koguma/detail.json").write_text(json.dumps(detail()))
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text("MemTotal: 1 kB\n")
    render.render_all(root, detail())
    before = (root / "etc/hosts").read_text()
    bad = {"members": [{"name": "x\n6.6.6.6 node-2", "address": "10.0.0.1"}], "members_revision": "r2"}
    report.beat(Spoken(heartbeat={"members_revision": "r2"}, members=bad), root)
    assert (root / "etc/hosts").read_text() == before


def test_a_reload_that_fails_is_said_and_stops_nothing() -> None:
    problems = templates.run_reloads(["false", "no-such-command-of-koguma", "false"])
    assert [problem.split(":")[0] for problem in problems] == ["false", "no-such-command-of-koguma"]


def test_a_nic_of_a_bond_has_one_file_whoever_names_the_bond(root: Path) -> None:
    render.render_all(root, detail())
    files = [path for path in (root / "etc/systemd/network").iterdir() if "52:54:00:00:00:02" in path.read_text()]
    assert [path.name for path in files] == ["10-koguma-eth1.network"]
