"""What this host may do only while the cloud counts on it: having routers' gateways.

A gateway's addresses must be on one host. When this one is cut off, the controller gives its gateways to others, so
this host lets go of them by itself, and earlier: its lease is counted from when it asked, on its own clock, and is
shorter than the silence after which it is found to be down. Once it is heard again, the answer says which gateways are
its own still, and only those come back.

A controller that is merely away moves nothing. On a bus that works and says that nobody listens, the lease goes on, so
a restart of the controller cuts no connection.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from agent.effects import Effects
from agent.nouns import Key, Noun
from agent.wire.bus import Bus, ask
from agent.wire.errors import Silent, Unheard, WireError
from agent.wire.host import LEASE
from agent.wire.router import RouterSpec
from agent.wire.specs import Empty

LEASE_S: Final = 20.0
"""From asking to letting go. It must end before a silent host is found to be down, after 30 s of silence."""

PERIOD_S: Final = 5.0
"""Between two questions: three may be lost."""

LATE_S: Final = 1.0
"""Between two looks at the lease's end."""

log = structlog.get_logger()


class Lease:
    """Asks, and lets go. `redo` has an object carried out again."""

    def __init__(self, fx: Effects, bus: Bus, host_id: str, redo: Callable[[Key], None], *, is_new_boot: bool) -> None:
        self._fx = fx
        self._bus = bus
        self._host_id = host_id
        self._redo = redo
        # After a boot of the machine nothing is here, and others may have taken over: ask first.
        self._until = 0.0 if is_new_boot else fx.world.clock.boottime() + LEASE_S
        self._granted: frozenset[str] | None = frozenset() if is_new_boot else None  # None: what the ledger says.
        self._told: dict[str, bool] = {}  # By router, what whoever carried it out last was told.

    def holds(self, router_id: str) -> bool:
        """Whether this host may have the router's gateway now: for whoever carries the router out."""
        self._told[router_id] = self._may_have(router_id)
        return self._told[router_id]

    def grant(self, router_id: str) -> None:
        """The controller has just said that the gateway is here."""
        now = self._fx.world.clock.boottime()
        if not self._is_running():
            self._granted, self._until = frozenset(), now + LEASE_S
        if self._granted is not None:
            self._granted |= {router_id}
        self._carry_out([router_id])

    async def run(self) -> None:
        """Until cancelled."""
        asked_at = 0.0
        while True:
            now = self._fx.world.clock.boottime()
            if self._gateways() and now - asked_at >= PERIOD_S:
                asked_at = now
                await self._ask(now)
            self._carry_out(self._gateways())
            await asyncio.sleep(LATE_S)

    async def _ask(self, now: float) -> None:
        try:
            answer = await ask(self._bus, self._host_id, LEASE, Empty())
        except Unheard:
            if self._is_running():
                self._until = now + LEASE_S
        except (Silent, WireError) as error:
            log.info("the lease was not renewed", why=str(error))
        else:
            self._granted, self._until = frozenset(answer.gateways), now + LEASE_S

    def _carry_out(self, router_ids: list[str]) -> None:
        """Routers that were carried out with another answer than there is now are done again."""
        for router_id in router_ids:
            now = self._may_have(router_id)
            if self._told.get(router_id, now) != now:
                log.warning("the lease changes where a gateway is", router=router_id, is_here=now)
                self._redo(Key(Noun.ROUTER, router_id))

    def _may_have(self, router_id: str) -> bool:
        return self._is_running() and (self._granted is None or router_id in self._granted)

    def _gateways(self) -> list[str]:
        return [one.id for one in self._fx.present(Noun.ROUTER, RouterSpec).values() if one.gateway is not None]

    def _is_running(self) -> bool:
        return self._fx.world.clock.boottime() < self._until
