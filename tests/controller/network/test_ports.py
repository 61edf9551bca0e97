"""Ports through the API: addresses, groups, pairs, bindings, and who may choose them."""

from typing import Any

import pytest

from tests.controller.network.cloud import DEMO, OTHER, Api, a_cloud, a_network
from tests.controller.network.test_wiring import HOST, a_running_guest


@pytest.fixture
def api() -> Api:
    return Api(a_cloud())


def addresses(port: dict[str, Any]) -> list[str]:
    return [fixed["ip_address"] for fixed in port["fixed_ips"]]


async def a_dual_network(api: Api) -> tuple[str, str, str]:
    """(network, IPv4 subnet, IPv6 subnet) ids."""
    network, four = await a_network(api)
    six = await api.make(
        "subnets", network_id=network["id"], ip_version=6, cidr="2001:db8::/64", ipv6_address_mode="dhcpv6-stateful"
    )
    return network["id"], four["id"], six["id"]


async def test_addresses_are_absent_empty_or_chosen(api: Api) -> None:
    network_id, four, six = await a_dual_network(api)
    absent = await api.make("ports", network_id=network_id)
    null = await api.make("ports", network_id=network_id, fixed_ips=None)
    none = await api.make("ports", network_id=network_id, fixed_ips=[])
    by_subnet = await api.make("ports", network_id=network_id, fixed_ips=[{"subnet_id": six}])
    by_address = await api.make("ports", network_id=network_id, fixed_ips=[{"ip_address": "10.0.0.77"}])
    two = await api.make("ports", network_id=network_id, fixed_ips=[{"subnet_id": four}, {"subnet_id": four}])
    assert [len(addresses(one)) for one in (absent, null, none, by_subnet, by_address, two)] == [2, 2, 0, 1, 1, 2]
    assert ":" in addresses(by_subnet)[0]
    assert by_address["fixed_ips"] == [{"subnet_id": four, "ip_address": "10.0.0.77"}]


@pytest.mark.parametrize(
    ("fixed_ips", "status", "kind"),
    [
        ([{"ip_address": "10.7.7.7"}], 400, "InvalidIpForNetwork"),
        ([{"ip_address": "10.0.0.0"}], 400, "InvalidIpForSubnet"),
        ([{"ip_address": "10.0.0.255"}], 400, "InvalidIpForSubnet"),
        ([{"ip_address": "10.0.0.2"}], 409, "IpAddressAlreadyAllocated"),
        ([{"ip_address": "10.0.0.1"}], 201, ""),
        ([{"ip_address": "nonsense"}], 400, "HTTPBadRequest"),
        ([{"ip_address": "10.0.0.9"}, {"ip_address": "10.0.0.9"}], 400, "HTTPBadRequest"),
        ([{"subnet_id": "nowhere"}], 400, "InvalidInput"),
        ([{}], 400, "InvalidInput"),
        ([{"address": "10.0.0.9"}], 400, "HTTPBadRequest"),
        ("10.0.0.9", 400, "HTTPBadRequest"),
    ],
)
async def test_addresses_must_be_of_the_network_and_free(api: Api, fixed_ips: Any, status: int, kind: str) -> None:
    network, _ = await a_network(api)
    answer = await api("POST", "/ports", {"port": {"network_id": network["id"], "fixed_ips": fixed_ips}})
    assert answer.status == status, answer.body
    assert not kind or answer.kind == kind


async def test_slaac_addresses_cannot_be_chosen(api: Api) -> None:
    network = await api.make("networks")
    subnet = await api.make(
        "subnets", network_id=network["id"], ip_version=6, cidr="2001:db8::/64", ipv6_address_mode="slaac"
    )
    made = await api.make("ports", network_id=network["id"], mac_address="fa:16:3e:01:02:03")
    assert addresses(made) == ["2001:db8::f816:3eff:fe01:203"]
    fixed = [{"subnet_id": subnet["id"], "ip_address": "2001:db8::77"}]
    answer = await api("POST", "/ports", {"port": {"network_id": network["id"], "fixed_ips": fixed}})
    assert answer.status == 400


async def test_automatic_addresses_come_with_chosen_ones(api: Api) -> None:
    network, four = await a_network(api)
    six = {"network_id": network["id"], "ip_version": 6, "cidr": "2001:db8::/64", "ipv6_address_mode": "slaac"}
    subnet = await api.make("subnets", **six)
    mac = {"network_id": network["id"], "mac_address": "fa:16:3e:01:02:03"}
    for wanted in ([{"ip_address": "10.0.0.77"}], [{"ip_address": "10.0.0.77"}, {"subnet_id": subnet["id"]}]):
        port = await api.make("ports", **mac, fixed_ips=wanted)
        assert sorted(addresses(port)) == ["10.0.0.77", "2001:db8::f816:3eff:fe01:203"]
        changed = (await api.change(f"/ports/{port['id']}", {"fixed_ips": [{"subnet_id": four["id"]}]})).body["port"]
        assert sorted(addresses(changed)) == sorted(addresses(port))
        moved = (await api.change(f"/ports/{port['id']}", {"fixed_ips": [{"ip_address": "10.0.0.78"}]})).body["port"]
        assert sorted(addresses(moved)) == ["10.0.0.78", "2001:db8::f816:3eff:fe01:203"]
        assert (await api("DELETE", f"/ports/{port['id']}")).status == 204


async def test_changed_addresses_keep_what_is_kept(api: Api) -> None:
    network_id, four, six = await a_dual_network(api)
    port = await api.make("ports", network_id=network_id)
    old = {fixed["subnet_id"]: fixed["ip_address"] for fixed in port["fixed_ips"]}
    wanted = [{"subnet_id": four}, {"ip_address": "10.0.0.99"}]
    changed = (await api.change(f"/ports/{port['id']}", {"fixed_ips": wanted})).body["port"]
    assert sorted(addresses(changed)) == sorted([old[four], "10.0.0.99"])
    again = await api.make("ports", network_id=network_id, fixed_ips=[{"ip_address": old[six]}])
    assert addresses(again) == [old[six]]
    emptied = (await api.change(f"/ports/{port['id']}", {"fixed_ips": []})).body["port"]
    assert addresses(emptied) == []


async def test_a_mac_is_ours_or_the_network_owners(api: Api) -> None:
    network, _ = await a_network(api)
    made = await api.make("ports", network_id=network["id"], mac_address="FA-16-3E-AA-BB-CC")
    assert made["mac_address"] == "fa:16:3e:aa:bb:cc"
    body = {"port": {"network_id": network["id"], "mac_address": "fa:16:3e:aa:bb:cc"}}
    assert (await api("POST", "/ports", body)).kind == "MacAddressInUse"
    assert (await api.change(f"/ports/{made['id']}", {"mac_address": "fa:16:3e:aa:bb:cd"})).status == 403
    admin = api.as_("admin")
    changed = await admin.change(f"/ports/{made['id']}", {"mac_address": "fa:16:3e:aa:bb:cd"})
    assert changed.body["port"]["mac_address"] == "fa:16:3e:aa:bb:cd"


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({}, 201),
        ({"fixed_ips": [{"subnet_id": "…"}]}, 201),
        ({"fixed_ips": [{"ip_address": "10.0.0.50"}]}, 403),
        ({"mac_address": "fa:16:3e:aa:bb:cc"}, 403),
        ({"port_security_enabled": False}, 403),
        ({"allowed_address_pairs": [{"ip_address": "10.0.0.9"}]}, 403),
        ({"device_owner": "network:dhcp"}, 403),
        ({"device_owner": "baremetal:none", "device_id": "node"}, 201),
    ],
)
async def test_on_others_shared_networks_one_takes_what_one_gets(
    api: Api, attributes: dict[str, Any], status: int
) -> None:
    network, subnet = await a_network(api.as_("admin"), shared=True)
    if attributes.get("fixed_ips") == [{"subnet_id": "…"}]:
        attributes = {"fixed_ips": [{"subnet_id": subnet["id"]}]}
    answer = await api("POST", "/ports", {"port": {"network_id": network["id"], **attributes}})
    assert answer.status == status, answer.body


async def test_bindings_are_for_administrators(api: Api) -> None:
    network, _ = await a_network(api)
    for key, value in (("binding:host_id", "host"), ("binding:profile", {"a": 1})):
        answer = await api("POST", "/ports", {"port": {"network_id": network["id"], key: value}})
        assert (answer.status, answer.kind) == (403, "PolicyNotAuthorized")
    port = await api.make("ports", network_id=network["id"], binding__vnic_type="normal")
    assert {key for key in port if key.startswith("binding:")} == {"binding:vnic_type"}
    shown = await api.as_("admin").get(f"/ports/{port['id']}")
    assert (shown["binding:host_id"], shown["binding:vif_type"]) == ("", "unbound")
    unknown = await api.as_("admin").change(f"/ports/{port['id']}", {"binding:host_id": "nowhere"})
    assert unknown.status == 400
    direct = await api("POST", "/ports", {"port": {"network_id": network["id"], "binding:vnic_type": "direct"}})
    assert direct.status == 400


async def test_groups_are_absent_empty_or_chosen(api: Api) -> None:
    network, _ = await a_network(api)
    absent = await api.make("ports", network_id=network["id"])
    none = await api.make("ports", network_id=network["id"], security_groups=[])
    (default,) = await api.get("/security-groups")
    assert (absent["security_groups"], none["security_groups"]) == ([default["id"]], [])
    web = await api.make("security-groups", name="web")
    chosen = await api.make("ports", network_id=network["id"], security_groups=[web["id"]])
    assert chosen["security_groups"] == [web["id"]]
    assert [one["id"] for one in await api.get(f"/ports?security_groups={web['id']}")] == [chosen["id"]]
    foreign = await api.as_("other").make("security-groups", name="theirs")
    body = {"port": {"network_id": network["id"], "security_groups": [foreign["id"]]}}
    assert (await api("POST", "/ports", body)).kind == "SecurityGroupNotFound"


async def test_groups_and_pairs_need_port_security(api: Api) -> None:
    network, _ = await a_network(api)
    insecure = {"network_id": network["id"], "port_security_enabled": False}
    made = await api.make("ports", **insecure)
    assert made["security_groups"] == []
    web = await api.make("security-groups", name="web")
    for extra, kind in (
        ({"security_groups": [web["id"]]}, "PortSecurityAndIPRequiredForSecurityGroups"),
        ({"allowed_address_pairs": [{"ip_address": "10.0.0.9"}]}, "AddressPairAndPortSecurityRequired"),
    ):
        answer = await api("POST", "/ports", {"port": {**insecure, **extra}})
        assert (answer.status, answer.kind) == (409, kind)
        assert (await api.change(f"/ports/{made['id']}", extra)).kind == kind
    secure = await api.make("ports", network_id=network["id"], allowed_address_pairs=[{"ip_address": "10.0.0.9"}])
    path = f"/ports/{secure['id']}"
    off = {"port_security_enabled": False}
    assert (await api.change(path, off)).kind == "PortSecurityPortHasSecurityGroup"
    assert (await api.change(path, {**off, "security_groups": []})).kind == "AddressPairAndPortSecurityRequired"
    assert (await api.change(path, {**off, "security_groups": [], "allowed_address_pairs": []})).status == 200


async def test_the_network_says_whether_ports_are_secure_by_default(api: Api) -> None:
    network, _ = await a_network(api, port_security_enabled=False)
    made = await api.make("ports", network_id=network["id"])
    assert (made["port_security_enabled"], made["security_groups"]) == (False, [])


@pytest.mark.parametrize(
    ("pairs", "status", "kind"),
    [
        ([{"ip_address": "10.0.0.0/24"}], 201, ""),
        ([{"ip_address": "2001:db8::7", "mac_address": "fa:16:3e:00:00:01"}], 201, ""),
        ([{"ip_address": "10.0.0.9"}, {"ip_address": "10.0.0.9"}], 400, "DuplicateAddressPairInRequest"),
        ([{"ip_address": f"10.0.0.{i}"} for i in range(20, 31)], 400, "AddressPairsExhausted"),
        ([{"ip_address": "10.0.0.9/24"}], 400, "HTTPBadRequest"),
        ([{"mac_address": "fa:16:3e:00:00:01"}], 400, "HTTPBadRequest"),
        ([{"ip_address": "10.0.0.9", "mac_address": "ff:ff:ff:ff:ff:ff"}], 400, "HTTPBadRequest"),
    ],
)
async def test_address_pairs_are_checked(api: Api, pairs: Any, status: int, kind: str) -> None:
    network, _ = await a_network(api)
    answer = await api("POST", "/ports", {"port": {"network_id": network["id"], "allowed_address_pairs": pairs}})
    assert answer.status == status, answer.body
    assert not kind or answer.kind == kind


async def test_a_port_has_a_group_once(api: Api) -> None:
    network, _ = await a_network(api)
    group = await api.make("security-groups", name="web")
    twice = {"security_groups": [group["id"], group["id"]]}
    assert (await api("POST", "/ports", {"port": {"network_id": network["id"], **twice}})).status == 400
    port = await api.make("ports", network_id=network["id"])
    assert (await api.change(f"/ports/{port['id']}", twice)).status == 400


async def test_nobody_makes_the_services_own_ports(api: Api) -> None:
    network, _ = await a_network(api)
    router = await api.make("routers")
    for owner in ("network:router_interface", "network:router_gateway", "network:distributed", "network:floatingip"):
        body = {"port": {"network_id": network["id"], "device_owner": owner, "device_id": router["id"]}}
        assert (await api("POST", "/ports", body)).status == 400
        assert (await api.as_("admin")("POST", "/ports", body)).status == 400
    port = await api.make("ports", network_id=network["id"])
    changed = await api.change(f"/ports/{port['id']}", {"device_owner": "network:router_interface"})
    assert changed.status == 400


async def test_filters_of_ports(api: Api) -> None:
    network, subnet = await a_network(api)
    one = await api.make("ports", network_id=network["id"], device_id="a", name="one")
    two = await api.make("ports", network_id=network["id"], device_id="b")
    first = addresses(one)[0]

    async def ids(query: str) -> set[str]:
        return {port["id"] for port in await api.get(f"/ports?{query}")}

    assert await ids("device_id=a&device_id=b") == {one["id"], two["id"]}
    assert await ids(f"fixed_ips=ip_address={first}") == {one["id"]}
    assert await ids(f"fixed_ips=ip_address%3D{first}&fixed_ips=subnet_id%3D{subnet['id']}") == {one["id"]}
    assert await ids("fixed_ips=ip_address=10.0.0.200") == set()
    assert await ids(f"mac_address={two['mac_address']}") == {two["id"]}
    assert await ids("device_owner=&device_id=a") == {one["id"]}
    assert await ids("status=DOWN") == {one["id"], two["id"]}
    assert len(await ids("binding:host_id=nowhere")) == 3  # Not a member's filter: dropped.
    assert await api.as_("admin").get("/ports?binding:host_id=nowhere") == []
    assert (await api("GET", "/ports?fixed_ips=10.0.0.1")).status == 400


async def test_the_owner_of_a_network_sees_and_removes_what_is_on_it(api: Api) -> None:
    network, _ = await a_network(api)
    theirs = await api.as_("admin").make("ports", network_id=network["id"], project_id=OTHER)
    assert (await api.get(f"/ports/{theirs['id']}"))["project_id"] == OTHER
    assert (await api.as_("other").get(f"/ports/{theirs['id']}"))["id"] == theirs["id"]
    assert (await api("DELETE", f"/ports/{theirs['id']}")).status == 204


async def test_a_foreign_port_is_not_there(api: Api) -> None:
    network, _ = await a_network(api)
    port = await api.make("ports", network_id=network["id"])
    other = api.as_("other")
    for method, body in (("GET", None), ("DELETE", None), ("PUT", {"port": {"name": "x"}})):
        answer = await other(method, f"/ports/{port['id']}", body)
        assert (answer.status, answer.kind) == (404, "PortNotFound")


async def test_a_servers_port_keeps_its_device_and_mac(api: Api) -> None:
    network, _ = await a_network(api)
    await a_running_guest(api.cloud, network["id"], "p1")
    admin = api.as_("admin")
    assert (await admin.get("/ports/p1"))["binding:host_id"] == HOST
    for change in ({"device_id": ""}, {"mac_address": "fa:16:3e:00:00:01"}, {"binding:host_id": ""}):
        answer = await admin.change("/ports/p1", change)
        assert (answer.status, answer.kind) == (409, "PortBound"), change
    assert (await api.change("/ports/p1", {"name": "mine", "device_id": "server-of-p1"})).status == 200


async def test_quota_of_ports_counts_those_of_the_service(api: Api) -> None:
    network, _ = await a_network(api)
    assert (await api.as_("admin")("PUT", f"/quotas/{DEMO}", {"quota": {"port": 2}})).status == 200
    assert (await api("POST", "/ports", {"port": {"network_id": network["id"]}})).status == 201
    over = await api("POST", "/ports", {"port": {"network_id": network["id"]}})
    assert (over.status, over.kind) == (409, "OverQuota")
