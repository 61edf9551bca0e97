"""Networks and subnets through the API: what is accepted, refused, shown, and to whom."""

from typing import Any

import pytest

from tests.controller.network.cloud import (
    DEMO,
    OTHER,
    Api,
    a_cloud,
    a_network,
    an_enrolled_host,
    an_external_network,
)


@pytest.fixture
def api() -> Api:
    return Api(a_cloud())


async def test_both_names_of_the_owner_come_in_and_go_out(api: Api) -> None:
    admin = api.as_("admin")
    for key in ("tenant_id", "project_id"):
        made = await admin.make("networks", **{key: OTHER})
        assert made["tenant_id"] == made["project_id"] == OTHER
    differing = await admin("POST", "/networks", {"network": {"tenant_id": OTHER, "project_id": DEMO}})
    assert differing.status == 400


async def test_members_cannot_make_objects_for_others(api: Api) -> None:
    answer = await api("POST", "/networks", {"network": {"tenant_id": OTHER}})
    assert answer.status == 400
    assert "admin" in answer.message
    assert (await api("POST", "/networks", {"network": {"tenant_id": DEMO}})).status == 201


async def test_an_administrator_without_project_names_the_owner(api: Api) -> None:
    system = api.as_("system")
    assert (await system("POST", "/networks", {"network": {}})).status == 400
    assert (await system.make("networks", project_id=DEMO))["project_id"] == DEMO


@pytest.mark.parametrize(
    "attributes",
    [
        {"shared": True},
        {"router:external": True},
        {"provider:network_type": "vxlan"},
        {"provider:physical_network": "external"},
        {"provider:segmentation_id": 7},
    ],
)
async def test_attributes_of_administrators_are_refused_to_members(api: Api, attributes: dict[str, Any]) -> None:
    answer = await api("POST", "/networks", {"network": attributes})
    assert (answer.status, answer.kind) == (403, "PolicyNotAuthorized")
    network, _ = await a_network(api, cidr=None)
    assert (await api.change(f"/networks/{network['id']}", attributes)).status == 403
    assert await api.get("/networks") == [await api.get(f"/networks/{network['id']}")]


async def test_defaults_of_those_attributes_are_not(api: Api) -> None:
    assert (await api("POST", "/networks", {"network": {"shared": False, "router:external": False}})).status == 201


async def test_readers_read_only(api: Api) -> None:
    network, _ = await a_network(api)
    viewer = api.as_("viewer")
    assert (await viewer.get(f"/networks/{network['id']}"))["id"] == network["id"]
    assert (await viewer("POST", "/networks", {"network": {}})).status == 403
    assert (await viewer("DELETE", f"/networks/{network['id']}")).status == 403


async def test_unknown_attributes_are_named(api: Api) -> None:
    answer = await api("POST", "/networks", {"network": {"colour": "red"}})
    assert answer.status == 400
    assert "Unrecognized attribute(s) 'colour'" in answer.message
    assert (await api("POST", "/networks", {"networks": []})).status == 400
    assert (await api("POST", "/networks", {"network": {}, "networks": [{}]})).status == 400
    assert (await api("POST", "/networks", {})).status == 400


async def test_bulk_is_all_or_nothing(api: Api) -> None:
    network, _ = await a_network(api)
    good = {"network_id": network["id"], "ip_version": 4, "cidr": "10.1.0.0/24"}
    bad = await api("POST", "/subnets", {"subnets": [good, {**good, "cidr": "10.1.0.128/25"}]})
    assert (bad.status, bad.kind) == (400, "InvalidInput")
    assert len(await api.get("/subnets")) == 1
    answer = await api("POST", "/subnets", {"subnets": [good, {**good, "cidr": "10.2.0.0/24"}]})
    assert answer.status == 201
    assert [one["cidr"] for one in answer.body["subnets"]] == ["10.1.0.0/24", "10.2.0.0/24"]
    assert len(await api.get("/subnets")) == 3


async def test_quota_counts_a_whole_bulk(api: Api) -> None:
    admin = api.as_("admin")
    assert (await admin("PUT", f"/quotas/{DEMO}", {"quota": {"network": 2}})).status == 200
    answer = await api("POST", "/networks", {"networks": [{}, {}, {}]})
    assert (answer.status, answer.kind) == (409, "OverQuota")
    assert await api.get("/networks") == []
    assert (await api("POST", "/networks", {"networks": [{}, {}]})).status == 201


async def test_a_foreign_network_is_not_there(api: Api) -> None:
    network, subnet = await a_network(api)
    other = api.as_("other")
    for path in (f"/networks/{network['id']}", f"/subnets/{subnet['id']}"):
        for method, body in (("GET", None), ("DELETE", None), ("PUT", {path.split("/")[1][:-1]: {"name": "x"}})):
            answer = await other(method, path, body)
            assert answer.status == 404, (method, path)
    kinds = {(await other("GET", f"/networks/{network['id']}")).kind, (await other("GET", "/subnets/x")).kind}
    assert kinds == {"NetworkNotFound", "SubnetNotFound"}
    assert await other.get("/networks") == []
    body = {"subnet": {"network_id": network["id"], "ip_version": 4, "cidr": "10.3.0.0/24"}}
    assert (await other("POST", "/subnets", body)).status == 404


async def test_a_shared_network_is_usable_but_not_editable(api: Api) -> None:
    shared, subnet = await a_network(api.as_("admin"), shared=True)
    assert (await api.get(f"/subnets/{subnet['id']}"))["id"] == subnet["id"]
    assert (await api.make("ports", network_id=shared["id"]))["fixed_ips"]
    assert (await api.change(f"/networks/{shared['id']}", {"name": "mine"})).status == 403
    body = {"subnet": {"network_id": shared["id"], "ip_version": 4, "cidr": "10.9.0.0/24"}}
    assert (await api("POST", "/subnets", body)).status == 403
    revoked = await api.as_("admin").change(f"/networks/{shared['id']}", {"shared": False})
    assert (revoked.status, revoked.kind) == (409, "InvalidSharedSetting")


async def test_subnets_of_the_external_network_are_the_operators(api: Api) -> None:
    external = await an_external_network(api)
    (subnet_id,) = (await api.get(f"/networks/{external['id']}"))["subnets"]
    assert (await api("GET", f"/subnets/{subnet_id}")).status == 404
    assert await api.get("/subnets") == []


async def test_segments_are_distinct_and_may_be_chosen_by_administrators(api: Api) -> None:
    admin = api.as_("admin")
    first = await admin.make("networks")
    chosen = await admin.make("networks", provider__network_type="vxlan", provider__segmentation_id=77)
    after = await admin.make("networks")
    assert [one["provider:segmentation_id"] for one in (first, chosen, after)] == [1, 77, 78]
    body = {"network": {"provider:network_type": "vxlan", "provider:segmentation_id": 77}}
    assert (await admin("POST", "/networks", body)).kind == "TunnelIdInUse"
    end = {"network": {"provider:network_type": "vxlan", "provider:segmentation_id": (1 << 24) - 1}}
    assert (await admin("POST", "/networks", end)).status == 201
    assert (await admin.make("networks"))["provider:segmentation_id"] == 2


@pytest.mark.parametrize(
    ("provider", "status", "kind"),
    [
        ({"network_type": "gre"}, 400, "InvalidInput"),
        ({"network_type": "flat"}, 400, "InvalidInput"),
        ({"physical_network": "external"}, 400, "InvalidInput"),
        ({"network_type": "flat", "physical_network": "external", "segmentation_id": 5}, 400, "InvalidInput"),
        ({"network_type": "flat", "physical_network": "external"}, 409, "FlatNetworkInUse"),
        ({"network_type": "vlan", "physical_network": "external", "segmentation_id": 4095}, 400, "InvalidInput"),
        ({"network_type": "vlan", "physical_network": "external", "segmentation_id": "12"}, 201, ""),
        ({"network_type": "vxlan", "physical_network": "external"}, 400, "InvalidInput"),
    ],
)
async def test_provider_attributes_must_fit_together(
    api: Api, provider: dict[str, Any], status: int, kind: str
) -> None:
    await an_external_network(api)
    body = {"network": {f"provider:{key}": value for key, value in provider.items()}}
    answer = await api.as_("admin")("POST", "/networks", body)
    assert answer.status == status, answer.body
    assert not kind or answer.kind == kind


async def test_physical_networks_are_those_that_hosts_are_plugged_into(api: Api) -> None:
    admin = api.as_("admin")

    async def status(name: str) -> int:
        provider = {"provider:network_type": "flat", "provider:physical_network": name}
        return (await admin("POST", "/networks", {"network": provider})).status

    assert await status("unheard") == 201  # As long as no host has said what it has, the operator's word is taken.
    await api.cloud.db.write(an_enrolled_host, "host-1", "node-1", ["external", "dmz"])
    assert [await status(name) for name in ("external", "dmz", "elsewhere")] == [201, 201, 400]
    network, _ = await a_network(api)
    port = await api.make("ports", network_id=network["id"])
    bound = await admin.change(f"/ports/{port['id']}", {"binding:host_id": "node-1"})
    assert (bound.body["port"]["binding:host_id"], bound.body["port"]["binding:vif_type"]) == ("node-1", "bridge")
    assert [one["id"] for one in await admin.get("/ports?binding:host_id=node-1")] == [port["id"]]
    freed = await admin.change(f"/ports/{port['id']}", {"binding:host_id": None})
    assert freed.body["port"]["binding:vif_type"] == "unbound"


async def test_mtu_is_what_fits_the_segment(api: Api) -> None:
    network, _ = await a_network(api, cidr=None)
    assert network["mtu"] == 1450
    assert (await api.change(f"/networks/{network['id']}", {"mtu": 1451})).status == 400
    assert (await api.change(f"/networks/{network['id']}", {"mtu": "1280"})).body["network"]["mtu"] == 1280


async def test_a_network_in_use_stays(api: Api) -> None:
    network, subnet = await a_network(api)
    port = await api.make("ports", network_id=network["id"])
    for path, kind in ((f"/networks/{network['id']}", "NetworkInUse"), (f"/subnets/{subnet['id']}", "SubnetInUse")):
        answer = await api("DELETE", path)
        assert (answer.status, answer.kind) == (409, kind)
    assert (await api("DELETE", f"/ports/{port['id']}")).status == 204
    assert (await api("DELETE", f"/subnets/{subnet['id']}")).status == 204
    assert await api.get("/ports") == []
    assert (await api("DELETE", f"/networks/{network['id']}")).status == 204
    assert (await api("DELETE", f"/networks/{network['id']}")).status == 404


async def test_revisions_rise_and_if_match_holds(api: Api) -> None:
    network, _ = await a_network(api, cidr=None)
    path = f"/networks/{network['id']}"
    first = (await api.change(path, {"name": "a"})).body["network"]
    assert first["revision_number"] > network["revision_number"]
    body = {"network": {"name": "b"}}
    stale = await api("PUT", path, body, If_Match=f"revision_number={network['revision_number']}")
    assert (stale.status, stale.kind) == (412, "RevisionNumberConstraintFailed")
    assert (await api("DELETE", path, If_Match="revision_number=999")).status == 412
    assert (await api("PUT", path, body, If_Match=f"revision_number={first['revision_number']}")).status == 200
    assert (await api("PUT", path, body, If_Match="W/something")).status == 400


async def test_times_are_neutrons(api: Api) -> None:
    network, _ = await a_network(api, cidr=None)
    assert network["created_at"] == network["updated_at"] == "2027-01-15T08:00:01Z"
    changed = (await api.change(f"/networks/{network['id']}", {"description": "x"})).body["network"]
    assert changed["updated_at"] > changed["created_at"]
    assert await api.get("/networks?changed_since=2027-01-15T08:00:02Z") == [changed]
    assert await api.get("/networks?changed_since=2027-01-15T09:00:00Z") == []
    assert (await api("GET", "/networks?changed_since=yesterday")).status == 400


# Lists.


async def test_filters_repeat_and_are_exact(api: Api) -> None:
    for name in ("a", "b", "a,b", "A"):
        await api.make("networks", name=name)
    names = [
        sorted(one["name"] for one in await api.get(path))
        for path in (
            "/networks?name=a",
            "/networks?name=a&name=b",
            "/networks?name=a,b",
            "/networks?shared=true",
            "/networks?admin_state_up=True&status=ACTIVE",
        )
    ]
    assert names == [["a"], ["a", "b"], ["a,b"], [], ["A", "a", "a,b", "b"]]
    assert (await api("GET", "/networks?colour=red")).status == 400
    assert (await api("GET", "/networks?shared=perhaps")).status == 400


async def test_fields_repeat_and_unknown_ones_are_passed_over(api: Api) -> None:
    network, _ = await a_network(api, cidr=None, name="a")
    assert await api.get("/networks?fields=id&fields=name&fields=colour") == [{"id": network["id"], "name": "a"}]
    assert await api.get(f"/networks/{network['id']}?fields=mtu") == {"mtu": 1450}


async def test_pages_go_both_ways_and_are_linked(api: Api) -> None:
    for name in "edcba":
        await api.make("networks", name=name)
    seen, path = [], "/networks?limit=2&sort_key=name&sort_dir=asc"
    for _ in range(3):
        body = (await api("GET", path)).body
        seen.append("".join(one["name"] for one in body["networks"]))
        links = {link["rel"]: link["href"] for link in body["networks_links"]}
        if "next" in links:
            path = links["next"].removeprefix("http://127.0.0.1:5000")
    assert seen == ["ab", "cd", "e"]
    assert "next" not in links
    back = (await api("GET", links["previous"].removeprefix("http://127.0.0.1:5000"))).body
    assert "".join(one["name"] for one in back["networks"]) == "cd"
    assert {link["rel"] for link in back["networks_links"]} == {"next", "previous"}
    assert "networks_links" not in (await api("GET", "/networks")).body
    assert (await api("GET", "/networks?marker=nobody&limit=1")).status == 404
    assert (await api("GET", "/networks?limit=-1")).status == 400


async def test_every_sort_key_works(api: Api) -> None:
    await a_network(api)
    for collection, keys in (("networks", "id name mtu created_at"), ("subnets", "cidr gateway_ip ip_version")):
        for key in keys.split():
            assert await api.get(f"/{collection}?sort_key={key}&sort_dir=desc&limit=1")
    assert (await api("GET", "/networks?sort_key=generation")).status == 400


async def test_administrators_see_all_and_may_ask_for_one_project(api: Api) -> None:
    mine, _ = await a_network(api, cidr=None)
    await a_network(api.as_("other"), cidr=None)
    admin = api.as_("admin")
    assert len(await admin.get("/networks")) == 2
    for key in ("tenant_id", "project_id"):
        assert [one["id"] for one in await admin.get(f"/networks?{key}={DEMO}")] == [mine["id"]]
    assert await api.get(f"/networks?tenant_id={OTHER}") == []


# Subnets.


async def a_subnet(api: Api, **values: Any) -> Any:
    network = await api.make("networks")
    return await api("POST", "/subnets", {"subnet": {"network_id": network["id"], "ip_version": 4, **values}})


@pytest.mark.parametrize(
    ("values", "status", "kind"),
    [
        ({"cidr": "10.0.0.1/24"}, 400, "HTTPBadRequest"),
        ({"cidr": "10.0.0.0/24", "ip_version": 6}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/24", "ip_version": 5}, 400, "HTTPBadRequest"),
        ({"cidr": "0.0.0.0/0"}, 400, "InvalidInput"),
        ({"cidr": "224.0.0.0/24"}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/31"}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/31", "enable_dhcp": False, "gateway_ip": None}, 201, ""),
        ({"cidr": None}, 400, "InvalidInput"),
        ({}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/24", "gateway_ip": "10.0.0.0"}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/24", "gateway_ip": "10.0.0.255"}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/24", "gateway_ip": "fe80::1"}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/24", "gateway_ip": "10.9.9.9"}, 201, ""),
        (
            {"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.0.1", "end": "10.0.0.9"}]},
            409,
            "GatewayConflictWithAllocationPools",
        ),
        (
            {"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.0.9", "end": "10.0.0.5"}]},
            400,
            "InvalidAllocationPool",
        ),
        (
            {"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.0.9", "end": "10.0.1.5"}]},
            400,
            "OutOfBoundsAllocationPool",
        ),
        (
            {
                "cidr": "10.0.0.0/24",
                "allocation_pools": [
                    {"start": "10.0.0.9", "end": "10.0.0.20"},
                    {"start": "10.0.0.20", "end": "10.0.0.30"},
                ],
            },
            409,
            "OverlappingAllocationPools",
        ),
        ({"cidr": "10.0.0.0/24", "dns_nameservers": ["9.9.9.9", "9.9.9.9"]}, 400, "HTTPBadRequest"),
        ({"cidr": "10.0.0.0/24", "dns_nameservers": [f"9.9.9.{i}" for i in range(6)]}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.0/24", "dns_nameservers": ["dns.example"]}, 400, "HTTPBadRequest"),
        ({"cidr": "10.0.0.0/24", "host_routes": [{"destination": "x", "nexthop": "10.0.0.3"}]}, 400, ""),
        ({"cidr": "10.0.0.0/24", "ipv6_ra_mode": "slaac"}, 400, "InvalidInput"),
        ({"cidr": "2001:db8::/64", "ip_version": 6, "ipv6_ra_mode": "magic"}, 400, "HTTPBadRequest"),
        (
            {
                "cidr": "2001:db8::/64",
                "ip_version": 6,
                "ipv6_ra_mode": "slaac",
                "ipv6_address_mode": "dhcpv6-stateful",
            },
            400,
            "InvalidInput",
        ),
        ({"cidr": "2001:db8::/80", "ip_version": 6, "ipv6_address_mode": "slaac"}, 400, "InvalidInput"),
        (
            {"cidr": "2001:db8::/64", "ip_version": 6, "ipv6_address_mode": "slaac", "enable_dhcp": False},
            400,
            "InvalidInput",
        ),
        ({"cidr": "2001:db8::/64", "ip_version": "6", "ipv6_address_mode": "slaac"}, 201, ""),
        ({"cidr": "10.0.0.0/24", "subnetpool_id": "x"}, 400, "HTTPBadRequest"),
    ],
)
async def test_a_subnet_must_make_sense(api: Api, values: dict[str, Any], status: int, kind: str) -> None:
    answer = await a_subnet(api, **values)
    assert answer.status == status, answer.body
    assert not kind or answer.kind == kind


async def test_a_gateway_is_absent_null_or_given(api: Api) -> None:
    absent = (await a_subnet(api, cidr="10.0.0.0/29")).body["subnet"]
    null = (await a_subnet(api, cidr="10.0.0.0/29", gateway_ip=None)).body["subnet"]
    given = (await a_subnet(api, cidr="10.0.0.0/29", gateway_ip="10.0.0.3")).body["subnet"]
    assert [one["gateway_ip"] for one in (absent, null, given)] == ["10.0.0.1", None, "10.0.0.3"]
    assert null["allocation_pools"] == [{"start": "10.0.0.1", "end": "10.0.0.6"}]
    assert given["allocation_pools"] == [
        {"start": "10.0.0.1", "end": "10.0.0.2"},
        {"start": "10.0.0.4", "end": "10.0.0.6"},
    ]


async def test_a_subnet_changes_what_it_may(api: Api) -> None:
    _, subnet = await a_network(api)
    path = f"/subnets/{subnet['id']}"
    assert (await api.change(path, {"cidr": "10.5.0.0/24"})).status == 400
    conflict = await api.change(path, {"gateway_ip": "10.0.0.77"})
    assert conflict.kind == "GatewayConflictWithAllocationPools"
    both = {"gateway_ip": "10.0.0.254", "allocation_pools": [{"start": "10.0.0.10", "end": "10.0.0.20"}]}
    changed = (await api.change(path, both)).body["subnet"]
    assert changed["gateway_ip"] == "10.0.0.254"
    assert changed["allocation_pools"] == both["allocation_pools"]
    routes = [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}]
    changed = (await api.change(path, {"host_routes": routes, "dns_nameservers": None, "name": "x"})).body["subnet"]
    assert (changed["host_routes"], changed["dns_nameservers"], changed["name"]) == (routes, [], "x")


async def test_the_dhcp_port_follows_the_subnets(api: Api) -> None:
    network, subnet = await a_network(api)
    six = {"network_id": network["id"], "ip_version": 6, "cidr": "2001:db8::/64", "ipv6_address_mode": "slaac"}
    await api.make("subnets", **six, ipv6_ra_mode="slaac")
    (own,) = await api.get("/ports?device_owner=network:distributed")
    assert len(own["fixed_ips"]) == 2
    assert own["project_id"] == DEMO
    await api.change(f"/subnets/{subnet['id']}", {"enable_dhcp": False})
    (again,) = await api.get("/ports?device_owner=network:distributed")
    assert again["id"] == own["id"]
    assert [fixed["ip_address"][:5] for fixed in again["fixed_ips"]] == ["2001:"]
    await api("DELETE", f"/subnets/{again['fixed_ips'][0]['subnet_id']}")
    assert await api.get("/ports") == []
    assert (await api("DELETE", f"/ports/{own['id']}")).status == 404


async def test_the_dhcp_port_is_not_the_users_to_delete(api: Api) -> None:
    await a_network(api)
    (own,) = await api.get("/ports")
    answer = await api("DELETE", f"/ports/{own['id']}")
    assert (answer.status, answer.kind) == (409, "ServicePortInUse")


async def test_ports_take_addresses_of_a_new_slaac_subnet(api: Api) -> None:
    network, _ = await a_network(api)
    port = await api.make("ports", network_id=network["id"])
    six = {"network_id": network["id"], "ip_version": 6, "cidr": "2001:db8::/64", "ipv6_address_mode": "slaac"}
    subnet = await api.make("subnets", **six)
    shown = await api.get(f"/ports/{port['id']}")
    assert len(shown["fixed_ips"]) == 2
    assert (await api("DELETE", f"/subnets/{subnet['id']}")).status == 204
    assert len((await api.get(f"/ports/{port['id']}"))["fixed_ips"]) == 1


async def test_ipv6_needs_its_smallest_packets(api: Api) -> None:
    small = await api.make("networks", mtu=1279)
    body = {"network_id": small["id"], "ip_version": 6, "cidr": "2001:db8::/64"}
    refused = await api("POST", "/subnets", {"subnet": body})
    assert (refused.status, refused.kind) == (409, "NetworkMTUSubnetConflict")
    assert (await api.change(f"/networks/{small['id']}", {"mtu": 1280})).status == 200
    assert (await api("POST", "/subnets", {"subnet": body})).status == 201
    smaller = await api.change(f"/networks/{small['id']}", {"mtu": 1279})
    assert (smaller.status, smaller.kind) == (409, "NetworkMTUSubnetConflict")


async def test_a_revision_before_the_first_is_another_revision(api: Api) -> None:
    made = await api.make("networks")
    body = {"network": {"name": "x"}}
    answer = await api("PUT", f"/networks/{made['id']}", body, If_Match="revision_number=-1")
    assert answer.status == 412
