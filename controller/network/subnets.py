"""Rules of subnets: what may be made, what may change, when one may go. Transaction functions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from controller.db.tx import Tx
from controller.network import addresses, dhcp, usage
from controller.network.addresses import Address, Pool
from controller.network.addresses import Network as Cidr
from controller.network.errors import (
    GatewayIpInUse,
    InvalidInput,
    NetworkNotFound,
    SubnetInUse,
    SubnetNotFound,
    bad_value,
)
from controller.network.model import DHCP_OWNER, INFRASTRUCTURE_OWNERS, HostRoute, Standard, Subnet
from controller.network.model import Pool as PoolText
from controller.network.networks import check_mtu
from controller.network.store import forwarding, members, networks, ports, routers, subnets
from controller.network.store.rows import check_revision

DNS_SERVERS_MAX: Final = 5
HOST_ROUTES_MAX: Final = 20
"""Neutron's own bounds: more does not fit into a DHCP answer."""

_MODES: Final = ("slaac", "dhcpv6-stateful", "dhcpv6-stateless")


class Draft(Standard, frozen=True, kw_only=True):
    """A subnet that somebody asks for, as text. `pools` None: all there is; `gateway` UNSET: the first address."""

    network_id: str
    ip_version: int
    cidr: str
    gateway: str | msgspec.UnsetType | None = msgspec.UNSET
    enable_dhcp: bool = True
    pools: tuple[tuple[str, str], ...] | None = None
    dns_nameservers: tuple[str, ...] = ()
    host_routes: tuple[HostRoute, ...] = ()
    ipv6_ra_mode: str | None = None
    ipv6_address_mode: str | None = None


def create(tx: Tx, drafts: Sequence[Draft], now: float) -> list[Subnet]:
    """All of them or, by raising, none."""
    for project_id, count in Counter(draft.project_id for draft in drafts).items():
        usage.charge(tx, project_id, "subnet", count)
    return [_create(tx, draft, now) for draft in drafts]


def _create(tx: Tx, draft: Draft, now: float) -> Subnet:
    around = networks.find(tx, draft.network_id)
    if around is None:
        raise NetworkNotFound(draft.network_id)
    made = planned(draft)
    check_mtu(made, around.mtu)
    cidr = addresses.cidr_of(made.cidr)
    for other in subnets.of_networks(tx, [around.id]):
        if addresses.cidr_of(other.cidr).overlaps(cidr):
            raise InvalidInput(
                f"Requested subnet with cidr: {made.cidr} for network: {around.id} overlaps with another subnet"
            )
    subnets.insert(tx, made)
    networks.revise(tx, around.id, now, {})  # It shows its subnets.
    dhcp.align(tx, around, now)
    if made.ipv6_address_mode in addresses.AUTOMATIC:
        _address_guests(tx, made, now)
    return made


def planned(draft: Draft) -> Subnet:
    """The subnet that a draft asks for. Pure. Raises Invalid or Conflict for what cannot be."""
    cidr = _checked_cidr(draft)
    _check_modes(draft, cidr)
    gateway = _gateway(cidr, draft.gateway)
    addresses.checked_gateway(cidr, gateway)
    if draft.pools is None:
        pools = addresses.default_pools(cidr, gateway)
    else:
        pools = addresses.checked_pools(cidr, gateway, draft.pools)
    return Subnet(
        id=draft.id,
        project_id=draft.project_id,
        name=draft.name,
        description=draft.description,
        created_at=draft.created_at,
        updated_at=draft.updated_at,
        network_id=draft.network_id,
        ip_version=draft.ip_version,
        cidr=str(cidr),
        gateway_ip=str(gateway) if gateway is not None else None,
        enable_dhcp=draft.enable_dhcp,
        allocation_pools=_texts(pools),
        dns_nameservers=checked_dns(draft.dns_nameservers),
        host_routes=checked_routes(draft.host_routes, draft.ip_version),
        ipv6_ra_mode=draft.ipv6_ra_mode,
        ipv6_address_mode=draft.ipv6_address_mode,
    )


def update(tx: Tx, subnet_id: str, changes: Mapping[str, Any], expected: int | None, now: float) -> Subnet:
    """Change what may be changed; hosts, and for a gateway routers, learn of it.

    `changes` holds model attributes; `gateway_ip` as text or None, `allocation_pools` as pairs of text.
    """
    found = subnets.find(tx, subnet_id)
    if found is None:
        raise SubnetNotFound(subnet_id)
    check_revision(found.revision, expected)
    values = dict(changes)
    if "gateway_ip" in values or "allocation_pools" in values:
        values |= _ranges(tx, found, values)
    if "dns_nameservers" in values:
        values["dns_nameservers"] = checked_dns(values["dns_nameservers"])
    if "host_routes" in values:
        values["host_routes"] = checked_routes(values["host_routes"], found.ip_version)
    if values.get("enable_dhcp"):
        _check_dhcp_fits(addresses.cidr_of(found.cidr))
    elif values.get("enable_dhcp") is False and (found.ipv6_ra_mode or found.ipv6_address_mode):
        raise InvalidInput("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False")
    subnets.revise(tx, subnet_id, now, values)
    around = networks.find(tx, found.network_id)
    assert around is not None, "a subnet has a network"
    dhcp.align(tx, around, now)
    if values.get("gateway_ip", found.gateway_ip) != found.gateway_ip and around.external:
        routers.raise_generations(tx, routers.with_gateway_on(tx, around.id))
    made = subnets.find(tx, subnet_id)
    assert made is not None, "it was just written"
    return made


def delete(tx: Tx, subnet_id: str, expected: int | None, now: float) -> None:
    """A subnet, if no port but the DHCP port has an address of it. Raises SubnetInUse.

    Addresses that guests made for themselves go with it, as in Neutron.
    """
    found = subnets.find(tx, subnet_id)
    if found is None:
        raise SubnetNotFound(subnet_id)
    check_revision(found.revision, expected)
    is_automatic = found.ipv6_address_mode in addresses.AUTOMATIC
    for holder in ports.on_subnet(tx, subnet_id):
        if holder.device_owner != DHCP_OWNER and not (
            is_automatic and holder.device_owner not in INFRASTRUCTURE_OWNERS
        ):
            raise SubnetInUse(subnet_id)
        for fixed in holder.fixed_ips:
            if fixed.subnet_id == subnet_id:
                subnets.take(tx, holder.id, fixed.ip_address)
        if holder.device_owner != DHCP_OWNER:
            ports.update(tx, holder.id, now)
            forwarding.port_changed(tx, holder.id)
            members.changed(tx, holder.security_groups, holder.id, before=holder)
    subnets.delete(tx, subnet_id)
    around = networks.find(tx, found.network_id)
    assert around is not None, "a subnet has a network"
    networks.revise(tx, around.id, now, {})
    dhcp.align(tx, around, now)


def checked_dns(servers: Iterable[str]) -> tuple[str, ...]:
    """Name servers as they are stored. Raises Invalid."""
    found = tuple(str(addresses.parsed("dns_nameservers", server)) for server in servers)
    if len(set(found)) != len(found):
        raise bad_value("dns_nameservers", "Duplicate nameserver")
    if len(found) > DNS_SERVERS_MAX:
        raise InvalidInput(f"The number of DNS name servers exceeds the limit {DNS_SERVERS_MAX}")
    return found


def checked_routes(routes: Iterable[HostRoute], ip_version: int) -> tuple[HostRoute, ...]:
    """Host routes as they are stored. Raises Invalid."""
    found: list[HostRoute] = []
    for route in routes:
        destination = addresses.parsed_cidr("host_routes", route.destination)
        nexthop = addresses.parsed("host_routes", route.nexthop)
        if destination.version != ip_version or nexthop.version != ip_version:
            raise InvalidInput(f"host route {route.destination} does not match the ip_version '{ip_version}'")
        found.append(HostRoute(destination=str(destination), nexthop=str(nexthop)))
    if len(set(found)) != len(found):
        raise bad_value("host_routes", "Duplicate hostroute")
    if len(found) > HOST_ROUTES_MAX:
        raise InvalidInput(f"The number of host routes exceeds the limit {HOST_ROUTES_MAX}")
    return tuple(found)


def _checked_cidr(draft: Draft) -> Cidr:
    cidr = addresses.parsed_cidr("cidr", draft.cidr)
    if draft.ip_version not in (4, 6):
        raise bad_value("ip_version", f"'{draft.ip_version}' is not in [4, 6]")
    if cidr.version != draft.ip_version:
        raise InvalidInput(f"cidr '{draft.cidr}' does not match the ip_version '{draft.ip_version}'")
    if cidr.prefixlen == 0:
        raise InvalidInput("0 is not allowed as CIDR prefix length")
    if cidr.is_multicast or cidr.is_loopback or cidr.is_link_local or cidr.is_unspecified:
        raise InvalidInput(f"cidr '{draft.cidr}' is not one that guests can have")
    if draft.enable_dhcp:
        _check_dhcp_fits(cidr)
    return cidr


def _check_dhcp_fits(cidr: Cidr) -> None:
    """There must be room for the gateway, the DHCP port and a guest."""
    if cidr.prefixlen > cidr.max_prefixlen - 2:
        raise InvalidInput("Subnet has a prefix length that is incompatible with DHCP service enabled")


def _check_modes(draft: Draft, cidr: Cidr) -> None:
    modes = {"ipv6_ra_mode": draft.ipv6_ra_mode, "ipv6_address_mode": draft.ipv6_address_mode}
    given = {name: mode for name, mode in modes.items() if mode is not None}
    if not given:
        return
    for name, mode in given.items():
        if mode not in _MODES:
            raise bad_value(name, f"'{mode}' is not in {list(_MODES)}")
        if cidr.version == 4:
            raise InvalidInput(f"{name} is not valid when ip_version is 4")
    if not draft.enable_dhcp:
        raise InvalidInput("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False")
    if len(set(given.values())) > 1:
        raise InvalidInput(
            f"ipv6_ra_mode set to '{draft.ipv6_ra_mode}' with ipv6_address_mode set to '{draft.ipv6_address_mode}' "
            "is not valid. If both attributes are set, they must be the same value"
        )
    if draft.ipv6_address_mode in addresses.AUTOMATIC and cidr.prefixlen != 64:
        raise InvalidInput(
            f"Invalid CIDR {cidr} for IPv6 address mode. OpenStack uses the EUI-64 address format, "
            "which requires the prefix to be /64"
        )


def _gateway(cidr: Cidr, asked: str | msgspec.UnsetType | None) -> Address | None:
    if isinstance(asked, msgspec.UnsetType):
        return addresses.default_gateway(cidr)
    return addresses.parsed("gateway_ip", asked) if asked is not None else None


def _ranges(tx: Tx, found: Subnet, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The new gateway and pools, where they change."""
    cidr = addresses.cidr_of(found.cidr)
    text = changes.get("gateway_ip", found.gateway_ip)
    gateway = addresses.parsed("gateway_ip", text) if text is not None else None
    values: dict[str, Any] = {}
    if "gateway_ip" in changes:
        addresses.checked_gateway(cidr, gateway)
        values["gateway_ip"] = str(gateway) if gateway is not None else None
        if values["gateway_ip"] != found.gateway_ip and found.gateway_ip is not None:
            _check_gateway_free(tx, found, found.gateway_ip)
    if "allocation_pools" in changes:
        values["allocation_pools"] = _texts(addresses.checked_pools(cidr, gateway, changes["allocation_pools"]))
    else:
        addresses.checked_conflict(gateway, addresses.pools_of(found.allocation_pools))
    return values


def _check_gateway_free(tx: Tx, found: Subnet, gateway: str) -> None:
    holder = subnets.holder(tx, found.id, gateway)
    if holder is not None:
        raise GatewayIpInUse(gateway, holder)


def _texts(pools: Iterable[Pool]) -> tuple[PoolText, ...]:
    return tuple(PoolText(start=str(low), end=str(high)) for low, high in pools)


def _address_guests(tx: Tx, made: Subnet, now: float) -> None:
    """Guests that are there already make themselves an address of a new subnet with SLAAC: their ports must say so."""
    for guest in ports.on_network(tx, made.network_id):
        if guest.device_owner in INFRASTRUCTURE_OWNERS:
            continue
        subnets.give(tx, made, str(addresses.eui64(addresses.cidr_of(made.cidr), guest.mac_address)), guest.id)
        ports.update(tx, guest.id, now)
        forwarding.port_changed(tx, guest.id)
        members.changed(tx, guest.security_groups, guest.id)
