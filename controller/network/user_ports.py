"""Rules of ports as users make and change them. Transaction functions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from controller.context import Context
from controller.db.tx import Tx
from controller.fleet import store as fleet
from controller.network import addresses, addressing, usage
from controller.network.errors import (
    AddressPairAndPortSecurityRequired,
    AddressPairsExhausted,
    DuplicateAddressPairInRequest,
    InvalidInput,
    MacAddressInUse,
    NetworkNotFound,
    PortBound,
    PortNotFound,
    PortSecurityAndIPRequiredForSecurityGroups,
    PortSecurityPortHasSecurityGroup,
    SecurityGroupNotFound,
    ServicePortInUse,
    bad_value,
)
from controller.network.model import (
    COMPUTE_OWNER_PREFIX,
    INFRASTRUCTURE_OWNERS,
    Fixed,
    Pair,
    Port,
    Standard,
    Status,
)
from controller.network.store import groups, members, networks, ports
from controller.network.store.rows import check_revision

PAIRS_MAX: Final = 10
FIXED_IPS_MAX: Final = 64
"""Addresses of one port; all of them travel to its host in one message."""


class Draft(Standard, frozen=True, kw_only=True):
    """A port that somebody asks for. None: ours to choose; in `fixed_ips` either half of a `Fixed` may be empty."""

    network_id: str
    mac_address: str | None = None
    admin_state_up: bool = True
    fixed_ips: tuple[Fixed, ...] | None = None
    security_groups: tuple[str, ...] | None = None
    pairs: tuple[tuple[str, str | None], ...] = ()
    port_security_enabled: bool | None = None
    device_id: str = ""
    device_owner: str = ""
    host: str = ""  # By name, as administrators say it.


def create(tx: Tx, ctx: Context, drafts: Sequence[Draft], now: float) -> list[Port]:
    """All of them or, by raising, none."""
    for project_id, count in Counter(draft.project_id for draft in drafts).items():
        usage.charge(tx, project_id, "port", count)
    return [_create(tx, ctx, draft, now) for draft in drafts]


def _create(tx: Tx, ctx: Context, draft: Draft, now: float) -> Port:
    around = networks.find_visible(tx, ctx, draft.network_id)
    if around is None:
        raise NetworkNotFound(draft.network_id)
    is_secure = around.port_security_enabled if draft.port_security_enabled is None else draft.port_security_enabled
    _check_owner(draft.device_owner)
    is_trusted = draft.device_owner.startswith("network:")
    wanted_groups = () if is_trusted and draft.security_groups is None else draft.security_groups
    if wanted_groups:
        if not is_secure:
            raise PortSecurityAndIPRequiredForSecurityGroups
        _check_groups(tx, ctx, draft.project_id, _distinct(wanted_groups))
    mac = _mac(tx, draft)
    new = Port(
        id=draft.id,
        project_id=draft.project_id,
        name=draft.name,
        description=draft.description,
        created_at=draft.created_at,
        updated_at=draft.updated_at,
        network_id=draft.network_id,
        mac_address=mac,
        admin_state_up=draft.admin_state_up,
        device_id=draft.device_id,
        device_owner=draft.device_owner,
        port_security_enabled=is_secure,
        allowed_address_pairs=_pairs(draft.pairs, mac, is_secure=is_secure),
        host_id=_host_id(tx, draft.host),
    )
    _check_fixed(draft.fixed_ips or ())
    addressing.create(tx, new, fixed_ip_wanted=draft.fixed_ips, group_ids=wanted_groups, now=now)
    return _again(tx, new.id)


def update(tx: Tx, ctx: Context, port_id: str, changes: Mapping[str, Any], expected: int | None, now: float) -> Port:
    """Change what may be changed. `changes`: attributes of `Draft`."""
    found = ports.find(tx, port_id)
    if found is None:
        raise PortNotFound(port_id)
    check_revision(found.revision, expected)
    values = {name: value for name, value in changes.items() if name in ("name", "description", "admin_state_up")}
    values |= _identity(tx, found, changes)
    is_secure = changes.get("port_security_enabled", found.port_security_enabled)
    after = _groups_after(tx, ctx, found, changes, is_secure=is_secure)
    pairs = _pairs_after(found, changes, values.get("mac_address", found.mac_address), is_secure=is_secure)
    ports.update(tx, port_id, now, **values, port_security_enabled=is_secure, allowed_address_pairs=pairs)
    has_moved = False
    if changes.get("fixed_ips") is not None:
        _check_fixed(changes["fixed_ips"])
        has_moved = addressing.change(tx, found, changes["fixed_ips"], now)
        if has_moved and found.device_owner in INFRASTRUCTURE_OWNERS:
            raise InvalidInput(f"addresses of a port of {found.device_owner} cannot be changed")
    if set(after) != set(found.security_groups):
        ports.set_groups(tx, port_id, after)
    if has_moved or pairs != found.allowed_address_pairs or set(after) != set(found.security_groups):
        members.changed(tx, (*found.security_groups, *after), port_id, before=found)
    return _again(tx, port_id)


def delete(tx: Tx, port_id: str, expected: int | None, now: float) -> None:
    """A port that is not the service's own. Its host lets go of it, floating IPs fall back to DOWN."""
    found = ports.find(tx, port_id)
    if found is None:
        raise PortNotFound(port_id)
    check_revision(found.revision, expected)
    if found.device_owner in INFRASTRUCTURE_OWNERS:
        raise ServicePortInUse(port_id, found.device_owner)
    addressing.remove(tx, found, now)


def _again(tx: Tx, port_id: str) -> Port:
    made = ports.find(tx, port_id)
    assert made is not None, "it was just written"
    return made


def _check_owner(device_owner: str) -> None:
    if device_owner in INFRASTRUCTURE_OWNERS:
        raise InvalidInput(f"ports of {device_owner} are made by the service itself")


def _identity(tx: Tx, found: Port, changes: Mapping[str, Any]) -> dict[str, Any]:
    """MAC, device and binding, as far as they change: those of a server's port and of our own stay."""
    values: dict[str, Any] = {}
    if changes.get("mac_address") is not None:
        values["mac_address"] = addresses.parsed_mac("mac_address", changes["mac_address"])
    for name in ("device_id", "device_owner"):
        if name in changes:
            values[name] = changes[name]
    if "host" in changes:
        values["host_id"] = _host_id(tx, changes["host"])
    values = {name: value for name, value in values.items() if value != getattr(found, name)}
    if not values:
        return values
    if found.device_owner in INFRASTRUCTURE_OWNERS:
        raise InvalidInput(f"{', '.join(values)} of a port of {found.device_owner} cannot be changed")
    if found.host_id and found.device_owner.startswith(COMPUTE_OWNER_PREFIX):
        raise PortBound(found.id, f"{', '.join(values)} cannot be changed")
    _check_owner(values.get("device_owner", ""))
    if "mac_address" in values and ports.with_mac(tx, found.network_id, values["mac_address"]) is not None:
        raise MacAddressInUse(found.network_id, values["mac_address"])
    if "host_id" in values:
        values["status"] = Status.DOWN
    return values


def _groups_after(tx: Tx, ctx: Context, found: Port, changes: Mapping[str, Any], *, is_secure: bool) -> tuple[str, ...]:
    after: tuple[str, ...] = found.security_groups
    if "security_groups" in changes:
        after = _distinct(changes["security_groups"] or ())
        if after and found.device_owner in INFRASTRUCTURE_OWNERS:
            raise InvalidInput(f"security groups do not apply to a port of {found.device_owner}")
        _check_groups(tx, ctx, found.project_id, set(after) - set(found.security_groups))
    if after and not is_secure:
        if "security_groups" in changes:
            raise PortSecurityAndIPRequiredForSecurityGroups
        raise PortSecurityPortHasSecurityGroup
    return after


def _pairs_after(found: Port, changes: Mapping[str, Any], mac: str, *, is_secure: bool) -> tuple[Pair, ...]:
    if "pairs" in changes:
        return _pairs(changes["pairs"], mac, is_secure=is_secure)
    if found.allowed_address_pairs and not is_secure:
        raise AddressPairAndPortSecurityRequired
    # A pair that was given without a MAC has the port's own, and follows it.
    return tuple(
        msgspec.structs.replace(pair, mac_address=mac) if pair.mac_address == found.mac_address else pair
        for pair in found.allowed_address_pairs
    )


def _pairs(asked: Iterable[tuple[str, str | None]], mac: str, *, is_secure: bool) -> tuple[Pair, ...]:
    """Address pairs as they are stored. Raises Invalid or Conflict."""
    asked, found = tuple(asked), []
    if len(asked) > PAIRS_MAX:
        raise AddressPairsExhausted(PAIRS_MAX)
    for address, own_mac in asked:
        if "/" in address:
            addresses.parsed_cidr("allowed_address_pairs", address)
        else:
            addresses.parsed("allowed_address_pairs", address)
        pair = Pair(
            ip_address=address,
            mac_address=mac if own_mac is None else addresses.parsed_mac("allowed_address_pairs", own_mac),
        )
        if pair in found:
            raise DuplicateAddressPairInRequest(pair.mac_address, pair.ip_address)
        found.append(pair)
    if found and not is_secure:
        raise AddressPairAndPortSecurityRequired
    return tuple(found)


def _check_fixed(wanted: Sequence[Fixed]) -> None:
    if len(wanted) > FIXED_IPS_MAX:
        raise InvalidInput("Exceeded maximum amount of fixed ips per port")
    asked = [str(addresses.parsed("ip_address", one.ip_address)) for one in wanted if one.ip_address]
    if len(set(asked)) != len(asked):
        raise bad_value("fixed_ips", "Duplicate IP address")
    if any(not one.ip_address and not one.subnet_id for one in wanted):
        raise InvalidInput("IP allocation requires subnet_id or ip_address")


def _distinct(group_ids: Iterable[str]) -> tuple[str, ...]:
    """Raises Invalid for a group that is named twice."""
    asked = tuple(group_ids)
    if len(set(asked)) < len(asked):
        raise bad_value("security_groups", f"duplicate items in the list: '{', '.join(asked)}'")
    return asked


def _check_groups(tx: Tx, ctx: Context, project_id: str, group_ids: Iterable[str]) -> None:
    wanted = set(group_ids)
    usable = {one.id for one in groups.some(tx, wanted) if ctx.is_admin or one.project_id == project_id}
    for missing in sorted(wanted - usable):
        raise SecurityGroupNotFound(missing)


def _mac(tx: Tx, draft: Draft) -> str:
    if draft.mac_address is None:
        return ports.free_mac(tx, draft.network_id, draft.id)
    mac = addresses.parsed_mac("mac_address", draft.mac_address)
    if ports.with_mac(tx, draft.network_id, mac) is not None:
        raise MacAddressInUse(draft.network_id, mac)
    return mac


def _host_id(tx: Tx, name: str) -> str:
    """The id of the host that an administrator names; empty: unbound."""
    if not name:
        return ""
    for host in fleet.list_hosts(tx):
        if host.hostname == name:
            return host.id
    raise InvalidInput(f"there is no host named '{name}'")
