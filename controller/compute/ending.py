"""What becomes of a server's volumes when it ends: they are free, or end with it."""

from controller.compute import plugs
from controller.compute.plugs import Plug
from controller.db.tx import Tx
from controller.errors import Invalid
from controller.volume import attachments, volumes


def release(tx: Tx, plug: Plug, request_id: str, drawn: tuple[str, str], now: float) -> list[str]:
    """The volume is the server's no more; the sagas to kick. `drawn`: ids of a saga and of a message.

    A volume that was to end with the server stays where somebody else still uses it, or has snapshots of it.
    """
    plugs.drop(tx, plug.attachment_id)
    attachments.release(tx, plug.attachment_id, now)
    row = attachments.find_volume(tx, plug.volume_id)
    if row is None or row.is_deleting or not plug.is_ended_with_server:
        return []
    try:
        return volumes.end(tx, request_id, row, (True, False), (*drawn, now))
    except Invalid:
        return []
