"""The volumes of a server that goes to another host: they stay where they are, and another host reaches them.

An export follows its server by its list of initiators. A host that is taken from the list is thrown out at once, and
what it was told opens nothing any more: so this fences a host that is lost, before its server runs elsewhere. While
a server moves alive, both hosts are on the list.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from controller.compute import plugs, store
from controller.compute.plugs import Plug
from controller.db.tx import Tx
from controller.saga.model import Run
from controller.volume import attachments
from controller.volume.attachments import Aiming
from controller.volume.model import Attachment


async def reach(
    run: Run[Any], server_id: str, host_ids: Sequence[str], host_name: str, *, is_alive: bool = False
) -> None:
    """Exactly these hosts reach the server's volumes; `host_name` is where users read that it is.

    Raises Transient or CloudError. Said twice, it is said once. The server's generation rises where something changes,
    because its domain must know. One that moves alive is logged in meanwhile, and so its secrets stay.
    """
    initiators = tuple(run.deps.fence.initiator(host_id) for host_id in host_ids)
    found: list[Plug] = await run.deps.db.read(plugs.of_server, server_id)
    aiming = _aim_alive if is_alive else _aim
    going = [reach_one(run, plug, initiators, host_name, aiming) for plug in found if plug.is_plugged]
    for end in await asyncio.gather(*going, return_exceptions=True):
        if isinstance(end, BaseException):
            raise end


async def reach_one(
    run: Run[Any], plug: Plug, initiators: Sequence[str], host_name: str, aiming: Aiming | None = None
) -> None:
    """As `reach`, of one volume."""
    status = await attachments.ensure_export(run, plug.attachment_id, initiators, host_name, aiming or _aim)
    await run.deps.db.write(attachments.answered, plug.attachment_id, status)


def _aim_alive(tx: Tx, attachment_id: str, initiators: Sequence[str], host_name: str, now: float) -> Attachment | None:
    return _aim(tx, attachment_id, initiators, host_name, now, keeps_secret=True)


def _aim(
    tx: Tx, attachment_id: str, initiators: Sequence[str], host_name: str, now: float, *, keeps_secret: bool = False
) -> Attachment | None:
    """As `attachments.aim`; the secret is another then, so the domain's generation rises with it."""
    before = attachments.find(tx, attachment_id)
    after = attachments.aim(tx, attachment_id, initiators, host_name, now, keeps_secret=keeps_secret)
    if before is not None and after is not None and after.generation != before.generation:
        assert after.server_id is not None, "what is plugged serves a server"
        store.bump(tx, after.server_id)
    return after
