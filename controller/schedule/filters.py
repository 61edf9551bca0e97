"""Which hosts can take a server. Each filter is a pure question of one host: `None`, or a `Refusal` that says why.

The order matters to people only: the first refusal of a host is the one that is counted for the user, so the
plainest reasons come first.
"""

from collections.abc import Callable, Iterable
from typing import Final

from controller.schedule.model import Policy, Ratios, Refusal, Room, Wanted

Filter = Callable[[Room, Wanted, Ratios], Refusal | None]


def is_not_excluded(host: Room, wanted: Wanted, _: Ratios) -> Refusal | None:
    """A host that failed this server before is not asked again."""
    return _refuse(host, "excluded") if host.host_id in wanted.exclude_hosts else None


def is_requested(host: Room, wanted: Wanted, _: Ratios) -> Refusal | None:
    """An administrator named one host."""
    if wanted.host is None or wanted.host == host.hostname:
        return None
    return _refuse(host, "other-host", wanted=wanted.host)


def is_up(host: Room, wanted: Wanted, _: Ratios) -> Refusal | None:
    """Its heartbeat is fresh."""
    return None if host.is_up else _refuse(host, "host-down")


def is_known(host: Room, _: Wanted, __: Ratios) -> Refusal | None:
    """Its agent has told what it has."""
    return None if host.total.vcpus > 0 else _refuse(host, "no-inventory")


def is_enabled(host: Room, wanted: Wanted, _: Ratios) -> Refusal | None:
    """No operator disabled it. Forcing a host overrides that, as in Nova."""
    if not host.is_disabled or wanted.is_forced:
        return None
    return _refuse(host, "host-disabled", why=host.disabled_reason)


def is_in_zone(host: Room, wanted: Wanted, _: Ratios) -> Refusal | None:
    """It is in the zone that the user asked for. A forced host decides its zone by itself."""
    if wanted.zone is None or wanted.is_forced or wanted.zone == host.zone:
        return None
    return _refuse(host, "other-zone", wanted=wanted.zone, has=host.zone)


def has_architecture(host: Room, wanted: Wanted, _: Ratios) -> Refusal | None:
    """It runs the image's instruction set."""
    if wanted.arch is None or wanted.arch == host.arch:
        return None
    return _refuse(host, "architecture", wanted=wanted.arch, has=host.arch)


def is_different_host(host: Room, wanted: Wanted, _: Ratios) -> Refusal | None:
    """The hint `different_host`: none of those servers is here."""
    return _refuse(host, "different-host") if host.host_id in wanted.different_from else None


def is_same_host(host: Room, wanted: Wanted, _: Ratios) -> Refusal | None:
    """The hint `same_host`: one of those servers is here."""
    if wanted.same_as is None or host.host_id in wanted.same_as:
        return None
    return _refuse(host, "same-host")


def is_in_company(host: Room, wanted: Wanted, _: Ratios) -> Refusal | None:
    """The policy of its group: with the others, or not with too many of them. Soft ones are weights."""
    group = wanted.group
    if group is None:
        return None
    here = group.on.get(host.host_id, 0)
    if group.policy is Policy.AFFINITY and group.on and not here:
        return _refuse(host, "affinity")
    if group.policy is Policy.ANTI_AFFINITY and here >= group.max_per_host:
        return _refuse(host, "anti-affinity", there=here, max_per_host=group.max_per_host)
    return None


def has_vcpus(host: Room, wanted: Wanted, ratios: Ratios) -> Refusal | None:
    """Enough virtual CPUs; one server never gets more than the host really has, whatever the ratio."""
    need, free = wanted.amounts.vcpus, host.free(ratios).vcpus
    if need <= free and need <= host.total.vcpus:
        return None
    return _refuse(host, "vcpus", wanted=need, free=max(free, 0), total=host.total.vcpus)


def has_memory(host: Room, wanted: Wanted, ratios: Ratios) -> Refusal | None:
    """Enough memory."""
    need, free = wanted.amounts.memory_mib, host.free(ratios).memory_mib
    if need <= free:
        return None
    return _refuse(host, "memory", wanted=need, free=max(free, 0), total=host.total.memory_mib)


def has_disk(host: Room, wanted: Wanted, ratios: Ratios) -> Refusal | None:
    """Enough local disk."""
    need, free = wanted.amounts.disk_gib, host.free(ratios).disk_gib
    if need <= free:
        return None
    return _refuse(host, "disk", wanted=need, free=max(free, 0), total=host.total.disk_gib)


FILTERS: Final[tuple[Filter, ...]] = (
    is_not_excluded,
    is_requested,
    is_up,
    is_known,
    is_enabled,
    is_in_zone,
    has_architecture,
    is_different_host,
    is_same_host,
    is_in_company,
    has_vcpus,
    has_memory,
    has_disk,
)


def refusal(host: Room, wanted: Wanted, ratios: Ratios) -> Refusal | None:
    """The first reason why this host cannot take it, or None."""
    return next((found for asked in FILTERS if (found := asked(host, wanted, ratios)) is not None), None)


def sift(hosts: Iterable[Room], wanted: Wanted, ratios: Ratios) -> tuple[tuple[Room, ...], tuple[Refusal, ...]]:
    """Hosts that pass, and the refusals of the others."""
    passed, refused = [], []
    for host in hosts:
        found = refusal(host, wanted, ratios)
        if found is None:
            passed.append(host)
        else:
            refused.append(found)
    return tuple(passed), tuple(refused)


def _refuse(host: Room, reason: str, **detail: object) -> Refusal:
    return Refusal(host_id=host.host_id, hostname=host.hostname, reason=reason, detail=dict(detail))
