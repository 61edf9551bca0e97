"""What a server costs besides time: durable writes of the controller, messages on the bus, writes of a host's ledger.

Counted in the simulated cloud, where each of them passes a party's hands, so these bounds are exact on any machine.
A number here may be lowered; who has to raise one knows what for.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from tests.sim import ground
from tests.sim.fabric import Weather
from tests.sim.loop import SimLoop
from tests.sim.simulation import Plan, Simulation, _bury, _quiet
from tests.sim.web import Answer, ask

_LINE = re.compile(r" *[\d.]+ (?P<who>\w+) +(?P<what>.*)")
_SAID_ANYWAY = re.compile(r"event\.(fleet|host\.\w+\.heartbeat)|domain\.list")
"""Heartbeats, the controller's own echo, the look at all domains: servers or not."""


class Costs(NamedTuple):
    """What happened between two moments."""

    writes: int
    messages: int  # Requests, answers and events.
    ledger: int


def costs(lines: list[str]) -> Costs:
    """Of these lines of a trace."""
    found = [match for match in map(_LINE.match, lines) if match is not None]
    ours = [match["what"] for match in found if not _SAID_ANYWAY.search(match["what"])]
    return Costs(
        writes=sum(what.startswith("write ") for what in ours),
        messages=sum(what.startswith(("> ", "! ", "= ")) for what in ours),
        ledger=sum(what.startswith(("ledger.put", "ledger.bury", "ledger.settle", "ledger.free_uid")) for what in ours),
    )


class Cloud:
    """One controller, one host, fine weather, nobody else."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self._seen = 0

    def spent(self) -> Costs:
        """Since the last look."""
        lines = self.simulation.trace.whole or []
        fresh, self._seen = lines[self._seen :], len(lines)
        return costs(fresh)

    async def request(self, method: str, path: str, body: Any = None) -> Answer:
        controller = self.simulation.controllers[0]
        answer = await controller.perform(lambda: ask(controller.app, method, f"/compute/v2.1{path}", "p1", body))
        assert answer is not None and answer.is_good, answer
        return answer

    async def post(self) -> str:
        network = {"uuid": ground.NETWORKS["p1"][1]}
        server = {"name": "x", "imageRef": ground.IMAGE, "flavorRef": "42", "networks": [network]}
        made = await self.request("POST", "/servers", {"server": server})
        return str(made.body["server"]["id"])

    async def boot(self) -> str:
        server_id = await self.post()
        while (status := (await self.request("GET", f"/servers/{server_id}")).body["server"]["status"]) == "BUILD":
            await asyncio.sleep(0.5)
        assert status == "ACTIVE"
        return server_id

    async def delete(self, server_id: str) -> None:
        await self.request("DELETE", f"/servers/{server_id}")
        while server_id in str((await self.request("GET", "/servers")).body):
            await asyncio.sleep(0.5)


def in_a_cloud(play: Callable[[Cloud], Awaitable[None]]) -> None:
    """Play it in virtual time."""
    loop = SimLoop()
    asyncio.set_event_loop(loop)
    with _quiet() as told:
        simulation = Simulation(loop, 1, Plan(hosts=1, controllers=1, faults=False))
        told.append(simulation)
        simulation.trace.keep()
        simulation.fabric.weather = Weather(delay_s=0.0002)  # As on one connection: in order.

        async def run() -> None:
            for party in simulation.parties:
                party.start()
            await simulation.until("the cloud is up", simulation._is_up, 60.0)
            await asyncio.sleep(60.0)
            await play(Cloud(simulation))

        try:
            loop.run_until_complete(run())
            assert not simulation.broken
        finally:
            _bury(loop)


def test_the_first_server_of_a_host_brings_its_network_and_image_along() -> None:
    async def play(cloud: Cloud) -> None:
        cloud.spent()
        await cloud.boot()
        spent = cloud.spent()
        # Two of the writes share a commit; one notes that the image is in the host's cache from now on.
        assert spent.writes <= 8 and spent.messages <= 21, spent

    in_a_cloud(play)


def test_every_further_server_takes_five_writes_and_four_calls() -> None:
    async def play(cloud: Cloud) -> None:
        await cloud.boot()
        cloud.spent()
        await cloud.boot()
        spent = cloud.spent()
        assert spent.writes <= 5, spent  # Accepted, placed, port, its group's members decided, done.
        assert spent.messages <= 12, spent  # Disk, port, members, domain: a request, an answer and an event each.
        assert spent.ledger <= 6, spent

    in_a_cloud(play)


def test_a_deletion_takes_five_writes_and_four_calls() -> None:
    async def play(cloud: Cloud) -> None:
        await cloud.boot()
        server_id = await cloud.boot()
        cloud.spent()
        await cloud.delete(server_id)
        spent = cloud.spent()
        # The fifth and the fourth: the host's other guests must not go on trusting the address.
        assert spent.writes <= 5 and spent.messages <= 12 and spent.ledger <= 8, spent

    in_a_cloud(play)


def test_a_server_that_rests_costs_nothing() -> None:
    async def play(cloud: Cloud) -> None:
        await cloud.boot()
        await asyncio.sleep(120.0)
        cloud.spent()
        await asyncio.sleep(600.0)
        assert cloud.spent() == Costs(writes=0, messages=0, ledger=0)

    in_a_cloud(play)
