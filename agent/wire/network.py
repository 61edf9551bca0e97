"""Networks on a host: one bridge each, DHCP and DNS for its subnets, and the way to other hosts."""

import msgspec

from agent.wire.specs import Absence, Call, ObjectSpec, ObjectStatus, Ref


class SubnetSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A subnet as DHCP and routers need it. Addresses are text, prefixes CIDR."""

    id: str
    cidr: str
    ip_version: int
    gateway: str | None
    dhcp: bool
    dns_nameservers: tuple[str, ...] = ()
    host_routes: tuple[tuple[str, str], ...] = ()  # (destination CIDR, next hop)
    ipv6_ra_mode: str | None = None
    ipv6_address_mode: str | None = None


class DhcpPort(msgspec.Struct, frozen=True, kw_only=True):
    """The network's one DHCP port: the same MAC and addresses on every host, answering local taps only."""

    port_id: str
    mac: str
    addresses: tuple[tuple[str, str], ...]  # (subnet id, address)


class NetworkSpec(ObjectSpec, frozen=True, kw_only=True):
    """A network that has a port or a router leg on this host.

    `physical_network` names an entry of the agent's map (external and provider networks); None is a tenant
    network carried in VXLAN under `segment`.
    """

    segment: int
    mtu: int
    physical_network: str | None = None
    vlan: int | None = None
    subnets: tuple[SubnetSpec, ...] = ()
    dhcp: DhcpPort | None = None
    dns_domain: str = "cloud.internal"


class NetworkStatus(ObjectStatus, frozen=True, kw_only=True):
    """A network as the host sees it."""


ENSURE = Call("network.ensure", NetworkSpec, NetworkStatus)
ABSENT = Call("network.absent", Absence, NetworkStatus)
GET = Call("network.get", Ref, NetworkStatus)
