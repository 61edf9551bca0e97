"""What became of one request: the steps of its sagas, where, how long, and why it ended as it did."""

import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.saga import saga
from controller.db.tx import Tx
from controller.errors import Conflict, NotFound
from controller.http.op import Call
from controller.saga import log
from controller.saga.model import Trace


async def show(call: Call) -> dict[str, object]:
    """GET /requests/{request_id}: an admin sees every request, others those of their project."""
    request_id = call.params["request_id"]
    events = await call.cloud.db.read(_trace, call.ctx, request_id)
    return {"request_id": request_id, "events": events}


async def retry(call: Call) -> None:
    """POST /sagas/{saga_id}/retry: a stuck saga tries again."""
    saga_id = call.params["saga_id"]
    if not await call.cloud.db.write(log.retry, saga_id, call.cloud.world.clock.now()):
        raise Conflict(f"Saga {saga_id} is not stuck.")
    call.cloud.sagas.kick(saga_id)


async def abandon(call: Call) -> None:
    """POST /sagas/{saga_id}/abandon: nobody works on it any more; what it left is the operator's."""
    saga_id, now = call.params["saga_id"], call.cloud.world.clock.now()
    if not await call.cloud.db.write(log.abandon, saga_id, call.body.reason, now):
        raise Conflict(f"Saga {saga_id} rests already, or there is none.")


def _trace(tx: Tx, ctx: Context, request_id: str) -> list[Trace]:
    owners = set(tx.execute(sa.select(saga.c.project_id).where(saga.c.request_id == request_id)).scalars())
    if not owners or not (ctx.is_admin or owners == {ctx.project_id}):
        raise NotFound(f"No request {request_id} started anything that you may see.")
    return log.trace(tx, request_id=request_id)
