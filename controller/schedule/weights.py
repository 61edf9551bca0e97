"""Which of the hosts that can take a server is best. Pure: the same snapshot gives the same order.

Spreads: the host that has the largest share of its memory, CPUs and disk left after this server wins. Equal
hosts (an empty rack) are ordered by a hash of server and host, so that servers scheduled from one snapshot do
not all choose the same host and then race for it.
"""

import zlib
from collections.abc import Iterable
from typing import Final

from controller.schedule.model import Policy, Ratios, Room, Wanted

MEMORY: Final = 1.0
CPU: Final = 1.0
COMPANY: Final = 10.0
"""Soft policies of groups outweigh everything else: somebody asked for them."""
DISK: Final = 0.25
"""Disk matters least: overlays grow slowly and can be seen coming."""


def score(host: Room, wanted: Wanted, ratios: Ratios) -> float:
    """Larger is better: the weighted shares that would be free with this server on it."""
    free = host.free(ratios)
    total = _promisable(host, ratios)
    need = wanted.amounts
    return (
        MEMORY * (free.memory_mib - need.memory_mib) / total[1]
        + CPU * (free.vcpus - need.vcpus) / total[0]
        + DISK * (free.disk_gib - need.disk_gib) / total[2]
        + COMPANY * _company(host, wanted)
    )


def _company(host: Room, wanted: Wanted) -> float:
    """How well a soft policy is served, from -1 to 1: by the share of the group that is on this host."""
    group = wanted.group
    if group is None or not group.on:
        return 0.0
    share = group.on.get(host.host_id, 0) / sum(group.on.values())
    if group.policy is Policy.SOFT_AFFINITY:
        return share
    return -share if group.policy is Policy.SOFT_ANTI_AFFINITY else 0.0


def rank(hosts: Iterable[Room], wanted: Wanted, ratios: Ratios) -> tuple[Room, ...]:
    """Best first."""
    return tuple(sorted(hosts, key=lambda host: (-score(host, wanted, ratios), host.servers, _shuffle(wanted, host))))


def _promisable(host: Room, ratios: Ratios) -> tuple[float, float, float]:
    return (
        max(host.total.vcpus * ratios.cpu, 1.0),
        max((host.total.memory_mib - ratios.reserved_memory_mib) * ratios.memory, 1.0),
        max(host.total.disk_gib * ratios.disk, 1.0),
    )


def _shuffle(wanted: Wanted, host: Room) -> int:
    return zlib.crc32(f"{wanted.server_id}{host.host_id}".encode())
