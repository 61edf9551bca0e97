"""SQL of server groups, and where a server's company is."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.compute import server, server_group_member
from controller.db.tables.compute import server_group as table
from controller.db.tx import Tx
from controller.errors import NotFound
from controller.schedule.model import Company, Policy

_LIVING = sa.and_(server.c.deleted_at.is_(None), server.c.is_deleting.is_(False))
_OF_SERVER = (
    sa.select(table)
    .join(server_group_member, server_group_member.c.group_id == table.c.id)
    .where(server_group_member.c.server_id == sa.bindparam("server_id"))
)
_OTHERS = (
    sa.select(server.c.host_id)
    .join(server_group_member, server_group_member.c.server_id == server.c.id)
    .where(
        server_group_member.c.group_id == sa.bindparam("group_id"),
        server.c.id != sa.bindparam("server_id"),
        server.c.host_id.is_not(None),
        _LIVING,
    )
)


class ServerGroup(msgspec.Struct, frozen=True):
    """A row, in the order of the table's columns."""

    id: str
    project_id: str
    user_id: str
    name: str
    policy: str
    max_per_host: int | None
    created_at: float


def find(tx: Tx, group_id: str) -> ServerGroup | None:
    """One group, whoever's."""
    row = tx.execute(sa.select(table).where(table.c.id == group_id)).first()
    return None if row is None else ServerGroup(*row)


def get(tx: Tx, ctx: Context, group_id: str) -> ServerGroup:
    """A group that this caller may see. Raises NotFound."""
    found = find(tx, group_id)
    if found is None or not (ctx.is_admin or found.project_id == ctx.project_id):
        raise NotFound(f"Instance group {group_id} could not be found.")
    return found


def insert(tx: Tx, new: ServerGroup) -> None:
    """Add one."""
    tx.execute(sa.insert(table), msgspec.structs.asdict(new))


def delete(tx: Tx, group_id: str) -> None:
    """Forget it; its servers go on without."""
    tx.execute(sa.delete(server_group_member).where(server_group_member.c.group_id == group_id))
    tx.execute(sa.delete(table).where(table.c.id == group_id))


def page(tx: Tx, project_id: str | None, limit: int, offset: int) -> list[ServerGroup]:
    """Groups of a project, or of all; oldest first."""
    stmt = sa.select(table).order_by(table.c.created_at, table.c.id).limit(limit).offset(offset)
    if project_id is not None:
        stmt = stmt.where(table.c.project_id == project_id)
    return [ServerGroup(*row) for row in tx.execute(stmt)]


def used(tx: Tx, project_id: str) -> dict[str, int]:
    """What a project's groups count against its quota."""
    mine = sa.select(sa.func.count()).select_from(table).where(table.c.project_id == project_id)
    return {"server_groups": int(tx.execute(mine).scalar_one())}


def members(tx: Tx, group_ids: Sequence[str]) -> dict[str, list[str]]:
    """The servers of groups, by group, in the order they were made; those that are gone are no members."""
    found: dict[str, list[str]] = {group_id: [] for group_id in group_ids}
    if not group_ids:
        return found
    stmt = (
        sa.select(server_group_member.c.group_id, server.c.id)
        .join(server, server.c.id == server_group_member.c.server_id)
        .where(server_group_member.c.group_id.in_(list(group_ids)), server.c.deleted_at.is_(None))
        .order_by(server.c.created_at, server.c.id)
    )
    for group_id, server_id in tx.execute(stmt):
        found[group_id].append(server_id)
    return found


def ids_of(tx: Tx, server_id: str) -> list[str]:
    """The ids of the groups that a server is in: one at most."""
    mine = server_group_member.c.server_id == server_id
    return list(tx.execute(sa.select(server_group_member.c.group_id).where(mine)).scalars())


def join(tx: Tx, group_id: str, server_id: str) -> None:
    """A new member."""
    tx.execute(sa.insert(server_group_member), {"group_id": group_id, "server_id": server_id})


def leave(tx: Tx, server_id: str) -> None:
    """It is no member of any."""
    tx.execute(sa.delete(server_group_member).where(server_group_member.c.server_id == server_id))


def of_server(tx: Tx, server_id: str) -> ServerGroup | None:
    """The group that a server is in."""
    row = tx.execute(_OF_SERVER, {"server_id": server_id}).first()
    return None if row is None else ServerGroup(*row)


def company(tx: Tx, server_id: str) -> Company | None:
    """The policy that a server is placed by, and how many of its group are on which host; None: it is in no group."""
    group = of_server(tx, server_id)
    if group is None:
        return None
    on = Counter(tx.execute(_OTHERS, {"group_id": group.id, "server_id": server_id}).scalars())
    return Company(policy=Policy(group.policy), max_per_host=group.max_per_host or 1, on=dict(on))
