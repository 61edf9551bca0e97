"""Cases of the volumes' sagas: hosts are fakes that remember broken rules, everything else is real."""

from typing import Any

import msgspec

from agent.wire.domain import DomainDisk
from agent.wire.lifecycle import Generation
from agent.wire.volume import ExportSpec, IscsiSource, SnapshotSpec, VolumeSpec
from agent.wire.world import World
from controller.compute import domains, plugs, store
from controller.compute.plugs import Plug
from controller.compute.sagas.server_create import CREATE as SERVER_CREATE
from controller.compute.sagas.server_create import CreateParams as ServerParams
from controller.compute.sagas.server_delete import DELETE as SERVER_DELETE
from controller.compute.sagas.server_delete import DeleteParams as ServerDeleteParams
from controller.compute.sagas.volume_attach import ATTACH, AttachParams
from controller.compute.sagas.volume_detach import DETACH
from controller.compute.store import Action, Guest
from controller.db.tx import Tx
from controller.saga.model import State
from controller.volume import attachments
from controller.volume.attachments import Wanted
from controller.volume.model import AttachStatus, Pool, Snapshot, SnapshotStatus, Source, Status, Volume
from controller.volume.sagas.attachment_connect import CONNECT, ConnectParams
from controller.volume.sagas.attachment_delete import DELETE as DISCONNECT
from controller.volume.sagas.attachment_delete import DisconnectParams
from controller.volume.sagas.snapshot_create import CREATE as SNAPSHOT_CREATE
from controller.volume.sagas.snapshot_create import SnapshotParams
from controller.volume.sagas.snapshot_delete import DELETE as SNAPSHOT_DELETE
from controller.volume.sagas.volume_create import CREATE, CreateParams
from controller.volume.sagas.volume_delete import DELETE, DeleteParams
from controller.volume.sagas.volume_extend import EXTEND, ExtendParams
from controller.volume.store import attachments as attachment_store
from controller.volume.store import pools, snapshots, volumes
from tests.controller.compute import rows
from tests.controller.compute.fake_hosts import FakeHosts
from tests.sagas.compute import FENCE, REQUEST_ID, SERVER_ID, deps
from tests.sagas.harness import Case

VOLUME_ID = "77777777-7777-4777-8777-777777777777"
SNAPSHOT_ID = "88888888-8888-4888-8888-888888888888"
ATTACHMENT_ID = "99999999-9999-4999-8999-999999999999"
MESSAGE_ID = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
STORAGE = "s1"  # The host of the pool; the server is on h1.

_REQUEST = {"project_id": "p1", "request_id": REQUEST_ID, "message_id": MESSAGE_ID}


def a_volume(**changes: Any) -> Volume:
    """One that lies in a pool."""
    values: dict[str, Any] = {
        "id": VOLUME_ID,
        "project_id": "p1",
        "user_id": "u1",
        "name": "data",
        "description": None,
        "status": Status.AVAILABLE.value,
        "size_gib": 1,
        "promised_gib": 1,
        "type_id": None,
        "zone": "nova",
        "is_bootable": False,
        "is_readonly": False,
        "is_multiattach": False,
        "meta": {},
        "image_meta": {},
        "source": Source.NONE.value,
        "source_id": None,
        "source_hash": None,
        "host_id": STORAGE,
        "host_name": f"name-{STORAGE}",
        "pool": "files",
        "generation": 1,
        "is_deleting": False,
        "created_at": 1000.0,
        "updated_at": 1000.0,
    }
    return Volume(**{**values, **changes})


def a_snapshot(**changes: Any) -> Snapshot:
    values: dict[str, Any] = {
        "id": SNAPSHOT_ID,
        "project_id": "p1",
        "user_id": "u1",
        "volume_id": VOLUME_ID,
        "name": "before",
        "description": None,
        "status": SnapshotStatus.AVAILABLE.value,
        "size_gib": 1,
        "type_id": None,
        "meta": {},
        "host_id": STORAGE,
        "pool": "files",
        "generation": 1,
        "is_deleting": False,
        "created_at": 1000.0,
        "updated_at": 1000.0,
    }
    return Snapshot(**{**values, **changes})


def insert_pool(tx: Tx, host_id: str, total_gib: int = 100) -> None:
    pools.put(tx, host_id, [Pool(host_id, "files", "file", total_gib, True, False, 0)])


def _furnish(tx: Tx, row: Volume) -> None:
    rows.furnish_cloud(tx, STORAGE)
    insert_pool(tx, STORAGE)
    volumes.insert(tx, row)


def _far(world: World) -> FakeHosts:
    return FakeHosts("h1", STORAGE)


def _far_with_volume(world: World) -> FakeHosts:
    fleet = _far(world)
    fleet.objects[STORAGE, "volume", VOLUME_ID] = VolumeSpec(id=VOLUME_ID, generation=Generation(1, 1), size_gib=1)
    fleet.sizes[VOLUME_ID] = 1
    return fleet


def _rules_kept(far: FakeHosts) -> None:
    assert not far.broken, far.broken


def _case(saga: Any, params: msgspec.Struct, **parts: Any) -> Case:
    values: dict[str, Any] = {"target": VOLUME_ID, "far": _far_with_volume, "deps": deps, **parts}
    return Case(saga=saga, params=params, **values)


# volume-create


def volume_create() -> Case:
    """From an image."""
    before = a_volume(
        status=Status.CREATING.value,
        source=Source.IMAGE.value,
        source_id=rows.IMAGE_ID,
        source_hash="ab" * 32,
        host_id=None,
        host_name=None,
        pool=None,
    )

    def check(far: FakeHosts, tx: Tx, state: State) -> None:
        _rules_kept(far)
        row = volumes.find(tx, VOLUME_ID)
        assert row is not None
        if state is State.DONE:
            assert (row.status, row.host_id, row.pool) == (Status.AVAILABLE, STORAGE, "files")
            assert far.of("volume")[VOLUME_ID].generation.n == row.generation
            return
        assert (row.status, row.host_id) == (Status.ERROR, None)
        assert not far.of("volume"), "a volume is left"

    params = CreateParams(volume_id=VOLUME_ID, **_REQUEST)
    return _case(CREATE, params, furnish=lambda tx: _furnish(tx, before), far=_far, check=check)


# volume-delete


def volume_delete() -> Case:
    """With a snapshot."""

    def furnish(tx: Tx) -> None:
        _furnish(tx, a_volume(status=Status.DELETING.value, is_deleting=True))
        snapshots.insert(tx, a_snapshot(status=SnapshotStatus.DELETING.value, is_deleting=True))

    def check(far: FakeHosts, tx: Tx, state: State) -> None:
        assert state is State.DONE
        _rules_kept(far)
        assert volumes.find(tx, VOLUME_ID) is None
        assert snapshots.find(tx, SNAPSHOT_ID) is None
        assert not far.of("volume")
        assert not far.of("snapshot")

    params = DeleteParams(volume_id=VOLUME_ID, snapshot_ids=(SNAPSHOT_ID,), **_REQUEST)
    return _case(DELETE, params, furnish=furnish, far=_far_with_snapshot, check=check)


def _far_with_snapshot(world: World) -> FakeHosts:
    fleet = _far_with_volume(world)
    spec = SnapshotSpec(id=SNAPSHOT_ID, generation=Generation(1, 1), volume_id=VOLUME_ID)
    fleet.objects[STORAGE, "snapshot", SNAPSHOT_ID] = spec
    return fleet


# snapshot-create, snapshot-delete


def snapshot_create() -> Case:
    def furnish(tx: Tx) -> None:
        _furnish(tx, a_volume())
        snapshots.insert(tx, a_snapshot(status=SnapshotStatus.CREATING.value))

    def check(far: FakeHosts, tx: Tx, state: State) -> None:
        _rules_kept(far)
        row = snapshots.find(tx, SNAPSHOT_ID)
        assert row is not None
        if state is State.DONE:
            assert row.status == SnapshotStatus.AVAILABLE
            assert far.of("snapshot")[SNAPSHOT_ID].generation.n == row.generation
            return
        assert row.status == SnapshotStatus.ERROR
        assert not far.of("snapshot"), "a snapshot is left"

    params = SnapshotParams(snapshot_id=SNAPSHOT_ID, **_REQUEST)
    return _case(SNAPSHOT_CREATE, params, target=SNAPSHOT_ID, furnish=furnish, check=check)


def snapshot_delete() -> Case:
    def furnish(tx: Tx) -> None:
        _furnish(tx, a_volume())
        snapshots.insert(tx, a_snapshot(status=SnapshotStatus.DELETING.value, is_deleting=True))

    def check(far: FakeHosts, tx: Tx, state: State) -> None:
        assert state is State.DONE
        _rules_kept(far)
        assert snapshots.find(tx, SNAPSHOT_ID) is None
        assert not far.of("snapshot")

    params = SnapshotParams(snapshot_id=SNAPSHOT_ID, **_REQUEST)
    return _case(SNAPSHOT_DELETE, params, target=SNAPSHOT_ID, furnish=furnish, far=_far_with_snapshot, check=check)


# Volumes of a server that runs.


def _server(tx: Tx) -> None:
    active = {"vm_state": "active", "task_state": None, "power_state": 1, "host_id": "h1", "host_name": "name-h1"}
    server = rows.a_server(SERVER_ID, **active, pushed_generation=1)
    store.insert(tx, server, [], Guest(None, "{}"), ())
    store.insert_action(tx, Action(SERVER_ID, REQUEST_ID, "act", "u1", "p1", None, 1000.0, 1000.0, None))


def _reserve(tx: Tx) -> None:
    row = volumes.find(tx, VOLUME_ID)
    assert row is not None
    attachments.reserve(
        tx, row, Wanted(id=ATTACHMENT_ID, volume_id=VOLUME_ID, server_id=SERVER_ID, is_ours=True), 1000.0
    )
    plug = Plug(ATTACHMENT_ID, SERVER_ID, VOLUME_ID, "/dev/vdb", None, None, None, False, is_plugged=False)
    plugs.insert(tx, plug)


def _furnish_unattached(tx: Tx) -> None:
    rows.furnish_cloud(tx, "h1", STORAGE)
    insert_pool(tx, STORAGE)
    volumes.insert(tx, a_volume())
    _server(tx)
    _reserve(tx)


def _furnish_attached(tx: Tx) -> None:
    """As volume-attach leaves them."""
    _furnish_unattached(tx)
    attachments.aim(tx, ATTACHMENT_ID, (FENCE.initiator("h1"),), "name-h1", 1000.0)
    where = {"portal_host": "198.18.0.1", "portal_port": 3260, "iqn": f"iqn.test:{ATTACHMENT_ID}", "lun": 1}
    attachment_store.change(tx, ATTACHMENT_ID, where)
    plugs.set_plugged(tx, ATTACHMENT_ID, True)
    attachments.attached(tx, ATTACHMENT_ID, 1000.0)
    store.pushed(tx, SERVER_ID, 2)


def _far_with_server(world: World) -> FakeHosts:
    """A host that holds the server, as its row says."""
    from controller.db.tx import Database
    from tests.databases import memory_database

    fleet = _far_with_volume(world)
    _hold_disk(fleet)
    database: Database = memory_database(world.clock.now)
    database.build(_furnish_unattached)  # type: ignore[attr-defined]
    _hold_domain(fleet, database)
    return fleet


def _far_attached(world: World) -> FakeHosts:
    from controller.db.tx import Database
    from tests.databases import memory_database

    fleet = _far_with_volume(world)
    _hold_disk(fleet)
    fleet.objects[STORAGE, "export", ATTACHMENT_ID] = ExportSpec(
        id=ATTACHMENT_ID,
        generation=Generation(1, 1),
        volume_id=VOLUME_ID,
        initiators=(FENCE.initiator("h1"),),
        chap=FENCE.chap(ATTACHMENT_ID, 1),
    )
    database: Database = memory_database(world.clock.now)
    database.build(_furnish_attached)  # type: ignore[attr-defined]
    _hold_domain(fleet, database)
    return fleet


def _hold_disk(fleet: FakeHosts) -> None:
    from agent.wire.disk import DiskSpec

    disk_id = f"{SERVER_ID}-root"
    fleet.objects["h1", "disk", disk_id] = DiskSpec(
        id=disk_id, generation=Generation(1, 1), domain_id=SERVER_ID, size_gib=1
    )


def _hold_domain(fleet: FakeHosts, database: Any) -> None:
    from agent.wire.lifecycle import Power

    found: list[Any] = []
    database.build(lambda tx: found.append(domains.spec_of(domains.whole(tx, SERVER_ID), 1, FENCE)))
    fleet.objects["h1", "domain", SERVER_ID] = found[0]
    fleet.powers["h1", SERVER_ID] = Power.RUNNING


_ATTACH = AttachParams(
    server_id=SERVER_ID,
    volume_id=VOLUME_ID,
    attachment_id=ATTACHMENT_ID,
    request_id=REQUEST_ID,
    message_id=MESSAGE_ID,
    host_id="h1",
    host_name="name-h1",
)


def _is_free(far: FakeHosts, tx: Tx) -> None:
    """Nobody has the volume, and nobody reaches it."""
    row = volumes.find(tx, VOLUME_ID)
    assert row is not None
    assert row.status == Status.AVAILABLE
    assert attachment_store.find(tx, ATTACHMENT_ID) is None
    assert not plugs.of_server(tx, SERVER_ID)
    assert not far.of("export"), "an export is left"
    assert [disk.disk_id for disk in far.of("domain")[SERVER_ID].disks] == [f"{SERVER_ID}-root"]


def _is_attached(far: FakeHosts, tx: Tx) -> None:
    row, one = volumes.find(tx, VOLUME_ID), attachment_store.find(tx, ATTACHMENT_ID)
    server = store.find(tx, SERVER_ID)
    assert row is not None
    assert one is not None
    assert server is not None
    assert (row.status, one.status, one.host_name) == (Status.IN_USE, AttachStatus.ATTACHED, "name-h1")
    assert far.of("export")[ATTACHMENT_ID].chap == FENCE.chap(ATTACHMENT_ID, one.secret_generation)
    assert [disk.device for disk in far.of("domain")[SERVER_ID].disks] == ["", "vdb"]
    assert server.generation == far.of("domain")[SERVER_ID].generation.n


def volume_attach() -> Case:
    def check(far: FakeHosts, tx: Tx, state: State) -> None:
        _rules_kept(far)
        (_is_attached if state is State.DONE else _is_free)(far, tx)
        action = store.find_action(tx, SERVER_ID, REQUEST_ID)
        assert action is not None
        assert action.message == (None if state is State.DONE else "Error")

    return _case(ATTACH, _ATTACH, target=SERVER_ID, furnish=_furnish_unattached, far=_far_with_server, check=check)


def volume_detach() -> Case:
    def furnish(tx: Tx) -> None:
        _furnish_attached(tx)
        attachments.detaching(tx, ATTACHMENT_ID, 1000.0)

    def check(far: FakeHosts, tx: Tx, state: State) -> None:
        assert state is State.DONE
        _rules_kept(far)
        _is_free(far, tx)

    return _case(DETACH, _ATTACH, target=SERVER_ID, furnish=furnish, far=_far_attached, check=check)


# attachment-connect, attachment-delete


def attachment_connect() -> Case:
    def furnish(tx: Tx) -> None:
        _furnish(tx, a_volume())
        _reserve_for_a_user(tx)

    def check(far: FakeHosts, tx: Tx, state: State) -> None:
        _rules_kept(far)
        row, volume = attachment_store.find(tx, ATTACHMENT_ID), volumes.find(tx, VOLUME_ID)
        assert row is not None
        assert volume is not None
        if state is State.DONE:
            assert (row.status, volume.status) == (AttachStatus.ATTACHING, Status.ATTACHING)
            assert far.of("export")[ATTACHMENT_ID].initiators == ("iqn.x:y",)
            assert row.portal_host == "198.18.0.1"
            return
        assert (row.status, volume.status) == (AttachStatus.RESERVED, Status.RESERVED)
        assert not far.of("export"), "an export is left"

    params = ConnectParams(
        attachment_id=ATTACHMENT_ID,
        volume_id=VOLUME_ID,
        initiator="iqn.x:y",
        host_name="desk",
        request_id=REQUEST_ID,
        message_id=MESSAGE_ID,
    )
    return _case(CONNECT, params, target=ATTACHMENT_ID, furnish=furnish, check=check)


def _reserve_for_a_user(tx: Tx) -> None:
    row = volumes.find(tx, VOLUME_ID)
    assert row is not None
    attachments.reserve(tx, row, Wanted(id=ATTACHMENT_ID, volume_id=VOLUME_ID, server_id=None, is_ours=False), 1000.0)


def attachment_delete() -> Case:
    def furnish(tx: Tx) -> None:
        _furnish(tx, a_volume())
        _reserve_for_a_user(tx)
        attachments.aim(tx, ATTACHMENT_ID, ("iqn.x:y",), "desk", 1000.0)
        attachments.attached(tx, ATTACHMENT_ID, 1000.0)
        attachments.detaching(tx, ATTACHMENT_ID, 1000.0)

    def far(world: World) -> FakeHosts:
        fleet = _far_with_volume(world)
        fleet.objects[STORAGE, "export", ATTACHMENT_ID] = ExportSpec(
            id=ATTACHMENT_ID,
            generation=Generation(1, 1),
            volume_id=VOLUME_ID,
            initiators=("iqn.x:y",),
            chap=FENCE.chap(ATTACHMENT_ID, 1),
        )
        return fleet

    def check(far: FakeHosts, tx: Tx, state: State) -> None:
        assert state is State.DONE
        _rules_kept(far)
        row = volumes.find(tx, VOLUME_ID)
        assert row is not None
        assert row.status == Status.AVAILABLE
        assert attachment_store.find(tx, ATTACHMENT_ID) is None
        assert not far.of("export"), "an export is left"

    params = DisconnectParams(attachment_id=ATTACHMENT_ID, request_id=REQUEST_ID)
    return _case(DISCONNECT, params, target=ATTACHMENT_ID, furnish=furnish, far=far, check=check)


# Servers with volumes: one is the root, the other ends with the server.

DATA_ID = "77777777-7777-4777-8777-777777777778"
DATA_ATTACHMENT = "99999999-9999-4999-8999-999999999998"
_ENDS = (("bbbbbbbb-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"),) * 2


def _furnish_building(tx: Tx) -> None:
    rows.furnish_cloud(tx, "h1", "h2", STORAGE)
    insert_pool(tx, STORAGE)
    volumes.insert(tx, a_volume(is_bootable=True))
    volumes.insert(tx, a_volume(id=DATA_ID))
    server = rows.a_server(SERVER_ID, image_id=None, root_gib=0)
    store.insert(tx, server, [], Guest(None, "{}"), ())
    store.insert_action(tx, Action(SERVER_ID, REQUEST_ID, "create", "u1", "p1", None, 1000.0, 1000.0, None))
    for volume_id, attachment_id, device in _BOTH:
        row = volumes.find(tx, volume_id)
        assert row is not None
        wanted = Wanted(id=attachment_id, volume_id=volume_id, server_id=SERVER_ID, is_ours=True, device=device)
        attachments.reserve(tx, row, wanted, 1000.0)
        is_root = volume_id == VOLUME_ID
        given = (attachment_id, SERVER_ID, volume_id, device, None, 0 if is_root else None, None)
        plugs.insert(tx, Plug(*given, is_ended_with_server=not is_root, is_plugged=False))


_BOTH = ((VOLUME_ID, ATTACHMENT_ID, "/dev/vda"), (DATA_ID, DATA_ATTACHMENT, "/dev/vdb"))


def _far_with_both(world: World) -> FakeHosts:
    fleet = FakeHosts("h1", "h2", STORAGE)
    for volume_id, _, _ in _BOTH:
        fleet.objects[STORAGE, "volume", volume_id] = VolumeSpec(id=volume_id, generation=Generation(1, 1), size_gib=1)
        fleet.sizes[volume_id] = 1
    return fleet


def _are_given_back(far: FakeHosts, tx: Tx) -> None:
    """The root is free, the other one goes; nobody reaches either."""
    assert not far.of("domain")
    assert not far.of("export"), "an export is left"
    assert not plugs.of_server(tx, SERVER_ID)
    root, data = volumes.find(tx, VOLUME_ID), volumes.find(tx, DATA_ID)
    assert root is not None
    assert data is not None
    assert (root.status, data.status) == (Status.AVAILABLE, Status.DELETING)
    assert not attachment_store.of_volumes(tx, [VOLUME_ID, DATA_ID])


def server_create_with_volumes() -> Case:
    def check(far: FakeHosts, tx: Tx, state: State) -> None:
        _rules_kept(far)
        server = store.find(tx, SERVER_ID)
        assert server is not None
        assert not far.of("disk"), "its root is a volume"
        if state is not State.DONE:
            assert server.vm_state == "error"
            _are_given_back(far, tx)
            return
        assert server.vm_state == "active"
        domain = far.of("domain")[SERVER_ID]
        assert [(disk.device, disk.boot_index) for disk in domain.disks] == [("vda", 0), ("vdb", None)]
        assert sorted(far.of("export")) == sorted((ATTACHMENT_ID, DATA_ATTACHMENT))
        for volume_id, attachment_id, _ in _BOTH:
            row, one = volumes.find(tx, volume_id), attachment_store.find(tx, attachment_id)
            assert row is not None
            assert one is not None
            assert (row.status, one.status) == (Status.IN_USE, AttachStatus.ATTACHED)

    params = ServerParams(
        server_id=SERVER_ID, project_id="p1", request_id=REQUEST_ID, nics=0, volumes=2, volume_ends=_ENDS
    )
    return _case(SERVER_CREATE, params, target=SERVER_ID, furnish=_furnish_building, far=_far_with_both, check=check)


def server_delete_with_volumes() -> Case:
    def furnish(tx: Tx) -> None:
        _furnish_building(tx)
        active = {"vm_state": "active", "task_state": "deleting", "is_deleting": True, "power_state": 1}
        store.change(tx, SERVER_ID, {**active, "host_id": "h1", "host_name": "name-h1", "pushed_generation": 3})
        for _, attachment_id, _ in _BOTH:
            attachments.aim(tx, attachment_id, (FENCE.initiator("h1"),), "name-h1", 1000.0)
            where = {"portal_host": "198.18.0.1", "portal_port": 3260, "iqn": f"iqn.test:{attachment_id}", "lun": 1}
            attachment_store.change(tx, attachment_id, where)
            plugs.set_plugged(tx, attachment_id, True)
            attachments.attached(tx, attachment_id, 1000.0)

    def far(world: World) -> FakeHosts:
        from agent.wire.domain import Desired, DomainSpec, GuestData
        from agent.wire.lifecycle import Power

        fleet, disks = _far_with_both(world), []
        for volume_id, attachment_id, device in _BOTH:
            chap = FENCE.chap(attachment_id, 1)
            fleet.objects[STORAGE, "export", attachment_id] = ExportSpec(
                id=attachment_id,
                generation=Generation(1, 1),
                volume_id=volume_id,
                initiators=(FENCE.initiator("h1"),),
                chap=chap,
            )
            source = IscsiSource(
                volume_id=volume_id,
                host="198.18.0.1",
                port=3260,
                iqn=f"iqn.test:{attachment_id}",
                lun=1,
                initiator=FENCE.initiator("h1"),
                chap=chap,
                size_gib=1,
            )
            disks.append(DomainDisk(disk_id=attachment_id, device=device.removeprefix("/dev/"), iscsi=source))
        fleet.objects["h1", "domain", SERVER_ID] = DomainSpec(
            id=SERVER_ID,
            generation=Generation(1, 3),
            name="instance-11111111",
            desired=Desired.RUNNING,
            vcpus=1,
            memory_mib=128,
            disks=tuple(disks),
            guest=GuestData(meta_data="{}", network_data="{}"),
        )
        fleet.powers["h1", SERVER_ID] = Power.RUNNING
        return fleet

    def check(far: FakeHosts, tx: Tx, state: State) -> None:
        assert state is State.DONE
        _rules_kept(far)
        _are_given_back(far, tx)

    params = ServerDeleteParams(server_id=SERVER_ID, request_id=REQUEST_ID)
    return _case(SERVER_DELETE, params, target=SERVER_ID, furnish=furnish, far=far, check=check)


# volume-extend


def volume_extend() -> Case:
    """Of a volume that a guest has."""

    def furnish(tx: Tx) -> None:
        _furnish_attached(tx)
        volumes.change(tx, VOLUME_ID, {"status": Status.EXTENDING.value, "promised_gib": 3, "generation": 2})

    def check(far: FakeHosts, tx: Tx, state: State) -> None:
        _rules_kept(far)
        row = volumes.find(tx, VOLUME_ID)
        assert row is not None
        assert row.status == Status.IN_USE
        assert row.size_gib == row.promised_gib
        assert row.size_gib == far.sizes[VOLUME_ID], "the row says what there is"
        if state is State.DONE:
            assert row.size_gib == 3
            assert far.of("domain")[SERVER_ID].disks[1].iscsi.size_gib == 3

    params = ExtendParams(volume_id=VOLUME_ID, before_gib=1, after_gib=3, **_REQUEST)
    return _case(EXTEND, params, furnish=furnish, far=_far_attached, check=check)
