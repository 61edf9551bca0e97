"""What rows become on the wire and in a guest's network_data.json: golden values, so that a change shows in review."""

import json
from typing import Any

import msgspec
import pytest

from agent.wire.lifecycle import Generation
from controller.cloud import Cloud
from controller.errors import NotFound
from controller.network import guest, intent, ports
from controller.network.store import ports as port_store
from tests.controller.network.cloud import DEMO, Api, a_cloud, a_network, a_routed_port
from tests.controller.network.test_wiring import HOST


def plain(value: msgspec.Struct) -> Any:
    """As it travels."""
    return json.loads(msgspec.json.encode(value))


async def spec(cloud: Cloud, noun: str, object_id: str) -> Any:
    found = await cloud.db.read(intent.spec, HOST, (noun, object_id))
    assert found.generation == intent.UNSET
    return plain(found)


async def test_a_network_with_both_families() -> None:
    cloud = a_cloud()
    api = Api(cloud)
    network = await api.make("networks", mtu=1400)
    route = {"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}
    four = await api.make(
        "subnets",
        network_id=network["id"],
        ip_version=4,
        cidr="10.0.0.0/24",
        dns_nameservers=["9.9.9.9"],
        host_routes=[route],
    )
    modes = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}
    six = await api.make("subnets", network_id=network["id"], ip_version=6, cidr="2001:db8::/64", **modes)
    (own,) = await api.get("/ports")
    shown = await spec(cloud, "network", network["id"])
    assert shown == {
        "id": network["id"],
        "generation": [0, 0],
        "labels": {},
        "segment": 1,
        "mtu": 1400,
        "physical_network": None,
        "vlan": None,
        "dns_domain": "cloud.internal",
        "dhcp": {
            "port_id": own["id"],
            "mac": own["mac_address"],
            "addresses": [[four["id"], "10.0.0.2"], [six["id"], own["fixed_ips"][1]["ip_address"]]],
        },
        "subnets": [
            {
                "id": four["id"],
                "cidr": "10.0.0.0/24",
                "ip_version": 4,
                "gateway": "10.0.0.1",
                "dhcp": True,
                "dns_nameservers": ["9.9.9.9"],
                "host_routes": [["10.9.0.0/16", "10.0.0.9"]],
                "ipv6_ra_mode": None,
                "ipv6_address_mode": None,
            },
            {
                "id": six["id"],
                "cidr": "2001:db8::/64",
                "ip_version": 6,
                "gateway": "2001:db8::1",
                "dhcp": True,
                "dns_nameservers": [],
                "host_routes": [],
                "ipv6_ra_mode": "slaac",
                "ipv6_address_mode": "slaac",
            },
        ],
    }
    await api.change(f"/networks/{network['id']}", {"admin_state_up": False})
    assert not any(part["dhcp"] for part in (await spec(cloud, "network", network["id"]))["subnets"])


async def test_a_vlan_network_says_its_tag_and_a_flat_one_none() -> None:
    cloud = a_cloud()
    admin = Api(cloud, "admin")
    physical = {"provider__physical_network": "external"}
    flat = await admin.make("networks", provider__network_type="flat", **physical)
    vlan = await admin.make("networks", provider__network_type="vlan", provider__segmentation_id=12, **physical)
    for network, tag in ((flat, None), (vlan, 12)):
        shown = await spec(cloud, "network", network["id"])
        assert (shown["vlan"], shown["physical_network"], shown["dhcp"]) == (tag, "external", None)


async def test_a_router_with_gateway_route_and_floating_ip() -> None:
    cloud = a_cloud()
    api = Api(cloud)
    external, router, port = await a_routed_port(api)
    front = await api.make("floatingips", floating_network_id=external["id"], port_id=port["id"])
    await api.make("floatingips", floating_network_id=external["id"])
    await api.change(f"/routers/{router['id']}", {"routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}]})
    gateway, leg = [
        (await api.as_("admin").get(f"/ports?device_owner={owner}"))[0]
        for owner in ("network:router_gateway", "network:router_interface")
    ]
    assert await spec(cloud, "router", router["id"]) == {
        "id": router["id"],
        "generation": [0, 0],
        "labels": {},
        "legs": [
            {
                "port_id": leg["id"],
                "network_id": port["network_id"],
                "mac": leg["mac_address"],
                "addresses": ["10.0.0.1/24"],
            }
        ],
        "gateway": {
            "port_id": gateway["id"],
            "network_id": external["id"],
            "mac": gateway["mac_address"],
            "addresses": [f"{gateway['fixed_ips'][0]['ip_address']}/24"],
            "next_hops": ["203.0.113.1"],
            "snat": True,
        },
        "gateway_end": "",
        "floating": [
            {
                "id": front["id"],
                "address": front["floating_ip_address"],
                "fixed": port["fixed_ips"][0]["ip_address"],
            }
        ],
        "routes": [["10.9.0.0/16", "10.0.0.9"]],
        "is_up": True,
    }


async def test_a_stranger_who_writes_a_routers_id_into_a_port_changes_nothing() -> None:
    cloud = a_cloud()
    api = Api(cloud)
    _, router, _ = await a_routed_port(api)
    before = await spec(cloud, "router", router["id"])
    other = api.as_("other")
    network, _ = await a_network(other, cidr="10.66.0.0/24")
    await other.make("ports", network_id=network["id"], device_id=router["id"], device_owner="compute:nova")
    assert await spec(cloud, "router", router["id"]) == before


async def test_a_group_and_its_members() -> None:
    cloud = a_cloud()
    api = Api(cloud)
    network, _ = await a_network(api)
    group = await api.make("security-groups", name="web")
    values = {"direction": "ingress", "protocol": "icmp", "ethertype": "IPv6", "remote_ip_prefix": "2001:db8::1/32"}
    rule = await api.make("security-group-rules", security_group_id=group["id"], **values)
    pairs = [{"ip_address": "10.7.0.0/16"}]
    port = await api.make("ports", network_id=network["id"], security_groups=[group["id"]], allowed_address_pairs=pairs)
    shown = await spec(cloud, "group", group["id"])
    assert next(one for one in shown["rules"] if one["id"] == rule["id"]) == {
        "id": rule["id"],
        "direction": "ingress",
        "ethertype": "IPv6",
        "protocol": "ipv6-icmp",
        "port_min": None,
        "port_max": None,
        "remote_cidr": "2001:db8::/32",
        "remote_group": None,
    }
    members = await spec(cloud, "addresses", group["id"])
    assert members["addresses"] == sorted([port["fixed_ips"][0]["ip_address"], "10.7.0.0/16"])


async def a_bound_port(cloud: Cloud, network_id: str, *groups_wanted: str) -> None:
    await cloud.db.write(
        ports.bind_for_server,
        port_id="p1",
        created=True,
        network_id=network_id,
        fixed_ip=None,
        groups_wanted=list(groups_wanted),
        project_id=DEMO,
        server_id="server",
        hostname="web",
        host_id=HOST,
        zone="nova",
        now=1.0,
    )


async def test_a_group_that_was_deleted_before_the_port_is_made_has_a_sentence_of_its_own() -> None:
    cloud = a_cloud()
    network, _ = await a_network(Api(cloud))
    with pytest.raises(NotFound, match="Security group gone was deleted"):
        await a_bound_port(cloud, network["id"], "gone")


async def test_a_port_as_its_host_has_it() -> None:
    cloud = a_cloud()
    api = Api(cloud)
    network, subnet = await a_network(api)
    await a_bound_port(cloud, network["id"])
    found = await cloud.db.read(port_store.find, "p1")
    assert found is not None
    (default,) = await api.get("/security-groups")
    shown = intent.port_spec(found, epoch=3)
    assert shown.generation == Generation(3, found.generation)
    assert plain(shown) == {
        "id": "p1",
        "generation": [3, 1],
        "labels": {},
        "network_id": network["id"],
        "domain_id": "server",
        "mac": found.mac_address,
        "fixed_ips": [{"subnet_id": subnet["id"], "address": "10.0.0.3"}],
        "hostname": "web",
        "groups": [default["id"]],
        "port_security": True,
        "allowed_pairs": [],
        "is_up": True,
    }


async def test_network_data_of_a_guest() -> None:
    cloud = a_cloud()
    api = Api(cloud)
    network, four = await a_network(api)
    await api.change(f"/subnets/{four['id']}", {"dns_nameservers": ["9.9.9.9"]})
    static = {"enable_dhcp": False, "host_routes": [{"destination": "2001:db8:1::/48", "nexthop": "2001:db8::9"}]}
    await api.make("subnets", network_id=network["id"], ip_version=6, cidr="2001:db8::/64", **static)
    await a_bound_port(cloud, network["id"])
    found = await cloud.db.read(port_store.find, "p1")
    assert found is not None
    assert await cloud.db.read(guest.network_data, "server", {"p1"}) == {
        "links": [
            {"id": "tapp1", "vif_id": "p1", "type": "bridge", "mtu": 1450, "ethernet_mac_address": found.mac_address}
        ],
        "networks": [
            {"id": "network0", "link": "tapp1", "network_id": network["id"], "type": "ipv4_dhcp"},
            {
                "id": "network1",
                "link": "tapp1",
                "network_id": network["id"],
                "type": "ipv6",
                "ip_address": "2001:db8::2",
                "netmask": "ffff:ffff:ffff:ffff::",
                "routes": [
                    {"network": "2001:db8:1::", "netmask": "ffff:ffff:ffff::", "gateway": "2001:db8::9"},
                    {"network": "::", "netmask": "::", "gateway": "2001:db8::1"},
                ],
            },
        ],
        "services": [{"type": "dns", "address": "9.9.9.9"}],
    }
    assert (await cloud.db.read(guest.network_data, "server", set()))["links"] == []
