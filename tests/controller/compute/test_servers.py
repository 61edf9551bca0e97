"""Servers over HTTP, with real sagas on fake hosts: what clients see from POST to the second DELETE."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from agent.wire.lifecycle import Power
from controller import quota
from controller.compute import store
from controller.db.tables.network import network, port, port_security_group, security_group
from controller.db.tables.placement import allocation
from controller.db.tables.saga import saga_event
from controller.db.tx import Tx
from controller.errors import Unavailable
from tests.controller.compute import rows
from tests.controller.compute.cloud import BODY, ComputeCloud, compute_cloud

pytestmark = pytest.mark.timeout(60)

USER_DATA = base64.b64encode(b"#cloud-config\n").decode()


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[ComputeCloud]:
    async with compute_cloud(tmp_path) as made:
        yield made


@pytest.fixture
async def still_cloud(tmp_path: Path) -> AsyncIterator[ComputeCloud]:
    async with compute_cloud(tmp_path, runs=False) as made:
        yield made


def _count(tx: Tx, table: sa.Table) -> int:
    return tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


async def test_a_server_is_there_when_post_returns_and_active_when_its_saga_is_done(cloud: ComputeCloud) -> None:
    reply = await cloud.call("POST", "/servers", json={"server": BODY})
    assert reply.status_code == 202
    made = reply.json()["server"]
    assert sorted(made) == ["OS-DCF:diskConfig", "id", "links", "security_groups"]
    assert reply.headers["location"] == made["links"][0]["href"]
    before = await cloud.show(made["id"])
    assert (before["status"], before["addresses"], before["OS-EXT-STS:vm_state"]) == ("BUILD", {}, "building")
    await cloud.rest()
    after = await cloud.show(made["id"])
    assert (after["status"], after["OS-EXT-STS:task_state"], after["OS-EXT-STS:power_state"]) == ("ACTIVE", None, 1)
    assert after["addresses"]["demo-net"][0]["addr"] == "10.0.0.2"
    assert after["addresses"]["demo-net"][0]["OS-EXT-IPS:type"] == "fixed"
    assert after["flavor"]["original_name"] == "m1.nano"
    assert after["security_groups"] == [{"name": "default"}]
    assert after["image"]["id"] == rows.IMAGE_ID
    assert len(after["hostId"]) == 56
    assert after["progress"] == 100
    assert after["server_groups"] == []
    assert not cloud.hosts.broken


async def test_the_log_has_a_line_a_step_although_three_writes_made_them(cloud: ComputeCloud) -> None:
    await cloud.boot()
    rows_of_log = await cloud.api.cloud.db.read(
        lambda tx: tx.execute(sa.select(saga_event.c.step, saga_event.c.seq)).all()
    )
    assert [row.step for row in rows_of_log] == ["place", "port[0]", "image", "disk", "plug[0]", "domain"]


async def test_the_guest_is_given_everything_it_may_ask_for(cloud: ComputeCloud) -> None:
    key = {
        "name": "k",
        "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ me",
    }
    assert (await cloud.call("POST", "/os-keypairs", json={"keypair": key})).status_code == 201
    made = await cloud.boot(
        key_name="k",
        user_data=USER_DATA,
        config_drive=True,
        metadata={"role": "web"},
        networks=[{"uuid": rows.NETWORK_ID, "tag": "front"}],
    )
    domain = cloud.hosts.of("domain")[made["id"]]
    meta = json.loads(domain.guest.meta_data)
    assert meta["uuid"] == made["id"]
    assert (meta["name"], meta["hostname"], meta["meta"]) == ("web", "web", {"role": "web"})
    assert meta["public_keys"] == {"k": key["public_key"]}
    assert meta["devices"][0]["tags"] == ["front"]
    assert domain.guest.user_data == b"#cloud-config\n"
    assert domain.guest.ec2["local-ipv4"] == "10.0.0.2"
    assert domain.guest.ec2["public-keys/0/openssh-key"] == key["public_key"]
    assert json.loads(domain.guest.network_data)["links"][0]["ethernet_mac_address"] == domain.nics[0].mac
    assert domain.config_drive
    assert made["config_drive"] == "True"


async def test_stop_start_and_reboot_go_through_the_states_that_clients_wait_for(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    assert (await cloud.act(server_id, "os-start")).status_code == 409
    assert (await cloud.act(server_id, "os-stop")).status_code == 202
    assert (await cloud.show(server_id))["OS-EXT-STS:task_state"] == "powering-off"
    await cloud.rest()
    assert (await cloud.show(server_id))["status"] == "SHUTOFF"
    refused = await cloud.act(server_id, "os-stop")
    assert refused.json()["conflictingRequest"]["message"] == (
        f"Cannot 'stop' instance {server_id} while it is in vm_state stopped"
    )
    assert (await cloud.act(server_id, "os-start")).status_code == 202
    await cloud.rest()
    assert (await cloud.show(server_id))["status"] == "ACTIVE"
    for kind, status in (("SOFT", "REBOOT"), ("HARD", "HARD_REBOOT")):
        assert (await cloud.act(server_id, "reboot", {"type": kind})).status_code == 202
        assert (await cloud.show(server_id))["status"] == status
        await cloud.rest()
        assert (await cloud.show(server_id))["status"] == "ACTIVE"
    assert len(cloud.hosts.reboots) == 2
    assert not cloud.hosts.broken


async def test_two_actions_at_once_are_one_and_a_conflict(still_cloud: ComputeCloud) -> None:
    server_id = await still_cloud.post()
    running = {"vm_state": "active", "task_state": None, "host_id": "h1", "host_name": "name-h1"}
    await still_cloud.write(store.change, server_id, running)
    assert (await still_cloud.act(server_id, "os-stop")).status_code == 202
    refused = await still_cloud.act(server_id, "reboot", {"type": "SOFT"})
    assert refused.status_code == 409
    assert "while it is in task_state powering-off" in refused.json()["conflictingRequest"]["message"]


async def test_delete_leaves_nothing_and_the_second_one_is_404(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 204
    assert (await cloud.show(server_id))["OS-EXT-STS:task_state"] == "deleting"
    await cloud.rest()
    assert (await cloud.call("GET", f"/servers/{server_id}")).status_code == 404
    assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 404
    read = cloud.api.cloud.db.read
    assert (await read(_count, allocation), await read(_count, port)) == (0, 0)
    assert not cloud.hosts.objects.keys() & {("h1", "domain", server_id)}
    listed = await cloud.call("GET", "/servers?changes-since=2020-01-01T00:00:00Z")
    assert [one["id"] for one in listed.json()["servers"]] == [server_id]
    assert (await cloud.call("GET", "/servers")).json()["servers"] == []


async def test_a_server_that_is_being_built_can_be_deleted(cloud: ComputeCloud) -> None:
    server_id = await cloud.post()
    assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 204
    assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 204
    await cloud.rest()
    assert (await cloud.call("GET", f"/servers/{server_id}")).status_code == 404
    assert await cloud.api.cloud.db.read(_count, allocation) == 0
    assert not cloud.hosts.of("domain")
    assert not cloud.hosts.broken


async def test_no_valid_host_says_why_in_counts_to_users_and_by_host_to_admins(cloud: ComputeCloud) -> None:
    big = {"name": "huge", "id": "huge", "ram": 1 << 20, "vcpus": 1, "disk": 1}
    assert (await cloud.call("POST", "/flavors", json={"flavor": big}, token=cloud.admin)).status_code == 200
    quotas = {"quota_set": {"ram": -1}}
    await cloud.call("PUT", f"/os-quota-sets/{cloud.project_id}", json=quotas, token=cloud.admin)
    failed = await cloud.boot(flavorRef="huge")
    assert failed["status"] == "ERROR"
    fault = failed["fault"]
    assert fault["code"] == 500
    assert fault["message"] == ("No valid host was found. There are not enough hosts available: memory (1).")
    assert "details" not in fault
    for_admin = (await cloud.show(failed["id"], token=cloud.admin))["fault"]
    assert json.loads(for_admin["details"])["hosts"][0]["host"] == "name-h1"
    assert (await cloud.call("DELETE", f"/servers/{failed['id']}")).status_code == 204


async def test_a_host_that_fails_is_left_for_another_one(tmp_path: Path) -> None:
    async with compute_cloud(tmp_path, "h1", "h2") as cloud:
        for host_id in ("h1", "h2"):
            cloud.hosts.refuse[host_id, "disk.ensure"] = Unavailable(
                "The disk is full.", why={"host": host_id, "code": "failed"}
            )
        server_id = await cloud.post()
        await cloud.rest()
        both_failed = await cloud.show(server_id)
        assert (both_failed["status"], both_failed["fault"]["message"]) == (
            "ERROR",
            "No valid host was found. There are not enough hosts available: excluded (2). "
            "The last one tried said: The disk is full.",
        )
        del cloud.hosts.refuse["h2", "disk.ensure"]
        made = await cloud.boot()
        assert made["status"] == "ACTIVE"
        hosts_of = {host for host, noun, _ in cloud.hosts.objects if noun == "domain"}
        assert hosts_of == {"h2"}
        assert not cloud.hosts.broken


async def test_quota_is_refused_with_the_numbers_and_leaves_nothing(cloud: ComputeCloud) -> None:
    await cloud.write(quota.set_limits, cloud.project_id, "compute", {"instances": 1})
    await cloud.boot()
    refused = await cloud.call("POST", "/servers", json={"server": BODY})
    assert refused.status_code == 403
    assert refused.json()["forbidden"]["why"]["quota"]["instances"] == {"limit": 1, "used": 1, "requested": 1}
    assert len((await cloud.call("GET", "/servers")).json()["servers"]) == 1


async def test_several_servers_are_made_as_far_as_the_quota_goes(cloud: ComputeCloud) -> None:
    await cloud.write(quota.set_limits, cloud.project_id, "compute", {"cores": 3})
    await cloud.post(min_count=2, max_count=5)
    await cloud.rest()
    shown = (await cloud.call("GET", "/servers/detail?sort_key=display_name&sort_dir=asc")).json()["servers"]
    assert [one["name"] for one in shown] == ["web-1", "web-2", "web-3"]
    assert {one["status"] for one in shown} == {"ACTIVE"}
    refused = await cloud.call("POST", "/servers", json={"server": {**BODY, "min_count": 2, "max_count": 9}})
    assert refused.status_code == 403


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flavorRef": "none"}, "Flavor none could not be found."),
        ({"imageRef": rows.SUBNET_ID}, f"Image {rows.SUBNET_ID} could not be found."),
        ({"key_name": "none"}, "Invalid key_name provided."),
        ({"networks": [{"uuid": rows.SUBNET_ID}]}, f"Network {rows.SUBNET_ID} could not be found."),
        ({"networks": [{"port": rows.SUBNET_ID}]}, f"Port {rows.SUBNET_ID} could not be found."),
        ({"security_groups": [{"name": "none"}]}, "Security group none not found for project"),
        ({"availability_zone": "elsewhere"}, "The requested availability zone is not available"),
        ({"user_data": "%%%"}, "User data needs to be valid base 64."),
        ({"name": " web"}, "Can not start or end with whitespace."),
        ({"name": "a\nb"}, "printable characters"),
        ({"min_count": 3, "max_count": 2}, "min_count must be <= max_count"),
        ({"imageRef": ""}, "Invalid imageRef provided."),
        ({"metadata": {"a/b": "c"}}, "is not a legal key"),
        ({"colour": "red"}, "colour"),
        ({"personality": []}, "personality"),
        ({"trusted_image_certificates": ["x"]}, "not supported yet"),
        ({"block_device_mapping_v2": [{"source_type": "volume", "uuid": rows.SUBNET_ID}]}, "failed to get volume"),
        ({"networks": [{"uuid": rows.NETWORK_ID, "fixed_ip": "10.9.9.9"}]}, "10.9.9.9"),
    ],
)
async def test_bad_requests_are_400_and_leave_nothing(
    still_cloud: ComputeCloud, changes: dict[str, Any], message: str
) -> None:
    reply = await still_cloud.call("POST", "/servers", json={"server": {**BODY, **changes}})
    assert reply.status_code == 400, reply.text
    assert message in reply.json()["badRequest"]["message"]
    assert (await still_cloud.call("GET", "/servers")).json()["servers"] == []


async def test_the_newest_clients_block_device_of_the_image_itself_is_welcome(cloud: ComputeCloud) -> None:
    device = {
        "uuid": rows.IMAGE_ID,
        "boot_index": 0,
        "source_type": "image",
        "destination_type": "local",
        "delete_on_termination": True,
    }
    assert (await cloud.boot(block_device_mapping_v2=[device]))["status"] == "ACTIVE"


async def test_a_users_own_port_is_bound_and_later_given_back(cloud: ComputeCloud) -> None:
    await cloud.write(rows.insert_user_port, rows.USER_PORT_ID, cloud.project_id)
    made = await cloud.boot(networks=[{"port": rows.USER_PORT_ID}])
    listed = (await cloud.call("GET", f"/servers/{made['id']}/os-interface")).json()["interfaceAttachments"]
    assert [(one["port_id"], one["port_state"], one["mac_addr"]) for one in listed] == [
        (rows.USER_PORT_ID, "ACTIVE", "fa:16:3e:00:00:01")
    ]
    again = await cloud.call("POST", "/servers", json={"server": {**BODY, "networks": [{"port": rows.USER_PORT_ID}]}})
    assert again.status_code == 409
    await cloud.call("DELETE", f"/servers/{made['id']}")
    await cloud.rest()
    left = await cloud.api.cloud.db.read(lambda tx: tx.execute(sa.select(port)).one())
    assert (left.id, left.device_id, left.mac_address) == (rows.USER_PORT_ID, "", "fa:16:3e:00:00:01")


async def test_a_port_that_only_claims_to_be_a_servers_is_not_shown_with_it(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    before = (await cloud.call("GET", f"/servers/{server_id}")).json()["server"]
    await cloud.write(rows.insert_user_port, rows.USER_PORT_ID, "another-project")
    await cloud.write(lambda tx: tx.execute(sa.update(port).where(port.c.host_id == "").values(device_id=server_id)))
    after = (await cloud.call("GET", f"/servers/{server_id}")).json()["server"]
    assert after["addresses"] == before["addresses"]
    listed = (await cloud.call("GET", f"/servers/{server_id}/os-interface")).json()["interfaceAttachments"]
    assert rows.USER_PORT_ID not in {one["port_id"] for one in listed}


async def test_a_servers_groups_are_not_given_to_a_port_that_only_claims_to_be_its(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await cloud.write(rows.insert_user_port, rows.USER_PORT_ID, "another-project")
    await cloud.write(lambda tx: tx.execute(sa.update(port).where(port.c.host_id == "").values(device_id=server_id)))
    await cloud.write(rows.insert_group, "inner", cloud.project_id)
    assert (await cloud.act(server_id, "addSecurityGroup", {"name": "inner"})).status_code == 202
    groups = (await cloud.call("GET", f"/servers/{server_id}/os-security-groups")).json()["security_groups"]
    assert {(one["name"], one["tenant_id"]) for one in groups} == {(n, cloud.project_id) for n in ("inner", "default")}
    having = sa.select(port_security_group.c.port_id).join(security_group).where(security_group.c.name == "inner")
    found = await cloud.api.cloud.db.read(lambda tx: tx.execute(having).scalars().all())
    assert len(found) == 1
    assert rows.USER_PORT_ID not in found


async def test_servers_accepted_at_once_do_not_pass_the_quota_of_ports(cloud: ComputeCloud) -> None:
    await cloud.write(quota.set_limits, cloud.project_id, "network", {"port": 2})
    replies = await asyncio.gather(*(cloud.call("POST", "/servers", json={"server": BODY}) for _ in range(5)))
    await cloud.rest()
    shown = (await cloud.call("GET", "/servers/detail")).json()["servers"]
    accepted = [reply for reply in replies if reply.status_code == 202]
    assert len(accepted) == len(shown)
    assert sorted(one["status"] for one in shown)[:2] == ["ACTIVE", "ACTIVE"]
    refused = [one for one in shown if one["status"] == "ERROR"]
    assert len(refused) == len(shown) - 2
    assert all("Quota exceeded" in one["fault"]["message"] for one in refused)
    assert await cloud.api.cloud.db.read(_count, port) == 2


async def test_an_address_on_anothers_network_is_not_ours_to_choose(cloud: ComputeCloud) -> None:
    await cloud.write(
        lambda tx: tx.execute(
            sa.update(network).where(network.c.id == rows.NETWORK_ID).values(project_id="owner", shared=True)
        )
    )
    nets = [{"uuid": rows.NETWORK_ID, "fixed_ip": "10.0.0.77"}]
    reply = await cloud.call("POST", "/servers", json={"server": {**BODY, "networks": nets}})
    assert (reply.status_code, "fixed_ips" in reply.text) == (403, True)
    assert (await cloud.boot(networks=[{"uuid": rows.NETWORK_ID}]))["status"] == "ACTIVE"
    admins = await cloud.call("POST", "/servers", token=cloud.admin, json={"server": {**BODY, "networks": nets}})
    assert admins.status_code == 202


async def test_other_projects_servers_are_not_there(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    _, _, stranger = await cloud.api.a_member(cloud.admin, "stranger")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/metadata"), ("GET", "/os-instance-actions")):
        reply = await cloud.call(method, f"/servers/{server_id}{path}", token=stranger)
        assert reply.status_code == 404, path
    assert (await cloud.act(server_id, "os-stop", token=stranger)).status_code == 404
    assert (await cloud.call("GET", "/servers/detail", token=stranger)).json()["servers"] == []
    assert (await cloud.call("GET", "/servers?all_tenants=1", token=stranger)).status_code == 403
    everyone = await cloud.call("GET", "/servers?all_tenants", token=cloud.admin)
    assert [one["id"] for one in everyone.json()["servers"]] == [server_id]


async def test_actions_carry_the_users_request_id_from_post_on(cloud: ComputeCloud) -> None:
    reply = await cloud.call("POST", "/servers", json={"server": BODY})
    server_id, request_id = reply.json()["server"]["id"], reply.headers["x-openstack-request-id"]
    listed = (await cloud.call("GET", f"/servers/{server_id}/os-instance-actions")).json()["instanceActions"]
    assert [(one["action"], one["request_id"], one["message"]) for one in listed] == [("create", request_id, None)]
    await cloud.rest()
    path = f"/servers/{server_id}/os-instance-actions/{request_id}"
    events = (await cloud.call("GET", path)).json()["instanceAction"]["events"]
    assert [(one["event"], one["result"]) for one in events] == [
        (f"server-create:{step}", "Success") for step in ("place", "port[0]", "image", "disk", "plug[0]", "domain")
    ]
    assert {"traceback", "host"} & set(events[0]) == set()
    for_admin = (await cloud.call("GET", path, token=cloud.admin)).json()["instanceAction"]["events"]
    assert for_admin[-1]["host"] == "name-h1"
    assert "events" not in (await cloud.call("GET", path, version="2.50")).json()["instanceAction"]


async def test_a_guest_that_powers_itself_off_is_shutoff(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    cloud.hosts.power_changes("h1", server_id, Power.SHUTOFF)
    assert (await cloud.power_sync.run())["changed"] == 1
    shown = await cloud.show(server_id)
    assert (shown["status"], shown["OS-EXT-STS:power_state"]) == ("SHUTOFF", 4)
    row = await cloud.api.cloud.db.read(store.find, server_id)
    assert row is not None
    assert (row.desired, row.generation, row.pushed_generation) == ("shutoff", 2, 1)


async def test_what_changes_of_metadata_reaches_the_host(cloud: ComputeCloud) -> None:
    from controller.tasks.server_push import push_all

    server_id = (await cloud.boot())["id"]
    reply = await cloud.call("PUT", f"/servers/{server_id}/metadata", json={"metadata": {"a": "b"}})
    assert reply.json() == {"metadata": {"a": "b"}}
    assert await push_all(cloud.api.cloud) == {"waiting": 1, "pushed": 1}
    assert json.loads(cloud.hosts.of("domain")[server_id].guest.meta_data)["meta"] == {"a": "b"}
    assert await push_all(cloud.api.cloud) == {"waiting": 0, "pushed": 0}
    assert not cloud.hosts.broken


async def test_a_locked_server_is_left_alone_by_its_owner_but_not_by_admins(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    assert (await cloud.act(server_id, "lock", {"locked_reason": "mine"})).status_code == 202
    shown = await cloud.show(server_id)
    assert (shown["locked"], shown["locked_reason"]) == (True, "mine")
    assert (await cloud.act(server_id, "os-stop")).status_code == 409
    assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 409
    assert (await cloud.act(server_id, "os-stop", token=cloud.admin)).status_code == 202
    assert (await cloud.act(server_id, "unlock")).status_code == 202


async def test_console_output_is_the_end_of_the_log(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    whole = await cloud.act(server_id, "os-getConsoleOutput", {})
    assert whole.json() == {"output": "booting\nlogin:\n"}
    last = await cloud.act(server_id, "os-getConsoleOutput", {"length": 2})
    assert last.json() == {"output": "login:\n"}


async def test_a_silent_host_keeps_a_deletion_waiting_and_says_so(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    cloud.hosts.silent.add("h1")
    assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 204
    assert (await cloud.show(server_id))["OS-EXT-STS:task_state"] == "deleting"
    assert await cloud.api.cloud.db.read(_count, allocation) == 1
    cloud.hosts.silent.clear()
    await cloud.rest()
    assert (await cloud.call("GET", f"/servers/{server_id}")).status_code == 404
    assert not cloud.hosts.broken


async def test_a_server_that_was_built_on_its_second_host_has_ports_that_the_first_never_saw(tmp_path: Path) -> None:
    """What was removed there has a grave, and a port of the same name could not come there when the server does."""
    async with compute_cloud(tmp_path, "h1", "h2") as cloud:
        for host_id in ("h1", "h2"):
            cloud.hosts.refuse[host_id, "domain.ensure"] = Unavailable(f"Host {host_id} failed.", why={"host": host_id})
        server_id = await cloud.post()
        while not cloud.hosts.of("port"):
            await asyncio.sleep(0.01)
        ((first, _, _),) = (key for key in cloud.hosts.objects if key[1] == "port")
        del cloud.hosts.refuse["h2" if first == "h1" else "h1", "domain.ensure"]
        await cloud.rest()
        assert (await cloud.show(server_id))["status"] == "ACTIVE"
        (there,) = (key for key in cloud.hosts.objects if key[1] == "port")
        assert there[0] != first and there[2] not in [key[2] for key in cloud.hosts.graves if key[1] == "port"]
