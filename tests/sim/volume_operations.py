"""What users do with volumes: make, attach, detach, extend, copy, snapshot, boot from, delete; in any state."""

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from controller import quota
from controller.db.tables.volume import attachment, snapshot, volume
from controller.db.tx import Tx
from controller.volume.store import volumes as store
from controller.volume.usage import SERVICE
from tests.sim import ground
from tests.sim.thing import Thing

if TYPE_CHECKING:
    from tests.sim.operations import Users

COMPUTE: Final = "/compute/v2.1"
VOLUME: Final = "/volume/v3"

GONE_S: Final = 1500.0
"""In calm weather every volume is gone by then."""


def any_volume(users: "Users", project: str | None = None) -> Thing | None:
    """One of those that were made, mostly a late one."""
    mine = [one for one in users.volumes if project in (None, one.project)]
    if not mine:
        return None
    return users.chance.choice(mine[-8:] if users.chance.random() < 0.8 else mine)


async def create_volume(users: "Users") -> None:
    chance, project = users.chance, users.any_project()
    body: dict[str, Any] = {"size": chance.choice((1, 1, 2, 5)), "name": users.name("volume")}
    kind = chance.random()
    origin = any_volume(users, project)
    mine = [one for one in users.snapshots if one.project == project]
    if kind < 0.2:
        body["imageRef"] = ground.IMAGE
    elif kind < 0.35 and origin is not None:
        body |= {"source_volid": origin.id, "size": 5}
    elif kind < 0.5 and mine:
        body |= {"snapshot_id": chance.choice(mine).id, "size": 5}
    if chance.random() < 0.2:
        body["volume_type"] = ground.MULTIATTACH
    answer = await users.ask("POST", f"{VOLUME}/volumes", project, {"volume": body})
    await check_quota(users, project)
    if answer is not None and answer.is_good:
        users.volumes.append(Thing(answer.body["volume"]["id"], project))


async def check_quota(users: "Users", project: str) -> None:
    """Nothing was given beyond the limits, which nobody changes here."""
    limits, used = await users.simulation.database.read(_limits_and_usage, project)
    for name in ("volumes", "gigabytes", "snapshots"):
        if used[name] > limits[name]:
            users.simulation.fail(f"project {project} uses {used[name]} of {limits[name]} {name}")


def _limits_and_usage(tx: Tx, project: str) -> tuple[dict[str, int], dict[str, int]]:
    return quota.limits(tx, project, SERVICE), store.used(tx, project)


async def delete_volume(users: "Users") -> None:
    one = any_volume(users)
    if one is not None:
        await users.ask("DELETE", f"{VOLUME}/volumes/{one.id}", one.project)


async def force_delete_volume(users: "Users") -> None:
    one = any_volume(users)
    if one is not None:
        await users.ask("POST", f"{VOLUME}/volumes/{one.id}/action", "admin", {"os-force_delete": {}})


async def extend_volume(users: "Users") -> None:
    one = any_volume(users)
    if one is not None:
        body = {"os-extend": {"new_size": users.chance.randint(2, 9)}}
        await users.ask("POST", f"{VOLUME}/volumes/{one.id}/action", one.project, body)
        await check_quota(users, one.project)


async def take_snapshot(users: "Users") -> None:
    one = any_volume(users)
    if one is None:
        return
    body = {"snapshot": {"volume_id": one.id, "name": users.name("snapshot")}}
    answer = await users.ask("POST", f"{VOLUME}/snapshots", one.project, body)
    await check_quota(users, one.project)
    if answer is not None and answer.is_good:
        users.snapshots.append(Thing(answer.body["snapshot"]["id"], one.project, one.id))


async def delete_snapshot(users: "Users") -> None:
    if users.snapshots:
        one = users.chance.choice(users.snapshots)
        await users.ask("DELETE", f"{VOLUME}/snapshots/{one.id}", one.project)


async def attach_volume(users: "Users") -> None:
    server = users.any_server()
    one = None if server is None else any_volume(users, server.project)
    if server is None or one is None:
        return
    body: dict[str, Any] = {"volumeId": one.id, "delete_on_termination": users.chance.random() < 0.3}
    path = f"{COMPUTE}/servers/{server.id}/os-volume_attachments"
    answer = await users.ask("POST", path, server.project, {"volumeAttachment": body})
    users.note_accepted(answer, server.id, "attach")
    if answer is not None and answer.is_good:
        users.attached.append(Thing(one.id, server.project, server.id))


async def detach_volume(users: "Users") -> None:
    if not users.attached:
        return
    one = users.chance.choice(users.attached[-10:])
    path = f"{COMPUTE}/servers/{one.parent}/os-volume_attachments/{one.id}"
    answer = await users.ask("DELETE", path, one.project)
    users.note_accepted(answer, one.parent, "detach")


async def reserve_volume(users: "Users") -> None:
    """For a machine that is no server of ours; mostly it says at once who will log in."""
    one = any_volume(users)
    if one is None:
        return
    wanted: dict[str, Any] = {"volume_uuid": one.id}
    if users.chance.random() < 0.7:
        wanted["connector"] = _connector(users)
    answer = await users.ask("POST", f"{VOLUME}/attachments", one.project, {"attachment": wanted})
    if answer is not None and answer.is_good:
        users.reserved.append(Thing(answer.body["attachment"]["id"], one.project, one.id))


def _connector(users: "Users") -> dict[str, Any]:
    return {"initiator": f"iqn.2026-01.example:{users.chance.choice('abc')}", "host": "elsewhere"}


async def use_attachment(users: "Users") -> None:
    """Connect it, complete it, or take it away."""
    if not users.reserved:
        return
    one, kind = users.chance.choice(users.reserved[-6:]), users.chance.random()
    path = f"{VOLUME}/attachments/{one.id}"
    if kind < 0.25:
        await users.ask("PUT", path, one.project, {"attachment": {"connector": _connector(users)}})
    elif kind < 0.5:
        await users.ask("POST", f"{path}/action", one.project, {"os-complete": None})
    else:
        await users.ask("DELETE", path, one.project)


async def create_server_from_volume(users: "Users") -> None:
    """Its root is made of the image; sometimes it is given another volume, too."""
    chance, project = users.chance, users.any_project()
    root = {"source_type": "image", "destination_type": "volume", "uuid": ground.IMAGE, "boot_index": 0}
    devices: list[dict[str, Any]] = [{**root, "volume_size": 2, "delete_on_termination": chance.random() < 0.7}]
    data = any_volume(users, project)
    if data is not None and chance.random() < 0.5:
        devices.append({"source_type": "volume", "destination_type": "volume", "uuid": data.id})
    server = {
        "name": users.name("server"),
        "imageRef": "",
        "flavorRef": chance.choice(("42", "1", "2")),
        "networks": [{"uuid": chance.choice(ground.NETWORKS[project])}],
        "block_device_mapping_v2": devices,
    }
    answer = await users.ask("POST", f"{COMPUTE}/servers", project, {"server": server})
    await check_quota(users, project)
    if answer is not None and answer.is_good:
        made = answer.body["server"]["id"]
        users.servers.append(Thing(made, project))
        users.note_accepted(answer, made, "create")


async def delete_everything(users: "Users") -> None:
    """After the servers are gone: what users attached by themselves, snapshots, then volumes."""
    simulation = users.simulation
    for one in await simulation.database.read(_given):
        await users.surely("DELETE", f"{VOLUME}/attachments/{one}", "admin")
    for path, query, gone in (
        ("snapshots", sa.select(snapshot.c.id).order_by(snapshot.c.id), "every snapshot is gone"),
        ("volumes", sa.select(volume.c.id).order_by(volume.c.id), "every volume is gone"),
    ):

        async def left(query: Any = query) -> list[str]:
            return await simulation.database.read(lambda tx: list(tx.execute(query).scalars()))

        async def are_gone(left: Any = left) -> bool:
            return not await left()

        for one in await left():
            await users.surely("POST", f"{VOLUME}/{path}/{one}/action", "admin", {"os-force_delete": {}})
        await simulation.until(gone, are_gone, GONE_S)


def _given(tx: Tx) -> list[str]:
    return list(tx.execute(sa.select(attachment.c.id).order_by(attachment.c.id)).scalars())


OPERATIONS: Final = (
    (2, reserve_volume),
    (3, use_attachment),
    (9, create_volume),
    (4, delete_volume),
    (1, force_delete_volume),
    (3, extend_volume),
    (4, take_snapshot),
    (3, delete_snapshot),
    (10, attach_volume),
    (7, detach_volume),
    (4, create_server_from_volume),
)
