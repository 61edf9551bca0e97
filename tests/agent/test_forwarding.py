"""What a host is told of others' ports: whole, then by differences; a gap is told, and healed by the whole."""

import pytest

from agent.wire import forwarding, network
from agent.wire.errors import Conflict, Stale
from agent.wire.forwarding import ForwardingDelta, ForwardingSpec, Peer
from agent.wire.lifecycle import Progress
from agent.wire.specs import Absence
from tests.agent.rig import NET, Rig, a_network, gen, simulated


def a_peer(number: int, end: str = "198.18.0.12") -> Peer:
    return Peer(port_id=f"port-{number}", mac=f"fa:16:3e:00:09:{number:02x}", addresses=(f"10.0.0.{number}",), end=end)


def whole(n: int, *numbers: int) -> ForwardingSpec:
    return ForwardingSpec(id=NET, generation=gen(n), peers=tuple(a_peer(number) for number in numbers))


def delta(n: int, base: int, *, changed: tuple[Peer, ...] = (), gone: tuple[str, ...] = ()) -> ForwardingDelta:
    return ForwardingDelta(id=NET, generation=gen(n), base=gen(base), changed=changed, gone=gone)


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
