"""Choosing a host for a server, and claiming it.

Theory of operation. A choice is made on a snapshot that may be stale by the time it is acted on: many servers
are scheduled at once, by several controllers. So the choice is only a ranking, made in a read transaction, and
the claim is a transaction of its own that asks every filter again about the one host, with the usage counted
in that very transaction. It first writes the host's `provider` row: two claims of one host meet there, and on
PostgreSQL the later one is run again on what the earlier one left. No counter exists that could drift: usage
is the sum of the allocations.

If every candidate has filled up in between, `Transient` makes the caller plan again on a new snapshot; a plan
without candidates is the end: `NoValidHost`, with the reason of each host.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from controller.db.tables.placement import allocation, provider
from controller.db.tx import Tx
from controller.errors import NoValidHost
from controller.fleet import store as fleet
from controller.fleet.model import Host, HostState
from controller.saga.model import Transient
from controller.schedule import filters, weights
from controller.schedule.model import DEFAULT_ZONE, Amounts, Plan, Ratios, Refusal, Room, Wanted

CANDIDATES_MAX: Final = 8
"""How many hosts one claim tries. More: longer transactions; fewer: more plans under contention."""

_sums = (
    sa.func.count(),
    sa.func.coalesce(sa.func.sum(allocation.c.vcpus), 0),
    sa.func.coalesce(sa.func.sum(allocation.c.memory_mib), 0),
    sa.func.coalesce(sa.func.sum(allocation.c.disk_gib), 0),
)
_USAGE = sa.select(allocation.c.host_id, *_sums).group_by(allocation.c.host_id)
_USAGE_OF = sa.select(*_sums).where(allocation.c.host_id == sa.bindparam("host_id"))
_TOUCH = sa.update(provider).where(provider.c.host_id == sa.bindparam("h")).values(generation=provider.c.generation + 1)
_CLAIM = sa.insert(allocation)
_HELD = sa.select(allocation.c.host_id).where(allocation.c.consumer_id == sa.bindparam("consumer_id"))
_AMOUNTS = sa.select(allocation).where(allocation.c.consumer_id == sa.bindparam("consumer_id"))
_RELEASE = sa.delete(allocation).where(allocation.c.consumer_id == sa.bindparam("c"))

_NOTHING = (0, 0, 0, 0)

_NOT_ASKED: Final = ("excluded", "other-host")
"""Reasons that say of a wish that it was for other hosts, and nothing of the host."""


def snapshot(tx: Tx) -> list[Room]:
    """Every enrolled host with what it has and what is used of it."""
    usage = {row[0]: tuple(row[1:]) for row in tx.execute(_USAGE)}
    return [_room(host, usage.get(host.id, _NOTHING)) for host in fleet.list_hosts(tx)]


def room_of(tx: Tx, host_id: str) -> Room | None:
    """One enrolled host as it is in this transaction."""
    host = fleet.find_host(tx, host_id)
    if host is None or host.state is not HostState.ENROLLED:
        return None
    return _room(host, tuple(tx.execute(_USAGE_OF, {"host_id": host_id}).one()))


def plan(hosts: Sequence[Room], wanted: Wanted, ratios: Ratios) -> Plan:
    """Rank the hosts that can take it. Raises NoValidHost when none can."""
    passed, refused = filters.sift(hosts, wanted, ratios)
    if not passed:
        raise no_valid_host(refused)
    ranked = weights.rank(passed, wanted, ratios)
    return Plan(candidates=tuple(host.host_id for host in ranked[:CANDIDATES_MAX]), refusals=refused)


def plan_by_wish(
    hosts: Sequence[Room], wishes: Sequence[Wanted], ratios: Ratios
) -> tuple[tuple[Wanted, tuple[str, ...]], ...]:
    """For each wish that a host can grant, the candidates. Raises NoValidHost when none can, with every host's reason.

    Of a host that refuses several wishes the first reason counts that says more than that the wish was not for it.
    """
    plans: list[tuple[Wanted, tuple[str, ...]]] = []
    refused: dict[str, Refusal] = {}
    for wish in wishes:
        passed, no = filters.sift(hosts, wish, ratios)
        for one in no:
            if one.host_id not in refused or refused[one.host_id].reason in _NOT_ASKED:
                refused[one.host_id] = one
        if passed:
            ranked = weights.rank(passed, wish, ratios)
            plans.append((wish, tuple(host.host_id for host in ranked[:CANDIDATES_MAX])))
    if not plans:
        raise no_valid_host([refused[host.host_id] for host in hosts])
    return tuple(plans)


def claim_by_wish(tx: Tx, plans: Sequence[tuple[Wanted, Sequence[str]]], ratios: Ratios, now: float) -> Room:
    """As `claim`, for the first wish that can still be granted."""
    for wish, candidates in plans[:-1]:
        try:
            return claim(tx, wish, candidates, ratios, now)
        except Transient:
            continue
    return claim(tx, *plans[-1], ratios, now)


def claim(tx: Tx, wanted: Wanted, candidates: Sequence[str], ratios: Ratios, now: float) -> Room:
    """Take room on the first candidate that still has it. Raises Transient when all have filled up.

    Repeated for a server that holds a claim already, it returns that claim's host.
    """
    held = tx.execute(_HELD, {"consumer_id": wanted.server_id}).scalar()
    if held is not None:
        room = room_of(tx, held)
        if room is None:
            raise NoValidHost("The host that was chosen is gone.")
        return room
    for host_id in candidates:
        _meet(tx, host_id)
        room = room_of(tx, host_id)
        if room is not None and filters.refusal(room, wanted, ratios) is None:
            _insert(tx, wanted, room, now)
            return room
    raise Transient("the chosen hosts have filled up meanwhile")


def held(tx: Tx, consumer_id: str) -> Amounts | None:
    """What somebody holds."""
    row = tx.execute(_AMOUNTS, {"consumer_id": consumer_id}).first()
    return None if row is None else Amounts(vcpus=row.vcpus, memory_mib=row.memory_mib, disk_gib=row.disk_gib)


def hand_over(tx: Tx, server_id: str, holder_id: str) -> None:
    """What the server holds is somebody else's from now on: of the size that it had, say. Nothing if it holds none."""
    _move(tx, server_id, holder_id)


def take_back(tx: Tx, server_id: str, holder_id: str, disk_gib: int) -> None:
    """The server holds what was handed over, and gives back what it held since; its disk may have grown meanwhile.

    Nothing happens the second time.
    """
    if tx.execute(_HELD, {"consumer_id": holder_id}).scalar() is None:
        return
    release(tx, server_id)
    _move(tx, holder_id, server_id)
    mine = allocation.c.consumer_id == server_id
    tx.execute(sa.update(allocation).where(mine).values(disk_gib=disk_gib))


def _move(tx: Tx, before_id: str, after_id: str) -> None:
    held = allocation.c.consumer_id == before_id
    tx.execute(sa.update(allocation).where(held).values(consumer_id=after_id))


def release(tx: Tx, server_id: str) -> None:
    """Give back all that a server holds; nothing happens when it holds nothing."""
    tx.execute(_RELEASE, {"c": server_id})


def no_valid_host(refused: Sequence[Refusal]) -> NoValidHost:
    """The failure with its reasons: counts in the sentence (for tenants), each host in `why` (for operators)."""
    return NoValidHost(sentence(refused), why={"hosts": [_reason(found) for found in refused]})


def sentence(refused: Sequence[Refusal]) -> str:
    """`No valid host was found. There are not enough hosts available: memory (2), host-down (1).`"""
    counts = Counter(found.reason for found in refused)
    if not counts:
        return "No valid host was found. There is no host yet."
    reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(counts.items()))
    return f"No valid host was found. There are not enough hosts available: {reasons}."


def _reason(found: Refusal) -> dict[str, Any]:
    return {"host": found.hostname, "host_id": found.host_id, "reason": found.reason, **found.detail}


def _meet(tx: Tx, host_id: str) -> None:
    if not tx.execute(_TOUCH, {"h": host_id}).rowcount:
        tx.execute(sa.insert(provider).values(host_id=host_id, generation=1))


def _insert(tx: Tx, wanted: Wanted, room: Room, now: float) -> None:
    amounts = wanted.amounts
    tx.execute(
        _CLAIM,
        {
            "consumer_id": wanted.server_id,
            "host_id": room.host_id,
            "project_id": wanted.project_id,
            "user_id": wanted.user_id,
            "vcpus": amounts.vcpus,
            "memory_mib": amounts.memory_mib,
            "disk_gib": amounts.disk_gib,
            "created_at": now,
        },
    )


def _room(host: Host, usage: tuple[Any, ...]) -> Room:
    return Room(
        host_id=host.id,
        hostname=host.hostname,
        zone=DEFAULT_ZONE,
        is_up=host.up and not host.forced_down,
        is_disabled=host.disabled,
        disabled_reason=host.disabled_reason,
        arch=host.cpu_arch,
        total=Amounts(vcpus=host.vcpus, memory_mib=host.memory_mib, disk_gib=host.disk_gib),
        used=Amounts(vcpus=int(usage[1]), memory_mib=int(usage[2]), disk_gib=int(usage[3])),
        servers=int(usage[0]),
    )
