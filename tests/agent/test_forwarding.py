"""What a host is told of others' ports and members: whole, in parts if large, then by differences; gaps are healed."""

import pytest

from agent.nouns import Key, Noun
from agent.wire import forwarding, group, network
from agent.wire.errors import Conflict, FaultCode, Stale
from agent.wire.forwarding import ForwardingDelta, ForwardingSpec, Peer
from agent.wire.group import AddressesDelta, AddressesSpec
from agent.wire.lifecycle import Progress
from agent.wire.parts import HEADER, split
from agent.wire.specs import MESSAGE_BYTES_MAX, Absence, Reply, decode, encode
from tests.agent.rig import GROUP, NET, Rig, a_network, gen, members, simulated


def a_peer(number: int, end: str = "198.18.0.12") -> Peer:
    return Peer(port_id=f"port-{number}", mac=f"fa:16:3e:00:09:{number:02x}", addresses=(f"10.0.0.{number}",), end=end)


def whole(n: int, *numbers: int) -> ForwardingSpec:
    return ForwardingSpec(id=NET, generation=gen(n), peers=tuple(a_peer(number) for number in numbers))


def delta(n: int, base: int, *, changed: tuple[Peer, ...] = (), gone: tuple[str, ...] = ()) -> ForwardingDelta:
    return ForwardingDelta(id=NET, generation=gen(n), base=gen(base), changed=changed, gone=gone)


def many(n: int, count: int) -> ForwardingSpec:
    """As large networks have it: more than one message."""
    peers = tuple(
        Peer(
            port_id=f"00000000-0000-4000-8000-{number:012x}",
            mac=f"fa:16:3e:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
            addresses=(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", f"fd00::{number:x}"),
            end=f"198.18.{number % 250}.12",
        )
        for number in range(count)
    )
    return ForwardingSpec(id=NET, generation=gen(n), peers=peers)


async def a_host() -> Rig:
    rig = Rig()
    rig.start()
    await rig.ready()
    assert (await rig.call(network.ENSURE, a_network())).progress is Progress.READY
    assert (await rig.call(forwarding.ENSURE, whole(1, 7, 8))).progress is Progress.READY
    return rig


def test_a_difference_ends_where_the_whole_would_have() -> None:
    async def main() -> None:
        rig = await a_host()
        moved = a_peer(8, end="198.18.0.13")
        change = delta(2, 1, changed=(a_peer(5), moved), gone=("port-7",))
        for _ in range(2):  # A repeat does nothing.
            assert (await rig.call(forwarding.DELTA, change)).progress is Progress.READY
        expected = ForwardingSpec(id=NET, generation=gen(2), peers=(a_peer(5), moved))
        assert rig.net.tunnels[NET] == expected
        assert (await rig.call(forwarding.ENSURE, expected)).progress is Progress.READY

    simulated(main)


def test_a_gap_is_refused_and_the_whole_heals_it() -> None:
    async def main() -> None:
        rig = await a_host()
        with pytest.raises(Conflict, match=r"since 1\.2"):
            await rig.call(forwarding.DELTA, delta(3, 2, changed=(a_peer(5),)))
        assert rig.net.tunnels[NET] == whole(1, 7, 8)
        assert (await rig.call(forwarding.ENSURE, whole(4, 5, 7, 8))).progress is Progress.READY
        with pytest.raises(Stale):
            await rig.call(forwarding.DELTA, delta(3, 2, changed=(a_peer(6),)))
        assert rig.net.tunnels[NET] == whole(4, 5, 7, 8)

    simulated(main)


def test_a_difference_revives_nothing() -> None:
    async def main() -> None:
        rig = await a_host()
        await rig.until(forwarding.ABSENT, Absence(id=NET, generation=gen(2)), Progress.ABSENT)
        assert rig.net.tunnels == {}
        with pytest.raises(Conflict):
            await rig.call(forwarding.DELTA, delta(3, 2, changed=(a_peer(5),)))
        with pytest.raises(Stale):
            await rig.call(forwarding.DELTA, delta(1, 0, changed=(a_peer(5),)))
        assert rig.net.tunnels == {}

    simulated(main)


def test_a_restart_keeps_what_differences_made() -> None:
    async def main() -> None:
        rig = await a_host()
        await rig.call(forwarding.DELTA, delta(2, 1, changed=(a_peer(5),)))
        await rig.kill()
        rig.net.power_failure()
        rig.start()
        await rig.ready()
        await rig.until(network.ENSURE, a_network())
        assert rig.net.tunnels[NET] == whole(2, 5, 7, 8)

    simulated(main)


def test_five_thousand_peers_come_in_parts_and_are_one_state() -> None:
    async def main() -> None:
        rig = await a_host()
        spec = many(2, 5000)
        assert len(encode(spec)) > 2 * MESSAGE_BYTES_MAX
        before = rig.bus.carried
        assert (await rig.call(forwarding.ENSURE, spec)).progress is Progress.READY
        assert rig.net.tunnels[NET] == spec
        assert rig.bus.carried - before == -(-len(encode(spec)) // MESSAGE_BYTES_MAX)
        before = rig.bus.carried
        change = delta(3, 2, changed=(a_peer(5),), gone=(spec.peers[0].port_id,))
        assert (await rig.call(forwarding.DELTA, change)).progress is Progress.READY
        assert rig.bus.carried - before == 1
        assert len(rig.net.tunnels[NET].peers) == 5000

    simulated(main)


def test_an_agent_that_started_between_two_parts_wants_all_of_them_again() -> None:
    async def main() -> None:
        rig = await a_host()
        first, *_, last = split(encode(many(2, 5000)))
        subject = "hostler.v1.host.h1.forwarding.ensure"
        await rig.bus.request(subject, first.data, {HEADER: first.label}, 2.0)
        await rig.kill()
        rig.start()
        await rig.ready()
        answer = decode(await rig.bus.request(subject, last.data, {HEADER: last.label}, 2.0), Reply)
        assert answer.fault is not None and answer.fault.code is FaultCode.BUSY
        assert rig.net.tunnels[NET] == whole(1, 7, 8), "nothing of it was taken"
        assert (await rig.call(forwarding.ENSURE, many(2, 5000))).progress is Progress.READY

    simulated(main)


def test_members_of_a_group_follow_by_differences() -> None:
    async def main() -> None:
        rig = await a_host()
        await rig.call(group.ADDRESSES_ENSURE, members())
        for _ in range(2):
            one = AddressesDelta(id=GROUP, generation=gen(2), base=gen(1), changed=("10.0.0.9",), gone=("10.0.0.5",))
            await rig.call(group.ADDRESSES_DELTA, one)
        assert addresses(rig) == {"10.0.0.9"}
        with pytest.raises(Conflict, match=r"since 1\.5"):
            await rig.call(group.ADDRESSES_DELTA, AddressesDelta(id=GROUP, generation=gen(6), base=gen(5)))
        await rig.until(group.ADDRESSES_ABSENT, Absence(id=GROUP, generation=gen(7)), Progress.ABSENT)
        with pytest.raises(Conflict, match="not known"):
            await rig.call(group.ADDRESSES_DELTA, AddressesDelta(id=GROUP, generation=gen(8), base=gen(7)))

    simulated(main)


def test_twenty_thousand_members_come_in_parts_and_one_more_in_one_message() -> None:
    async def main() -> None:
        rig = await a_host()
        found = tuple(f"10.{number >> 8 & 255}.{number & 255}.77" for number in range(20_000))
        spec = AddressesSpec(id=GROUP, generation=gen(1), addresses=found)
        assert len(encode(spec)) > MESSAGE_BYTES_MAX
        await rig.call(group.ADDRESSES_ENSURE, spec)
        assert addresses(rig) == set(found)
        before = rig.bus.carried
        one = AddressesDelta(id=GROUP, generation=gen(2), base=gen(1), changed=("fd00::1",))
        await rig.call(group.ADDRESSES_DELTA, one)
        assert rig.bus.carried - before == 1
        assert len(addresses(rig)) == 20_001

    simulated(main)


def addresses(rig: Rig) -> set[str]:
    """What the agent's ledger says of the group's members."""
    assert rig.agent is not None
    entry = rig.agent.ledger.find(Key(Noun.ADDRESSES, GROUP))
    assert entry is not None and isinstance(entry.spec, AddressesSpec)
    return set(entry.spec.addresses)
