"""A host that is cut off lets go of gateways, gets back what is still its own, and minds no absent controller."""

import asyncio
from collections.abc import Mapping

import msgspec

from agent.lease import LEASE_S, PERIOD_S
from agent.wire import network, router, subjects
from agent.wire.bus import Message, answering
from agent.wire.errors import Unheard
from agent.wire.host import LEASE, Granted
from agent.wire.lifecycle import Progress
from agent.wire.router import GatewaySpec, LegSpec, RouterSpec
from agent.wire.specs import Empty
from tests.agent.memory_bus import MemoryBus
from tests.agent.rig import NET, Rig, a_network, gen, simulated

ROUTER = "66666666-6666-4666-8666-666666666666"
OUTSIDE = "77777777-7777-4777-8777-777777777777"


class Controller:
    """Answers for the gateways; or nobody does."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.gateways: tuple[str, ...] = (ROUTER,)
        self.asked = 0

    async def listen(self) -> None:
        async def on_renew(_: Empty, message: Message) -> Granted:
            self.asked += 1
            return Granted(gateways=self.gateways)

        self.hearing = await self.bus.subscribe(subjects.controller("*", LEASE.name), answering(LEASE, on_renew))

    async def fall_silent(self) -> None:
        await self.hearing.close()


def a_router() -> RouterSpec:
    leg = LegSpec(port_id="leg", network_id=NET, mac="fa:16:3e:00:02:01", addresses=("10.0.0.1/24",))
    gateway = GatewaySpec(
        port_id="gateway",
        network_id=OUTSIDE,
        mac="fa:16:3e:00:03:01",
        addresses=("203.0.113.10/24",),
        next_hops=("203.0.113.1",),
        snat=True,
    )
    return RouterSpec(id=ROUTER, generation=gen(1), legs=(leg,), gateway=gateway)


async def a_gateway_host() -> tuple[Rig, Controller]:
    rig = Rig()
    rig.start()
    await rig.ready()
    controller = Controller(rig.bus)
    await controller.listen()
    outside = a_network(id=OUTSIDE, physical_network="external", dhcp=None, subnets=())
    for row, spec in ((network.ENSURE, a_network()), (network.ENSURE, outside), (router.ENSURE, a_router())):
        assert (await rig.call(row, spec)).progress is Progress.READY
    return rig, controller


def has_gateway(rig: Rig) -> bool:
    made = rig.net.routers.get(ROUTER)
    assert made is not None
    return made.gateway is not None


def test_a_gateway_stays_while_the_controller_answers() -> None:
    async def main() -> None:
        rig, controller = await a_gateway_host()
        await asyncio.sleep(10 * LEASE_S)
        assert has_gateway(rig) and controller.asked >= 20

    simulated(main)


def test_a_host_that_is_cut_off_lets_go_and_gets_back_what_is_its_own() -> None:
    async def main() -> None:
        rig, controller = await a_gateway_host()
        await asyncio.sleep(PERIOD_S)
        await controller.fall_silent()
        await asyncio.sleep(LEASE_S - 2 * PERIOD_S)
        assert has_gateway(rig)
        await asyncio.sleep(2 * PERIOD_S + 5)
        assert not has_gateway(rig)
        controller.gateways = ()  # Another host took over meanwhile.
        await controller.listen()
        await asyncio.sleep(3 * PERIOD_S)
        assert not has_gateway(rig)
        controller.gateways = (ROUTER,)
        await asyncio.sleep(3 * PERIOD_S)
        assert has_gateway(rig)

    simulated(main)


def test_a_host_that_is_told_again_of_a_gateway_that_it_let_go_has_it_again() -> None:
    """Before it could ask, and in the same words as before."""

    async def main() -> None:
        rig, controller = await a_gateway_host()
        await controller.fall_silent()
        await asyncio.sleep(2 * LEASE_S)
        assert not has_gateway(rig)
        assert (await rig.call(router.ENSURE, a_router())).progress is Progress.READY
        await controller.listen()
        await asyncio.sleep(3 * PERIOD_S)
        assert has_gateway(rig)

    simulated(main)


def test_a_booted_machine_that_is_told_at_once_has_its_gateway() -> None:
    """The router was carried out by then, and the lease was never looked at."""

    async def main() -> None:
        rig, _ = await a_gateway_host()
        await rig.kill()
        rig.net.power_failure()
        rig.probe.now = msgspec.structs.replace(rig.probe.now, boot_id="boot-2")
        rig.start()
        await rig.ready()
        assert not has_gateway(rig)
        await rig.call(router.ENSURE, a_router())
        await Controller(rig.bus).listen()
        await asyncio.sleep(3 * PERIOD_S)
        assert has_gateway(rig)

    simulated(main)


def test_a_controller_that_is_away_costs_no_gateway() -> None:
    """The bus says that nobody listens: nobody can have moved it either."""

    async def main() -> None:
        rig, controller = await a_gateway_host()
        await controller.fall_silent()

        async def unheard(subject: str, data: bytes, headers: Mapping[str, str], timeout_s: float) -> bytes:
            raise Unheard(subject)

        rig.bus.request = unheard  # type: ignore[method-assign]
        await asyncio.sleep(10 * LEASE_S)
        assert has_gateway(rig)

    simulated(main)


def test_a_restarted_agent_keeps_a_gateway_and_a_booted_machine_asks_first() -> None:
    async def main() -> None:
        rig, _ = await a_gateway_host()
        await rig.kill()
        rig.start()
        await rig.ready()
        assert has_gateway(rig)
        await rig.kill()
        rig.net.power_failure()
        rig.probe.now = msgspec.structs.replace(rig.probe.now, boot_id="boot-2")
        rig.start()
        await rig.ready()
        assert not has_gateway(rig)
        await Controller(rig.bus).listen()
        await asyncio.sleep(3 * PERIOD_S)
        assert has_gateway(rig)

    simulated(main)
