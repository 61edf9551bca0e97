"""SQL of changes of size that are neither confirmed nor reverted: one row a server, at most."""

from typing import Any

import msgspec
import sqlalchemy as sa

from controller.compute.sizes import Size
from controller.db.tables.compute import server_resize as table
from controller.db.tx import Tx
from controller.errors import Conflict


class Resize(msgspec.Struct, frozen=True):
    """A row, in the order of the table's columns."""

    server_id: str
    id: str  # Who holds the claim of the old size.
    project_id: str
    old: dict[str, Any]
    new: dict[str, Any]
    from_host_id: str
    from_host_name: str
    to_host_id: str | None
    to_host_name: str | None
    was_on: bool
    extra_vcpus: int
    extra_memory_mib: int
    created_at: float

    @property
    def old_size(self) -> Size:
        """What it had."""
        return msgspec.convert(self.old, Size)

    @property
    def new_size(self) -> Size:
        """What it gets."""
        return msgspec.convert(self.new, Size)

    def other_host(self, host_id: str | None) -> tuple[str | None, str | None]:
        """(id, name) of the host where it keeps the other size's disk, if it is on `host_id`; None if there is none."""
        if self.to_host_id in (None, self.from_host_id):
            return None, None
        if host_id == self.from_host_id:
            return self.to_host_id, self.to_host_name
        return self.from_host_id, self.from_host_name


def find(tx: Tx, server_id: str) -> Resize | None:
    """A server's open change, or None."""
    row = tx.execute(sa.select(table).where(table.c.server_id == server_id)).first()
    return None if row is None else Resize(*row)


def get(tx: Tx, server_id: str) -> Resize:
    """A server's open change. Raises Conflict if it was settled meanwhile."""
    found = find(tx, server_id)
    if found is None:
        raise Conflict(f"Instance {server_id} has not been resized.")
    return found


def insert(tx: Tx, new: Resize) -> None:
    """Begin one."""
    tx.execute(sa.insert(table), msgspec.structs.asdict(new))


def change(tx: Tx, server_id: str, **values: Any) -> None:
    """Note how far it is."""
    tx.execute(sa.update(table).where(table.c.server_id == server_id).values(**values))


def drop(tx: Tx, server_id: str) -> None:
    """It is settled."""
    tx.execute(sa.delete(table).where(table.c.server_id == server_id))


def reserve(has: Size, other: Size) -> dict[str, int]:
    """What counts against the quota beyond what the row has, so that the other size fits at any time."""
    return {
        "extra_vcpus": max(other.vcpus - has.vcpus, 0),
        "extra_memory_mib": max(other.memory_mib - has.memory_mib, 0),
    }
