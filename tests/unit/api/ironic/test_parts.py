"""What belongs to a node: traits, VIFs, boot device, media, indicators, validation; and what agents say."""

from __future__ import annotations

from koguma.db.lifecycle_store import access_of
from koguma.db.models import NodeRow
from koguma.model.network import Purpose
from tests.unit import factories
from tests.unit.api.ironic.client import Ironic

MAC = "52:54:00:00:00:01"


def test_traits_are_set_added_and_removed(ironic: Ironic) -> None:
    ironic.node(name="n1")
    assert ironic("PUT", "/v1/nodes/n1/traits", {"traits": ["CUSTOM_A", "CUSTOM_B"]}).status == 204
    assert ironic("PUT", "/v1/nodes/n1/traits/CUSTOM_C").status == 204
    assert ironic("DELETE", "/v1/nodes/n1/traits/CUSTOM_A").status == 204
    assert ironic("GET", "/v1/nodes/n1/traits").json == {"traits": ["CUSTOM_B", "CUSTOM_C"]}
    assert ironic("GET", "/v1/nodes/n1").json["traits"] == ["CUSTOM_B", "CUSTOM_C"]
    assert ironic("DELETE", "/v1/nodes/n1/traits/CUSTOM_A").status == 404
    assert ironic("PUT", "/v1/nodes/n1/traits/nonsense").status == 400
    assert ironic("DELETE", "/v1/nodes/n1/traits").status == 204
    assert ironic("GET", "/v1/nodes/n1/traits").json == {"traits": []}


def test_vifs_are_kept_where_the_network_interface_uses_them(ironic: Ironic) -> None:
    ironic.node(name="n1", network_interface="flat")
    assert ironic("POST", "/v1/nodes/n1/vifs", {"id": "net-1"}).status == 204
    assert ironic("POST", "/v1/nodes/n1/vifs", {"id": "net-1"}).status == 409
    assert ironic("GET", "/v1/nodes/n1/vifs").json == {"vifs": [{"id": "net-1"}]}
    assert ironic("DELETE", "/v1/nodes/n1/vifs/net-1").status == 204
    assert ironic("DELETE", "/v1/nodes/n1/vifs/net-1").status == 400
    assert ironic("GET", "/v1/nodes/nobody/vifs").status == 404


def test_a_vif_of_a_switched_node_is_a_network_of_the_site(ironic: Ironic) -> None:
    factories.network()
    factories.network(
        name="red", purpose=Purpose.TENANT, vlan=301, subnet="10.90.1.0/24", gateway=None, discovery_start=None,
        discovery_end=None,
    )  # fmt: skip
    ironic.node(name="n1", network_interface="koguma")
    for wrong in ("nothing", "provisioning"):
        refused = ironic("POST", "/v1/nodes/n1/vifs", {"id": wrong})
        assert (refused.status, "must be a network of Koguma" in str(refused.json)) == (400, True)
    assert ironic("POST", "/v1/nodes/n1/vifs", {"id": "red"}).status == 204
    assert ironic("GET", "/v1/nodes/n1/vifs").json == {"vifs": [{"id": "red"}]}


def test_management_of_fake_hardware(ironic: Ironic) -> None:
    ironic.node(name="n1")
    base = "/v1/nodes/n1/management"
    assert ironic("PUT", f"{base}/boot_device", {"boot_device": "pxe", "persistent": True}).status == 204
    assert ironic("GET", f"{base}/boot_device").json == {"boot_device": "pxe", "persistent": True}
    assert ironic("PUT", f"{base}/boot_device", {"boot_device": "nonsense"}).status == 400
    assert ironic("GET", f"{base}/boot_device/supported").json == {"supported_boot_devices": ["pxe"]}
    assert ironic("PUT", f"{base}/inject_nmi").status == 204
    assert len(ironic("GET", f"{base}/indicators").json["indicators"]) == 2
    assert ironic("PUT", f"{base}/indicators/led@system", {"state": "OFF"}).status == 204
    assert ironic("GET", f"{base}/indicators/led@system").json == {"state": "OFF"}
    assert ironic("GET", f"{base}/indicators/led@nonsense").status == 404
    assert ironic("PUT", "/v1/nodes/n1/states/boot_mode", {"target": "uefi"}).status == 202
    assert ironic("PUT", "/v1/nodes/n1/states/secure_boot", {"target": True}).status == 202
    node = ironic("GET", "/v1/nodes/n1").json
    assert (node["boot_mode"], node["secure_boot"]) == ("uefi", True)


def test_virtual_media_are_attached_by_kind(ironic: Ironic) -> None:
    ironic.node(name="n1")
    body = {"device_type": "cdrom", "image_url": "http://image"}
    assert ironic("POST", "/v1/nodes/n1/vmedia", body).status == 204
    assert ironic("GET", "/v1/nodes/n1/vmedia").json == {"vmedia": [body]}
    assert ironic("POST", "/v1/nodes/n1/vmedia", {"device_type": "tape", "image_url": "x"}).status == 400
    assert ironic("DELETE", "/v1/nodes/n1/vmedia?device_types=floppy").status == 204
    assert ironic("GET", "/v1/nodes/n1/vmedia").json["vmedia"] == [body]
    assert ironic("DELETE", "/v1/nodes/n1/vmedia").status == 204
    assert ironic("GET", "/v1/nodes/n1/vmedia").json["vmedia"] == []


def test_a_bmc_is_asked_for_what_it_can_do(ironic: Ironic) -> None:
    factories.register(1)
    base = "/v1/nodes/node-1"
    assert ironic("PUT", f"{base}/management/boot_device", {"boot_device": "cdrom", "persistent": True}).status == 204
    assert ironic("GET", f"{base}/management/boot_device").json == {"boot_device": "cdrom", "persistent": True}
    assert ironic("PUT", f"{base}/management/boot_device", {"boot_device": "wanboot"}).status == 400
    assert "disk" in ironic("GET", f"{base}/management/boot_device/supported").json["supported_boot_devices"]
    assert ironic("POST", f"{base}/vmedia", {"device_type": "cdrom", "image_url": "http://i/x.iso"}).status == 204
    assert {"device_type": "cdrom", "image_url": "http://i/x.iso"} in ironic("GET", f"{base}/vmedia").json["vmedia"]
    assert ironic("POST", f"{base}/vmedia", {"device_type": "floppy", "image_url": "http://i/x"}).status == 400
    assert ironic("DELETE", f"{base}/vmedia").status == 204
    settings = ironic("GET", f"{base}/bios").json["bios"]
    name = settings[0]["name"]
    assert ironic("GET", f"{base}/bios/{name}").json == {name: settings[0]}
    assert ironic("GET", f"{base}/bios/nonsense").status == 404
    assert ironic("GET", f"{base}/firmware").json["firmware"]
    NodeRow.objects.update(bmc_driver="")
    assert ironic("GET", f"{base}/bios").status == 400


def test_a_redfish_bmc_is_reached_as_ironics_settings_say(ironic: Ironic) -> None:
    told = {"redfish_address": "https://192.0.2.7:8443", "redfish_system_id": "/redfish/v1/Systems/1"}
    for verify, trust in ((None, ""), (False, "?tls=any"), ("/etc/ca.pem", "?tls=ca:/etc/ca.pem")):
        info = told if verify is None else {**told, "redfish_verify_ca": verify}
        uuid = ironic.node(driver="redfish", driver_info={**info, "redfish_password": "hidden"})["uuid"]
        access = access_of(NodeRow.objects.get(uuid=uuid))
        assert access is not None
        assert access.address == f"https://192.0.2.7:8443/redfish/v1/Systems/1{trust}"
        assert access.password == "hidden"


def test_validation_says_what_an_interface_lacks(ironic: Ironic) -> None:
    ironic.node(name="fake")
    ironic.node(name="real", driver="ipmi")
    assert ironic("GET", "/v1/nodes/fake/validate").json["power"] == {"result": True}
    by_query = ironic("GET", "/v1/nodes/validate?node=real").json
    assert by_query["power"] == {"result": False, "reason": "driver_info lacks ipmi_address"}


def test_lists_that_fake_hardware_has_nothing_in(ironic: Ironic) -> None:
    ironic.node(name="n1")
    assert ironic("GET", "/v1/nodes/n1/bios").json == {"bios": []}
    assert ironic("GET", "/v1/nodes/n1/firmware").json == {"firmware": []}
    assert ironic("GET", "/v1/nodes/n1/history").json == {"history": []}
    assert ironic("GET", "/v1/nodes/n1/inventory").status == 404
    assert ironic("GET", "/v1/nodes/n1/allocation").status == 404
    assert ironic("GET", "/v1/nodes/n1/vendor_passthru/methods").json == {}


def test_drivers_have_interfaces_and_properties(ironic: Ironic) -> None:
    names = {driver["name"] for driver in ironic("GET", "/v1/drivers").json["drivers"]}
    assert {"fake-hardware", "ipmi", "manual-management"} <= names
    driver = ironic("GET", "/v1/drivers/fake-hardware").json
    assert (driver["default_deploy_interface"], driver["type"]) == ("fake", "dynamic")
    assert driver["hosts"]
    assert "default_firmware_interface" not in ironic("GET", "/v1/drivers/fake-hardware", version="1.85").json
    assert "ipmi_address" in ironic("GET", "/v1/drivers/ipmi/properties").json
    assert ironic("GET", "/v1/drivers/nonsense").status == 404


def test_a_conductor_is_a_host_with_a_worker(ironic: Ironic) -> None:
    (conductor,) = ironic("GET", "/v1/conductors").json["conductors"]
    assert conductor["alive"] is True
    shown = ironic("GET", f"/v1/conductors/{conductor['hostname']}").json
    assert "fake-hardware" in shown["drivers"]
    assert ironic("GET", "/v1/conductors/nobody").status == 404


def test_an_agent_looks_its_node_up_once_and_proves_itself_afterwards(ironic: Ironic) -> None:
    uuid = ironic.node(name="n1")["uuid"]
    ironic("POST", "/v1/ports", {"address": MAC, "node_uuid": uuid})
    assert ironic("GET", f"/v1/lookup?addresses={MAC}").status == 404
    NodeRow.objects.update(provision_state="wait call-back")
    found = ironic("GET", f"/v1/lookup?addresses=nonsense,{MAC}").json
    token = found["config"]["agent_token"]
    assert found["node"]["uuid"] == uuid
    assert ironic("GET", f"/v1/lookup?node_uuid={uuid}").json["config"]["agent_token"] == "******"
    beat = {"callback_url": "http://10.0.0.1:9999", "agent_token": token, "agent_version": "11.0"}
    assert ironic("POST", f"/v1/heartbeat/{uuid}", {**beat, "agent_token": "wrong"}).status == 400
    assert ironic("POST", f"/v1/heartbeat/{uuid}", beat).status == 202
    assert ironic("POST", f"/v1/heartbeat/{uuid}", {**beat, "callback_url": "http://10.0.0.2:9999"}).status == 400
    node = ironic("GET", f"/v1/nodes/{uuid}").json
    assert node["driver_internal_info"]["agent_url"] == "http://10.0.0.1:9999"
    assert token not in ironic("GET", f"/v1/nodes/{uuid}").content.decode()
    NodeRow.objects.update(provision_state="available")
    assert ironic.provision(uuid, "active").status == 202
    assert ironic("GET", f"/v1/lookup?node_uuid={uuid}").json["config"]["agent_token"] not in (token, "******")


def test_an_agents_inspection_makes_ports(ironic: Ironic) -> None:
    uuid = ironic.node(name="n1")["uuid"]
    data = {"inventory": {"interfaces": [{"mac_address": MAC}]}, "plugin": 1}
    assert ironic("POST", f"/v1/continue_inspection?node_uuid={uuid}", data).status == 404
    NodeRow.objects.update(provision_state="inspect wait")
    assert ironic("POST", f"/v1/continue_inspection?node_uuid={uuid}", data).status == 202
    assert [port["address"] for port in ironic("GET", "/v1/ports").json["ports"]] == [MAC]
    told = ironic("GET", "/v1/nodes/n1/inventory").json
    assert told == {"inventory": data["inventory"], "plugin_data": {"plugin": 1}}
