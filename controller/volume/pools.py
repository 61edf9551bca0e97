"""Where volumes go: what hosts tell of their pools, and the claim of one.

Theory of operation. A pool's size and kind are rows, written when a host tells of a change; what is free of it is in
the heartbeats, in memory. What is promised is the sum of the rows of volumes and snapshots that lie there, counted in
the transaction that puts one more there; that first writes the pool's row, so two claims meet. No counter can drift.
"""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agent.wire.host import Heartbeat, Inventory
from controller.config import VolumeLimits
from controller.db.tx import Tx
from controller.errors import NoValidHost
from controller.fleet import store as fleet
from controller.fleet.model import Host
from controller.volume.model import Pool
from controller.volume.store import pools as store

if TYPE_CHECKING:
    from controller.cloud import Cloud

VENDOR: Final = "Hostler"
PROTOCOL: Final = "iSCSI"

Free = Mapping[str, int]
"""`host/pool` → GiB that new bytes may still take, as the last heartbeat said."""


class Place(msgspec.Struct, frozen=True):
    """A pool that was claimed."""

    host_id: str
    host_name: str
    pool: str


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """One pool now, for views and for the choice."""

    host: Host
    pool: Pool
    promised_gib: int
    free_gib: int | None  # None: its host has not been heard since we started.
    volumes: int = 0

    @property
    def name(self) -> str:
        """As Cinder's clients know pools: host@backend#pool."""
        return f"{self.backend}#{self.pool.name}"

    @property
    def backend(self) -> str:
        """As Cinder's clients know services that keep volumes: host@backend. Each pool is one."""
        return f"{self.host.hostname}@{self.pool.name}"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a volume asks of a pool. `only`: (host, pool), where its source lies."""

    size_gib: int
    only: tuple[str, str] | None = None
    specs: dict[str, str] = {}  # Extra specs of its type: what a pool must be.


def key(host_id: str, pool: str) -> str:
    """Of `Free`."""
    return f"{host_id}/{pool}"


def free_now(cloud: "Cloud") -> dict[str, int]:
    """What heartbeats said last."""
    found: dict[str, int] = {}
    for host_id in cloud.hosts.up():
        beat = cloud.hosts.heartbeat(host_id)
        for pool in () if beat is None else beat.pools:
            found[key(host_id, pool.name)] = pool.free_gib
    return found


def rooms(tx: Tx, free: Free) -> list[Room]:
    """Every pool of every enrolled host."""
    hosts = {host.id: host for host in fleet.list_hosts(tx)}
    promised, held = store.promised(tx), store.held(tx)
    return [
        Room(
            host=hosts[pool.host_id],
            pool=pool,
            promised_gib=promised.get((pool.host_id, pool.name), 0),
            free_gib=free.get(key(pool.host_id, pool.name)),
            volumes=held.get((pool.host_id, pool.name), 0),
        )
        for pool in store.present(tx)
        if pool.host_id in hosts
    ]


def capacity_gib(pool: Pool, limits: VolumeLimits) -> int:
    """How much may be promised of a pool."""
    usable = pool.total_gib * (100 - limits.reserved_percentage) / 100
    return int(usable * (limits.over_subscription if pool.is_thin else 1.0))


def refusal(room: Room, asked: Asked, limits: VolumeLimits) -> str | None:
    """Why a pool cannot take it, in a word; None: it can."""
    if asked.only is not None and asked.only != (room.pool.host_id, room.pool.name):
        return "not-where-the-source-is"
    if room.host.forced_down or not room.host.up:
        return "host-down"
    if room.host.disabled and asked.only is None:
        return "host-disabled"
    if not _is_as_asked(room, asked.specs):
        return "other-backend"
    if room.promised_gib + asked.size_gib > capacity_gib(room.pool, limits):
        return "capacity"
    if room.free_gib is not None and room.free_gib <= room.pool.total_gib * limits.reserved_percentage // 100:
        return "full"
    if room.free_gib is not None and not room.pool.is_thin and room.free_gib < asked.size_gib:
        return "full"
    return None


def _is_as_asked(room: Room, specs: Mapping[str, str]) -> bool:
    """Whether the pool is what a type asks for, in the words that Cinder has for backends."""
    has = {
        "volume_backend_name": (room.pool.name, room.pool.driver),
        "pool_name": (room.pool.name,),
        "storage_protocol": (PROTOCOL,),
        "vendor_name": (VENDOR,),
    }
    asked = ((key.removeprefix("capabilities:"), value) for key, value in specs.items())
    return all(value in has[key] for key, value in asked if key in has)


def claim(tx: Tx, asked: Asked, free: Free, limits: VolumeLimits) -> Place:
    """Choose the pool with most room, counted now. Whoever writes the volume's place in this transaction has it.

    Raises NoValidHost with the reason of each pool.
    """
    found = rooms(tx, free)
    fit = [room for room in found if refusal(room, asked, limits) is None]
    if not fit:
        raise _no_pool(found, asked, limits)
    best = max(fit, key=lambda room: (capacity_gib(room.pool, limits) - room.promised_gib, room.host.hostname))
    store.touch(tx, best.pool.host_id, best.pool.name)
    return Place(best.pool.host_id, best.host.hostname, best.pool.name)


def check(tx: Tx, place: tuple[str, str], more_gib: int, free: Free, limits: VolumeLimits) -> None:
    """Whether a pool can take more of what lies there already. `more_gib` is not counted yet. Raises NoValidHost."""
    claim(tx, Asked(size_gib=more_gib, only=place), free, limits)


def _no_pool(found: list[Room], asked: Asked, limits: VolumeLimits) -> NoValidHost:
    reasons = [(room, refusal(room, asked, limits) or "") for room in found]
    counts = Counter(reason for _, reason in reasons if reason != "not-where-the-source-is")
    told = ", ".join(f"{reason} ({count})" for reason, count in sorted(counts.items())) or "there is none"
    why: dict[str, Any] = {"pools": [{"pool": room.name, "reason": reason} for room, reason in reasons]}
    return NoValidHost(f"No pool can take {asked.size_gib} GiB: {told}.", why=why)


# What hosts tell.

_NAME_MAX: Final = 64


class Listener:
    """Writes what changed of a host's pools. Heartbeats come all the time; rows change seldom."""

    def __init__(self, cloud: "Cloud") -> None:
        self._cloud = cloud
        self._told: dict[str, tuple[Pool, ...]] = {}

    async def hear(self, host_id: str, said: Heartbeat | Inventory) -> None:
        """A heartbeat, or an agent that has started."""
        pools = tuple(
            Pool(host_id, one.name[:_NAME_MAX], one.driver[:32], max(0, one.total_gib), one.is_thin, False, 0)
            for one in said.pools
        )
        if self._told.get(host_id) == pools or (not pools and host_id not in self._told):
            return
        await self._cloud.db.write(store.put, host_id, pools)
        self._told[host_id] = pools


def listen(cloud: "Cloud") -> None:
    """From now on rows follow what hosts tell."""
    listener = Listener(cloud)
    cloud.hosts.on_event("heartbeat", listener.hear)
    cloud.hosts.on_event("started", listener.hear)
