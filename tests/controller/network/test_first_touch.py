"""The way that a new cloud is furnished, as its operator's tool and the usual clients go it."""

from tests.controller.network.cloud import Api, a_cloud, a_network, a_routed_port, an_external_network


async def test_a_server_can_be_reached_by_floating_ip_after_the_usual_steps() -> None:
    api = Api(a_cloud())
    external, router, port = await a_routed_port(api)
    made = await api.make("floatingips", floating_network_id=external["id"], port_id=port["id"])
    assert made["status"] == "ACTIVE"
    assert made["router_id"] == router["id"]
    assert made["fixed_ip_address"] == port["fixed_ips"][0]["ip_address"]
    assert made["floating_ip_address"].startswith("203.0.113.")
    assert (await api.get(f"/floatingips?port_id={port['id']}"))[0]["id"] == made["id"]


async def test_version_documents_need_no_token() -> None:
    api = Api(a_cloud(), "nobody")
    versions = await api.get("/network/")
    assert versions[0]["links"][0]["href"] == "http://127.0.0.1:5000/network/v2.0/"
    assert {row["collection"] for row in await api.get("/network/v2.0/")} >= {"networks", "ports", "security-groups"}
    assert (await api("GET", "/networks")).status == 401


async def test_default_group_has_four_rules_and_takes_more() -> None:
    api = Api(a_cloud())
    (group,) = await api.get("/security-groups?name=default")
    assert len(group["security_group_rules"]) == 4
    rule = {"direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
    made = await api.make("security-group-rules", security_group_id=group["id"], **rule)
    assert made["ethertype"] == "IPv4"
    again = await api(
        "POST", "/security-group-rules", {"security_group_rule": {**rule, "security_group_id": group["id"]}}
    )
    assert (again.status, again.kind) == (409, "SecurityGroupRuleExists")


async def test_a_network_with_dhcp_has_its_own_port() -> None:
    api = Api(a_cloud())
    network, subnet = await a_network(api)
    assert subnet["gateway_ip"] == "10.0.0.1"
    assert subnet["allocation_pools"] == [{"start": "10.0.0.2", "end": "10.0.0.254"}]
    (own,) = await api.get(f"/ports?network_id={network['id']}")
    assert own["device_owner"] == "network:distributed"
    assert own["fixed_ips"] == [{"subnet_id": subnet["id"], "ip_address": "10.0.0.2"}]
    assert (await api("DELETE", f"/networks/{network['id']}")).status == 204
    assert await api.get("/ports") == []


async def test_members_see_the_external_network_but_not_its_provider() -> None:
    api = Api(a_cloud())
    made = await an_external_network(api)
    assert made["provider:physical_network"] == "external"
    seen = await api.get(f"/networks/{made['id']}")
    assert seen["router:external"] is True
    assert not any(key.startswith("provider:") for key in seen)
