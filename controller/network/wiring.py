"""Bringing hosts to the network that rows ask for: plug and unplug for sagas, settle for the reconciler.

Theory of operation. Shared objects (networks, groups, member addresses, routers) are on many hosts, so each host has
its own generation of each, in `host_object`: it rises, in the transaction that decides, whenever the object's own
generation has moved or the host begins or ceases to need it. What is sent is always the newest decision, so two
controllers, a late message or a crash between decision and message cannot leave a host with less than it needs:
the next settle sends it again, and hosts answer a repeat without doing anything.

A port is on one host, and its row says which, so it has no decision of its own, but for one: a user may delete the
port of a running server. Then the row is gone, and the decision that its host must let go of it is all that is left.

Order matters twice. Networks and groups come before the ports that refer to them; what is not needed goes last.

Of one shared object of one host only one plug speaks at a time. Who had to wait finds, as a rule, that what it needs
was decided and said meanwhile: a hundred servers that start at once cost a host a few messages about their group.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import sqlalchemy as sa
import structlog

from agent.wire import forwarding as forwarding_calls
from agent.wire import group as group_calls
from agent.wire import network as network_calls
from agent.wire import port as port_calls
from agent.wire import router as router_calls
from agent.wire.errors import FaultCode
from agent.wire.forwarding import ForwardingDelta
from agent.wire.group import AddressesDelta
from agent.wire.lifecycle import Generation, Progress
from agent.wire.specs import Absence, Call, Ref
from controller.db.tables.network import port
from controller.db.tx import Tx
from controller.errors import CloudError, Conflict, NotFound
from controller.network import intent
from controller.network.model import INFRASTRUCTURE_OWNERS, Port, Status
from controller.network.store import forwarding, host_objects, members, ports
from controller.network.store.host_objects import Key, Known
from controller.saga.model import Transient

if TYPE_CHECKING:
    from controller.cloud import Cloud

log = structlog.get_logger()

SETTLE_S: Final = 60.0
"""How long one settle of one host may take. Longer: a silent host holds a place; shorter: a busy one never settles."""

HOSTS_MAX: Final = 64
"""Hosts settled at once."""

MESSAGES_MAX: Final = 16
"""Messages to one host that wait for their answers at once. Higher: a settle starves the plugs of users."""

_RANKS: Final = {
    intent.NETWORK: 0,
    intent.ADDRESSES: 0,
    intent.FORWARDING: 1,
    intent.GROUP: 1,
    intent.ROUTER: 1,
    intent.PORT: 2,
}
"""What refers to something is said after it, and taken away before it; within a rank the order does not matter."""

_ABOUT_OTHERS: Final = frozenset((intent.ADDRESSES, intent.FORWARDING))
"""What follows other hosts' ports. It may come together with a port: nothing of it is needed to wire one."""

SPREAD: Final = "network_spread"
"""The reconciler that is kicked when a port comes or goes: other hosts are told of it."""

_DELTAS: Final[Mapping[str, Call[Any, Any]]] = {
    intent.FORWARDING: forwarding_calls.DELTA,
    intent.ADDRESSES: group_calls.ADDRESSES_DELTA,
}

_CALLS: Final[Mapping[str, tuple[Call[Any, Any], Call[Any, Any]]]] = {
    intent.NETWORK: (network_calls.ENSURE, network_calls.ABSENT),
    intent.FORWARDING: (forwarding_calls.ENSURE, forwarding_calls.ABSENT),
    intent.GROUP: (group_calls.ENSURE, group_calls.ABSENT),
    intent.ADDRESSES: (group_calls.ADDRESSES_ENSURE, group_calls.ADDRESSES_ABSENT),
    intent.ROUTER: (router_calls.ENSURE, router_calls.ABSENT),
    intent.PORT: (port_calls.ENSURE, port_calls.ABSENT),
}


async def plug(cloud: "Cloud", host_id: str, port_id: str, deadline: float) -> None:
    """The port is wired on its host, filtered, before anything is attached to it. Raises Transient or CloudError.

    Costs what this port needs, not what the host has: nothing is written, rendered or said that holds already.
    """
    cloud.tasks.kick(SPREAD)
    found, missing = await cloud.db.read(_look, cloud, host_id, port_id)
    if any(noun not in _ABOUT_OTHERS for noun, _ in missing):
        for rank in sorted({_RANKS[noun] for noun, _ in missing}):
            await _all(*(_bring(cloud, host_id, key, deadline) for key in missing if _RANKS[key[0]] == rank))
        missing = []
    # That its groups have one more member is said together with the port, so that the host filters once.
    spec = intent.port_spec(found, cloud.epoch)
    port_itself = _say(cloud, host_id, Decision((intent.PORT, port_id), spec.generation.n, spec), deadline)
    await _all(*(_bring(cloud, host_id, key, deadline) for key in missing), port_itself)


async def unplug(cloud: "Cloud", host_id: str, port_id: str, deadline: float) -> None:
    """The port is no longer on the host. The row may be gone already, or be bound elsewhere."""
    cloud.tasks.kick(SPREAD)
    n = await cloud.db.write(_retire, port_id, host_id, cloud.world.clock.now())
    if n is None:
        async with cloud.hosts.turn(host_id, intent.PORT, port_id):
            await _unplug_nobodys(cloud, host_id, port_id, deadline)
        return
    absence = Absence(id=port_id, generation=Generation(cloud.epoch, n))
    await cloud.hosts.absent(host_id, port_calls.ABSENT, absence, deadline)


async def _unplug_nobodys(cloud: "Cloud", host_id: str, port_id: str, deadline: float) -> None:
    """The host is asked how old the port is there. Others may do the same: who was overtaken looks again.

    A port that has gone elsewhere has a row. Whoever still says that it is here says so at an older generation.
    """
    try:
        known = await cloud.hosts.call(host_id, port_calls.GET, Ref(id=port_id))
    except NotFound:
        return
    if known.progress is Progress.ABSENT:
        return
    n = await cloud.db.write(_outgrow, port_id, known.generation.n, cloud.world.clock.now())
    absence = Absence(id=port_id, generation=Generation(cloud.epoch, n))
    try:
        await cloud.hosts.absent(host_id, port_calls.ABSENT, absence, deadline)
    except Conflict as error:
        if (error.why or {}).get("code") != FaultCode.STALE:
            raise
        raise Transient(f"Host {host_id}: somebody else takes port {port_id} away.") from error


def plugged(tx: Tx, port_id: str, now: float) -> None:
    """The port works: part of the transaction that ends a plug."""
    _set_status(tx, port_id, Status.ACTIVE, now)


async def settle(cloud: "Cloud", host_id: str) -> None:
    """Bring one host to the newest intent. Raises Transient if it is silent; then it is tried again.

    What fails does not keep the rest from being said: one network that a host cannot have is not everybody's matter.
    """
    deadline = cloud.world.clock.now() + SETTLE_S
    bound, have, is_decided = await cloud.db.read(_look_at_all, host_id)
    held = _held(cloud, host_id, have)
    decided: list[Decision] = []
    if not is_decided or len(held) < len(have):
        decided = await cloud.db.write(_decide, host_id, held)
    specs = [intent.port_spec(one, cloud.epoch) for one in bound]
    in_service = [Decision((intent.PORT, spec.id), spec.generation.n, spec) for spec in specs]
    wanted = [one for one in decided if not one.is_absence]
    gone = [one for one in decided if one.is_absence]
    failures = await _send(cloud, host_id, [*wanted, *in_service], deadline)
    failures += await _send(cloud, host_id, gone, deadline)
    if gone and not failures:
        await cloud.db.write(_forget, host_id, [one.key for one in gone])
    _raise_first(failures)


async def spread(cloud: "Cloud") -> Mapping[str, Any]:
    """The body of the reconciler that tells hosts of each other's ports: just that, just to those who are behind."""
    found, lacking = await cloud.db.read(_look_at_others)
    behind = [one for one in found if cloud.hosts.is_up(one[0])]
    places = asyncio.Semaphore(HOSTS_MAX)
    deadline = cloud.world.clock.now() + SETTLE_S

    async def tell(host_id: str, key: Key | None) -> bool:
        async with places:
            try:
                await (settle(cloud, host_id) if key is None else _bring(cloud, host_id, key, deadline))
            except (Transient, CloudError) as error:
                log.warning("a host was not told of others", host=host_id, key=key, error=str(error))
                return False
            return True

    gateways = [(one, None) for one in lacking if cloud.hosts.is_up(one)]
    told = await asyncio.gather(*(tell(host_id, key) for host_id, key in (*behind, *gateways)))
    return {"behind": len(told), "told": sum(told)}


async def tell_of(cloud: "Cloud", network_ids: Iterable[str], within_s: float) -> None:
    """Hosts know who is where in these networks, as far as they answer in that time."""
    wanted = set(network_ids)
    found, _ = await cloud.db.read(_look_at_others)
    behind = [(host, key) for host, key in found if key[0] == intent.FORWARDING and key[1] in wanted]
    deadline = cloud.world.clock.now() + SETTLE_S
    going = [_bring(cloud, host, key, deadline) for host, key in behind if cloud.hosts.is_up(host)]
    try:
        async with asyncio.timeout(within_s):
            await asyncio.gather(*going, return_exceptions=True)
    except TimeoutError:
        log.info("not every host has heard in time where a guest is", networks=sorted(wanted))


def _look_at_others(tx: Tx) -> tuple[list[tuple[str, Key]], list[str]]:
    return forwarding.behind(tx), forwarding.gateways_lacking(tx)


async def settle_all(cloud: "Cloud") -> Mapping[str, Any]:
    """The reconciler's body: every host that is up and has, or had, ports."""
    hosts = [one for one in await cloud.db.read(intent.hosts_with_ports) if cloud.hosts.is_up(one)]
    places = asyncio.Semaphore(HOSTS_MAX)

    async def one(host_id: str) -> bool:
        async with places:
            try:
                await asyncio.sleep(0)  # Where nothing is to be said nothing waits, and others want the loop too.
                await settle(cloud, host_id)
            except (Transient, CloudError) as error:
                log.warning("network not settled", host=host_id, error=str(error))
                return False
            return True

    settled = await asyncio.gather(*(one(host_id) for host_id in hosts))
    return {"hosts": len(hosts), "settled": sum(settled)}


Change: TypeAlias = ForwardingDelta | AddressesDelta
"""What a host has not been told yet of what follows other hosts' ports."""


class Decision(msgspec.Struct, frozen=True):
    """What a host is to be told. `n` is the host's generation of the object; without spec or change it is absent."""

    key: Key
    n: int
    spec: Any
    change: Change | None = None  # Said instead, to a host that holds what it is a change of.

    @property
    def is_absence(self) -> bool:
        """Whether the host is to have it no more."""
        return self.spec is None and self.change is None


def _look(tx: Tx, cloud: "Cloud", host_id: str, port_id: str) -> tuple[Port, list[Key]]:
    """(the port, the shared objects it needs that its host does not have as they are now). Raises NotFound."""
    found = ports.find(tx, port_id)
    if found is None or host_id not in (found.host_id, found.moving_to):
        raise NotFound(f"Port {port_id} is not bound to host {host_id} any more.")
    own = Generation(cloud.epoch, found.generation)
    if cloud.hosts.holds(host_id, intent.PORT, port_id, own, absent=False):
        return found, []  # It has had all that the port needs; what changes of that since is the reconciler's.
    wanted = intent.needs(tx, host_id, [found], is_all=False)
    have = host_objects.of_host(tx, host_id, wanted)
    held = _held(cloud, host_id, have)
    return found, [key for key in sorted(wanted) if not _is_there(key, wanted[key], have, held)]


def _is_there(key: Key, version: int, have: Known, held: frozenset[tuple[Key, int]]) -> bool:
    known = have.get(key)
    return known is not None and known[1:] == (version, True) and (key, known[0]) in held


async def _bring(cloud: "Cloud", host_id: str, key: Key, deadline: float) -> None:
    """The host has one shared object as it is now."""
    async with cloud.hosts.turn(host_id, *key):
        if not await cloud.db.read(_is_brought, cloud, host_id, key):
            decision = await cloud.db.write(_decide_one, host_id, key)
            if decision is not None:
                await _say(cloud, host_id, decision, deadline)


def _is_brought(tx: Tx, cloud: "Cloud", host_id: str, key: Key) -> bool:
    version, have = intent.version(tx, key), host_objects.of_host(tx, host_id, [key])
    return version is None or _is_there(key, version, have, _held(cloud, host_id, have))


def _decide_one(tx: Tx, host_id: str, key: Key) -> "Decision | None":
    """The host has to have this as it is now; None if it is nowhere any more, or nothing of it concerns the host."""
    version = intent.version(tx, key)
    if version is None:
        return None
    have = host_objects.of_host(tx, host_id, [key])
    change = _change(tx, host_id, key, version, have)
    n = _decided(tx, host_id, key, version, have, change)
    if change is not None:
        return Decision(key, n, None, change) if _says_something(change) else None
    return Decision(key, n, intent.spec(tx, host_id, key))


def _decide_whole(tx: Tx, host_id: str, key: Key) -> "Decision | None":
    """The host lacks what a change was made for: it gets everything, at a generation of its own."""
    version = intent.version(tx, key)
    if version is None:
        return None
    n = host_objects.of_host(tx, host_id, [key])[key][0] + 1
    host_objects.write(tx, host_id, key, generation=n, version=version, is_wanted=True, exists=True)
    return Decision(key, n, intent.spec(tx, host_id, key))


def _change(tx: Tx, host_id: str, key: Key, version: int, have: Known) -> Change | None:
    """What the host has not been told yet; None where it has to be told everything."""
    noun, object_id = key
    n, known, is_wanted = have.get(key, (0, 0, False))
    if noun not in _ABOUT_OTHERS or not is_wanted or known == version:
        return None
    base = Generation(0, n)
    if noun == intent.FORWARDING:
        peers = forwarding.change(tx, object_id, host_id, known, version)
        if peers is None:
            return None
        return ForwardingDelta(id=object_id, generation=intent.UNSET, base=base, changed=peers[0], gone=peers[1])
    addresses = members.change(tx, object_id, known, version)
    if addresses is None:
        return None
    return AddressesDelta(id=object_id, generation=intent.UNSET, base=base, changed=addresses[0], gone=addresses[1])


def _says_something(change: Change) -> bool:
    return bool(change.changed or change.gone)


def _decided(tx: Tx, host_id: str, key: Key, version: int, have: Known, change: Change | None = None) -> int:
    """The host's generation of an object that it has to have, raised if it was not decided so before.

    A change that is none for this host is noted, and its generation stays.
    """
    n, known, is_wanted = have.get(key, (0, 0, False))
    if (known, is_wanted) != (version, True):
        n += 1 if change is None or _says_something(change) else 0
        _write(tx, host_id, key, have, n=n, version=version, is_wanted=True)
    return n


def _write(tx: Tx, host_id: str, key: Key, have: Known, *, n: int, version: int, is_wanted: bool) -> None:
    """Decide. Hosts that share a network are told of each other, so a host that begins or ceases to have one counts."""
    was_wanted = have[key][2] if key in have else False
    host_objects.write(tx, host_id, key, generation=n, version=version, is_wanted=is_wanted, exists=key in have)
    if key[0] == intent.NETWORK and is_wanted != was_wanted:
        forwarding.changed(tx, key[1])


def _look_at_all(tx: Tx, host_id: str) -> tuple[list[Port], Known, bool]:
    """(the ports that are in service, what was decided of everything, whether nothing else is to be decided)."""
    bound = _bound(tx, host_id)
    wanted = intent.needs(tx, host_id, bound)
    have = host_objects.of_host(tx, host_id)
    unwanted = have.keys() - wanted.keys()
    is_decided = (
        _is_decided(wanted, have)
        and not any(have[key][2] for key in unwanted)
        and len(intent.existing(tx, unwanted)) == len(unwanted)
    )
    # Those that are not active are being plugged or unplugged by a saga.
    return [one for one in bound if one.status == Status.ACTIVE and one.host_id == host_id], have, is_decided


def _is_decided(wanted: Mapping[Key, int], have: Known) -> bool:
    return all(key in have and have[key][1:] == (version, True) for key, version in wanted.items())


def _held(cloud: "Cloud", host_id: str, have: Known) -> frozenset[tuple[Key, int]]:
    """What the host is known to be done with: it needs neither rendering nor saying."""
    return frozenset(
        (key, n)
        for key, (n, _, is_wanted) in have.items()
        if cloud.hosts.holds(host_id, *key, Generation(cloud.epoch, n), absent=not is_wanted)
    )


def _decide(tx: Tx, host_id: str, held: frozenset[tuple[Key, int]]) -> list[Decision]:
    """Raise the host's generation of what changed; what is to be said, but for what is `held`.

    The spec is read in the transaction that decides its generation, or two of one generation could differ.
    """
    wanted = intent.needs(tx, host_id, _bound(tx, host_id))
    have = host_objects.of_host(tx, host_id)
    decided: list[Decision] = []
    for key in sorted(wanted):
        change = _change(tx, host_id, key, wanted[key], have)
        n = _decided(tx, host_id, key, wanted[key], have, change)
        if (key, n) not in held and change is not None and _says_something(change):
            decided.append(Decision(key, n, None, change))
        elif (key, n) not in held:
            decided.append(Decision(key, n, intent.spec(tx, host_id, key)))
    unwanted = have.keys() - wanted.keys()
    existing = intent.existing(tx, unwanted)
    for key in sorted(unwanted):
        n, version, is_wanted = have[key]
        if is_wanted:
            n += 1
            _write(tx, host_id, key, have, n=n, version=version, is_wanted=False)
        if (key, n) not in held or key not in existing:
            decided.append(Decision(key, n, None))
    return decided


def _forget(tx: Tx, host_id: str, gone: list[Key]) -> None:
    """What is gone from the host and from the tables will never be asked for again."""
    existing = intent.existing(tx, gone)
    host_objects.forget(tx, host_id, [key for key in gone if key not in existing])


async def _send(cloud: "Cloud", host_id: str, decided: Iterable[Decision], deadline: float) -> list[Exception]:
    """Say it, rank by rank; what failed."""
    places = asyncio.Semaphore(MESSAGES_MAX)
    failures: list[Exception] = []

    async def say(one: Decision) -> None:
        async with places:
            try:
                await _say(cloud, host_id, one, deadline)
            except (Transient, CloudError) as error:
                failures.append(error)

    ranks: dict[int, list[Decision]] = {}
    for one in decided:
        rank = _RANKS[one.key[0]]
        ranks.setdefault(-rank if one.is_absence else rank, []).append(one)
    for rank in sorted(ranks):
        await asyncio.gather(*(say(one) for one in ranks[rank]))
    return failures


async def _say(cloud: "Cloud", host_id: str, one: Decision, deadline: float) -> None:
    noun, object_id = one.key
    ensure, absent = _CALLS[noun]
    generation = Generation(cloud.epoch, one.n)
    if cloud.hosts.holds(host_id, noun, object_id, generation, absent=one.is_absence):
        return
    if one.change is not None:
        await _say_change(cloud, host_id, one, deadline)
        return
    try:
        if one.spec is not None:
            await cloud.hosts.ensure(host_id, ensure, _stamped(one.spec, generation), deadline)
        else:
            await cloud.hosts.absent(host_id, absent, Absence(id=object_id, generation=generation), deadline)
    except Conflict as error:
        if (error.why or {}).get("code") != FaultCode.STALE:
            raise
        if noun == intent.PORT and one.spec is None:
            # The saga that deletes the server asked the host how old the port was, and has gone past this decision.
            await unplug(cloud, host_id, object_id, deadline)
        elif noun == intent.PORT or not await cloud.db.read(_is_outdated, host_id, one):
            raise


async def _say_change(cloud: "Cloud", host_id: str, one: Decision, deadline: float) -> None:
    """Say what changed, or everything where the host cannot take it for a change."""
    assert one.change is not None, "the caller looked"
    generation, base = Generation(cloud.epoch, one.n), Generation(cloud.epoch, one.change.base.n)
    delta = msgspec.structs.replace(one.change, generation=generation, base=base)
    try:
        await cloud.hosts.ensure(host_id, _DELTAS[one.key[0]], delta, deadline)
    except Conflict as error:
        is_stale = (error.why or {}).get("code") == FaultCode.STALE
        if is_stale and await cloud.db.read(_is_outdated, host_id, one):
            return
        whole = await cloud.db.write(_decide_whole, host_id, one.key)
        if whole is not None:
            await _say(cloud, host_id, whole, deadline)


def _is_outdated(tx: Tx, host_id: str, one: Decision) -> bool:
    """Whether a newer decision was made meanwhile. It knew all that this one knew, and somebody has said it."""
    newest = host_objects.of_host(tx, host_id, [one.key]).get(one.key)
    return newest is not None and newest[0] > one.n


async def _all(*parts: Awaitable[Any]) -> None:
    """All at once. Ends when all have ended, then raises what the first of them raised."""
    ends = await asyncio.gather(*parts, return_exceptions=True)
    _raise_first([end for end in ends if isinstance(end, BaseException)])


def _raise_first(failures: Sequence[BaseException]) -> None:
    if failures:
        raise failures[0]


def _stamped(spec: Any, generation: Generation) -> Any:
    return msgspec.structs.replace(spec, generation=generation)


def _bound(tx: Tx, host_id: str) -> list[Port]:
    return [one for one in ports.on_host(tx, host_id) if one.device_owner not in INFRASTRUCTURE_OWNERS]


def _retire(tx: Tx, port_id: str, host_id: str, now: float) -> int | None:
    """A newer generation for the port's absence; None if its row says nothing of this host (any more)."""
    found = ports.find(tx, port_id)
    if found is None or found.host_id != host_id:
        return None
    ports.update(tx, port_id, now, status=Status.DOWN)
    return found.generation + 1


def _outgrow(tx: Tx, port_id: str, n: int, now: float) -> int:
    """A generation for an absence, newer than `n`. The row, if the port has one elsewhere, is never older than that."""
    found = ports.find(tx, port_id)
    if found is None:
        return n + 1
    if found.generation <= n:
        ports.update(tx, port_id, now)
    return max(found.generation, n + 1)


def _set_status(tx: Tx, port_id: str, status: Status, now: float) -> None:
    tx.execute(sa.update(port).where(port.c.id == port_id).values(status=status, updated_at=now))
