"""Requests that meet: each ends as if they had come one after the other, and none as a failure of ours."""

from collections.abc import Awaitable, Callable

from controller.network.store import groups
from tests.controller.network.cloud import DEMO, Answer, Api, a_cloud, a_network, a_routed_port
from tests.databases import AnyDatabase, race


async def meet(*requests: Callable[[], Awaitable[Answer]]) -> list[Answer]:
    """All at once; what each was answered. An exception is a 500."""
    answers = await race(len(requests), lambda number: requests[number]())
    for answer in answers:
        assert isinstance(answer, Answer), answer
        assert answer.status < 500, answer.body
    return [answer for answer in answers if isinstance(answer, Answer)]


async def test_a_network_is_deleted_while_ports_are_made(database: AnyDatabase) -> None:
    api = Api(a_cloud(database))
    for _ in range(4):
        network, _ = await a_network(api)
        body = {"port": {"network_id": network["id"]}}
        answers = await meet(
            lambda body=body: api("POST", "/ports", body),  # type: ignore[misc]
            lambda path=f"/networks/{network['id']}": api("DELETE", path),  # type: ignore[misc]
            lambda body=body: api("POST", "/ports", body),  # type: ignore[misc]
        )
        made = [answer for answer in answers if answer.status == 201]
        deleted = [answer for answer in answers if answer.status == 204]
        assert not (made and deleted)
        assert made or deleted
        for answer in made:
            assert (await api("DELETE", f"/ports/{answer.body['port']['id']}")).status == 204


async def test_one_port_gets_one_of_several_floating_ips(database: AnyDatabase) -> None:
    api = Api(a_cloud(database))
    external, _, port = await a_routed_port(api)
    body = {"floatingip": {"floating_network_id": external["id"], "port_id": port["id"]}}
    answers = await meet(*[lambda: api("POST", "/floatingips", body)] * 8)
    assert sorted(answer.status for answer in answers) == [201, *[409] * 7]


async def test_a_router_gets_one_of_several_interfaces_on_a_subnet(database: AnyDatabase) -> None:
    api = Api(a_cloud(database))
    _, subnet = await a_network(api)
    router = await api.make("routers")
    path = f"/routers/{router['id']}/add_router_interface"
    answers = await meet(*[lambda: api("PUT", path, {"subnet_id": subnet["id"]})] * 6)
    assert sorted(answer.status for answer in answers) == [200, *[400] * 5]


async def test_quota_holds_against_everyone_at_once(database: AnyDatabase) -> None:
    api = Api(a_cloud(database))
    await api.as_("admin")("PUT", f"/quotas/{DEMO}", {"quota": {"network": 3}})
    answers = await meet(*[lambda: api("POST", "/networks", {"network": {}})] * 16)
    assert sorted(answer.status for answer in answers) == [*[201] * 3, *[409] * 13]
    assert len(await api.get("/networks")) == 3


async def test_a_first_touch_by_many_makes_one_default_group(database: AnyDatabase) -> None:
    api = Api(a_cloud(database))
    answers = await meet(*[lambda: api("GET", "/security-groups")] * 8)
    assert all(len(answer.body["security_groups"]) == 1 for answer in answers)
    assert await database.read(groups.has_default, DEMO)


async def test_the_same_rule_at_once_is_made_once(database: AnyDatabase) -> None:
    api = Api(a_cloud(database))
    group = await api.make("security-groups", name="web")
    rule = {"security_group_id": group["id"], "direction": "ingress", "protocol": "tcp"}
    answers = await meet(*[lambda: api("POST", "/security-group-rules", {"security_group_rule": rule})] * 6)
    assert sorted(answer.status for answer in answers) == [201, *[409] * 5]


async def test_overlapping_subnets_at_once_are_one(database: AnyDatabase) -> None:
    api = Api(a_cloud(database))
    network = await api.make("networks")
    body = {"subnet": {"network_id": network["id"], "ip_version": 4, "cidr": "10.0.0.0/24"}}
    answers = await meet(*[lambda: api("POST", "/subnets", body)] * 5)
    assert sorted(answer.status for answer in answers) == [201, *[400] * 4]
