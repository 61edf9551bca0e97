"""Which images servers on a host are made of: what must stay in its cache."""

import sqlalchemy as sa

from controller.db.tables.compute import server, server_resize
from controller.db.tables.placement import allocation
from controller.db.tx import Tx


def image_ids(tx: Tx, host_id: str) -> set[str]:
    """Of servers that are there, have a disk there, or have claimed room there: a disk may be about to be made."""
    claimed = sa.select(allocation.c.consumer_id).where(allocation.c.host_id == host_id)
    # The disk of the other size stays until the word about it has come.
    kept = sa.select(server_resize.c.server_id).where(
        sa.or_(server_resize.c.from_host_id == host_id, server_resize.c.to_host_id == host_id)
    )
    here = sa.or_(server.c.host_id == host_id, server.c.id.in_(claimed), server.c.id.in_(kept))
    rows = tx.execute(sa.select(server.c.image_id, server.c.rescue_image_id).where(here, server.c.deleted_at.is_(None)))
    return {image_id for row in rows for image_id in row if image_id is not None}
