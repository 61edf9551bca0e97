"""What a server asks of a host, from its row: for whoever looks for one, the first time or again."""

from collections.abc import Sequence
from typing import Any

import msgspec

from controller.compute import group_store, store
from controller.compute.model import Server
from controller.compute.sizes import Size
from controller.db.tx import Tx
from controller.schedule.model import Amounts, Wanted


def amounts(size: Size, root_gib: int) -> Amounts:
    """What a server of that size takes of its host."""
    return Amounts(vcpus=size.vcpus, memory_mib=size.memory_mib, disk_gib=root_gib)


def wanted(
    tx: Tx,
    server: Server,
    *,
    different_host: Sequence[str] = (),
    same_host: Sequence[str] | None = None,
    **more: Any,
) -> Wanted:
    """The wish of a server as it is in this transaction, its group included; `more` replaces fields of it."""
    wish = Wanted(
        server_id=server.id,
        project_id=server.project_id,
        user_id=server.user_id,
        amounts=Amounts(vcpus=server.vcpus, memory_mib=server.memory_mib, disk_gib=server.root_gib),
        zone=server.requested_zone,
        host=server.requested_host,
        is_forced=server.is_forced_host,
        arch=server.arch,
        different_from=store.hosts_holding(tx, server.project_id, tuple(different_host)),
        same_as=None if same_host is None else store.hosts_holding(tx, server.project_id, tuple(same_host)),
        group=group_store.company(tx, server.id),
    )
    return msgspec.structs.replace(wish, **more)


def renewed(tx: Tx, wish: Wanted) -> Wanted:
    """The same wish with its group as it is now: for the transaction that claims."""
    return msgspec.structs.replace(wish, group=group_store.company(tx, wish.server_id))
