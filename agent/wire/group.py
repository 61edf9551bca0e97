"""Security groups on a host: one versioned object each, and the address sets their remote groups refer to.

The members of a group come whole once (`addresses.ensure`), then each change as a delta on the generation before. A
host that does not hold that generation answers Conflict, and is sent the whole again.
"""

import msgspec

from agent.wire.errors import Conflict
from agent.wire.lifecycle import Generation
from agent.wire.specs import Absence, Call, ObjectSpec, ObjectStatus, Ref


class RuleSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One rule that lets traffic pass (there are no others). Names and ranges are Neutron's.

    `protocol` is None (any), a name that nft knows (tcp, udp, icmp, ipv6-icmp, sctp, ...) or a number as text.
    For icmp `port_min` is the type and `port_max` the code. At most one of the remotes is set.
    """

    id: str
    direction: str  # ingress | egress
    ethertype: str  # IPv4 | IPv6
    protocol: str | None = None
    port_min: int | None = None
    port_max: int | None = None
    remote_cidr: str | None = None
    remote_group: str | None = None


class GroupSpec(ObjectSpec, frozen=True, kw_only=True):
    """A security group: the whole of its rules. A rule that is no longer there also loses its conntrack entries."""

    rules: tuple[RuleSpec, ...]


class GroupStatus(ObjectStatus, frozen=True, kw_only=True):
    """A group as the host sees it."""


class AddressesSpec(ObjectSpec, frozen=True, kw_only=True):
    """The members of a security group, wherever they run. `id` is the group's id.

    The host turns the difference to what it has into set elements, so a new member is one element and not a
    new ruleset. A removed member loses its conntrack entries.
    """

    addresses: tuple[str, ...]


class AddressesDelta(ObjectSpec, frozen=True, kw_only=True):
    """What changed since the generation `base`: members that came (or are there anyway), members that are gone."""

    base: Generation
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


def applied(held: AddressesSpec, delta: AddressesDelta) -> AddressesSpec:
    """The state after a delta, the same as if it had come whole. Raises Conflict for a gap."""
    if held.generation != delta.base:
        raise Conflict(f"addresses {held.id}: a change since {delta.base} came, and {held.generation} is held")
    members = (set(held.addresses) - set(delta.gone)) | set(delta.changed)
    return AddressesSpec(id=held.id, generation=delta.generation, labels=held.labels, addresses=tuple(sorted(members)))


ENSURE = Call("group.ensure", GroupSpec, GroupStatus)
ABSENT = Call("group.absent", Absence, GroupStatus)
GET = Call("group.get", Ref, GroupStatus)
ADDRESSES_ENSURE = Call("addresses.ensure", AddressesSpec, GroupStatus)
ADDRESSES_DELTA = Call("addresses.delta", AddressesDelta, GroupStatus)
ADDRESSES_ABSENT = Call("addresses.absent", Absence, GroupStatus)
ADDRESSES_GET = Call("addresses.get", Ref, GroupStatus)
