"""SQL of which addresses belong to a security group: all of them, and what changed since when.

A group's `members_generation` rises with every port that gets or loses the group and every member that gets or loses
an address. Which addresses each rise was about is kept for a while: a host that is not far behind is told the
difference.
"""

from collections.abc import Iterable
from typing import Final

import sqlalchemy as sa

from controller.db.tables.network import ip_allocation, member_change, port, port_security_group, security_group
from controller.db.tx import Tx
from controller.network.model import Port

KEPT: Final = 1000
"""Rises of a group whose addresses are remembered. Fewer: a host that was away is sent everything. More: rows."""

_RAISE = (
    sa.update(security_group)
    .where(security_group.c.id.in_(sa.bindparam("ids", expanding=True)))
    .values(members_generation=security_group.c.members_generation + 1)
    .returning(security_group.c.id, security_group.c.members_generation)
)
_NOTE = sa.insert(member_change)
_FORGET = sa.delete(member_change).where(
    member_change.c.group_id == sa.bindparam("id"), member_change.c.version <= sa.bindparam("last")
)
_SINCE = sa.select(member_change.c.addresses).where(
    member_change.c.group_id == sa.bindparam("id"), member_change.c.version > sa.bindparam("since")
)
_OF_PORT = (
    sa.select(port.c.allowed_address_pairs, ip_allocation.c.address)
    .outerjoin(ip_allocation, ip_allocation.c.port_id == port.c.id)
    .where(port.c.id == sa.bindparam("id"))
)
_FIXED = (
    sa.select(ip_allocation.c.address)
    .join(port_security_group, port_security_group.c.port_id == ip_allocation.c.port_id)
    .where(port_security_group.c.group_id == sa.bindparam("id"))
)
_SOME_FIXED = _FIXED.where(ip_allocation.c.address.in_(sa.bindparam("only", expanding=True)))
_PAIRS = (
    sa.select(port.c.allowed_address_pairs)
    .join(port_security_group, port_security_group.c.port_id == port.c.id)
    .where(
        port_security_group.c.group_id == sa.bindparam("id"),
        sa.cast(port.c.allowed_address_pairs, sa.String) != "[]",
    )
)


def changed(tx: Tx, group_ids: Iterable[str], port_id: str, before: Port | None = None) -> None:
    """Hosts must learn which addresses belong to these groups: this port is, or was, among their members.

    Said while the port's row is there. `before`: how the port was, if it has lost addresses since.
    """
    ids = sorted(set(group_ids))
    if not ids:
        return
    touched = _addresses_of(tx, port_id) | (set() if before is None else _all_of(before))
    raised = sorted((row.id, row.members_generation) for row in tx.execute(_RAISE, {"ids": ids}))
    if raised:
        tx.execute(
            _NOTE, [{"group_id": one, "version": version, "addresses": sorted(touched)} for one, version in raised]
        )
    for group_id, version in raised:
        if version % KEPT == 0:
            tx.execute(_FORGET, {"id": group_id, "last": version - KEPT})


def end(tx: Tx, group_id: str) -> None:
    """The group goes."""
    tx.execute(sa.delete(member_change).where(member_change.c.group_id == group_id))


def of_group(tx: Tx, group_id: str) -> tuple[str, ...]:
    """Every address of every port that has the group, and the address pairs those ports may use."""
    return tuple(sorted(set(tx.execute(_FIXED, {"id": group_id}).scalars()) | _paired(tx, group_id)))


def change(tx: Tx, group_id: str, since: int, until: int) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """(members that are there, members that are gone) for whoever knows a version; None if that is forgotten."""
    rows = tx.execute(_SINCE, {"id": group_id, "since": since}).scalars().all()
    if len(rows) != until - since:
        return None
    touched = {address for addresses in rows for address in addresses}
    there = set(tx.execute(_SOME_FIXED, {"id": group_id, "only": sorted(touched)}).scalars())
    if touched - there:
        there |= touched & _paired(tx, group_id)
    return tuple(sorted(there)), tuple(sorted(touched - there))


def _paired(tx: Tx, group_id: str) -> set[str]:
    return {pair["ip_address"] for pairs in tx.execute(_PAIRS, {"id": group_id}).scalars() for pair in pairs}


def _addresses_of(tx: Tx, port_id: str) -> set[str]:
    rows = tx.execute(_OF_PORT, {"id": port_id}).all()
    fixed = {row.address for row in rows if row.address is not None}
    return fixed | {pair["ip_address"] for row in rows[:1] for pair in row.allowed_address_pairs}


def _all_of(one: Port) -> set[str]:
    return {fixed.ip_address for fixed in one.fixed_ips} | {pair.ip_address for pair in one.allowed_address_pairs}
