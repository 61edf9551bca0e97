"""What operators do with hosts and with servers between them: migrate, evacuate from a host that is off, and fence."""

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from agent.streams import Arrive
from agent.wire.domain import Passage
from agent.wire.errors import Failed
from agent.wire.image import Offer
from agent.wire.lifecycle import Power
from agent.wire.port import TcpFlow
from controller.compute import migration_store, store
from controller.compute.api import fleet_ids
from controller.db.tables.compute import server
from controller.db.tx import Tx
from drivers.image.base import Fetch

if TYPE_CHECKING:
    from tests.sim.operations import Users
    from tests.sim.parties import AgentParty, Site
    from tests.sim.simulation import Simulation

COMPUTE: Final = "/compute/v2.1"

WELL_S: Final = 75.0
"""A host that was well for so long is found to be up by everybody."""


DROP_MAX: Final = 0.01
"""With so few messages lost, three heartbeats in a row never are."""


async def migrate(users: "Users") -> None:
    """Mostly to any other host, sometimes to a named one, which may be the same; then the word, maybe too early."""
    one = users.any_server()
    if one is None:
        return
    named: Any = {"host": users.any_agent().probe.now.hostname} if users.chance.random() < 0.3 else None
    await users.act(one, "migrate", {"migrate": named}, "admin")
    if users.chance.random() < 0.5:
        await users.sleep(users.chance.choice((0.0, 5.0, 20.0)))
        word = users.chance.choice(("confirmResize", "revertResize"))
        await users.act(one, word, {word: None})


async def live_migrate(users: "Users") -> None:
    """Of one that runs, mostly to any other host; sometimes the hosts lose each other, or somebody calls it off."""
    running = set(await users.simulation.database.read(_running))
    found = [one for one in users.servers if one.id in running]
    if not found:
        return
    one = users.chance.choice(found)
    host = users.any_agent().probe.now.hostname if users.chance.random() < 0.2 else None
    if users.chance.random() < 0.2:
        users.any_agent().site.host.loses_next_guest = True
    elif users.chance.random() < 0.2:
        users.any_agent().site.host.fail_next(
            "send", Failed("nobody answers"), is_after_effect=users.chance.random() < 0.5
        )
    body = {"os-migrateLive": {"host": host, "block_migration": "auto"}}
    await users.act(one, "live-migration", body, "admin")
    if users.chance.random() < 0.3:
        await users.sleep(users.chance.choice((0.0, 0.3, 2.0)))
        for number in await users.simulation.database.read(_migrations, one.id):
            await users.ask("DELETE", f"{COMPUTE}/servers/{one.id}/migrations/{number}", "admin")


def _running(tx: Tx) -> list[str]:
    mine = (store.LIVE, server.c.vm_state == "active", server.c.task_state.is_(None))
    return list(tx.execute(sa.select(server.c.id).where(*mine)).scalars())


def _migrations(tx: Tx, server_id: str) -> list[int]:
    return [migration.id for migration in migration_store.open_of(tx, server_id)]


async def evacuate(users: "Users") -> None:
    """A server of any host. While that lives it must be refused."""
    one = users.any_server()
    if one is None:
        return
    row = await users.simulation.database.read(store.find, one.id)
    host = next((agent for agent in users.simulation.agents if row is not None and agent.host_id == row.host_id), None)
    if host is None or not is_well(host):
        return  # Whether its guests run is not known: no operator would dare.
    answer = await users.ask("POST", f"{COMPUTE}/servers/{one.id}/action", "admin", {"evacuate": {}})
    if answer is not None and answer.is_good and is_well(host):
        users.simulation.fail(f"server {one.id} was evacuated from {host.name}, which lives")


def is_well(party: "AgentParty") -> bool:
    """Nobody can take the host for dead: neither it nor any controller was away lately."""
    simulation = party.simulation
    since = simulation.loop.time() - WELL_S
    for one in (party, *simulation.controllers):
        is_there = one.is_ready and one.alive and not one.life.is_paused
        if not is_there or max(one.started_at, one.resumed_at) > since or one.endpoint is None:
            return False
        if one.endpoint.is_cut or one.endpoint.healed_at > since:
            return False
    return simulation.fabric.weather.drop <= DROP_MAX and not simulation.trouble.threads


async def empty_host(users: "Users") -> None:
    """A host takes no new servers, so that who gets another size goes elsewhere; or it takes them again."""
    service_id = fleet_ids.service_uuid("nova-compute", users.any_agent().host_id)
    body = {"status": users.chance.choice(("disabled", "enabled"))}
    await users.ask("PUT", f"{COMPUTE}/os-services/{service_id}", "admin", body)


async def lose_host(users: "Users") -> None:
    """A machine goes dark for long. An operator waits until everybody knows, and evacuates what was on it."""
    party = users.any_agent()
    others = [one for one in users.simulation.agents if one is not party]
    if not others or not all(one.alive for one in others):
        return
    party.lose_power(users.chance.choice((90.0, 150.0, 300.0)))
    boots = party.boots
    for server_id in await users.simulation.database.read(_on_host, party.host_id):
        await users.sleep(users.chance.choice((0.0, 5.0, 40.0)))
        if party.alive or party.boots != boots:
            return
        path = f"{COMPUTE}/servers/{server_id}/action"
        answer = await users.ask("POST", path, "admin", {"evacuate": {}})
        users.note_accepted(answer, server_id, "evacuate")


def _on_host(tx: Tx, host_id: str) -> list[str]:
    mine = (store.LIVE, server.c.host_id == host_id)
    return list(tx.execute(sa.select(server.c.id).where(*mine).order_by(server.c.id)).scalars())


class Disks:
    """Disks of other hosts, over their channels: where the far agent is dead, nobody brings anything."""

    def __init__(self, simulation: "Simulation") -> None:
        self._simulation = simulation

    def bring(self, offer: Offer) -> Fetch:
        """What brings a disk. It raises Failed."""

        def fetch(path: str) -> None:
            found = re.fullmatch(r"https://([^/:]+)(?::\d+)?/disk/([^/]+)", offer.url)
            assert found is not None, f"no offer of a disk: {offer.url}"
            for agent in self._simulation.agents:
                if agent.address == found[1] and agent.alive and not agent.life.is_paused:
                    if agent.site.images.disks.get(found[2]) is None:
                        raise Failed("refused with 404")
                    self._check_off(agent, found[2])
                    return
            raise Failed(f"nobody answers at {found[1]}")

        return fetch

    @contextlib.asynccontextmanager
    async def passage(self, domain_id: str, way: Passage) -> AsyncIterator[Arrive]:
        """The way of a guest: its end is told to the other agent, if that one still lives the life that opened it."""
        (there,) = (agent for agent in self._simulation.agents if agent.name == way.landing.gate)
        if not there.alive or there.life.is_paused:
            raise Failed(f"nobody answers at {there.address}")
        opened_by = there.life

        async def arrive(flows: tuple[TcpFlow, ...]) -> None:
            if there.alive and there.life is opened_by and not there.life.is_paused:
                there.site.asked.add(domain_id)  # A ticket is for one life of an agent.
                there.poke(lambda arrived: _go_on(there.site, arrived), domain_id)

        yield arrive

    def _check_off(self, agent: "AgentParty", disk_id: str) -> None:
        for domain in agent.site.host.domains():
            is_its = any(disk.disk_id == disk_id for disk in domain.machine.disks)
            if is_its and domain.machine.spec.id in agent.site.running():
                self._simulation.fail(f"disk {disk_id} is brought from {agent.name} while its guest writes to it")


def _go_on(site: "Site", domain_id: str) -> None:
    found = next((one for one in site.host.domains() if one.machine.spec.id == domain_id), None)
    if found is not None and found.is_landed:
        site.host._set_power(msgspec.structs.replace(found, is_landed=False), Power.RUNNING)


OPERATIONS: Final[tuple[tuple[int, Callable[["Users"], Awaitable[None]]], ...]] = (
    (5, migrate),
    (10, live_migrate),
    (4, evacuate),
    (2, empty_host),
)

FAULTS: Final[tuple[tuple[int, Callable[["Users"], Awaitable[None]]], ...]] = ((1, lose_host),)
