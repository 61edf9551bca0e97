"""Which images volumes on a host are being made of: what must stay in its cache until they are."""

import sqlalchemy as sa

from controller.db.tables.volume import volume
from controller.db.tx import Tx
from controller.volume.model import Source, Status


def contents(tx: Tx, host_id: str) -> set[str]:
    """Their sha256."""
    here = (volume.c.host_id == host_id, volume.c.source == Source.IMAGE, volume.c.source_hash.is_not(None))
    query = sa.select(volume.c.source_hash).where(*here, volume.c.status == Status.CREATING)
    return set(tx.execute(query).scalars())
