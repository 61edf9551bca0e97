"""SQL of pools: what hosts told of them, and what the rows of volumes and snapshots promise away of each."""

from collections.abc import Iterable

import sqlalchemy as sa

from controller.db.tables.volume import snapshot, volume, volume_pool
from controller.db.tx import Tx
from controller.volume.model import Pool

_ALL = (
    sa.select(volume_pool).where(volume_pool.c.is_gone.is_(False)).order_by(volume_pool.c.host_id, volume_pool.c.name)
)
_VOLUMES = sa.select(volume.c.host_id, volume.c.pool, sa.func.sum(volume.c.promised_gib), sa.func.count()).group_by(
    volume.c.host_id, volume.c.pool
)
_SNAPSHOTS = sa.select(snapshot.c.host_id, snapshot.c.pool, sa.func.sum(snapshot.c.size_gib), sa.func.count()).group_by(
    snapshot.c.host_id, snapshot.c.pool
)


def present(tx: Tx) -> list[Pool]:
    """Every pool that its host tells of."""
    return [Pool(*row) for row in tx.execute(_ALL)]


def find(tx: Tx, host_id: str, name: str) -> Pool | None:
    """One pool, also one that is gone."""
    mine = (volume_pool.c.host_id == host_id, volume_pool.c.name == name)
    row = tx.execute(sa.select(volume_pool).where(*mine)).first()
    return None if row is None else Pool(*row)


def put(tx: Tx, host_id: str, told: Iterable[Pool]) -> None:
    """What a host tells of its pools: changed, added, and gone."""
    wanted = {one.name: one for one in told}
    mine = sa.select(volume_pool).where(volume_pool.c.host_id == host_id)
    known = {row.name: Pool(*row) for row in tx.execute(mine)}
    for name, one in wanted.items():
        values = {"driver": one.driver, "total_gib": one.total_gib, "is_thin": one.is_thin, "is_gone": False}
        if name in known:
            _change(tx, host_id, name, values)
        else:
            tx.execute(sa.insert(volume_pool).values(host_id=host_id, name=name, claims=0, **values))
    for name in known.keys() - wanted.keys():
        _change(tx, host_id, name, {"is_gone": True})


def _change(tx: Tx, host_id: str, name: str, values: dict[str, object]) -> None:
    mine = (volume_pool.c.host_id == host_id, volume_pool.c.name == name)
    tx.execute(sa.update(volume_pool).where(*mine).values(**values))


def touch(tx: Tx, host_id: str, name: str) -> None:
    """Before a claim counts: two claims of one pool meet here."""
    mine = (volume_pool.c.host_id == host_id, volume_pool.c.name == name)
    tx.execute(sa.update(volume_pool).where(*mine).values(claims=volume_pool.c.claims + 1))


def promised(tx: Tx) -> dict[tuple[str, str], int]:
    """GiB that are promised of each pool."""
    found: dict[tuple[str, str], int] = {}
    for query in (_VOLUMES, _SNAPSHOTS):
        for host_id, name, gib, _ in tx.execute(query):
            if host_id is not None and name is not None:
                found[host_id, name] = found.get((host_id, name), 0) + int(gib)
    return found


def held(tx: Tx) -> dict[tuple[str, str], int]:
    """How many volumes there are in each pool."""
    return {(row[0], row[1]): int(row[3]) for row in tx.execute(_VOLUMES) if row[0] is not None}
