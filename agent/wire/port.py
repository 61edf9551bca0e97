"""Ports on a host: a tap on a network's bridge, its DHCP entry, its anti-spoofing and its security groups."""

import msgspec

from agent.wire.specs import Absence, Call, ObjectSpec, ObjectStatus, Ref


class FixedIp(msgspec.Struct, frozen=True, kw_only=True):
    """One address of a port."""

    subnet_id: str
    address: str


class AddressPair(msgspec.Struct, frozen=True, kw_only=True):
    """An extra source that anti-spoofing lets pass; `cidr` is an address or a prefix."""

    cidr: str
    mac: str


class PortSpec(ObjectSpec, frozen=True, kw_only=True):
    """A guest's port. Anti-spoofing and groups are in place before the tap is up, so no packet ever passes without.

    Its network and its groups must be on the host already, else `Failed`. `groups` empty with port security on
    means: nothing in, nothing out but DHCP and metadata.
    """

    network_id: str
    domain_id: str
    mac: str
    fixed_ips: tuple[FixedIp, ...]
    hostname: str
    groups: tuple[str, ...] = ()
    port_security: bool = True
    allowed_pairs: tuple[AddressPair, ...] = ()
    is_up: bool = True


class TcpFlow(msgspec.Struct, frozen=True, array_like=True):
    """An established connection of a port, as its first packet went."""

    port_id: str
    source: str
    sport: int
    destination: str
    dport: int


class PortStatus(ObjectStatus, frozen=True, kw_only=True):
    """A port as the host sees it."""

    device: str = ""  # The tap's name.


class PortList(msgspec.Struct, frozen=True, kw_only=True):
    """Every port of this cloud on the host."""

    ports: tuple[PortStatus, ...]


ENSURE = Call("port.ensure", PortSpec, PortStatus)
ABSENT = Call("port.absent", Absence, PortStatus)
GET = Call("port.get", Ref, PortStatus)
