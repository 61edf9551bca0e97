"""Looks after what changes without anybody asking: lost power events, links that somebody removed, servers that died.

It finds out and wakes workers; it changes nothing itself. Events and commands do the work at once; the patrol is
for what they cannot know.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from agent.effects import HYPERVISOR, NETWORK, VOLUME, Effects
from agent.nouns import Key, Noun
from agent.reconciler import Reconciler
from agent.wire.domain import DomainStatus
from agent.wire.errors import WireError
from agent.wire.lifecycle import Power

PERIOD_S: Final = 30.0
"""Between two rounds. Longer: a lost event shows later. Shorter: more questions to libvirt for nothing."""

_LINKED: Final = (Noun.NETWORK, Noun.PORT, Noun.ROUTER)

log = structlog.get_logger()


class Patrol:
    """Goes round."""

    def __init__(self, fx: Effects, reconciler: Reconciler, note_power: Callable[[str, Power], None]) -> None:
        self._fx = fx
        self._reconciler = reconciler
        self._note_power = note_power

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                await self.go_round()
            except WireError as error:
                log.warning("the patrol could not see everything", why=str(error))
            except Exception:  # A driver's bug must not end the agent; the next round may see more.
                log.exception("the patrol failed")

    async def go_round(self) -> None:
        """One round."""
        await self._look_at_power()
        await self._look_at_links()
        await self._look_at_exports()
        await self._fx.look_at_pools()
        for network_id in sorted({port.network_id for port in self._fx.wired.values()}):
            await self._fx.apply_dhcp(network_id)

    async def _look_at_power(self) -> None:
        before = {key: track.changes for key, track in self._fx.tracks.items() if key.noun is Noun.DOMAIN}
        observed = await self._fx.run(HYPERVISOR, "patrol", self._fx.drivers.hypervisor.list)
        powers = {one.id: one.power for one in observed}
        for key in sorted(before):
            track = self._fx.tracks.get(key)
            if track is None or track.worker is not None or track.changes != before[key]:
                continue
            power = powers.get(key.id, Power.SHUTOFF)
            if isinstance(track.seen, DomainStatus) and track.seen.power is not power:
                self._note_power(key.id, power)

    async def _look_at_links(self) -> None:
        done = {
            key: track.done for key, track in self._fx.tracks.items() if key.noun in _LINKED and track.worker is None
        }
        observed = await self._fx.run(NETWORK, "patrol", self._fx.drivers.fabric.observe)
        present = {Key(Noun(link.noun), link.id) for link in observed}
        for key in sorted(key for key, generation in done.items() if generation is not None and key not in present):
            self._make_anew(key)

    async def _look_at_exports(self) -> None:
        """The target daemon forgets what it exported when it dies."""
        tracks = self._fx.tracks
        done = {key for key, track in tracks.items() if key.noun is Noun.EXPORT and track.done is not None}
        if not done:
            return
        present = {one.id for one in await self._fx.run(VOLUME, "patrol", self._fx.drivers.exporter.list)}
        for key in sorted(key for key in done if key.id not in present):
            self._make_anew(key)

    def _make_anew(self, key: Key) -> None:
        track, entry = self._fx.tracks.get(key), self._fx.ledger.find(key)
        if entry is not None and not entry.absent and track is not None and track.worker is None:
            log.warning("it is gone from the host and made anew", noun=key.noun, id=key.id)
            self._reconciler.redo(key)
