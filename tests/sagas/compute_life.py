"""Cases of the sagas of servers that live: paused, rescued, rebuilt, imaged, shelved."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from agent.wire.disk import DiskSpec
from agent.wire.lifecycle import Generation, Power
from agent.wire.world import World
from controller.compute import store
from controller.compute.model import Nic, PowerState, Server, TaskState, VmState, rescue_disk_id, root_disk_id
from controller.compute.sagas.interface_attach import ATTACH_INTERFACE, InterfaceParams
from controller.compute.sagas.interface_detach import DETACH_INTERFACE
from controller.compute.sagas.power import PowerParams
from controller.compute.sagas.server_create_image import CREATE_IMAGE, CreateImageParams
from controller.compute.sagas.server_offload import OFFLOAD, OffloadParams
from controller.compute.sagas.server_pause import PAUSE
from controller.compute.sagas.server_rebuild import REBUILD, RebuildParams
from controller.compute.sagas.server_rescue import RESCUE, RescueParams
from controller.compute.sagas.server_resume import RESUME
from controller.compute.sagas.server_shelve import SHELVE, ShelveParams
from controller.compute.sagas.server_suspend import SUSPEND
from controller.compute.sagas.server_unpause import UNPAUSE
from controller.compute.sagas.server_unrescue import UNRESCUE
from controller.compute.sagas.server_unshelve import UNSHELVE, UnshelveParams
from controller.db.tables.network import ip_allocation, port
from controller.db.tables.placement import allocation
from controller.db.tx import Tx
from controller.image import store as image_store
from controller.image.model import Image, Status, Visibility
from controller.network import ports, wiring
from controller.saga.model import Saga, State
from controller.schedule import claim
from tests.controller.compute import rows
from tests.controller.compute.fake_hosts import FakeHosts
from tests.sagas import compute
from tests.sagas.compute import OUR_PORT_ID, PORTS, REQUEST_ID, SERVER_ID
from tests.sagas.harness import Case, Effects

SNAPSHOT_ID = "88888888-8888-4888-8888-888888888888"
NEXT_SAGA_ID = "5a6a0000-0000-4000-8000-000000000002"
POWER = {"server_id": SERVER_ID, "request_id": REQUEST_ID, "host_id": "h1", "host_name": "name-h1"}
FIRST = Generation(1, 1)

Check = Callable[[FakeHosts, Tx, Server, State], None]


def _case(saga: Saga[Any], params: Any, furnish: Callable[[Tx], None], check: Check, **more: Any) -> Case:
    """Of a server on h1. Whatever becomes of it, no rule of hosts is broken and nobody works on it any more."""

    def checked(far: FakeHosts, tx: Tx, state: State) -> None:
        compute._rules_kept(far)
        row = compute._row(tx)
        assert row.task_state is None or more.get("goes_on"), f"somebody works on it: {row.task_state}"
        assert not far.of("capture"), "a copy is left on a host"
        check(far, tx, row, state)
        action = store.find_action(tx, SERVER_ID, REQUEST_ID)
        assert action is not None
        if state is State.UNDONE:
            assert action.message == "Error"

    return Case(
        saga=saga,
        params=params,
        target=SERVER_ID,
        furnish=furnish,
        far=more.get("far", compute._far_with_server),
        deps=_deps,
        check=checked,
    )


def _deps(far: FakeHosts, db: Any, world: World, effects: Effects) -> Any:
    """A host that delivers a copy does so by itself: whether the controller lives or not."""
    real = db._inner
    far.deliver = lambda image_id: real.build(lambda tx: _activate(tx, image_id))
    return compute.deps(far, db, world, effects)


def _activate(tx: Tx, image_id: str) -> None:
    found = image_store.find(tx, image_id)
    if found is not None and found.status is Status.QUEUED:
        facts = {"size": 1 << 20, "virtual_size": 1 << 30, "sha256": "cd" * 32}
        image_store.update(tx, image_id, 1010.0, status=Status.ACTIVE, **facts)


def _on_host(action: str, **changes: Any) -> Callable[[Tx], None]:
    return lambda tx: compute._furnish_on_host(tx, compute._active(**changes), action)


def _snapshot(tx: Tx, status: Status) -> None:
    ready = {"size": 1 << 20, "virtual_size": 1 << 30, "sha256": "cd" * 32} if status is Status.ACTIVE else {}
    image = Image(
        id=SNAPSHOT_ID,
        owner="p1",
        name="web-shelved",
        visibility=Visibility.PRIVATE,
        status=status,
        disk_format="qcow2",
        container_format="bare",
        created_at=1000.0,
        updated_at=1000.0,
        **ready,
    )
    image_store.insert(tx, image)


def _claims(tx: Tx) -> dict[str, tuple[int, int, int]]:
    return {row.consumer_id: (row.vcpus, row.memory_mib, row.disk_gib) for row in tx.execute(sa.select(allocation))}


def _is_in_step(far: FakeHosts, row: Server, state: State = State.DONE) -> None:
    """The host holds the newest intent, and the row knows. On the way back a removal may have raised the generation."""
    domain = far.of("domain")[SERVER_ID]
    assert row.pushed_generation == domain.generation.n <= row.generation
    assert state is State.UNDONE or row.pushed_generation == row.generation
    assert domain.desired == row.desired


# Pause, unpause, suspend, resume.


def _power_case(
    saga: Saga[Any], before: dict[str, Any], after: tuple[VmState, PowerState], power: Power, far_power: Power
) -> Case:
    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        assert _claims(tx) == {SERVER_ID: (1, 128, 1)}
        if state is State.UNDONE:
            assert row.vm_state == VmState.ERROR and row.fault_message
            return
        assert (row.vm_state, row.power_state) == after
        assert far.powers["h1", SERVER_ID] is power
        _is_in_step(far, row)

    def far(world: World) -> FakeHosts:
        fleet = compute._far_with_server(world)
        fleet.powers["h1", SERVER_ID] = far_power
        return fleet

    action = saga.kind.removeprefix("server-")
    return _case(saga, PowerParams(**POWER), _on_host(action, generation=2, **before), check, far=far)


def server_pause() -> Case:
    before = {"task_state": TaskState.PAUSING.value, "desired": "paused"}
    return _power_case(PAUSE, before, (VmState.PAUSED, PowerState.PAUSED), Power.PAUSED, Power.RUNNING)


def server_unpause() -> Case:
    before = {"vm_state": "paused", "task_state": TaskState.UNPAUSING.value}
    return _power_case(UNPAUSE, before, (VmState.ACTIVE, PowerState.RUNNING), Power.RUNNING, Power.PAUSED)


def server_suspend() -> Case:
    before = {"task_state": TaskState.SUSPENDING.value, "desired": "suspended"}
    return _power_case(SUSPEND, before, (VmState.SUSPENDED, PowerState.SHUTDOWN), Power.SUSPENDED, Power.RUNNING)


def server_resume() -> Case:
    before = {"vm_state": "suspended", "task_state": TaskState.RESUMING.value}
    return _power_case(RESUME, before, (VmState.ACTIVE, PowerState.RUNNING), Power.RUNNING, Power.SUSPENDED)


# Rescue.


def server_rescue() -> Case:
    """Of a server that runs."""
    params = RescueParams(
        **POWER, was_on=True, image_id=rows.IMAGE_ID, image_sha256="ab" * 32, size_gib=1, was_error=False
    )
    before = {"task_state": TaskState.RESCUING.value, "rescue_image_id": rows.IMAGE_ID}
    return _case(RESCUE, params, _on_host("rescue", **before), _check_rescue)


def _check_rescue(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
    _is_in_step(far, row, state)
    domain, disks = far.of("domain")[SERVER_ID], set(far.of("disk"))
    if state is State.DONE:
        assert (row.vm_state, row.power_state) == (VmState.RESCUED, PowerState.RUNNING)
        assert [disk.disk_id for disk in domain.disks] == [rescue_disk_id(SERVER_ID), root_disk_id(SERVER_ID)]
        assert disks == {rescue_disk_id(SERVER_ID), root_disk_id(SERVER_ID)}
        return
    assert (row.vm_state, row.power_state) == (VmState.ACTIVE, PowerState.RUNNING)
    assert (row.rescue_image_id, row.is_rescued) == (None, False)
    assert [disk.disk_id for disk in domain.disks] == [root_disk_id(SERVER_ID)]
    assert disks == {root_disk_id(SERVER_ID)}
    assert far.powers["h1", SERVER_ID] is Power.RUNNING


def server_rescue_of_an_error() -> Case:
    """Of a server in ERROR that is off: what cannot be rescued is in ERROR again."""
    params = RescueParams(
        **POWER, was_on=False, image_id=rows.IMAGE_ID, image_sha256="ab" * 32, size_gib=1, was_error=True
    )
    before = {
        "vm_state": "error",
        "task_state": TaskState.RESCUING.value,
        "desired": "shutoff",
        "rescue_image_id": rows.IMAGE_ID,
    }

    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        is_done = state is State.DONE
        assert row.vm_state == (VmState.RESCUED if is_done else VmState.ERROR)
        assert (rescue_disk_id(SERVER_ID) in far.of("disk")) == is_done
        if not is_done:
            assert row.fault_message
            assert far.powers["h1", SERVER_ID] is not Power.RUNNING or row.pushed_generation == 1

    return _case(RESCUE, params, _on_host("rescue", **before), check)


def server_unrescue() -> Case:
    """Back to its own disk."""
    before = {
        "vm_state": "rescued",
        "task_state": TaskState.UNRESCUING.value,
        "desired": "shutoff",
        "generation": 2,
        "rescue_image_id": rows.IMAGE_ID,
        "is_rescued": True,
    }

    def far(world: World) -> FakeHosts:
        fleet = compute._far_with_server(world)
        disk_id = rescue_disk_id(SERVER_ID)
        disk = DiskSpec(id=disk_id, generation=FIRST, domain_id=SERVER_ID, size_gib=1)
        fleet.objects["h1", "disk", disk_id] = disk
        return fleet

    return _case(UNRESCUE, PowerParams(**POWER), _on_host("unrescue", **before), _check_unrescue, far=far)


def _check_unrescue(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
    if state is State.UNDONE:
        assert row.vm_state == VmState.ERROR and row.fault_message
        return
    _is_in_step(far, row)
    assert (row.vm_state, row.rescue_image_id, row.is_rescued) == (VmState.ACTIVE, None, False)
    assert set(far.of("disk")) == {root_disk_id(SERVER_ID)}


# Rebuild.


def server_rebuild() -> Case:
    """Of a server that runs."""
    params = RebuildParams(**POWER, was_on=True, image_id=rows.IMAGE_ID, image_sha256="ab" * 32)
    before = {"task_state": TaskState.REBUILDING.value, "generation": 2}
    return _case(REBUILD, params, _on_host("rebuild", **before), _check_rebuild)


def _check_rebuild(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
    assert _claims(tx) == {SERVER_ID: (1, 128, 1)}
    assert len(far.of("port")) == PORTS, "its ports stay"
    if state is State.UNDONE:
        assert row.vm_state == VmState.ERROR and row.fault_message
        return
    _is_in_step(far, row)
    assert (row.vm_state, row.power_state) == (VmState.ACTIVE, PowerState.RUNNING)
    assert far.of("disk")[root_disk_id(SERVER_ID)].image_sha256 == "ab" * 32


# Images and the shelf.


def server_create_image() -> Case:
    """Of a server that runs."""

    def furnish(tx: Tx) -> None:
        compute._furnish_on_host(tx, compute._active(task_state=TaskState.IMAGE_SNAPSHOT.value), "createImage")
        _snapshot(tx, Status.QUEUED)

    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        assert (row.vm_state, row.power_state) == (VmState.ACTIVE, PowerState.RUNNING)
        image = image_store.find(tx, SNAPSHOT_ID)
        if state is State.DONE:
            assert image is not None and image.status is Status.ACTIVE
        else:
            assert image is None

    params = CreateImageParams(**POWER, image_id=SNAPSHOT_ID)
    return _case(CREATE_IMAGE, params, furnish, check)


def server_shelve() -> Case:
    """Of a server that runs. Its offloading is another saga, and not this case's."""

    def furnish(tx: Tx) -> None:
        values = {"task_state": TaskState.SHELVING.value, "desired": "shutoff", "generation": 2}
        compute._furnish_on_host(tx, compute._active(**values), "shelve")
        _snapshot(tx, Status.QUEUED)

    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        _is_in_step(far, row, state)
        image = image_store.find(tx, SNAPSHOT_ID)
        if state is State.DONE:
            assert (row.vm_state, row.shelved_image_id) == (VmState.SHELVED, SNAPSHOT_ID)
            assert image is not None and image.status is Status.ACTIVE
            assert far.powers["h1", SERVER_ID] is Power.SHUTOFF
            return
        assert (row.vm_state, row.shelved_image_id) == (VmState.ACTIVE, None)
        assert far.powers["h1", SERVER_ID] is Power.RUNNING
        assert image is None

    params = ShelveParams(**POWER, was_on=True, project_id="p1", image_id=SNAPSHOT_ID, offload_id="")
    return _case(SHELVE, params, furnish, check)


def server_offload() -> Case:
    """Nothing of it is on any host; its ports and addresses stay its own."""

    def furnish(tx: Tx) -> None:
        values = {
            "vm_state": "shelved",
            "task_state": TaskState.SHELVING_OFFLOADING.value,
            "desired": "shutoff",
            "shelved_image_id": SNAPSHOT_ID,
        }
        compute._furnish_on_host(tx, compute._active(**values), "shelveOffload")
        _snapshot(tx, Status.ACTIVE)

    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        assert state is State.DONE
        assert (row.vm_state, row.host_id, row.host_name) == (VmState.SHELVED_OFFLOADED, None, None)
        assert _claims(tx) == {}
        for noun in ("domain", "disk", "port"):
            assert not far.of(noun), f"left on a host: {noun}"
        _has_its_ports(tx, host_id="")

    return _case(OFFLOAD, OffloadParams(**POWER), furnish, check)


def _has_its_ports(tx: Tx, host_id: str) -> None:
    mine = sa.select(port.c.id, port.c.host_id).where(port.c.device_id == SERVER_ID)
    assert {row.id: row.host_id for row in tx.execute(mine)} == {OUR_PORT_ID: host_id, rows.USER_PORT_ID: host_id}
    assert tx.execute(sa.select(sa.func.count()).select_from(ip_allocation)).scalar_one() == PORTS


def server_unshelve() -> Case:
    """Of one that left its host."""

    def furnish(tx: Tx) -> None:
        compute._furnish_on_host(tx, compute._active(), "unshelve")
        claim.release(tx, SERVER_ID)
        ports.take_off_host(tx, server_id=SERVER_ID, now=1000.0)
        _snapshot(tx, Status.ACTIVE)
        values = {
            "vm_state": "shelved_offloaded",
            "task_state": TaskState.UNSHELVING.value,
            "generation": 5,
            "host_id": None,
            "host_name": None,
            "availability_zone": None,
            "shelved_image_id": SNAPSHOT_ID,
            "power_state": 0,
        }
        store.change(tx, SERVER_ID, values)

    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        image = image_store.find(tx, SNAPSHOT_ID)
        if state is State.DONE:
            _is_in_step(far, row)
            assert (row.vm_state, row.power_state, row.shelved_image_id) == (VmState.ACTIVE, PowerState.RUNNING, None)
            assert image is None
            assert _claims(tx) == {SERVER_ID: (1, 128, 1)}
            assert row.host_id is not None
            _has_its_ports(tx, host_id=row.host_id)
            assert far.of("disk")[root_disk_id(SERVER_ID)].image_sha256 == "cd" * 32
            return
        assert (row.vm_state, row.host_id, row.shelved_image_id) == (VmState.SHELVED_OFFLOADED, None, SNAPSHOT_ID)
        assert image is not None
        assert _claims(tx) == {}
        for noun in ("domain", "disk", "port"):
            assert not far.of(noun), f"left on a host: {noun}"
        _has_its_ports(tx, host_id="")

    params = UnshelveParams(
        server_id=SERVER_ID,
        request_id=REQUEST_ID,
        host_id="",
        host_name="",
        image_id=SNAPSHOT_ID,
        image_sha256="cd" * 32,
        nics=PORTS,
    )
    return _case(UNSHELVE, params, furnish, check, far=compute.far)


def server_unshelve_in_place() -> Case:
    """Of one that never left its host."""

    def furnish(tx: Tx) -> None:
        values = {
            "vm_state": "shelved",
            "task_state": TaskState.UNSHELVING.value,
            "generation": 2,
            "power_state": 4,
            "shelved_image_id": SNAPSHOT_ID,
        }
        compute._furnish_on_host(tx, compute._active(**values), "unshelve")
        _snapshot(tx, Status.ACTIVE)

    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        _is_in_step(far, row, state)
        is_done = state is State.DONE
        assert row.vm_state == (VmState.ACTIVE if is_done else VmState.SHELVED)
        assert far.powers["h1", SERVER_ID] is (Power.RUNNING if is_done else Power.SHUTOFF)
        assert (image_store.find(tx, SNAPSHOT_ID) is None) == is_done
        assert _claims(tx) == {SERVER_ID: (1, 128, 1)}

    params = UnshelveParams(**POWER, image_id=SNAPSHOT_ID, image_sha256="cd" * 32, nics=PORTS)
    return _case(UNSHELVE, params, furnish, check)


# Interfaces.

NEW_PORT_ID = "66666666-6666-4666-8666-666666666667"
NEW_MAC = "fa:16:3e:00:00:99"


def _interface_params(tx_bound: dict[str, Any], port_id: str, *, is_ours: bool) -> InterfaceParams:
    return InterfaceParams(
        **POWER,
        port_id=port_id,
        is_ours=is_ours,
        mac=tx_bound["mac"],
        mtu=tx_bound["mtu"],
        addresses=tuple(tx_bound["fixed_ips"]),
    )


def interface_attach() -> Case:
    """A port that is made for a server that runs."""

    def furnish(tx: Tx) -> None:
        compute._furnish_on_host(tx, compute._active(), "attach_interface")
        row = Nic(SERVER_ID, PORTS, NEW_PORT_ID, True, rows.NETWORK_ID, None, [], None, None, None, ["10.0.0.4"])
        store.insert_nic(tx, row)
        ports.bind_for_server(
            tx,
            port_id=NEW_PORT_ID,
            created=True,
            network_id=rows.NETWORK_ID,
            fixed_ip="10.0.0.4",
            groups_wanted=[],
            project_id="p1",
            server_id=SERVER_ID,
            hostname="web",
            host_id="h1",
            zone="nova",
            now=1000.0,
        )

    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        _is_in_step(far, row, state)
        macs = [nic.mac for nic in far.of("domain")[SERVER_ID].nics]
        known = {nic.port_id for nic in store.nics(tx, SERVER_ID)}
        is_done = state is State.DONE
        assert (NEW_MAC in macs) == is_done
        assert (NEW_PORT_ID in far.of("port")) == (NEW_PORT_ID in known) == is_done
        assert compute._count(tx, port, port.c.id == NEW_PORT_ID) == int(is_done)
        assert (row.vm_state, row.power_state) == (VmState.ACTIVE, PowerState.RUNNING)

    bound = {"mac": NEW_MAC, "mtu": 1450, "fixed_ips": ["10.0.0.4"]}
    return _case(ATTACH_INTERFACE, _interface_params(bound, NEW_PORT_ID, is_ours=True), furnish, check)


def interface_detach() -> Case:
    """Of a port of the user's own."""
    mac = "fa:16:3e:00:00:01"

    def furnish(tx: Tx) -> None:
        compute._furnish_on_host(tx, compute._active(), "detach_interface")
        wiring.plugged(tx, rows.USER_PORT_ID, 1000.0)
        store.set_nic(tx, rows.USER_PORT_ID, SERVER_ID, {"mac": None, "mtu": None})
        store.bump(tx, SERVER_ID)

    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        _is_in_step(far, row, state)
        known = {nic.port_id: nic.mac for nic in store.nics(tx, SERVER_ID)}
        held = [nic.port_id for nic in far.of("domain")[SERVER_ID].nics]
        is_kept = state is State.UNDONE
        assert (rows.USER_PORT_ID in held) == is_kept
        assert (rows.USER_PORT_ID in far.of("port")) == is_kept
        assert known.get(rows.USER_PORT_ID) == (mac if is_kept else None)
        assert compute._count(tx, port, port.c.id == rows.USER_PORT_ID) == 1, "the port is its owner's"
        bound = compute._count(tx, port, port.c.id == rows.USER_PORT_ID, port.c.device_id == SERVER_ID)
        assert bound == int(is_kept)

    bound = {"mac": mac, "mtu": 1450, "fixed_ips": []}
    return _case(DETACH_INTERFACE, _interface_params(bound, rows.USER_PORT_ID, is_ours=False), furnish, check)
