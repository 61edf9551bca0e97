"""Rules of networks: what may be made, what may change, when one may go. Transaction functions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from controller.db.tables.network import floating_ip, network, port, router, subnet
from controller.db.tx import Tx
from controller.fleet import store as fleet
from controller.network import dhcp, floating_ips, usage
from controller.network.errors import (
    ExternalNetworkInUse,
    FlatNetworkInUse,
    InvalidInput,
    InvalidSharedSetting,
    NetworkInUse,
    NetworkMTUSubnetConflict,
    NetworkNotFound,
    TunnelIdInUse,
    VlanIdInUse,
    bad_value,
)
from controller.network.model import DHCP_OWNER, INFRASTRUCTURE_OWNERS, Network, Standard, Subnet
from controller.network.store import floating_ips as floating
from controller.network.store import networks, ports, subnets
from controller.network.store.rows import check_revision

MTU: Final[Mapping[str, int]] = {"vxlan": 1450, "flat": 1500, "vlan": 1500}
"""What a guest may send in one packet: the underlay's 1500, less 50 bytes of VXLAN where there is one."""

MTU_MIN: Final = 68
"""Of IPv4 (RFC 791)."""

MTU_MIN_V6: Final = 1280
"""Of IPv6 (RFC 8200)."""

VNI_MAX: Final = (1 << 24) - 1
VLAN_MAX: Final = 4094


class Draft(Standard, frozen=True, kw_only=True):
    """A network that somebody asks for. What is None is ours to choose."""

    admin_state_up: bool = True
    shared: bool = False
    external: bool = False
    port_security_enabled: bool = True
    mtu: int | None = None
    network_type: str | None = None
    physical_network: str | None = None
    segment: int | None = None


def create(tx: Tx, drafts: Sequence[Draft]) -> list[Network]:
    """All of them or, by raising, none."""
    for project_id, count in Counter(draft.project_id for draft in drafts).items():
        usage.charge(tx, project_id, "network", count)
    return [_create(tx, draft) for draft in drafts]


def _create(tx: Tx, draft: Draft) -> Network:
    network_type, physical_network, segment = _placed(tx, draft)
    made = Network(
        id=draft.id,
        project_id=draft.project_id,
        name=draft.name,
        description=draft.description,
        created_at=draft.created_at,
        updated_at=draft.updated_at,
        admin_state_up=draft.admin_state_up,
        shared=draft.shared,
        external=draft.external,
        port_security_enabled=draft.port_security_enabled,
        mtu=_mtu(draft.mtu, network_type),
        network_type=network_type,
        physical_network=physical_network,
        segment=segment,
    )
    networks.insert(tx, made)
    return made


def update(tx: Tx, network_id: str, changes: Mapping[str, Any], expected: int | None, now: float) -> Network:
    """Change what may be changed. Raises NetworkNotFound, a revision conflict, or what stands against it."""
    found = networks.find(tx, network_id)
    if found is None:
        raise NetworkNotFound(network_id)
    check_revision(found.revision, expected)
    if changes.get("shared") is False and found.shared:
        _check_unshared(tx, found)
    if changes.get("external") is False and found.external:
        _check_internal(tx, found)
    values = dict(changes)
    if "mtu" in values:
        values["mtu"] = _mtu(values["mtu"], found.network_type)
        for part in subnets.of_networks(tx, [network_id]):
            check_mtu(part, values["mtu"])
    networks.revise(tx, network_id, now, values)
    return networks.complete(tx, tx.execute(sa.select(network).where(network.c.id == network_id)).all())[0]


def delete(tx: Tx, network_id: str, expected: int | None, now: float) -> None:
    """A network with its subnets, its own DHCP port and floating IPs that are in front of nothing, as in Neutron.

    Raises NetworkInUse if there is any other port.
    """
    found = networks.find(tx, network_id)
    if found is None:
        raise NetworkNotFound(network_id)
    check_revision(found.revision, expected)
    for one in floating.idle(tx, network_id):
        floating_ips.delete(tx, one.id, None, now)
    others = sa.select(port.c.id).where(port.c.network_id == network_id, port.c.device_owner != DHCP_OWNER)
    if tx.execute(others.limit(1)).first() is not None:
        raise NetworkInUse(network_id)
    ports.delete(tx, dhcp.port_id(network_id))
    tx.execute(sa.delete(subnet).where(subnet.c.network_id == network_id))
    networks.delete(tx, network_id)


def _placed(tx: Tx, draft: Draft) -> tuple[str, str | None, int]:
    """(type, physical network, segment) of a new network."""
    kind = draft.network_type or ("vxlan" if draft.physical_network is None else None)
    if kind is None:
        raise InvalidInput("network_type required")
    if kind not in MTU:
        raise InvalidInput(f"network_type value '{kind}' not supported")
    if kind == "vxlan":
        if draft.physical_network is not None:
            raise InvalidInput("provider:physical_network specified for vxlan network")
        return kind, None, _vni(tx, draft.segment)
    if not draft.physical_network:
        raise InvalidInput(f"physical_network required for {kind} provider network")
    _check_physical_network(tx, kind, draft.physical_network)
    return kind, draft.physical_network, _physical_segment(tx, kind, draft.physical_network, draft.segment)


def _vni(tx: Tx, asked: int | None) -> int:
    if asked is not None:
        if not 1 <= asked <= VNI_MAX:
            raise InvalidInput(f"segmentation_id out of range (1 through {VNI_MAX})")
        if networks.on_segment(tx, "vxlan", None, asked):
            raise TunnelIdInUse(asked)
        return asked
    highest = networks.highest_segment(tx)
    if highest < VNI_MAX:
        return highest + 1
    gap = 1 if not networks.on_segment(tx, "vxlan", None, 1) else networks.free_segment(tx)
    if gap is None or gap > VNI_MAX:
        raise TunnelIdInUse(VNI_MAX)
    return gap


def _physical_segment(tx: Tx, kind: str, physical_network: str, asked: int | None) -> int:
    if kind == "flat":
        if asked is not None:
            raise InvalidInput("segmentation_id prohibited for flat provider network")
        if networks.on_segment(tx, "flat", physical_network, 0):
            raise FlatNetworkInUse(physical_network)
        return 0
    if asked is None or not 1 <= asked <= VLAN_MAX:
        raise InvalidInput(f"segmentation_id out of range (1 through {VLAN_MAX})")
    if networks.on_segment(tx, "vlan", physical_network, asked):
        raise VlanIdInUse(physical_network, asked)
    return asked


def _check_physical_network(tx: Tx, kind: str, name: str) -> None:
    """Hosts say what they are plugged into. As long as none has, the operator's word is taken."""
    known = [set(host.physical_networks) for host in fleet.list_hosts(tx) if host.vcpus > 0]
    if known and not any(name in some for some in known):
        raise InvalidInput(f"physical_network '{name}' unknown for {kind} provider network")


def check_mtu(part: Subnet, mtu: int) -> None:
    """Whether packets of a subnet can be as small as the network's. Raises NetworkMTUSubnetConflict."""
    if part.ip_version == 6 and mtu < MTU_MIN_V6:
        raise NetworkMTUSubnetConflict(part.cidr, mtu, MTU_MIN_V6)


def _mtu(asked: int | None, network_type: str) -> int:
    if asked is None or asked == 0:
        return MTU[network_type]
    if asked < MTU_MIN:
        raise bad_value("mtu", f"'{asked}' is too small - must be at least '{MTU_MIN}'")
    if asked > MTU[network_type]:
        raise InvalidInput(f"Requested MTU is too big, maximum is {MTU[network_type]}")
    return asked


def _check_unshared(tx: Tx, found: Network) -> None:
    foreign = sa.select(port.c.id).where(
        port.c.network_id == found.id,
        port.c.project_id.not_in((found.project_id, "")),
        port.c.device_owner.not_in(INFRASTRUCTURE_OWNERS),
    )
    legs = sa.select(port.c.id).where(
        port.c.network_id == found.id,
        port.c.device_id.in_(sa.select(router.c.id).where(router.c.project_id != found.project_id)),
    )
    parts = sa.select(subnet.c.id).where(subnet.c.network_id == found.id, subnet.c.project_id != found.project_id)
    # Gateways and floating IPs stay: external is what they need, not shared.
    queries = (foreign, parts) if found.external else (foreign, legs, parts)
    if any(tx.execute(query.limit(1)).first() is not None for query in queries):
        raise InvalidSharedSetting(found.id)


def _check_internal(tx: Tx, found: Network) -> None:
    queries = (
        sa.select(router.c.id).where(router.c.gateway_network_id == found.id),
        sa.select(floating_ip.c.id).where(floating_ip.c.network_id == found.id),
    )
    if any(tx.execute(query.limit(1)).first() is not None for query in queries):
        raise ExternalNetworkInUse(found.id)
