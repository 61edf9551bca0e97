"""Cases of the compute slice's sagas: hosts are fakes that remember broken rules, everything else is real."""

from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from agent.wire.domain import Desired, RebootKind
from agent.wire.lifecycle import Power
from agent.wire.world import World
from controller.compute import store
from controller.compute.model import Nic, PowerState, Server, TaskState, VmState
from controller.compute.sagas.power import PowerParams
from controller.compute.sagas.server_create import CREATE, CreateParams
from controller.compute.sagas.server_delete import DELETE, DeleteParams
from controller.compute.sagas.server_reboot import REBOOT, RebootParams
from controller.compute.sagas.server_start import START
from controller.compute.sagas.server_stop import STOP
from controller.compute.store import Action, Guest
from controller.config import Settings
from controller.db.tables.network import ip_allocation, port
from controller.db.tables.placement import allocation
from controller.db.tx import Tx
from controller.network import ports
from controller.saga.model import State
from controller.schedule import claim
from controller.schedule.model import Ratios
from controller.tasks.driver import Driver, Task
from controller.volume.fencing import Fence
from tests.controller.compute import rows
from tests.controller.compute.fake_hosts import FakeChannel, FakeHosts
from tests.sagas.harness import Case, Effects

SERVER_ID = "11111111-1111-4111-8111-111111111111"
OUR_PORT_ID = "66666666-6666-4666-8666-666666666666"
REQUEST_ID = "req-1"
PORTS = 2
FENCE = Fence(b"k" * 32, "beef")


def deps(far: FakeHosts, db: Any, world: World, effects: Effects) -> Any:
    """What steps get: the database as it came, the hosts through the point where crashes happen."""
    far.turns.clear()  # They are a controller's own; one that starts holds none.
    return SimpleNamespace(
        world=world,
        db=db,
        settings=Settings(),
        epoch=1,
        hosts=effects.through(far),
        channel=FakeChannel(),
        fence=FENCE,
        sagas=SimpleNamespace(kick=lambda saga_id: None),
        tasks=Driver(
            world,
            Task("network_sync", 30.0, _nothing),
            Task("network_spread", 30.0, _nothing),
            Task("server_push", 30.0, _nothing),
            Task("image_gc", 30.0, _nothing),
        ),
    )


async def _nothing() -> dict[str, Any]:
    return {}


def far(world: World) -> FakeHosts:
    """An empty fleet of two."""
    return FakeHosts("h1", "h2")


def _nics() -> list[Nic]:
    ours = Nic(SERVER_ID, 0, OUR_PORT_ID, True, rows.NETWORK_ID, None, [], None, None, None, [])
    users = Nic(SERVER_ID, 1, rows.USER_PORT_ID, False, rows.NETWORK_ID, None, [], None, None, None, [])
    return [ours, users]


def _furnish(tx: Tx, server: Server, action: str) -> None:
    rows.furnish_cloud(tx, "h1", "h2")
    rows.insert_user_port(tx)
    store.insert(tx, server, _nics(), Guest("I2Nsb3VkLWNvbmZpZwo=", None), ("blue",))
    store.insert_action(tx, Action(SERVER_ID, REQUEST_ID, action, "u1", "p1", None, 1000.0, 1000.0, None))


def _rules_kept(far: FakeHosts) -> None:
    assert not far.broken, far.broken


def _row(tx: Tx) -> Server:
    found = store.find(tx, SERVER_ID)
    assert found is not None
    return found


def _count(tx: Tx, table: sa.Table, *where: Any) -> int:
    return tx.execute(sa.select(sa.func.count()).select_from(table).where(*where)).scalar_one()


def _nothing_left(far: FakeHosts, tx: Tx) -> None:
    """No claim, no address but those of the user's own port, nothing on any host."""
    for noun in ("domain", "disk", "port"):
        assert not far.of(noun), f"left on a host: {noun} {sorted(far.of(noun))}"
    assert _count(tx, allocation) == 0, "a claim is left"
    assert _count(tx, port, port.c.id == OUR_PORT_ID) == 0, "our port is left"
    assert _count(tx, port, port.c.device_id == SERVER_ID) == 0, "a port is still bound"
    assert _count(tx, ip_allocation) == 1, "only the user's port keeps its address"


# server-create


def server_create() -> Case:
    """Two ports, one of them the user's; a second try on another host may follow."""
    params = CreateParams(
        server_id=SERVER_ID,
        project_id="p1",
        request_id=REQUEST_ID,
        nics=PORTS,
        image_id=rows.IMAGE_ID,
        image_sha256="ab" * 32,
    )
    return Case(
        saga=CREATE,
        params=params,
        target=SERVER_ID,
        furnish=lambda tx: _furnish(tx, rows.a_server(SERVER_ID), "create"),
        far=far,
        deps=deps,
        check=_check_create,
    )


def _check_create(far: FakeHosts, tx: Tx, state: State) -> None:
    _rules_kept(far)
    row, action = _row(tx), store.find_action(tx, SERVER_ID, REQUEST_ID)
    assert action is not None
    if state is State.DONE:
        assert (row.vm_state, row.task_state, row.power_state) == (VmState.ACTIVE, None, PowerState.RUNNING)
        assert row.pushed_generation == row.generation == far.of("domain")[SERVER_ID].generation.n
        assert row.hardware["machine"] == "pc-q35-7.2"
        assert _count(tx, allocation) == 1
        assert len(far.of("port")) == PORTS
        assert _count(tx, port, port.c.device_id == SERVER_ID, port.c.status == "ACTIVE") == PORTS
        assert action.message is None
        return
    assert state is State.UNDONE
    assert (row.vm_state, row.task_state) == (VmState.ERROR, None)
    assert row.fault_message
    assert row.host_id is None
    assert action.message == "Error"
    _nothing_left(far, tx)


# server-delete


def server_delete() -> Case:
    """Of a server that runs."""
    return Case(
        saga=DELETE,
        params=DeleteParams(server_id=SERVER_ID, request_id=REQUEST_ID),
        target=SERVER_ID,
        furnish=_furnish_deleting,
        far=_far_with_server,
        deps=deps,
        check=_check_delete,
    )


def _furnish_deleting(tx: Tx) -> None:
    _furnish_on_host(tx, _active(task_state=TaskState.DELETING.value, is_deleting=True), "delete")


def _active(**changes: Any) -> Server:
    values: dict[str, Any] = {
        "vm_state": VmState.ACTIVE.value,
        "task_state": None,
        "power_state": PowerState.RUNNING.value,
        "host_id": "h1",
        "host_name": "name-h1",
        "availability_zone": "nova",
        "pushed_generation": 1,
        "launched_at": 1001.0,
    }
    return rows.a_server(SERVER_ID, **{**values, **changes})


def _furnish_on_host(tx: Tx, server: Server, action: str) -> None:
    """Rows of a server as server-create leaves them."""
    _furnish(tx, server, action)
    claim.claim(tx, rows.a_wish(SERVER_ID), ("h1",), Ratios(), 1000.0)
    for nic in _nics():
        bound = ports.bind_for_server(
            tx,
            port_id=nic.port_id,
            created=nic.is_ours,
            network_id=rows.NETWORK_ID,
            fixed_ip=None,
            groups_wanted=[],
            project_id="p1",
            server_id=SERVER_ID,
            hostname="web",
            host_id="h1",
            zone="nova",
            now=1000.0,
        )
        store.set_nic(tx, nic.port_id, SERVER_ID, {"mac": bound["mac"], "mtu": bound["mtu"]})


def _far_with_server(world: World) -> FakeHosts:
    """A host that holds the server already."""
    from agent.wire.disk import DiskSpec
    from agent.wire.domain import DomainDisk, DomainNic, DomainSpec, GuestData
    from agent.wire.lifecycle import Generation
    from agent.wire.port import PortSpec

    fleet, first = far(world), Generation(1, 1)
    disk_id = f"{SERVER_ID}-root"
    fleet.objects["h1", "disk", disk_id] = DiskSpec(id=disk_id, generation=first, domain_id=SERVER_ID, size_gib=1)
    nics = (OUR_PORT_ID, rows.USER_PORT_ID)
    for port_id in nics:
        fleet.objects["h1", "port", port_id] = PortSpec(
            id=port_id,
            generation=first,
            network_id=rows.NETWORK_ID,
            domain_id=SERVER_ID,
            mac="fa:16:3e:00:00:01",
            fixed_ips=(),
            hostname="web",
        )
    fleet.objects["h1", "domain", SERVER_ID] = DomainSpec(
        id=SERVER_ID,
        generation=first,
        name="instance-11111111",
        desired=Desired.RUNNING,
        vcpus=1,
        memory_mib=128,
        disks=(DomainDisk(disk_id=disk_id, boot_index=0),),
        nics=tuple(DomainNic(port_id=port_id, mac="fa:16:3e:00:00:01", mtu=1450) for port_id in nics),
        guest=GuestData(meta_data="{}", network_data="{}"),
    )
    fleet.powers["h1", SERVER_ID] = Power.RUNNING
    return fleet


def _check_delete(far: FakeHosts, tx: Tx, state: State) -> None:
    assert state is State.DONE
    _rules_kept(far)
    row = _row(tx)
    assert (row.vm_state, row.task_state) == (VmState.DELETED, None)
    assert row.deleted_at is not None
    assert not store.nics(tx, SERVER_ID)
    assert store.guest(tx, SERVER_ID).user_data is None
    _nothing_left(far, tx)


# server-start, server-stop, server-reboot

_POWER = {"server_id": SERVER_ID, "request_id": REQUEST_ID, "host_id": "h1", "host_name": "name-h1"}


def server_start() -> Case:
    """Of a server that is off."""
    before = _active(
        vm_state=VmState.STOPPED.value,
        task_state=TaskState.POWERING_ON.value,
        power_state=PowerState.SHUTDOWN.value,
        generation=2,
    )
    return _power_case(START, PowerParams(**_POWER), before, (VmState.ACTIVE, PowerState.RUNNING))


def server_stop() -> Case:
    """Of a server that runs."""
    before = _active(task_state=TaskState.POWERING_OFF.value, desired="shutoff", generation=2)
    return _power_case(STOP, PowerParams(**_POWER), before, (VmState.STOPPED, PowerState.SHUTDOWN))


def server_reboot() -> Case:
    """Hard, of a server that runs."""
    before = _active(task_state=TaskState.REBOOTING_HARD.value, generation=2)
    params = RebootParams(**_POWER, kind=RebootKind.HARD, was_on=True)
    return _power_case(REBOOT, params, before, (VmState.ACTIVE, PowerState.RUNNING))


def _power_case(saga: Any, params: PowerParams, before: Server, after: tuple[VmState, PowerState]) -> Case:
    def check(far: FakeHosts, tx: Tx, state: State) -> None:
        _rules_kept(far)
        row = _row(tx)
        assert row.task_state is None
        assert _count(tx, allocation) == 1
        assert len(far.reboots) <= 1, "it was rebooted more than once"
        if state is State.DONE:
            assert (row.vm_state, row.power_state) == after
            assert row.pushed_generation == row.generation
            assert row.fault_message is None
        else:
            assert row.vm_state == VmState.ERROR
            assert row.fault_message

    return Case(
        saga=saga,
        params=params,
        target=SERVER_ID,
        furnish=lambda tx: _furnish_on_host(tx, before, saga.kind.removeprefix("server-")),
        far=_far_with_server,
        deps=deps,
        check=check,
    )
