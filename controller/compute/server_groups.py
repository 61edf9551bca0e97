"""Groups of servers that want to be together, or apart."""

from typing import TYPE_CHECKING

from controller import quota
from controller.compute import group_store
from controller.compute.group_store import ServerGroup
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Invalid, NotFound, OverQuota

if TYPE_CHECKING:
    from controller.cloud import Cloud


async def create(cloud: "Cloud", ctx: Context, name: str, policy: str, max_per_host: int | None) -> ServerGroup:
    """Make one. Raises OverQuota."""
    new = ServerGroup(
        id=cloud.world.entropy.uuid(),
        project_id=ctx.project,
        user_id=ctx.user_id,
        name=name,
        policy=policy,
        max_per_host=max_per_host,
        created_at=cloud.world.clock.now(),
    )
    await cloud.db.write(_create, new)
    return new


def _create(tx: Tx, new: ServerGroup) -> None:
    quota.charge(tx, new.project_id, "compute", {"server_groups": 1}, group_store.used)
    group_store.insert(tx, new)


async def delete(cloud: "Cloud", ctx: Context, group_id: str) -> None:
    """Remove one; its servers go on without. Raises NotFound."""
    await cloud.db.write(_delete, ctx, group_id)


def _delete(tx: Tx, ctx: Context, group_id: str) -> None:
    group_store.get(tx, ctx, group_id)
    group_store.delete(tx, group_id)


def join(tx: Tx, ctx: Context, group_id: str, server_ids: list[str]) -> None:
    """New servers become members: part of the transaction that makes them. Raises Invalid, OverQuota."""
    try:
        group = group_store.get(tx, ctx, group_id)
    except NotFound as error:
        raise Invalid(error.message) from error
    limit = quota.limits(tx, group.project_id, "compute")["server_group_members"]
    known = len(group_store.members(tx, [group.id])[group.id])
    if limit != quota.UNLIMITED and known + len(server_ids) > limit:
        numbers = {"limit": limit, "used": known, "requested": len(server_ids)}
        raise OverQuota("Quota exceeded, too many servers in group", why={"quota": {"server_group_members": numbers}})
    for server_id in server_ids:
        group_store.join(tx, group.id, server_id)
