"""The rest of the compute API over HTTP: what each version shows, lists, flavors, keypairs, quotas, hosts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from controller import quota
from controller.compute import store
from controller.compute.api.versions import HISTORY
from controller.compute.model import Server
from controller.compute.store import Guest
from controller.db.tx import Tx
from controller.fleet import store as fleet
from controller.schedule import claim
from tests.controller.compute import rows
from tests.controller.compute.cloud import BODY, COMPUTE, ComputeCloud, compute_cloud
from tests.databases import AnyDatabase

pytestmark = pytest.mark.timeout(60)

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ me"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[ComputeCloud]:
    async with compute_cloud(tmp_path, runs=False) as made:
        yield made


async def stored(cloud: ComputeCloud, number: int, **changes: Any) -> Server:
    """A server's row, without a saga."""
    server_id = f"{number:08x}-0000-4000-8000-000000000000"
    values: dict[str, Any] = {"vm_state": "active", "task_state": None, "host_id": "h1", "host_name": "name-h1"}
    made = rows.a_server(
        server_id,
        **{"project_id": cloud.project_id, "name": f"s{number}", "created_at": 1000.0 + number, **values, **changes},
    )
    await cloud.write(store.insert, made, [], Guest(None, None), ())
    return made


# Versions.


def test_versions_have_no_hole() -> None:
    assert [minor for minor, _ in HISTORY] == list(range(1, 80))


async def test_version_documents_need_no_token(cloud: ComputeCloud) -> None:
    listed = await cloud.api.http.get("/compute")
    ((found,),) = listed.json().values()
    assert (found["id"], found["min_version"], found["version"]) == ("v2.1", "2.1", "2.79")
    assert found["links"][0]["href"] == "http://127.0.0.1:5000/compute/v2.1/"
    one = await cloud.api.http.get("/compute/v2.1/")
    assert one.json()["version"]["media-types"][0]["base"] == "application/json"


SHOWN_SINCE = (
    ("2.9", {"locked"}),
    ("2.19", {"description"}),
    ("2.26", {"tags"}),
    ("2.63", {"trusted_image_certificates"}),
    ("2.71", {"server_groups"}),
    ("2.73", {"locked_reason"}),
)
SHOWN_TO_ADMINS_SINCE = (
    (
        "2.3",
        {
            f"OS-EXT-SRV-ATTR:{name}"
            for name in (
                "hostname",
                "kernel_id",
                "ramdisk_id",
                "launch_index",
                "reservation_id",
                "root_device_name",
                "user_data",
            )
        },
    ),
    ("2.16", {"host_status"}),
)


def before(version: str) -> str:
    major, _, minor = version.partition(".")
    return f"{major}.{int(minor) - 1}"


@pytest.mark.parametrize(("version", "keys"), SHOWN_SINCE)
async def test_a_field_is_shown_from_its_version_on(cloud: ComputeCloud, version: str, keys: set[str]) -> None:
    server = await stored(cloud, 1)
    older = set(await cloud.show(server.id, version=before(version)))
    assert set(await cloud.show(server.id, version=version)) - older == keys


@pytest.mark.parametrize(("version", "keys"), SHOWN_TO_ADMINS_SINCE)
async def test_admins_see_more_from_a_version_on(cloud: ComputeCloud, version: str, keys: set[str]) -> None:
    server = await stored(cloud, 1)
    older = set(await cloud.show(server.id, version=before(version), token=cloud.admin))
    assert set(await cloud.show(server.id, version=version, token=cloud.admin)) - older == keys
    assert not keys & set(await cloud.show(server.id, version=version))


async def test_the_flavor_is_a_link_and_from_2_47_on_embedded(cloud: ComputeCloud) -> None:
    server = await stored(cloud, 1, extra_specs={"hw:x": "1"})
    assert sorted((await cloud.show(server.id, version="2.46"))["flavor"]) == ["id", "links"]
    embedded = (await cloud.show(server.id, version="2.47"))["flavor"]
    assert (embedded["original_name"], embedded["extra_specs"]) == ("m1.nano", {"hw:x": "1"})


async def test_put_answers_like_get_from_2_75_on(cloud: ComputeCloud) -> None:
    server = await stored(cloud, 1)
    body = {"server": {"name": "other"}}
    short = (await cloud.call("PUT", f"/servers/{server.id}", json=body, version="2.74")).json()["server"]
    assert "OS-EXT-STS:vm_state" not in short
    assert short["name"] == "other"
    whole = (await cloud.call("PUT", f"/servers/{server.id}", json=body, version="2.75")).json()["server"]
    assert set(whole) == set(await cloud.show(server.id, version="2.75"))


@pytest.mark.parametrize(
    ("version", "status", "server"),
    [
        ("2.18", 400, {"description": "d"}),
        ("2.19", 202, {"description": "d"}),
        ("2.32", 202, {"networks": [{"uuid": rows.NETWORK_ID, "tag": "t"}]}),
        ("2.36", 202, {}),
        ("2.36", 400, {"networks": "auto"}),
        ("2.37", 202, {"networks": "none"}),
        ("2.37", 400, {}),
        ("2.37", 400, {"networks": [{"uuid": rows.NETWORK_ID, "tag": "t"}]}),
        ("2.42", 202, {"networks": [{"uuid": rows.NETWORK_ID, "tag": "t"}]}),
        ("2.51", 400, {"networks": "none", "tags": ["a"]}),
        ("2.52", 202, {"networks": "none", "tags": ["a"]}),
        ("2.56", 202, {"networks": "none", "personality": []}),
        ("2.56", 403, {"networks": "none", "personality": [{"path": "/a", "contents": "YQ=="}]}),
        ("2.57", 400, {"networks": "none", "personality": []}),
        ("2.73", 400, {"networks": "none", "host": "name-h1"}),
        ("2.74", 403, {"networks": "none", "host": "name-h1"}),
    ],
)
async def test_a_request_has_what_its_version_has(
    cloud: ComputeCloud, version: str, status: int, server: dict[str, Any]
) -> None:
    base = {"name": "v", "imageRef": rows.IMAGE_ID, "flavorRef": "42"}
    reply = await cloud.call("POST", "/servers", json={"server": {**base, **server}}, version=version)
    assert reply.status_code == status, reply.text


@pytest.mark.parametrize(("version", "status"), [("2.74", 200), ("2.75", 400)])
async def test_unknown_query_keys_are_refused_from_2_75_on(cloud: ComputeCloud, version: str, status: int) -> None:
    for path in ("/servers?colour=red", "/servers/detail?colour=red", "/flavors?colour=red", "/limits?colour=red"):
        assert (await cloud.call("GET", path, version=version)).status_code == status, path


async def test_hosts_are_named_by_admins_only(cloud: ComputeCloud) -> None:
    await cloud.write(
        rows.insert_network, "66666666-0000-4000-8000-000000000000", "77777777-0000-4000-8000-000000000000"
    )
    for key, value in (("host", "name-h1"), ("availability_zone", "nova:name-h1"), ("host", "none")):
        body = {"server": {**BODY, "networks": "none", key: value}}
        assert (await cloud.call("POST", "/servers", json=body)).status_code == 403
        reply = await cloud.call("POST", "/servers", json=body, token=cloud.admin)
        assert reply.status_code == (400 if value == "none" else 202), reply.text


# Lists.


async def names(cloud: ComputeCloud, query: str, **options: Any) -> list[str]:
    reply = await cloud.call("GET", f"/servers?{query}", **options)
    assert reply.status_code == 200, reply.text
    return [one["name"] for one in reply.json()["servers"]]


async def test_pages_follow_each_other_without_gap_or_repetition(cloud: ComputeCloud) -> None:
    for number in range(1, 6):
        await stored(cloud, number)
    seen: list[str] = []
    url = f"{COMPUTE}/servers?limit=2"
    while url:
        reply = (await cloud.api.call("GET", url, cloud.demo)).json()
        seen += [one["name"] for one in reply["servers"]]
        url = next((link["href"] for link in reply.get("servers_links", [])), "")
    assert seen == ["s5", "s4", "s3", "s2", "s1"]


async def test_filters_and_sorting(cloud: ComputeCloud) -> None:
    await stored(cloud, 1)
    await stored(cloud, 2, name="web", vm_state="stopped")
    await stored(cloud, 3, name="web-3", task_state="rebooting")
    await stored(cloud, 4, vm_state="error", flavor_id="1")
    ascending = "sort_key=created_at&sort_dir=asc"
    assert await names(cloud, ascending) == ["s1", "web", "web-3", "s4"]
    assert await names(cloud, "sort_key=display_name&sort_dir=desc") == ["web-3", "web", "s4", "s1"]
    assert await names(cloud, f"name=web&{ascending}") == ["web", "web-3"]
    assert await names(cloud, f"name=^web$&{ascending}") == ["web"]
    assert await names(cloud, f"name=^(s|web-)[0-9]&{ascending}") == ["s1", "web-3", "s4"]
    assert await names(cloud, f"name=^w.*&limit=1&{ascending}") == ["web"]
    assert await names(cloud, "status=SHUTOFF") == ["web"]
    assert await names(cloud, "status=REBOOT") == ["web-3"]
    assert await names(cloud, f"status=ERROR&status=SHUTOFF&{ascending}") == ["web", "s4"]
    assert await names(cloud, "flavor=1") == ["s4"]
    assert await names(cloud, f"host=elsewhere&{ascending}") == ["s1", "web", "web-3", "s4"]
    assert await names(cloud, "host=elsewhere&all_tenants=1", token=cloud.admin) == []
    assert (await cloud.call("GET", "/servers?status=happy")).status_code == 400
    assert await names(cloud, "status=happy", version="2.37") == []
    assert (await cloud.call("GET", "/servers?name=(a*)*")).status_code == 400
    assert (await cloud.call("GET", "/servers?sort_key=user_data")).status_code == 400
    assert (await cloud.call("GET", "/servers?sort_key=host")).status_code == 403
    assert (await cloud.call("GET", "/servers?limit=-1")).status_code == 400
    assert (await cloud.call("GET", f"/servers?marker={rows.SUBNET_ID}")).status_code == 400
    assert (await cloud.call("GET", "/servers?status=deleted")).status_code == 403


async def test_tags_are_set_and_filtered_by(cloud: ComputeCloud) -> None:
    first, second = await stored(cloud, 1), await stored(cloud, 2)
    put = await cloud.call("PUT", f"/servers/{first.id}/tags", json={"tags": ["a", "b"]})
    assert put.json() == {"tags": ["a", "b"]}
    assert (await cloud.call("PUT", f"/servers/{second.id}/tags/b")).status_code == 201
    assert (await cloud.call("PUT", f"/servers/{second.id}/tags/b")).status_code == 204
    assert await names(cloud, "tags=a,b") == ["s1"]
    assert await names(cloud, "tags-any=a,b") == ["s2", "s1"]
    assert await names(cloud, "not-tags=a,b") == ["s2"]
    assert await names(cloud, "not-tags-any=a") == ["s2"]
    assert (await cloud.call("GET", f"/servers/{first.id}/tags/a")).status_code == 204
    assert (await cloud.call("DELETE", f"/servers/{first.id}/tags/a")).status_code == 204
    assert (await cloud.call("GET", f"/servers/{first.id}/tags/a")).status_code == 404
    assert (await cloud.call("PUT", f"/servers/{first.id}/tags/{'x' * 61}")).status_code == 400
    assert (await cloud.call("GET", f"/servers/{first.id}/tags", version="2.25")).status_code == 404


async def test_deleted_servers_are_an_admins_to_list(cloud: ComputeCloud) -> None:
    await stored(cloud, 1)
    await stored(cloud, 2, vm_state="deleted", deleted_at=2000.0, updated_at=2000.0)
    assert await names(cloud, "") == ["s1"]
    assert await names(cloud, "changes-since=1970-01-01T00:30:00Z") == ["s2"]
    assert await names(cloud, "all_tenants=1&deleted=true", token=cloud.admin) == ["s2"]
    assert await names(cloud, "deleted=true") == ["s1"]


# Metadata.


async def test_metadata_can_be_replaced_extended_and_removed(cloud: ComputeCloud) -> None:
    server = await stored(cloud, 1, meta={"a": "1"})
    path = f"/servers/{server.id}/metadata"
    assert (await cloud.call("POST", path, json={"metadata": {"b": "2"}})).json()["metadata"] == {"a": "1", "b": "2"}
    assert (await cloud.call("PUT", f"{path}/a", json={"meta": {"a": "3"}})).json() == {"meta": {"a": "3"}}
    assert (await cloud.call("PUT", f"{path}/a", json={"meta": {"b": "3"}})).status_code == 400
    assert (await cloud.call("DELETE", f"{path}/b")).status_code == 204
    assert (await cloud.call("DELETE", f"{path}/b")).status_code == 404
    assert (await cloud.call("GET", path)).json() == {"metadata": {"a": "3"}}
    assert (await cloud.call("PUT", path, json={"metadata": {}})).json() == {"metadata": {}}
    await cloud.write(quota.set_limits, cloud.project_id, "compute", {"metadata_items": 1})
    assert (await cloud.call("PUT", path, json={"metadata": {"a": "1", "b": "2"}})).status_code == 403


# Flavors.


async def test_flavors_live_and_die(cloud: ComputeCloud) -> None:
    new = {"name": "f", "id": "f-1", "ram": 64, "vcpus": "2", "disk": 0, "description": "d"}
    assert (await cloud.call("POST", "/flavors", json={"flavor": new})).status_code == 403
    made = (await cloud.call("POST", "/flavors", json={"flavor": new}, token=cloud.admin)).json()["flavor"]
    assert (made["vcpus"], made["swap"], made["description"], made["extra_specs"]) == (2, 0, "d", {})
    assert (await cloud.call("POST", "/flavors", json={"flavor": new}, token=cloud.admin)).status_code == 409
    assert (await cloud.call("GET", "/flavors/f-1", version="2.54")).json()["flavor"]["swap"] == ""
    changed = {"flavor": {"description": None}}
    assert (await cloud.call("PUT", "/flavors/f-1", json=changed, token=cloud.admin)).json()["flavor"][
        "description"
    ] is None
    specs = "/flavors/f-1/os-extra_specs"
    body = {"extra_specs": {"hw:a": 1, "b": "2"}}
    assert (await cloud.call("POST", specs, json=body, token=cloud.admin)).json() == {
        "extra_specs": {"hw:a": "1", "b": "2"}
    }
    assert (await cloud.call("GET", f"{specs}/hw:a")).json() == {"hw:a": "1"}
    assert (await cloud.call("DELETE", f"{specs}/hw:a", token=cloud.admin)).status_code == 200
    assert (await cloud.call("DELETE", f"{specs}/hw:a", token=cloud.admin)).status_code == 404
    assert (await cloud.call("DELETE", "/flavors/f-1", token=cloud.admin)).status_code == 202
    assert (await cloud.call("GET", "/flavors/f-1")).status_code == 404


async def test_private_flavors_are_for_those_who_were_given_them(cloud: ComputeCloud) -> None:
    new = {"name": "f", "id": "f-1", "ram": 64, "vcpus": 1, "disk": 1, "os-flavor-access:is_public": False}
    await cloud.call("POST", "/flavors", json={"flavor": new}, token=cloud.admin)
    assert (await cloud.call("GET", "/flavors/f-1")).status_code == 404
    given = {"addTenantAccess": {"tenant": cloud.project_id}}
    reply = await cloud.call("POST", "/flavors/f-1/action", json=given, token=cloud.admin)
    assert reply.json() == {"flavor_access": [{"flavor_id": "f-1", "tenant_id": cloud.project_id}]}
    assert (await cloud.call("POST", "/flavors/f-1/action", json=given, token=cloud.admin)).status_code == 409
    assert (await cloud.call("GET", "/flavors/f-1")).status_code == 200
    listed = (await cloud.call("GET", "/flavors")).json()["flavors"]
    assert [one["id"] for one in listed] == ["1", "2", "3", "42", "f-1"]
    taken = {"removeTenantAccess": {"tenant": cloud.project_id}}
    assert (await cloud.call("POST", "/flavors/f-1/action", json=taken, token=cloud.admin)).status_code == 200
    assert (await cloud.call("GET", "/flavors/f-1")).status_code == 404


# Keypairs.


async def test_keypairs_belong_to_users(cloud: ComputeCloud) -> None:
    body = {"keypair": {"name": "k", "public_key": KEY}}
    made = await cloud.call("POST", "/os-keypairs", json=body)
    assert (made.status_code, made.json()["keypair"]["type"]) == (201, "ssh")
    assert (await cloud.call("POST", "/os-keypairs", json=body)).status_code == 409
    assert (await cloud.call("GET", "/os-keypairs/k", token=cloud.admin)).status_code == 404
    user_id = made.json()["keypair"]["user_id"]
    assert (await cloud.call("GET", f"/os-keypairs/k?user_id={user_id}", token=cloud.admin)).status_code == 200
    assert (await cloud.call("GET", "/os-keypairs?user_id=someone")).status_code == 403
    bad = {"keypair": {"name": "bad", "public_key": "ssh-rsa AAAA"}}
    assert (await cloud.call("POST", "/os-keypairs", json=bad)).status_code == 400
    pages = await cloud.call("GET", "/os-keypairs?limit=1")
    assert pages.json()["keypairs_links"][0]["href"].endswith("/os-keypairs?limit=1&marker=k")
    await cloud.write(quota.set_limits, cloud.project_id, "compute", {"key_pairs": 1})
    full = await cloud.call("POST", "/os-keypairs", json={"keypair": {"name": "k2", "public_key": KEY}})
    assert (full.status_code, full.json()["forbidden"]["message"]) == (403, "Quota exceeded, too many key pairs.")
    assert (await cloud.call("DELETE", "/os-keypairs/k")).status_code == 204
    assert (await cloud.call("POST", "/os-keypairs", json=body["keypair"], version="2.1")).status_code == 400


async def test_a_pair_that_is_made_here_is_told_once(cloud: ComputeCloud) -> None:
    made = (await cloud.call("POST", "/os-keypairs", json={"keypair": {"name": "k"}}, version="2.1")).json()["keypair"]
    assert made["private_key"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert "private_key" not in (await cloud.call("GET", "/os-keypairs/k")).json()["keypair"]


async def test_a_certificate_that_is_made_here_is_of_the_key_and_the_user(cloud: ComputeCloud) -> None:
    body = {"keypair": {"name": "w", "type": "x509"}}
    made = (await cloud.call("POST", "/os-keypairs", json=body)).json()["keypair"]
    certificate = x509.load_pem_x509_certificate(made["public_key"].encode())
    private: Any = serialization.load_pem_private_key(made["private_key"].encode(), None)
    assert private.public_key() == certificate.public_key()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (principal,) = names.get_values_for_type(x509.OtherName)
    assert principal.value.endswith(f"{made['user_id']}@localhost".encode())
    again = {"keypair": {"name": "w2", "type": "x509", "public_key": made["public_key"]}}
    imported = (await cloud.call("POST", "/os-keypairs", json=again)).json()["keypair"]
    assert imported["fingerprint"] == made["fingerprint"]


# Quotas and limits.


async def test_limits_quota_and_usage_agree(cloud: ComputeCloud) -> None:
    await stored(cloud, 1)
    change = {"quota_set": {"instances": 5, "cores": -1}}
    assert (await cloud.call("PUT", f"/os-quota-sets/{cloud.project_id}", json=change)).status_code == 403
    put = await cloud.call("PUT", f"/os-quota-sets/{cloud.project_id}", json=change, token=cloud.admin)
    assert (put.json()["quota_set"]["instances"], put.json()["quota_set"]["cores"]) == (5, -1)
    absolute = (await cloud.call("GET", "/limits")).json()["limits"]["absolute"]
    assert (absolute["maxTotalInstances"], absolute["totalInstancesUsed"], absolute["totalRAMUsed"]) == (5, 1, 128)
    told = (await cloud.call("GET", f"/os-quota-sets/{cloud.project_id}/detail")).json()["quota_set"]
    assert told["instances"] == {"limit": 5, "in_use": 1, "reserved": 0}
    below = {"quota_set": {"instances": 0}}
    path = f"/os-quota-sets/{cloud.project_id}"
    assert (await cloud.call("PUT", path, json=below, token=cloud.admin)).status_code == 400
    forced = {"quota_set": {"instances": 0, "force": True}}
    assert (await cloud.call("PUT", path, json=forced, token=cloud.admin)).status_code == 200
    assert (await cloud.call("DELETE", path, token=cloud.admin)).status_code == 202
    assert (await cloud.call("GET", path)).json()["quota_set"]["instances"] == 100
    assert (await cloud.call("GET", f"{path}x")).status_code == 403


async def test_racing_requests_pass_no_quota(tmp_path: Path, database: AnyDatabase) -> None:
    async with compute_cloud(tmp_path, database=database, runs=False) as cloud:
        await cloud.write(quota.set_limits, cloud.project_id, "compute", {"instances": 3})
        body = {"server": {**BODY, "networks": "none"}}
        replies = await asyncio.gather(*(cloud.call("POST", "/servers", json=body) for _ in range(16)))
        assert sorted(reply.status_code for reply in replies) == [202] * 3 + [403] * 13
        assert len((await cloud.call("GET", "/servers")).json()["servers"]) == 3


# Hosts.


async def test_hypervisors_are_hosts_with_what_is_promised_of_them(cloud: ComputeCloud) -> None:
    def _claim(tx: Tx) -> None:
        claim.claim(tx, rows.a_wish(memory_mib=1024, vcpus=2), ("h1",), cloud.api.cloud.settings.scheduler, 1.0)

    await cloud.write(_claim)
    await stored(cloud, 1)
    assert (await cloud.call("GET", "/os-hypervisors")).status_code == 403
    shown = (await cloud.call("GET", "/os-hypervisors/detail?with_servers=true", token=cloud.admin)).json()
    (one,) = shown["hypervisors"]
    assert (one["hypervisor_hostname"], one["state"], one["vcpus_used"], one["memory_mb_used"]) == (
        "name-h1",
        "up",
        2,
        1024,
    )
    assert one["servers"][0]["name"] == "s1"
    again = await cloud.call("GET", f"/os-hypervisors/{one['id']}", token=cloud.admin)
    assert again.json()["hypervisor"]["service"]["host"] == "name-h1"
    older = (await cloud.call("GET", "/os-hypervisors", token=cloud.admin, version="2.52")).json()["hypervisors"][0]
    assert isinstance(older["id"], int)
    by_number = await cloud.call("GET", f"/os-hypervisors/{older['id']}", token=cloud.admin, version="2.52")
    assert by_number.json()["hypervisor"]["hypervisor_hostname"] == "name-h1"
    uptime = await cloud.call("GET", f"/os-hypervisors/{one['id']}/uptime", token=cloud.admin)
    assert uptime.json()["hypervisor"]["uptime"] == ""  # Nobody has heard it yet.
    assert (await cloud.call("GET", "/os-aggregates", token=cloud.admin)).json() == {"aggregates": []}
    sums = (await cloud.call("GET", "/os-hypervisors/statistics", token=cloud.admin)).json()
    assert (sums["hypervisor_statistics"]["count"], sums["hypervisor_statistics"]["running_vms"]) == (1, 1)


async def test_services_turn_down_and_can_be_disabled(cloud: ComputeCloud) -> None:
    async def compute() -> dict[str, Any]:
        reply = await cloud.call("GET", "/os-services?binary=nova-compute", token=cloud.admin)
        found: dict[str, Any] = reply.json()["services"][0]
        return found

    service = await compute()
    assert (service["state"], service["status"], service["zone"]) == ("up", "enabled", "nova")
    body = {"status": "disabled", "disabled_reason": "repair"}
    reply = await cloud.call("PUT", f"/os-services/{service['id']}", json=body, token=cloud.admin)
    assert reply.json()["service"]["disabled_reason"] == "repair"
    await cloud.write(fleet.set_up, "h1", False, 2.0)
    assert ((await compute())["state"], (await compute())["status"]) == ("down", "disabled")
    older = {"host": "name-h1", "binary": "nova-compute"}
    enabled = await cloud.call("PUT", "/os-services/enable", json=older, token=cloud.admin, version="2.52")
    assert enabled.json() == {"service": {**older, "status": "enabled"}}
    zones = (await cloud.call("GET", "/os-availability-zone")).json()["availabilityZoneInfo"]
    assert zones == [{"zoneName": "nova", "zoneState": {"available": True}, "hosts": None}]
