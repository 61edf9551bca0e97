"""Bringing hosts to the network that rows ask for: plug and unplug for sagas, settle for the reconciler.

Theory of operation. Shared objects (networks, groups, member addresses, routers) are on many hosts, so each host has
its own generation of each, in `host_object`: it rises, in the transaction that decides, whenever the object's own
generation has moved or the host begins or ceases to need it. What is sent is always the newest decision, so two
controllers, a late message or a crash between decision and message cannot leave a host with less than it needs:
the next settle sends it again, and hosts answer a repeat without doing anything.

Order matters twice. Networks and groups come before the ports that refer to them; what is not needed goes last.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa
import structlog

from agent.wire import group as group_calls
from agent.wire import network as network_calls
from agent.wire import port as port_calls
from agent.wire import router as router_calls
from agent.wire.lifecycle import Generation
from agent.wire.specs import Absence, Call, Ref
from controller.db.tables.network import host_object, port
from controller.db.tx import Tx
from controller.errors import CloudError, NotFound
from controller.network import intent
from controller.network.intent import Key
from controller.network.model import INFRASTRUCTURE_OWNERS, Port, Status
from controller.network.store import ports
from controller.saga.model import Transient

if TYPE_CHECKING:
    from controller.cloud import Cloud

log = structlog.get_logger()

SETTLE_S: Final = 60.0
"""How long one settle of one host may take. Longer: a silent host holds a place; shorter: a busy one never settles."""

HOSTS_MAX: Final = 64
"""Hosts settled at once."""

_ORDER: Final = (intent.NETWORK, intent.ADDRESSES, intent.GROUP, intent.ROUTER)

_CALLS: Final[Mapping[str, tuple[Call[Any, Any], Call[Any, Any]]]] = {
    intent.NETWORK: (network_calls.ENSURE, network_calls.ABSENT),
    intent.GROUP: (group_calls.ENSURE, group_calls.ABSENT),
    intent.ADDRESSES: (group_calls.ADDRESSES_ENSURE, group_calls.ADDRESSES_ABSENT),
    intent.ROUTER: (router_calls.ENSURE, router_calls.ABSENT),
}


async def plug(cloud: "Cloud", host_id: str, port_id: str, deadline: float) -> None:
    """The port is wired on its host, filtered, before anything is attached to it. Raises Transient or CloudError."""
    found = await cloud.db.read(ports.find, port_id)
    if found is None or found.host_id != host_id:
        raise NotFound(f"Port {port_id} is not bound to host {host_id} any more.")
    decided = await cloud.db.read(_decided, host_id, found)
    if decided is None:
        decided = await cloud.db.write(_decide, host_id, [found], False)
    await _send(cloud, host_id, decided, deadline)
    await cloud.hosts.ensure(host_id, port_calls.ENSURE, intent.port_spec(found, cloud.epoch), deadline)


async def unplug(cloud: "Cloud", host_id: str, port_id: str, deadline: float) -> None:
    """The port is no longer on the host. The row may be gone already, or be bound elsewhere."""
    n = await cloud.db.write(_retire, port_id, host_id, cloud.world.clock.now())
    if n is None:
        try:
            known = await cloud.hosts.call(host_id, port_calls.GET, Ref(id=port_id))
        except NotFound:
            return
        n = known.generation.n + 1
    absence = Absence(id=port_id, generation=Generation(cloud.epoch, n))
    await cloud.hosts.absent(host_id, port_calls.ABSENT, absence, deadline)


def plugged(tx: Tx, port_id: str, now: float) -> None:
    """The port works: part of the transaction that ends a plug."""
    _set_status(tx, port_id, Status.ACTIVE, now)


async def settle(cloud: "Cloud", host_id: str) -> None:
    """Bring one host to the newest intent. Raises Transient if it is silent; then it is tried again."""
    deadline = cloud.world.clock.now() + SETTLE_S
    bound = await cloud.db.read(_bound, host_id)
    decided = await cloud.db.write(_decide, host_id, bound, True)
    await _send(cloud, host_id, [one for one in decided if one[2] is not None], deadline)
    for one in bound:
        if one.status == Status.ACTIVE:  # The others are being plugged or unplugged by a saga.
            await cloud.hosts.ensure(host_id, port_calls.ENSURE, intent.port_spec(one, cloud.epoch), deadline)
    await _send(cloud, host_id, [one for one in decided if one[2] is None], deadline)


async def settle_all(cloud: "Cloud") -> Mapping[str, Any]:
    """The reconciler's body: every host that is up and has, or had, ports."""
    hosts = [one for one in await cloud.db.read(intent.hosts_with_ports) if cloud.hosts.is_up(one)]
    places = asyncio.Semaphore(HOSTS_MAX)

    async def one(host_id: str) -> bool:
        async with places:
            try:
                await settle(cloud, host_id)
            except (Transient, CloudError) as error:
                log.warning("network not settled", host=host_id, error=str(error))
                return False
            return True

    settled = await asyncio.gather(*(one(host_id) for host_id in hosts))
    return {"hosts": len(hosts), "settled": sum(settled)}


Decision = tuple[Key, int, Any]
"""(noun and id, the host's generation, the spec or None: absent)."""


def _decided(tx: Tx, host_id: str, one: Port) -> list[Decision] | None:
    """What a plug must send if nothing has to be decided (no write then); None if something has to be."""
    wanted = intent.needs(tx, [one])
    have = _objects(tx, host_id, wanted)
    if any(key not in have or have[key][1:] != (version, True) for key, version in wanted.items()):
        return None
    return [(key, have[key][0], intent.spec(tx, key)) for key in _ordered(wanted)]


def _decide(tx: Tx, host_id: str, bound: list[Port], is_complete: bool) -> list[Decision]:
    """Raise the host's generation of what changed. `is_complete`: what these ports do not need, it need not have."""
    if is_complete:
        bound = _bound(tx, host_id)
    wanted = intent.needs(tx, bound)
    have = _objects(tx, host_id, None if is_complete else wanted)
    decided: list[Decision] = []
    for key in _ordered(wanted):
        generation, version, is_wanted = have.get(key, (0, 0, False))
        if (version, is_wanted) != (wanted[key], True):
            generation += 1
            _write(tx, host_id, key, generation=generation, version=wanted[key], is_wanted=True, exists=key in have)
        decided.append((key, generation, intent.spec(tx, key)))
    for key in reversed(_ordered({key: 0 for key in have if key not in wanted})):
        generation, version, is_wanted = have[key]
        if is_wanted:
            generation += 1
            _write(tx, host_id, key, generation=generation, version=version, is_wanted=False, exists=True)
        decided.append((key, generation, None))
    return decided


async def _send(cloud: "Cloud", host_id: str, decided: list[Decision], deadline: float) -> None:
    for (noun, object_id), n, spec in decided:
        ensure, absent = _CALLS[noun]
        generation = Generation(cloud.epoch, n)
        if cloud.hosts.holds(host_id, noun, object_id, generation, absent=spec is None):
            continue
        if spec is None:
            await cloud.hosts.absent(host_id, absent, Absence(id=object_id, generation=generation), deadline)
        else:
            await cloud.hosts.ensure(host_id, ensure, _stamped(spec, generation), deadline)


def _stamped(spec: Any, generation: Generation) -> Any:
    return msgspec.structs.replace(spec, generation=generation)


def _ordered(keys: Mapping[Key, int]) -> list[Key]:
    return sorted(keys, key=lambda key: (_ORDER.index(key[0]), key[1]))


def _objects(tx: Tx, host_id: str, only: Mapping[Key, int] | None) -> dict[Key, tuple[int, int, bool]]:
    query = sa.select(host_object).where(host_object.c.host_id == host_id)
    if only is not None:
        query = query.where(host_object.c.object_id.in_({object_id for _, object_id in only}))
    return {(row.noun, row.object_id): (row.generation, row.version, row.is_wanted) for row in tx.execute(query)}


def _write(tx: Tx, host_id: str, key: Key, *, generation: int, version: int, is_wanted: bool, exists: bool) -> None:
    values = {"generation": generation, "version": version, "is_wanted": is_wanted}
    where = {"host_id": host_id, "noun": key[0], "object_id": key[1]}
    if exists:
        matches = [host_object.c[name] == value for name, value in where.items()]
        tx.execute(sa.update(host_object).where(*matches).values(values))
    else:
        tx.execute(sa.insert(host_object).values({**where, **values}))


def _bound(tx: Tx, host_id: str) -> list[Port]:
    return [one for one in ports.on_host(tx, host_id) if one.device_owner not in INFRASTRUCTURE_OWNERS]


def _retire(tx: Tx, port_id: str, host_id: str, now: float) -> int | None:
    """A newer generation for the port's absence; None if its row says nothing of this host (any more)."""
    found = ports.find(tx, port_id)
    if found is None or found.host_id != host_id:
        return None
    ports.update(tx, port_id, now, status=Status.DOWN)
    return found.generation + 1


def _set_status(tx: Tx, port_id: str, status: Status, now: float) -> None:
    tx.execute(sa.update(port).where(port.c.id == port_id).values(status=status, updated_at=now))
