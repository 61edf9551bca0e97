"""Keeps the rows of hosts true: who is up, what each machine has. And tells the fleet's client who is enrolled.

A reconciler (`host_watch`): it compares every row with what heartbeats say and writes the differences, so a transition
costs one write and a heartbeat none. A transition and a host that nobody knows here kick it. What a host reports of
itself is asked for with every sync (it started, it returned), so a lost `started` event costs nothing.

With several controllers each watches the whole fleet, and the rows are where they meet. A row that another one has set
to *up* since our last look is news of a host that we did not hear (it has just joined there, or our own ears are bad):
it is believed, for a lease. So a host is down when the first controller misses it that has heard it before, comes up
when any hears it, and two that do not agree change a row at most once in a lease.
"""

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from agent.wire.host import INVENTORY
from agent.wire.specs import Empty
from agent.wire.world import World
from controller.db.tx import Database, Tx
from controller.fleet import store
from controller.fleet.model import Amnesia, Host, HostState, amnesia
from controller.hosts import Hosts

log = structlog.get_logger()


class Watch:
    """Between the database and `Hosts`. `kick` runs the reconciler soon."""

    def __init__(self, db: Database, hosts: Hosts, world: World, kick: Callable[[], None]) -> None:
        self._db = db
        self._hosts = hosts
        self._world = world
        self._rows: dict[str, bool] = {}  # As they were after our last look.
        hosts.on_transition(lambda _id, _up: kick())
        hosts.on_stranger(lambda _id: kick())
        hosts.on_sync_needed(self.take_inventory)

    async def load(self) -> None:
        """Tell the client whom there is, as they were known last. Before it starts to listen."""
        enrolled, removed = await self._db.read(_everybody)
        for host in enrolled:
            self._hosts.adopt(host.id, is_up=host.up)
            self._rows[host.id] = host.up
        for host_id in removed:
            self._hosts.forget(host_id)

    async def run(self) -> Mapping[str, Any]:
        """One look at everybody: adopt who joined elsewhere, write who turned up or down."""
        enrolled, removed = await self._db.read(_everybody)
        for host_id in removed:
            self._hosts.forget(host_id)
        for host in enrolled:
            if not self._hosts.knows(host.id):
                self._hosts.adopt(host.id, is_up=host.up)
            if host.up and not self._hosts.is_up(host.id) and not self._rows.get(host.id, False):
                self._hosts.trust(host.id)
            is_up = self._hosts.is_up(host.id)
            if is_up != host.up:
                await self._db.write(store.set_up, host.id, is_up, self._world.clock.now())
            self._rows[host.id] = is_up
        up = sum(self._hosts.is_up(host.id) for host in enrolled)
        return {"up": up, "down": len(enrolled) - up}

    async def take_inventory(self, host_id: str) -> None:
        """Ask a host what it has, and write what is new of it."""
        inventory = await self._hosts.call(host_id, INVENTORY, Empty())
        host = await self._db.read(store.find_host, host_id)
        if host is None or host.state is HostState.REMOVED:
            return
        forgot = amnesia(host, inventory)
        if forgot in (Amnesia.LOST, Amnesia.OLDER):
            log.warning("host has forgotten", host=host_id, how=forgot.value)
        if store.differs(host, inventory):
            await self._db.write(store.record_inventory, host_id, inventory, self._world.clock.now())


def _everybody(tx: Tx) -> tuple[list[Host], list[str]]:
    return store.list_hosts(tx), store.removed_ids(tx)
