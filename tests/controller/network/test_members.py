"""Hosts are told of a group's members: all of them once, then just who came and went, everything in doubt."""

from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from agent.wire.group import AddressesDelta, AddressesSpec
from agent.wire.lifecycle import Generation
from agent.wire.specs import MESSAGE_BYTES_MAX, encode
from controller.cloud import Cloud
from controller.db.tables.network import ip_allocation, port, port_security_group, security_group
from controller.db.tx import Database, Tx
from controller.network import intent, wiring
from controller.network.store import members, ports
from tests.controller.network.cloud import DEMO, Api
from tests.controller.network.hosts import ListeningHosts
from tests.controller.network.test_forwarding import ONE, TWO, a_guest, a_pair, spread
from tests.controller.network.test_wiring import bind, hosts_of, settled
from tests.databases import AnyDatabase, race


async def default_group(cloud: Cloud) -> str:
    (found,) = await Api(cloud).get("/security-groups?name=default")
    return str(found["id"])


async def two_members(database: Database | None = None) -> tuple[Cloud, str, str]:
    """A guest of one group on each of two hosts that know of each other; the network's and the group's id."""
    cloud, network_id = await a_pair(database)
    await a_guest(cloud, network_id, "p1", ONE)
    await a_guest(cloud, network_id, "p2", TWO)
    await spread(cloud)
    await settled(cloud)
    return cloud, network_id, await default_group(cloud)


def known(cloud: Cloud, host_id: str, group_id: str) -> set[str]:
    return set(hosts_of(cloud).spec(host_id, "addresses", group_id).addresses)


async def addresses_of(cloud: Cloud, *port_ids: str) -> set[str]:
    found: set[str] = set()
    for port_id in port_ids:
        one = await cloud.db.read(ports.find, port_id)
        assert one is not None
        found |= {fixed.ip_address for fixed in one.fixed_ips}
    return found


async def members_said(cloud: Cloud) -> list[tuple[str, str]]:
    return [one for one in await spread(cloud) if one[0].startswith("addresses")]


class Deltas:
    """What goes to hosts about members, while they are told."""

    def __init__(self, hosts: ListeningHosts, patch: pytest.MonkeyPatch) -> None:
        self.said: list[Any] = []
        ensure = hosts.ensure

        async def listening(host_id: str, row: Any, spec: Any, deadline: float) -> Any:
            if row.noun == "addresses":
                self.said.append(spec)
            return await ensure(host_id, row, spec, deadline)

        patch.setattr(hosts, "ensure", listening)


async def test_a_new_member_is_told_as_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, network_id, group_id = await two_members()
    deltas = Deltas(hosts_of(cloud), monkeypatch)
    await a_guest(cloud, network_id, "p3", TWO)
    assert await members_said(cloud) == [("addresses.delta", group_id)]
    new = await addresses_of(cloud, "p3")
    assert [(type(one), set(one.changed), one.gone) for one in deltas.said] == [(AddressesDelta, new, ())] * 2
    for host_id in (ONE, TWO):
        assert known(cloud, host_id, group_id) == await addresses_of(cloud, "p1", "p2", "p3")
    assert await members_said(cloud) == [], "nobody is told twice"


async def test_a_member_that_goes_or_leaves_the_group_or_changes_its_address_is_told() -> None:
    cloud, network_id, group_id = await two_members()
    for number in (3, 4, 5):
        await a_guest(cloud, network_id, f"p{number}", TWO)
    await members_said(cloud)
    api = Api(cloud)
    assert (await api("DELETE", "/ports/p3")).status == 204
    assert (await api("PUT", "/ports/p4", {"port": {"security_groups": []}})).status == 200
    (subnet,) = await api.get(f"/subnets?network_id={network_id}")
    fixed = {"subnet_id": subnet["id"], "ip_address": str(subnet["cidr"]).replace(".0/24", ".200")}
    assert (await api("PUT", "/ports/p5", {"port": {"fixed_ips": [fixed]}})).status == 200
    assert set(await members_said(cloud)) == {("addresses.delta", group_id)}
    for host_id in (ONE, TWO):
        assert known(cloud, host_id, group_id) == await addresses_of(cloud, "p1", "p2", "p5")
    assert fixed["ip_address"] in known(cloud, ONE, group_id)


async def test_an_address_pair_is_a_member_while_any_port_of_the_group_may_use_it(database: AnyDatabase) -> None:
    cloud, _, group_id = await two_members(database)
    api = Api(cloud)
    for port_id in ("p1", "p2"):
        pairs = {"port": {"allowed_address_pairs": [{"ip_address": "10.9.0.0/28"}]}}
        assert (await api("PUT", f"/ports/{port_id}", pairs)).status == 200
    await members_said(cloud)
    assert known(cloud, ONE, group_id) == {*await addresses_of(cloud, "p1", "p2"), "10.9.0.0/28"}
    for port_id, is_left in (("p1", True), ("p2", False)):
        assert (await api("PUT", f"/ports/{port_id}", {"port": {"allowed_address_pairs": []}})).status == 200
        assert ("addresses.delta", group_id) in await members_said(cloud)
        assert ("10.9.0.0/28" in known(cloud, ONE, group_id)) is is_left


async def test_a_host_that_lacks_what_a_difference_is_of_gets_all_members() -> None:
    cloud, network_id, group_id = await two_members()
    held = hosts_of(cloud).spec(ONE, "addresses", group_id)
    hosts_of(cloud).objects[ONE, "addresses", group_id] = msgspec.structs.replace(
        held, generation=Generation(held.generation.epoch, 0), addresses=()
    )
    await a_guest(cloud, network_id, "p3", TWO)
    said = await members_said(cloud)
    assert said == [("addresses.delta", group_id), ("addresses.ensure", group_id)]
    assert known(cloud, ONE, group_id) == await addresses_of(cloud, "p1", "p2", "p3")


async def test_a_difference_that_was_overtaken_is_no_failure_and_brings_nothing_whole() -> None:
    cloud, network_id, group_id = await two_members()
    hosts = hosts_of(cloud)

    async def overtake() -> None:
        hosts.before_ensure = None
        await bind(cloud, network_id, "p4", host_id=TWO)
        await wiring.settle(cloud, ONE)

    await bind(cloud, network_id, "p3", host_id=TWO)
    hosts.before_ensure = overtake
    hosts.take()
    assert (await wiring.spread(cloud))["behind"] >= 1
    said = [(host_id, call) for host_id, call, _, _ in hosts.said if call.startswith("addresses") and host_id == ONE]
    assert said == [(ONE, "addresses.delta"), (ONE, "addresses.ensure"), (ONE, "addresses.delta")]
    assert known(cloud, ONE, group_id) == await addresses_of(cloud, "p1", "p2", "p3", "p4")


async def test_a_host_that_was_away_for_long_gets_all_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "KEPT", 4)
    cloud, network_id, group_id = await two_members()
    hosts_of(cloud).down.add(ONE)
    for number in range(3, 12):
        await a_guest(cloud, network_id, f"p{number}", TWO)
    await members_said(cloud)
    hosts_of(cloud).down.clear()
    assert await members_said(cloud) == [("addresses.ensure", group_id)]
    assert known(cloud, ONE, group_id) == await addresses_of(cloud, *(f"p{number}" for number in range(1, 12)))


async def test_a_default_group_that_came_back_is_nothing_of_the_old_one() -> None:
    """It has the id of the former one and counts anew: what hosts were told of that one must not be taken for it."""
    cloud, network_id, group_id = await two_members()
    api = Api(cloud, "admin")
    for port_id in ("p1", "p2"):
        assert (await Api(cloud)("PUT", f"/ports/{port_id}", {"port": {"security_groups": []}})).status == 200
    assert (await api("DELETE", f"/security-groups/{group_id}")).status == 204
    await a_guest(cloud, network_id, "p3", ONE)
    assert await default_group(cloud) == group_id
    for number in range(4, 9):
        await a_guest(cloud, network_id, f"p{number}", TWO)
        await spread(cloud)
        await settled(cloud)
        there = await addresses_of(cloud, *(f"p{other}" for other in range(3, number + 1)))
        assert known(cloud, ONE, group_id) == known(cloud, TWO, group_id) == there


async def test_one_more_of_twenty_thousand_members_is_a_short_message(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, network_id, group_id = await two_members()

    def grow(tx: Tx) -> None:
        """As ports come, but at once."""
        one = ports.find(tx, "p1")
        assert one is not None
        row = tx.execute(sa.select(port).where(port.c.id == "p1")).mappings().one()
        numbers = range(20_000)
        macs = [f"fa:16:3f:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}" for n in numbers]
        tx.execute(sa.insert(port), [{**row, "id": f"m{n}", "host_id": "", "mac_address": macs[n]} for n in numbers])
        subnet_id = one.fixed_ips[0].subnet_id
        fixed = {"subnet_id": subnet_id, "network_id": network_id}
        at = [{**fixed, "address": f"10.{100 + (n >> 8)}.{n & 255}.7", "number": n.to_bytes(16), "port_id": f"m{n}"}
              for n in numbers]  # fmt: skip
        tx.execute(sa.insert(ip_allocation), at)
        tx.execute(sa.insert(port_security_group), [{"port_id": f"m{n}", "group_id": group_id} for n in numbers])
        raised = {"members_generation": security_group.c.members_generation + 1}
        tx.execute(sa.update(security_group).where(security_group.c.id == group_id).values(raised))

    await cloud.db.write(grow)
    assert await members_said(cloud) == [("addresses.ensure", group_id)] * 2, "what nobody noted is told whole"
    whole = hosts_of(cloud).spec(ONE, "addresses", group_id)
    assert len(whole.addresses) == 20_002 and len(encode(whole)) > MESSAGE_BYTES_MAX
    deltas = Deltas(hosts_of(cloud), monkeypatch)
    api = Api(cloud)
    (subnet,) = await api.get(f"/subnets?network_id={network_id}")
    fixed = {"subnet_id": subnet["id"], "ip_address": str(subnet["cidr"]).replace(".0/24", ".200")}
    assert (await api.as_("admin")("PUT", f"/quotas/{DEMO}", {"quota": {"port": -1}})).status == 200
    await api.make("ports", network_id=network_id, fixed_ips=[fixed])
    await members_said(cloud)
    assert [(one.changed, len(encode(one)) < 300) for one in deltas.said] == [((fixed["ip_address"],), True)] * 2
    rendered = await cloud.db.read(intent.addresses_spec, group_id)
    assert isinstance(rendered, AddressesSpec) and set(rendered.addresses) == known(cloud, ONE, group_id)


async def test_many_who_come_and_go_at_once_are_told_exactly(database: AnyDatabase) -> None:
    cloud, network_id, group_id = await two_members(database)
    api = Api(cloud)
    old = [(await api.make("ports", network_id=network_id))["id"] for _ in range(8)]
    await members_said(cloud)

    async def act(number: int) -> int:
        if number < len(old):
            return (await api("DELETE", f"/ports/{old[number]}")).status
        return (await api("POST", "/ports", {"port": {"network_id": network_id}})).status

    assert sorted(map(str, await race(24, act))) == ["201"] * 16 + ["204"] * 8
    said = await members_said(cloud)
    assert set(said) == {("addresses.delta", group_id)}
    rendered = await cloud.db.read(intent.addresses_spec, group_id)
    assert rendered is not None and len(rendered.addresses) == 2 + 16
    assert known(cloud, ONE, group_id) == known(cloud, TWO, group_id) == set(rendered.addresses)


async def test_changes_of_a_group_go_with_it() -> None:
    cloud, network_id = await a_pair()
    api = Api(cloud)
    group = await api.make("security-groups", name="short-lived")
    made = await api.make("ports", network_id=network_id, security_groups=[group["id"]])
    assert await cloud.db.read(members.change, group["id"], 1, 2) is not None
    assert (await api("DELETE", f"/ports/{made['id']}")).status == 204
    assert (await api("DELETE", f"/security-groups/{group['id']}")).status == 204
    assert await cloud.db.read(members.change, group["id"], 1, 2) is None
