"""Which servers have a console that a caller may open, and on which host it is."""

from controller.compute import store
from controller.compute.model import PowerState, Server
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict


def get(tx: Tx, ctx: Context, server_id: str) -> Server:
    """A server with a console. Raises NotFound; Conflict for one that is on no host, or off."""
    server = store.get(tx, ctx, server_id)
    if server.host_id is None or server.is_deleting:
        raise Conflict(f"Instance {server_id} is not ready")
    if server.power_state in (PowerState.SHUTDOWN, PowerState.CRASHED):
        raise Conflict(f"Instance {server_id} is powered off, so it has no console: start it first.")
    return server


def find_host(tx: Tx, server_id: str, generation: int) -> str | None:
    """Where a server is, if it is still what it was in that generation."""
    server = store.find(tx, server_id)
    if server is None or server.deleted_at is not None or server.generation != generation:
        return None
    return server.host_id
