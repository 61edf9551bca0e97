"""Routers and floating IPs through the API."""

import uuid
from typing import Any

import pytest

from tests.controller.network.cloud import OTHER, Api, a_cloud, a_network, a_routed_port, an_external_network


@pytest.fixture
def api() -> Api:
    return Api(a_cloud())


async def attach(api: Api, router: dict[str, Any], **body: Any) -> Any:
    return await api("PUT", f"/routers/{router['id']}/add_router_interface", body)


async def detach(api: Api, router: dict[str, Any], **body: Any) -> Any:
    return await api("PUT", f"/routers/{router['id']}/remove_router_interface", body)


async def test_an_interface_takes_the_gateways_address_and_gives_it_back(api: Api) -> None:
    _network, subnet = await a_network(api)
    router = await api.make("routers", name="r")
    answer = await attach(api, router, subnet_id=subnet["id"])
    assert answer.status == 200
    assert answer.body["subnet_ids"] == [subnet["id"]]
    assert answer.body["id"] == router["id"]
    leg = await api.get(f"/ports/{answer.body['port_id']}")
    assert (leg["device_owner"], leg["device_id"]) == ("network:router_interface", router["id"])
    assert leg["fixed_ips"] == [{"subnet_id": subnet["id"], "ip_address": "10.0.0.1"}]
    assert (await api("DELETE", f"/ports/{leg['id']}")).kind == "ServicePortInUse"
    assert (await api("DELETE", f"/routers/{router['id']}")).kind == "RouterInUse"
    assert (await api("DELETE", f"/subnets/{subnet['id']}")).kind == "SubnetInUse"
    twice = await attach(api, router, subnet_id=subnet["id"])
    assert (twice.status, twice.kind) == (400, "BadRequest")
    gone = await detach(api, router, subnet_id=subnet["id"])
    assert (gone.status, gone.body["port_id"]) == (200, leg["id"])
    assert (await api("GET", f"/ports/{leg['id']}")).status == 404
    assert (await detach(api, router, subnet_id=subnet["id"])).kind == "RouterInterfaceNotFoundForSubnet"
    assert (await api("DELETE", f"/routers/{router['id']}")).status == 204


async def test_a_port_can_become_an_interface(api: Api) -> None:
    network, _subnet = await a_network(api)
    router = await api.make("routers")
    port = await api.make("ports", network_id=network["id"], fixed_ips=[{"ip_address": "10.0.0.9"}])
    assert (await attach(api, router, port_id=port["id"])).status == 200
    leg = await api.get(f"/ports/{port['id']}")
    assert (leg["device_owner"], leg["status"], leg["security_groups"]) == ("network:router_interface", "ACTIVE", [])
    other = await api.make("routers")
    assert (await attach(api, other, port_id=port["id"])).kind == "PortInUse"
    assert (
        await detach(api, router, port_id=port["id"], subnet_id=str(uuid.UUID(int=1)))
    ).kind == "SubnetMismatchForPort"
    assert (await detach(api, other, port_id=port["id"])).kind == "RouterInterfaceNotFound"
    assert (await detach(api, router, port_id=port["id"])).status == 200


@pytest.mark.parametrize(
    "body", [{}, {"subnet_id": None}, {"subnet_id": str(uuid.UUID(int=1)), "port_id": str(uuid.UUID(int=2))}]
)
async def test_an_interface_is_named_once(api: Api, body: dict[str, Any]) -> None:
    router = await api.make("routers")
    answer = await attach(api, router, **body)
    assert (answer.status, answer.kind) == (400, "BadRequest")


async def test_subnets_of_a_router_do_not_overlap(api: Api) -> None:
    _, one = await a_network(api)
    _, same = await a_network(api)
    _, ungated = await a_network(api, cidr=None)
    router = await api.make("routers")
    assert (await attach(api, router, subnet_id=one["id"])).status == 200
    assert (await attach(api, router, subnet_id=same["id"])).kind == "BadRequest"
    network = await api.make("networks")
    values = {"network_id": network["id"], "ip_version": 4, "cidr": "10.4.0.0/24", "gateway_ip": None}
    subnet = await api.make("subnets", **values)
    answer = await attach(api, router, subnet_id=subnet["id"])
    assert "must have a gateway IP" in answer.message
    assert ungated == {}


async def test_others_subnets_and_routers_are_not_there(api: Api) -> None:
    _, subnet = await a_network(api)
    router = await api.make("routers")
    other = api.as_("other")
    assert (await attach(other, router, subnet_id=subnet["id"])).kind == "RouterNotFound"
    theirs = await other.make("routers")
    assert (await attach(other, theirs, subnet_id=subnet["id"])).kind == "SubnetNotFound"
    _, shared = await a_network(api.as_("admin"), shared=True)
    refused = await attach(other, theirs, subnet_id=shared["id"])
    assert (refused.status, refused.kind) == (400, "BadRequest")
    for method, body in (("GET", None), ("DELETE", None), ("PUT", {"router": {"name": "x"}})):
        assert (await other(method, f"/routers/{router['id']}", body)).status == 404


async def test_a_guest_port_on_ones_network_is_still_its_owners(api: Api) -> None:
    network, _ = await a_network(api)
    theirs = await api.as_("admin").make("ports", network_id=network["id"], project_id=OTHER)
    router = await api.make("routers")
    assert (await attach(api, router, port_id=theirs["id"])).kind == "BadRequest"


async def test_a_gateway_is_set_changed_and_cleared(api: Api) -> None:
    external = await an_external_network(api)
    router = await api.make("routers", external_gateway_info={"network_id": external["id"]})
    info = router["external_gateway_info"]
    assert info["enable_snat"] is True
    assert info["external_fixed_ips"][0]["ip_address"].startswith("203.0.113.")
    assert await api.get("/ports") == []  # The gateway's port is nobody's.
    admin = api.as_("admin")
    (leg,) = await admin.get("/ports?device_owner=network:router_gateway")
    assert (leg["tenant_id"], leg["project_id"], leg["device_id"]) == ("", "", router["id"])
    assert (await admin("DELETE", f"/ports/{leg['id']}")).kind == "ServicePortInUse"
    path = f"/routers/{router['id']}"
    same = await api.change(path, {"external_gateway_info": {"network_id": external["id"]}})
    assert same.body["router"]["external_gateway_info"] == info
    for cleared in ({}, None):
        answer = await api.change(path, {"external_gateway_info": cleared})
        assert answer.body["router"]["external_gateway_info"] is None
        await api.change(path, {"external_gateway_info": {"network_id": external["id"]}})
    assert (await api("DELETE", path)).status == 204
    assert await admin.get("/ports?device_owner=network:router_gateway") == []


async def test_snat_and_outer_addresses_are_the_administrators(api: Api) -> None:
    external = await an_external_network(api)
    router = await api.make("routers")
    path = f"/routers/{router['id']}"
    fixed = [{"ip_address": "203.0.113.77"}]
    for extra in ({"enable_snat": False}, {"external_fixed_ips": fixed}):
        info = {"network_id": external["id"], **extra}
        assert (await api.change(path, {"external_gateway_info": info})).status == 403
        assert (await api("POST", "/routers", {"router": {"external_gateway_info": info}})).status == 403
    info = {"network_id": external["id"], "enable_snat": False, "external_fixed_ips": fixed}
    answer = await api.as_("admin").change(path, {"external_gateway_info": info})
    shown = answer.body["router"]["external_gateway_info"]
    assert shown["enable_snat"] is False
    assert [one["ip_address"] for one in shown["external_fixed_ips"]] == ["203.0.113.77"]
    kept = await api.change(path, {"external_gateway_info": {"network_id": external["id"]}})
    assert kept.body["router"]["external_gateway_info"] == shown


async def test_a_gateway_is_on_an_external_network(api: Api) -> None:
    network, _ = await a_network(api)
    answer = await api("POST", "/routers", {"router": {"external_gateway_info": {"network_id": network["id"]}}})
    assert (answer.status, answer.kind) == (400, "BadRequest")
    nowhere = await api("POST", "/routers", {"router": {"external_gateway_info": {"network_id": "x"}}})
    assert (nowhere.status, nowhere.kind) == (404, "NetworkNotFound")
    assert await api.get("/routers") == []


async def test_routes_go_to_neighbours(api: Api) -> None:
    network, subnet = await a_network(api)
    router = await api.make("routers")
    await attach(api, router, subnet_id=subnet["id"])
    path = f"/routers/{router['id']}"
    good = {"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}
    assert (await api.change(path, {"routes": [good]})).body["router"]["routes"] == [good]
    for bad in ("10.7.0.1", "10.0.0.1", "x"):
        answer = await api.change(path, {"routes": [{"destination": "10.9.0.0/16", "nexthop": bad}]})
        assert answer.status == 400
    assert (await detach(api, router, subnet_id=subnet["id"])).kind == "RouterInterfaceInUseByRoute"
    more = {"destination": "10.8.0.0/16", "nexthop": "10.0.0.8"}
    added = await api("PUT", f"{path}/add_extraroutes", {"router": {"routes": [more, good]}})
    assert sorted(one["destination"] for one in added.body["router"]["routes"]) == ["10.8.0.0/16", "10.9.0.0/16"]
    removed = await api("PUT", f"{path}/remove_extraroutes", {"router": {"routes": [good]}})
    assert removed.body["router"]["routes"] == [more]
    many = [{"destination": f"10.{i}.0.0/16", "nexthop": "10.0.0.8"} for i in range(10, 41)]
    assert (await api.change(path, {"routes": many})).kind == "RoutesExhausted"
    assert (await api.change(path, {"routes": None})).body["router"]["routes"] == []
    assert network["id"]


async def test_routes_through_the_gateway_keep_it_but_not_the_router(api: Api) -> None:
    external = await an_external_network(api)
    router = await api.make("routers", external_gateway_info={"network_id": external["id"]})
    path = f"/routers/{router['id']}"
    await api.change(path, {"routes": [{"destination": "10.7.0.0/24", "nexthop": "203.0.113.9"}]})
    assert (await api.change(path, {"external_gateway_info": None})).kind == "RouterInterfaceInUseByRoute"
    assert (await api("DELETE", path)).status == 204


# Floating IPs.


async def a_front(api: Api, external: dict[str, Any], **values: Any) -> Any:
    return await api("POST", "/floatingips", {"floatingip": {"floating_network_id": external["id"], **values}})


async def test_a_floating_ip_goes_from_port_to_port(api: Api) -> None:
    external, router, port = await a_routed_port(api)
    made = (await a_front(api, external, description="mine")).body["floatingip"]
    assert (made["status"], made["port_id"], made["router_id"], made["description"]) == ("DOWN", None, None, "mine")
    path = f"/floatingips/{made['id']}"
    on = (await api.change(path, {"port_id": port["id"]})).body["floatingip"]
    assert (on["status"], on["fixed_ip_address"]) == ("ACTIVE", port["fixed_ips"][0]["ip_address"])
    second = await api.make("ports", network_id=port["network_id"])
    moved = (await api.change(path, {"port_id": second["id"]})).body["floatingip"]
    assert moved["port_id"] == second["id"]
    described = (await api.change(path, {"description": "x"})).body["floatingip"]
    assert described["port_id"] == second["id"]
    off = (await api.change(path, {"port_id": None})).body["floatingip"]
    assert (off["status"], off["port_id"], off["fixed_ip_address"], off["router_id"]) == ("DOWN", None, None, None)
    assert (await api("DELETE", path)).status == 204
    assert (await api("DELETE", path)).kind == "FloatingIPNotFound"
    assert await api.as_("admin").get("/ports?device_owner=network:floatingip") == []
    assert router["id"]


async def test_a_fixed_address_has_one_floating_ip(api: Api) -> None:
    external, _, port = await a_routed_port(api)
    assert (await a_front(api, external, port_id=port["id"])).status == 201
    answer = await a_front(api, external, port_id=port["id"])
    assert (answer.status, answer.kind) == (409, "FloatingIPPortAlreadyAssociated")
    assert len(await api.get("/floatingips")) == 1


async def test_a_port_of_several_addresses_needs_to_be_told_which(api: Api) -> None:
    external, _, port = await a_routed_port(api)
    wanted = [{"ip_address": "10.0.0.50"}, {"ip_address": "10.0.0.51"}]
    await api.change(f"/ports/{port['id']}", {"fixed_ips": wanted})
    assert (await a_front(api, external, port_id=port["id"])).status == 400
    assert (await a_front(api, external, port_id=port["id"], fixed_ip_address="10.0.0.52")).status == 400
    answer = await a_front(api, external, port_id=port["id"], fixed_ip_address="10.0.0.51")
    assert answer.body["floatingip"]["fixed_ip_address"] == "10.0.0.51"
    await api.change(f"/ports/{port['id']}", {"fixed_ips": wanted[:1]})
    assert (await api.get(f"/floatingips/{answer.body['floatingip']['id']}"))["status"] == "DOWN"


@pytest.mark.parametrize(
    ("values", "status", "kind"),
    [
        ({"floating_ip_address": "203.0.113.99"}, 403, "PolicyNotAuthorized"),
        ({"fixed_ip_address": "10.0.0.9"}, 400, "BadRequest"),
        ({"port_id": "nobody"}, 404, "PortNotFound"),
        ({"subnet_id": "nowhere"}, 400, "InvalidInput"),
        ({"colour": "red"}, 400, "HTTPBadRequest"),
    ],
)
async def test_a_floating_ip_must_make_sense(api: Api, values: dict[str, Any], status: int, kind: str) -> None:
    external = await an_external_network(api)
    answer = await a_front(api, external, **values)
    assert (answer.status, answer.kind) == (status, kind)
    assert await api.get("/floatingips") == []


async def test_administrators_choose_the_address(api: Api) -> None:
    external = await an_external_network(api)
    admin = api.as_("admin")
    answer = await a_front(admin, external, floating_ip_address="203.0.113.99")
    assert answer.body["floatingip"]["floating_ip_address"] == "203.0.113.99"
    assert (await a_front(admin, external, floating_ip_address="203.0.113.99")).status == 409


async def test_a_port_must_be_reachable_and_ones_own(api: Api) -> None:
    external = await an_external_network(api)
    network, _ = await a_network(api)
    port = await api.make("ports", network_id=network["id"])
    answer = await a_front(api, external, port_id=port["id"])
    assert (answer.status, answer.kind) == (404, "ExternalGatewayForFloatingIPNotFound")
    theirs = await api.as_("admin").make("ports", network_id=network["id"], project_id=OTHER)
    answer = await a_front(api, external, port_id=theirs["id"])
    assert (answer.status, answer.kind) == (400, "BadRequest")
    inner = await a_front(api, network)
    assert (inner.status, inner.kind) == (400, "BadRequest")


async def test_what_a_floating_ip_needs_stays(api: Api) -> None:
    external, router, port = await a_routed_port(api)
    made = (await a_front(api, external, port_id=port["id"])).body["floatingip"]
    (subnet,) = await api.get(f"/subnets?network_id={port['network_id']}")
    assert (await detach(api, router, subnet_id=subnet["id"])).kind == "RouterInterfaceInUseByFloatingIP"
    path = f"/routers/{router['id']}"
    cleared = await api.change(path, {"external_gateway_info": None})
    assert cleared.kind == "RouterExternalGatewayInUseByFloatingIp"
    admin = api.as_("admin")
    internal = await admin.change(f"/networks/{external['id']}", {"router:external": False})
    assert internal.kind == "ExternalNetworkInUse"
    assert (await admin("DELETE", f"/networks/{external['id']}")).kind == "NetworkInUse"
    (holder,) = await admin.get("/ports?device_owner=network:floatingip")
    assert (holder["status"], holder["tenant_id"], holder["device_id"]) == ("N/A", "", made["id"])
    assert (await admin("DELETE", f"/ports/{holder['id']}")).kind == "ServicePortInUse"


async def test_a_deleted_port_leaves_its_floating_ip_down(api: Api) -> None:
    external, _, port = await a_routed_port(api)
    made = (await a_front(api, external, port_id=port["id"])).body["floatingip"]
    assert (await api("DELETE", f"/ports/{port['id']}")).status == 204
    shown = await api.get(f"/floatingips/{made['id']}")
    assert (shown["status"], shown["port_id"], shown["router_id"]) == ("DOWN", None, None)


async def test_filters_of_floating_ips_and_routers(api: Api) -> None:
    external, router, port = await a_routed_port(api)
    one = (await a_front(api, external, port_id=port["id"])).body["floatingip"]
    await a_front(api, external)
    for query in (
        f"floating_ip_address={one['floating_ip_address']}",
        f"fixed_ip_address={one['fixed_ip_address']}",
        f"router_id={router['id']}",
        "status=ACTIVE",
    ):
        assert [found["id"] for found in await api.get(f"/floatingips?{query}")] == [one["id"]]
    assert len(await api.get(f"/floatingips?floating_network_id={external['id']}")) == 2
    assert len(await api.get("/routers?status=ACTIVE&admin_state_up=true")) == 1
    assert await api.as_("other").get("/floatingips") == []


async def test_an_external_network_goes_with_its_idle_floating_ips_and_stays_with_a_used_one(api: Api) -> None:
    external, router, port = await a_routed_port(api)
    made = (await a_front(api, external, port_id=port["id"])).body["floatingip"]
    await a_front(api, external)
    admin = api.as_("admin")
    assert (await admin("DELETE", f"/networks/{external['id']}")).kind == "NetworkInUse"
    assert len(await api.get("/floatingips")) == 2
    await api.change(f"/floatingips/{made['id']}", {"port_id": None})
    assert (await api.change(f"/routers/{router['id']}", {"external_gateway_info": {}})).status == 200
    assert (await admin("DELETE", f"/networks/{external['id']}")).status == 204
    assert await api.get("/floatingips") == []


async def test_an_interface_keeps_its_address_whoever_asks_again_for_any_of_the_subnet(api: Api) -> None:
    _, router, port = await a_routed_port(api)
    (leg,) = await api.get(f"/ports?device_id={router['id']}&network_id={port['network_id']}")
    same = await api.change(f"/ports/{leg['id']}", {"fixed_ips": [{"subnet_id": leg["fixed_ips"][0]["subnet_id"]}]})
    assert (same.status, same.body["port"]["fixed_ips"]) == (200, leg["fixed_ips"])
    other = await api.change(f"/ports/{leg['id']}", {"fixed_ips": [{"ip_address": "10.0.0.77"}]})
    assert other.status == 400
    assert (await api.get(f"/ports/{leg['id']}"))["fixed_ips"] == leg["fixed_ips"]


async def test_a_port_is_an_interface_once(api: Api) -> None:
    network, _ = await a_network(api)
    router, port = await api.make("routers"), await api.make("ports", network_id=network["id"])
    assert (await attach(api, router, port_id=port["id"])).status == 200
    again = await attach(api, router, port_id=port["id"])
    assert (again.status, again.kind) == (409, "PortInUse")
    assert (await attach(api, router, port_id="no-uuid")).status == 400


async def test_a_floating_ip_that_is_told_nothing_lets_go(api: Api) -> None:
    external, _, port = await a_routed_port(api)
    made = (await a_front(api, external, port_id=port["id"])).body["floatingip"]
    blank = await api.change(f"/floatingips/{made['id']}", {})
    assert (blank.status, blank.body["floatingip"]["port_id"]) == (200, None)
