"""Which volumes a server was given, and as which devices its guest sees them.

A row is written when the volume is reserved. `is_plugged` says that the disk is part of the domain that the host is
told of: it is set after the export has answered, and taken back before the export goes; either raises the server's
generation.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from agent.wire.domain import DomainDisk
from controller.compute import store
from controller.db.tables.compute import server as server_table
from controller.db.tables.volume import server_volume
from controller.db.tx import Tx
from controller.errors import Forbidden, Invalid
from controller.volume import attachments, specs
from controller.volume.fencing import Fence
from controller.volume.model import AttachStatus
from controller.volume.specs import Link

LETTERS = "abcdefghijklmnopqrstuvwxyz"
"""Devices of one server: as many as Nova gives by default, and as one letter can tell apart."""


class Plug(msgspec.Struct, frozen=True):
    """One volume of a server, in the order of the table's columns."""

    attachment_id: str
    server_id: str
    volume_id: str
    device: str
    bus: str | None
    boot_index: int | None
    tag: str | None
    is_ended_with_server: bool
    is_plugged: bool


class Plugged(msgspec.Struct, frozen=True):
    """A volume that is part of the domain, with what the domain must know of it."""

    plug: Plug
    link: Link


_OF_SERVER = (
    sa.select(server_volume)
    .where(server_volume.c.server_id == sa.bindparam("server_id"))
    .order_by(server_volume.c.device)
)
_OF_SERVERS = (
    sa.select(server_volume)
    .where(server_volume.c.server_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(server_volume.c.device)
)


def of_server(tx: Tx, server_id: str) -> list[Plug]:
    """A server's volumes, by device."""
    return [Plug(*row) for row in tx.execute(_OF_SERVER, {"server_id": server_id})]


def of_servers(tx: Tx, server_ids: Sequence[str]) -> dict[str, list[Plug]]:
    """The volumes of many servers in one query."""
    found: dict[str, list[Plug]] = {}
    if server_ids:
        for row in tx.execute(_OF_SERVERS, {"ids": list(server_ids)}):
            plug = Plug(*row)
            found.setdefault(plug.server_id, []).append(plug)
    return found


def find(tx: Tx, server_id: str, volume_id: str) -> Plug | None:
    """One volume of a server."""
    mine = (server_volume.c.server_id == server_id, server_volume.c.volume_id == volume_id)
    row = tx.execute(sa.select(server_volume).where(*mine)).first()
    return None if row is None else Plug(*row)


def insert(tx: Tx, new: Plug) -> None:
    """A server's volume."""
    tx.execute(sa.insert(server_volume), {field: getattr(new, field) for field in Plug.__struct_fields__})


def drop(tx: Tx, attachment_id: str) -> None:
    """Forget it."""
    tx.execute(sa.delete(server_volume).where(server_volume.c.attachment_id == attachment_id))


def set_plugged(tx: Tx, attachment_id: str, is_plugged: bool) -> bool:
    """Make the disk part of the domain, or not, at a new generation; False where it is so already, or is gone."""
    mine = (server_volume.c.attachment_id == attachment_id, server_volume.c.is_plugged.is_(not is_plugged))
    changed = sa.update(server_volume).where(*mine).values(is_plugged=is_plugged).returning(server_volume.c.server_id)
    server_id = tx.execute(changed).scalar_one_or_none()
    if server_id is None:
        return False
    store.bump(tx, server_id)
    return True


def plugged(tx: Tx, server_id: str) -> list[Plugged]:
    """The volumes that are part of the domain."""
    rows = [plug for plug in of_server(tx, server_id) if plug.is_plugged]
    known = attachments.links(tx, [plug.attachment_id for plug in rows])
    return [Plugged(plug, known[plug.attachment_id]) for plug in rows if plug.attachment_id in known]


def disks(found: Iterable[Plugged], fence: Fence, host_id: str) -> tuple[DomainDisk, ...]:
    """As disks of the domain on a host."""
    return tuple(
        specs.domain_disk(one.link, one.plug.device, one.plug.bus, one.plug.boot_index, (fence, host_id))
        for one in found
    )


def volume_changed(tx: Tx, volume_id: str) -> list[str]:
    """A volume has changed what its domains must know: their generations rise. The ids of those servers."""
    mine = sa.select(server_volume.c.server_id).where(
        server_volume.c.volume_id == volume_id, server_volume.c.is_plugged.is_(True)
    )
    found = list(tx.execute(mine.order_by(server_volume.c.server_id)).scalars())
    for server_id in found:
        store.bump(tx, server_id)
    return found


def note_growth(tx: Tx, server_ids: Iterable[str], request_id: str, saga_id: str, now: float) -> None:
    """A volume of these servers has grown, and their guests are told: an action of theirs, as in Nova."""
    for server_id in server_ids:
        server = store.find(tx, server_id)
        if server is not None:
            known = (server.user_id, server.project_id, saga_id)
            store.insert_action(tx, store.Action(server_id, request_id, "extend_volume", *known, now, now, None))


def next_device(taken: Iterable[str], asked: str | None = None) -> str:
    """A free device. Raises Invalid for one that is not, Forbidden when there is none left."""
    used = {device.removeprefix("/dev/") for device in taken}
    if asked is not None:
        name = asked.removeprefix("/dev/")
        if name in used:
            raise Invalid(f"The supplied device path ({asked}) is in use.")
        if name[:2] == "vd" and name[2:] in LETTERS and len(name) == 3:
            return f"/dev/{name}"
    free = next((letter for letter in LETTERS if f"vd{letter}" not in used), None)
    if free is None:
        raise Forbidden(f"The maximum allowed number of disk devices ({len(LETTERS)}) to attach is exceeded.")
    return f"/dev/vd{free}"


def is_settled(tx: Tx, server_id: str) -> bool:
    """Whether none of the server's volumes is on its way in or out."""
    return all(_is_settled(tx, plug) for plug in of_server(tx, server_id))


def _is_settled(tx: Tx, plug: Plug) -> bool:
    row = attachments.find(tx, plug.attachment_id)
    return plug.is_plugged and row is not None and row.status == AttachStatus.ATTACHED


def is_from_volume(found: Iterable[Plug]) -> bool:
    """Whether the server boots from one of these."""
    return any(plug.boot_index == 0 for plug in found)


def hosts_of(tx: Tx, server_ids: Sequence[str]) -> dict[str, str]:
    """Server → host, of those that are on one."""
    mine = sa.select(server_table.c.id, server_table.c.host_id).where(
        server_table.c.id.in_(server_ids), server_table.c.host_id.is_not(None), store.LIVE
    )
    return {row.id: row.host_id for row in tx.execute(mine)}


def change(tx: Tx, attachment_id: str, **values: Any) -> None:
    """Set columns."""
    tx.execute(sa.update(server_volume).where(server_volume.c.attachment_id == attachment_id).values(**values))
