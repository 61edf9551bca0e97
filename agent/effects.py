"""What converging may do to the host: the drivers behind their threads, and the states that several objects share.

The packet filter, a network's DHCP and the guests' documents each follow from many objects at once. Here they are
rendered from the ledger, and changed for many objects in one run.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import msgspec

from agent import metadata
from agent.blocking import Blocking
from agent.coalesce import Coalesced
from agent.guarding import Guard
from agent.ledger import Entry, Ledger
from agent.nouns import Key, Noun
from agent.streams import Source
from agent.tracks import Track, Waiting
from agent.wire.disk import DiskSpec
from agent.wire.errors import Busy
from agent.wire.group import AddressesSpec, GroupSpec
from agent.wire.network import NetworkSpec
from agent.wire.port import PortSpec
from agent.wire.router import RouterSpec
from agent.wire.specs import ObjectSpec
from agent.wire.volume import PoolStatus
from agent.wire.world import World
from drivers.hypervisor.base import Hypervisor
from drivers.image.base import Disks, ImageCache
from drivers.network.base import Dhcp, Fabric, Filter, FilterState
from drivers.volume.base import Exporter, Volumes

T = TypeVar("T")
S = TypeVar("S", bound=ObjectSpec)

HYPERVISOR: Final = "hypervisor"
NETWORK: Final = "network"
IMAGE: Final = "image"
VOLUME: Final = "volume"

TIMEOUTS_S: Final[dict[str, float]] = {HYPERVISOR: 60.0, NETWORK: 30.0, IMAGE: 60.0, VOLUME: 60.0}
"""For one call to each driver, before it is stretched. Lower: a busy host fails what would have worked."""

GUARD_S: Final = 1.0
"""How long a guest's start waits for the guard. Longer: guests wait for a guard that is down; they ask again anyway."""

FETCHES_MAX: Final = 2
"""Images that are fetched at once. More: each takes a thread, and they take the disk from each other."""

AMNESTY_S: Final = 120.0
"""After a lost ledger: how long the packet filter is left as it is, until the controller has said what the ports that
are on the host should be. Shorter: their guests are cut off. Longer: new ports wait for one that is nobody's."""


@dataclass(frozen=True, slots=True)
class Drivers:
    """The mechanisms of one host."""

    hypervisor: Hypervisor
    fabric: Fabric
    filter: Filter
    dhcp: Dhcp
    images: ImageCache
    disks: Disks
    volumes: Volumes
    exporter: Exporter


@dataclass(frozen=True, slots=True)
class Places:
    """Where guests live on this host."""

    guests: str = "/var/lib/hostler/agent/guests"  # A folder each.
    uids: range = range(200000, 265536)  # One each; nothing else on the host may use them.
    shutdown_grace_s: float = 60.0  # From the power button to the plug.
    totals: Path | None = None  # Where guests' counters are kept over restarts of the agent.


class Effects:
    """The host, as converging sees it."""

    def __init__(
        self, world: World, ledger: Ledger, drivers: Drivers, *, guard: Guard, source: Source, places: Places
    ) -> None:
        self.world = world
        self.ledger = ledger
        self.drivers = drivers
        self.guard = guard
        self.source = source
        self.places = places
        self.blocking = Blocking(world.threads)
        self.slow = 1.0
        self.tracks: dict[Key, Track] = {}
        self.still_on: set[str] = set()  # Acts of this run whose guest has still to be switched off.
        self.hasty: set[str] = set()  # Guests that are to stand still while they leave.
        self.fetching = asyncio.Semaphore(FETCHES_MAX)
        self.redo: Callable[[Key], None] = lambda key: None  # What was ready may be so no longer.
        self.has_gateway: Callable[[str], bool] = lambda router_id: True  # May be here now, by the host's lease.
        self.grant_gateway: Callable[[str], None] = lambda router_id: None
        self.strangers: frozenset[Key] = frozenset()  # On the host at start, but not in the ledger.
        self.amnesty_until = 0.0
        self.wired: dict[str, PortSpec] = {}  # Ports whose tap may exist: the filter holds exactly these.
        self.apply_filter = Coalesced(self._apply_filter)
        self._is_filtering = True  # An earlier run may have left something.
        self._dhcp: dict[str, Coalesced] = {}
        self.pools: tuple[PoolStatus, ...] = ()  # Of volumes, as they were last seen.
        self._volume_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self, driver: str, owner: Key | str, fn: Callable[..., T], *args: Any, extra_s: float = 0.0) -> T:
        """A blocking call of a driver, on behalf of one object."""
        timeout_s = TIMEOUTS_S[driver] * self.slow + extra_s
        return await self.blocking.run(driver, owner, fn, *args, timeout_s=timeout_s)

    def need(self, key: Key, kind: type[S]) -> S:
        """The spec of something that has to be ready on this host. Raises Waiting."""
        entry, track = self.ledger.find(key), self.tracks.get(key)
        if entry is None or entry.absent:
            raise Waiting(key, f"{key} is not on this host", is_coming=False)
        if track is None or track.done != entry.generation:
            fault = None if track is None else track.fault
            why = f"{key} is not ready" if fault is None else f"{key} is not ready: {fault.message}"
            raise Waiting(key, why, is_coming=fault is None)
        assert isinstance(entry.spec, kind), "the ledger keeps specs by noun"
        return entry.spec

    def present(self, noun: Noun, kind: type[S]) -> dict[str, S]:
        """Every spec of a noun that should be there, by id."""
        return {spec.id: spec for spec in self.ledger.specs(noun) if isinstance(spec, kind)}

    def unfinished(self, noun: Noun, kind: type[S]) -> dict[str, S]:
        """Every spec of a noun that is there or may still be there: removals in progress count."""
        return {entry.key.id: entry.spec for entry in self.ledger.rows(noun) if isinstance(entry.spec, kind)}

    def unknown(self) -> list[Key]:
        """What is on the host and still not in the ledger."""
        return sorted(key for key in self.strangers if self.ledger.find(key) is None)

    def accepted(self, entry: Entry) -> None:
        """Something was written into the ledger. A port that was on the host before keeps its place in the filter."""
        if entry.key in self.strangers and isinstance(entry.spec, PortSpec) and not entry.absent:
            self.wired.setdefault(entry.key.id, entry.spec)
        if isinstance(entry.spec, RouterSpec) and entry.spec.gateway is not None and not entry.absent:
            self.grant_gateway(entry.key.id)

    def volume(self, volume_id: str) -> asyncio.Lock:
        """Held by whoever changes a volume, copies it, or changes its exports."""
        lock = self._volume_locks.get(volume_id)
        if lock is None:
            lock = self._volume_locks[volume_id] = asyncio.Lock()
        return lock

    async def look_at_pools(self) -> None:
        """How full the pools are. Raises a WireError."""
        self.pools = await self.run(VOLUME, "pools", self.drivers.volumes.pools)

    async def apply_dhcp(self, network_id: str) -> None:
        """The network's DHCP follows its ports on this host."""
        one = self._dhcp.get(network_id)
        if one is None:
            one = self._dhcp[network_id] = Coalesced(lambda: self._apply_dhcp(network_id))
        await one()

    def publish_documents(self) -> None:
        """Guests are told what the ledger says from now on."""
        self.guard.publish(metadata.documents(self.ledger))

    def release_uid(self, domain_id: str, gone: Key) -> None:
        """Give a guest's uid back if nothing of it is left besides `gone`, which is about to be settled."""
        domain = Key(Noun.DOMAIN, domain_id)
        entry = self.ledger.find(domain)
        is_domain_gone = domain == gone or entry is None or (entry.absent and entry.is_settled)
        disks = self.unfinished(Noun.DISK, DiskSpec)
        others = [one for one in disks.values() if one.domain_id == domain_id and Key(Noun.DISK, one.id) != gone]
        if is_domain_gone and not others:
            self.ledger.free_uid(domain_id)

    async def _apply_filter(self) -> None:
        self._refuse_in_amnesia()
        if self.wired:
            self._is_filtering = True
            await self.run(NETWORK, "filter", self.drivers.filter.apply, self._filter_state())
        elif self._is_filtering:  # Nothing to be filtered, nothing left.
            await self.run(NETWORK, "filter", self.drivers.filter.clear)
            self._is_filtering = bool(self.wired)

    def _refuse_in_amnesia(self) -> None:
        unknown = [key.id for key in self.unknown() if key.noun is Noun.PORT]
        groups = self.unfinished(Noun.GROUP, GroupSpec)
        partly = [port.id for port in self.wired.values() if any(group not in groups for group in port.groups)]
        if (unknown or partly) and self.world.clock.boottime() < self.amnesty_until:
            what = ", ".join(sorted({*unknown, *partly}))
            raise Busy(f"the ledger was lost; waiting until the controller has said what these ports are: {what}")

    def _filter_state(self) -> FilterState:
        groups = self.unfinished(Noun.GROUP, GroupSpec)
        networks = self.unfinished(Noun.NETWORK, NetworkSpec)
        ports = (port for _, port in sorted(self.wired.items()) if port.network_id in networks)
        known = tuple(
            msgspec.structs.replace(port, groups=tuple(group for group in port.groups if group in groups))
            for port in ports
        )
        live = self.present(Noun.GROUP, GroupSpec)
        used = {group for port in known for group in port.groups}
        return FilterState(
            ports=known,
            networks=networks,
            groups={name: group for name, group in groups.items() if name in live or name in used},
            addresses=self.present(Noun.ADDRESSES, AddressesSpec),
            routers=tuple(self.unfinished(Noun.ROUTER, RouterSpec).values()),
        )

    async def _apply_dhcp(self, network_id: str) -> None:
        network = self.unfinished(Noun.NETWORK, NetworkSpec).get(network_id)
        if network is None:
            return
        ports = tuple(port for _, port in sorted(self.wired.items()) if port.network_id == network_id)
        owner = f"dhcp of network {network_id}"
        if network.dhcp is None or not ports:
            await self.run(NETWORK, owner, self.drivers.dhcp.absent, network_id)
        else:
            namespace = self.drivers.fabric.namespace(network_id)
            await self.run(NETWORK, owner, self.drivers.dhcp.ensure, network, ports, namespace)
