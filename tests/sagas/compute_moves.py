"""Cases of the sagas that take servers to other hosts."""

import dataclasses
from typing import Any

import msgspec
import sqlalchemy as sa

from agent.wire.host import Door
from agent.wire.lifecycle import Power
from agent.wire.world import World
from controller.compute import migration_store, store
from controller.compute.model import PowerState, Server, TaskState, VmState, root_disk_id
from controller.compute.sagas.elsewhere import MoveParams
from controller.compute.sagas.server_arrive import ARRIVE, ArriveParams
from controller.compute.sagas.server_evacuate import EVACUATE
from controller.compute.sagas.server_leave import LEAVE, LeaveParams
from controller.compute.sagas.server_live_migrate import LIVE_MIGRATE, LiveParams
from controller.db.tables.network import port
from controller.db.tables.placement import allocation
from controller.db.tables.saga import saga
from controller.db.tx import Tx
from controller.saga.model import State
from tests.controller.compute import rows
from tests.controller.compute.fake_hosts import FakeHosts
from tests.sagas import compute
from tests.sagas.compute import OUR_PORT_ID, PORTS, REQUEST_ID, SERVER_ID
from tests.sagas.compute_life import FIRST, POWER, _case, _is_in_step
from tests.sagas.harness import Case

MIGRATION_ID = "99999999-9999-4999-8999-999999999990"
ARRIVE_ID = "5a6a0000-0000-4000-8000-000000000010"
LEAVE_ID = "5a6a0000-0000-4000-8000-000000000009"


def _params() -> MoveParams:
    fields: dict[str, Any] = {
        **POWER,
        "was_on": True,
        "migration_id": MIGRATION_ID,
        "leave_id": LEAVE_ID,
        "nics": PORTS,
        "image_id": rows.IMAGE_ID,
        "image_sha256": "ab" * 32,
    }
    return MoveParams(**fields)


def _furnish(tx: Tx, action: str, kind: str, task: TaskState) -> None:
    compute._furnish_on_host(tx, compute._active(task_state=task.value), action)
    server = store.find(tx, SERVER_ID)
    assert server is not None
    migration_store.insert(tx, server, MIGRATION_ID, kind, "u1", 1000.0)


def _far(world: World) -> FakeHosts:
    fleet = compute._far_with_server(world)
    for noun, object_id in (("domain", SERVER_ID), ("disk", root_disk_id(SERVER_ID))):
        fleet.graves["h2", noun, object_id] = FIRST  # It was there before, and left.
    fleet.doors["h1"] = Door(address="198.18.0.11:5443", id="door-1", boottime_s=0.0)
    return fleet


def _on(far: FakeHosts, host_id: str) -> dict[str, set[str]]:
    """What is of servers on a host."""
    found: dict[str, set[str]] = {}
    for host, noun, object_id in far.objects:
        if host == host_id and noun in ("domain", "disk", "port"):
            found.setdefault(noun, set()).add(object_id)
    return found


WHOLE = {"domain": {SERVER_ID}, "disk": {root_disk_id(SERVER_ID)}, "port": {OUR_PORT_ID, rows.USER_PORT_ID}}


def _claims(tx: Tx) -> dict[str, str]:
    return {row.consumer_id: row.host_id for row in tx.execute(sa.select(allocation))}


def _ports(tx: Tx) -> set[tuple[str, str]]:
    return {(row.host_id, row.moving_to) for row in tx.execute(sa.select(port).where(port.c.device_id == SERVER_ID))}


def _check_moved(far: FakeHosts, tx: Tx, row: Server) -> None:
    assert (row.host_id, row.vm_state, row.power_state) == ("h2", VmState.ACTIVE, PowerState.RUNNING)
    assert _on(far, "h2") == WHOLE and far.powers["h2", SERVER_ID] is Power.RUNNING
    assert (_claims(tx), _ports(tx)) == ({SERVER_ID: "h2"}, {("h2", "")})
    (left,) = tx.execute(sa.select(saga.c.id, saga.c.target, saga.c.kind).where(saga.c.id == LEAVE_ID))
    assert tuple(left) == (LEAVE_ID, f"{SERVER_ID}@h1", "server-leave")
    assert _on(far, "h1") == WHOLE, "nothing is removed by this saga"


def _check_stayed(far: FakeHosts, tx: Tx, row: Server) -> None:
    assert row.host_id == "h1"
    assert _on(far, "h1") == WHOLE
    assert _on(far, "h2") == {}, "left on the other host"
    assert _claims(tx) == {SERVER_ID: "h1"} and _ports(tx) == {("h1", "")}


def server_live_migrate() -> Case:
    """Of a server that runs. Once its guest has left it is on the other host, whatever was asked for in that moment."""

    def check(far: FakeHosts, tx: Tx, state: State) -> None:
        compute._rules_kept(far)
        row, found = compute._row(tx), migration_store.find(tx, MIGRATION_ID)
        assert found is not None
        if row.host_id == "h1":
            assert state is State.UNDONE
            _check_stayed(far, tx, row)
            _is_in_step(far, row, state)
            assert (row.vm_state, row.power_state, row.task_state) == (VmState.ACTIVE, PowerState.RUNNING, None)
            assert far.powers["h1", SERVER_ID] is Power.RUNNING
            assert found.status in ("error", "cancelled")
            return
        assert far.powers == {("h1", SERVER_ID): Power.UNKNOWN, ("h2", SERVER_ID): Power.PAUSED}
        assert _on(far, "h2") == WHOLE and _ports(tx) == {("h2", "")}
        assert _claims(tx) == {SERVER_ID: "h2", MIGRATION_ID: "h1"}, "the next saga gives it back"
        begun = {row.id: row.kind for row in tx.execute(sa.select(saga.c.id, saga.c.kind))}
        assert begun[LEAVE_ID] == "server-leave" and begun[ARRIVE_ID] == "server-arrive"
        assert (row.desired, row.task_state, found.status) == ("running", TaskState.MIGRATING, "running")

    def furnish(tx: Tx) -> None:
        _furnish(tx, "live-migration", migration_store.LIVE, TaskState.MIGRATING)

    def far(world: World) -> FakeHosts:
        fleet = _far(world)
        fleet.doors["h2"] = Door(address="198.18.0.12:5443", id="door-2", boottime_s=0.0)
        return fleet

    params = LiveParams(**msgspec.structs.asdict(_params()), arrive_id=ARRIVE_ID, size_mib=512)
    case = _case(LIVE_MIGRATE, params, furnish, lambda *_: None, far=far)
    return dataclasses.replace(case, check=check)


def server_arrive() -> Case:
    """Of a server whose guest stands still on the host where it is."""

    def furnish(tx: Tx) -> None:
        _furnish(tx, "live-migration", migration_store.LIVE, TaskState.MIGRATING)
        values = {"host_id": "h2", "host_name": "name-h2", "generation": 7}
        store.change(tx, SERVER_ID, values)
        tx.execute(sa.update(port).where(port.c.device_id == SERVER_ID).values(host_id="h2"))
        tx.execute(sa.update(allocation).values(consumer_id=MIGRATION_ID))
        there = {"consumer_id": SERVER_ID, "host_id": "h2", "project_id": "p1", "user_id": "u1"}
        tx.execute(sa.insert(allocation).values(**there, vcpus=1, memory_mib=1, disk_gib=1, created_at=1000.0))

    def far(world: World) -> FakeHosts:
        fleet = compute._far_with_server(world)
        for host, noun, name in list(fleet.objects):
            if host == "h1" and noun in ("domain", "disk", "port"):
                fleet.objects["h2", noun, name] = fleet.objects["h1", noun, name]
        fleet.powers = {("h1", SERVER_ID): Power.UNKNOWN, ("h2", SERVER_ID): Power.PAUSED}
        return fleet

    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        found = migration_store.find(tx, MIGRATION_ID)
        assert state is State.DONE and found is not None and found.status == "completed"
        assert far.powers["h2", SERVER_ID] is Power.RUNNING and far.powers["h1", SERVER_ID] is Power.UNKNOWN
        assert (row.vm_state, row.power_state, row.task_state) == (VmState.ACTIVE, PowerState.RUNNING, None)
        assert _claims(tx) == {SERVER_ID: "h2"}

    params = ArriveParams(
        server_id=SERVER_ID, request_id=REQUEST_ID, host_id="h2", host_name="name-h2", migration_id=MIGRATION_ID
    )
    return _case(ARRIVE, params, furnish, check, far=far)


def server_evacuate() -> Case:
    """Of a server whose host is dead: it says nothing, and nobody waits for it."""

    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        assert not any(host == "h1" for host, _, _ in far.asked), "the dead host was asked"
        found = migration_store.find(tx, MIGRATION_ID)
        assert found is not None
        if state is State.DONE:
            _check_moved(far, tx, row)
            assert (found.status, found.target_host_id) == ("done", "h2")
            return
        assert found.status == "error"
        _check_stayed(far, tx, row)
        assert row.vm_state == VmState.ERROR and row.fault_message

    def furnish(tx: Tx) -> None:
        _furnish(tx, "evacuate", migration_store.EVACUATION, TaskState.REBUILDING)

    def far(world: World) -> FakeHosts:
        fleet = _far(world)
        fleet.lost.add("h1")
        return fleet

    return _case(EVACUATE, _params(), furnish, check, far=far)


def server_leave() -> Case:
    """Of a server that is on another host by now."""

    def furnish(tx: Tx) -> None:
        _furnish(tx, "migrate", migration_store.MIGRATION, TaskState.RESIZE_PREP)
        values = {"host_id": "h2", "host_name": "name-h2", "generation": 7, "task_state": None}
        store.change(tx, SERVER_ID, values)
        tx.execute(sa.update(port).where(port.c.device_id == SERVER_ID).values(host_id="h2"))

    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        assert state is State.DONE and _on(far, "h1") == {}
        assert row.host_id == "h2"

    params = LeaveParams(
        server_id=SERVER_ID,
        request_id=REQUEST_ID,
        host_id="h1",
        host_name="name-h1",
        generation=7,
        port_ids=(OUR_PORT_ID, rows.USER_PORT_ID),
        has_disk=True,
    )
    return _case(LEAVE, params, furnish, check)
