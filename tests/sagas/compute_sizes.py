"""Cases of the sagas that give servers another size, on their host and on another one."""

from typing import Any

import msgspec
import sqlalchemy as sa

from agent.wire.domain import Desired, DomainSpec
from agent.wire.lifecycle import Power
from agent.wire.world import World
from controller.compute import migration_store, resize_store, sizes, store
from controller.compute.model import PowerState, Server, TaskState, VmState, root_disk_id
from controller.compute.resize_store import Resize
from controller.compute.sagas.server_confirm_resize import CONFIRM, ConfirmParams
from controller.compute.sagas.server_delete import DELETE, DeleteParams
from controller.compute.sagas.server_leave import LeaveParams
from controller.compute.sagas.server_resize import RESIZE, ResizeParams
from controller.compute.sagas.server_revert_resize import REVERT, RevertParams
from controller.db.tables.fleet import host
from controller.db.tables.network import port
from controller.db.tables.placement import allocation
from controller.db.tables.saga import saga
from controller.db.tx import Tx
from controller.network import ports
from controller.saga.model import State
from controller.schedule import claim
from controller.schedule.model import Ratios
from tests.controller.compute import rows
from tests.controller.compute.fake_hosts import FakeHosts
from tests.sagas import compute
from tests.sagas.compute import OUR_PORT_ID, PORTS, REQUEST_ID, SERVER_ID
from tests.sagas.compute_life import POWER, _case, _is_in_step
from tests.sagas.compute_moves import WHOLE, _far, _on
from tests.sagas.harness import Case

RESIZE_ID = "99999999-9999-4999-8999-999999999999"
LEAVE_ID = "5a6a0000-0000-4000-8000-000000000009"
LARGE = {"flavor_id": "7", "flavor_name": "large", "vcpus": 2, "memory_mib": 512, "disk_gib": 3}
JUST_THE_DISK = {"disk": {root_disk_id(SERVER_ID)}}
PLACES = {"h1": "name-h1", "h2": "name-h2"}


def _claims(tx: Tx) -> dict[str, tuple[str, int, int, int]]:
    found = tx.execute(sa.select(allocation))
    return {row.consumer_id: (row.host_id, row.vcpus, row.memory_mib, row.disk_gib) for row in found}


def _ports(tx: Tx) -> set[tuple[str, str]]:
    return {(row.host_id, row.moving_to) for row in tx.execute(sa.select(port).where(port.c.device_id == SERVER_ID))}


def _leaving(tx: Tx) -> LeaveParams | None:
    """What the saga that cleans up is told, if there is one."""
    row = tx.execute(sa.select(saga.c.kind, saga.c.params).where(saga.c.kind == "server-leave")).first()
    return None if row is None else msgspec.json.decode(row.params, type=LeaveParams)


def _status(tx: Tx) -> tuple[str, str | None]:
    """As os-migrations shows it: how far it is, and where it goes."""
    found = migration_store.find(tx, RESIZE_ID)
    assert found is not None
    return found.status, found.target_host_id


def _open_resize(tx: Tx, *, to: str | None, is_larger: bool = True) -> None:
    """The rows of a change of size, as the request writes them, or as the saga leaves them on that host."""
    small = sizes.of_server(rows.a_server(SERVER_ID))
    large = sizes.Size(**{**small.columns(), **LARGE}) if is_larger else small
    has, other = (small, large) if to is None else (large, small)
    new = Resize(
        server_id=SERVER_ID,
        id=RESIZE_ID,
        project_id="p1",
        old=small.columns(),
        new=large.columns(),
        from_host_id="h1",
        from_host_name="name-h1",
        to_host_id=to,
        to_host_name=None if to is None else PLACES[to],
        was_on=True,
        created_at=1000.0,
        **resize_store.reserve(has, other),
    )
    resize_store.insert(tx, new)
    server = store.find(tx, SERVER_ID)
    assert server is not None
    kind = migration_store.RESIZE if is_larger else migration_store.MIGRATION
    migration_store.insert(tx, server, RESIZE_ID, kind, "u1", 1000.0, status="accepted" if to is None else "finished")
    if to is not None:
        claim.hand_over(tx, SERVER_ID, RESIZE_ID)
        wish = rows.a_wish(SERVER_ID, vcpus=2, memory_mib=512, disk_gib=3)
        claim.claim(tx, wish, (to,), Ratios(), 1000.0)


# Resize.


def _resize_params(*, is_migration: bool = False) -> ResizeParams:
    return ResizeParams(
        **POWER,
        was_on=True,
        resize_id=RESIZE_ID,
        leave_id=LEAVE_ID,
        is_migration=is_migration,
        root_gib=1 if is_migration else 3,
        old_root_gib=1,
        nics=PORTS,
        image_id=rows.IMAGE_ID,
    )


def _furnish_resize(tx: Tx) -> None:
    compute._furnish_on_host(tx, compute._active(task_state=TaskState.RESIZE_PREP.value), "resize")
    _open_resize(tx, to=None)


def server_resize() -> Case:
    """Of a server that runs, to a larger one, for which there is room where it is."""
    return _case(RESIZE, _resize_params(), _furnish_resize, _check_resize, far=_far)


def _check_resize(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
    _is_in_step(far, row, state)
    assert row.host_id == "h1" and _on(far, "h2") == {} and _leaving(tx) is None, "it has room where it is"
    assert _ports(tx) == {("h1", "")}
    assert far.powers["h1", SERVER_ID] is Power.RUNNING
    domain = far.of("domain")[SERVER_ID]
    if state is State.DONE:
        assert (row.vm_state, row.power_state) == (VmState.RESIZED, PowerState.RUNNING)
        assert (domain.vcpus, domain.memory_mib, row.disk_gib, row.root_gib) == (2, 512, 3, 3)
        assert _claims(tx) == {SERVER_ID: ("h1", 2, 512, 3), RESIZE_ID: ("h1", 1, 128, 1)}
        assert far.of("disk")[root_disk_id(SERVER_ID)].size_gib == 3
        assert store.used(tx, "p1") == {"instances": 1, "cores": 2, "ram": 512}
        assert _status(tx) == ("finished", "h1")
        return
    _check_small_again(tx, row, domain)
    assert _claims(tx) == {SERVER_ID: ("h1", 1, 128, row.root_gib)}


def _check_small_again(tx: Tx, row: Server, domain: DomainSpec) -> None:
    assert (row.vm_state, row.power_state) == (VmState.ACTIVE, PowerState.RUNNING)
    assert (domain.vcpus, domain.memory_mib, row.disk_gib) == (1, 128, 1)
    assert resize_store.find(tx, SERVER_ID) is None and _status(tx)[0] == "error"
    assert store.used(tx, "p1") == {"instances": 1, "cores": 1, "ram": 128}


def server_resize_elsewhere() -> Case:
    """Its host is being emptied: it goes to the other one, and its disk stays until there is a word."""

    def furnish(tx: Tx) -> None:
        _furnish_resize(tx)
        tx.execute(sa.update(host).where(host.c.id == "h1").values(disabled=True))

    return _case(RESIZE, _resize_params(), furnish, _check_resize_elsewhere, far=_far)


def _check_resize_elsewhere(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
    assert _on(far, "h1") == WHOLE, "nothing is removed by this saga"
    before = far.objects["h1", "domain", SERVER_ID]
    assert far.objects["h1", "disk", root_disk_id(SERVER_ID)].size_gib == 1
    if state is State.DONE:
        assert (row.host_id, row.vm_state, row.power_state) == ("h2", VmState.RESIZED, PowerState.RUNNING)
        assert _on(far, "h2") == WHOLE and _ports(tx) == {("h2", "")}
        assert (far.powers["h1", SERVER_ID], far.powers["h2", SERVER_ID]) == (Power.SHUTOFF, Power.RUNNING)
        after, disk = far.objects["h2", "domain", SERVER_ID], far.objects["h2", "disk", root_disk_id(SERVER_ID)]
        assert (after.vcpus, after.memory_mib, disk.size_gib, row.root_gib) == (2, 512, 3, 3)
        assert row.pushed_generation == row.generation == after.generation.n
        assert _claims(tx) == {SERVER_ID: ("h2", 2, 512, 3), RESIZE_ID: ("h1", 1, 128, 1)}
        assert store.used(tx, "p1") == {"instances": 1, "cores": 2, "ram": 512}
        left = _leaving(tx)
        assert left is not None and (left.host_id, left.has_disk) == ("h1", False), "the disk stays"
        assert left.generation > before.generation.n
        assert _status(tx) == ("finished", "h2")
        return
    assert row.host_id == "h1" and _on(far, "h2") == {} and _leaving(tx) is None
    assert far.powers["h1", SERVER_ID] is Power.RUNNING and _ports(tx) == {("h1", "")}
    _check_small_again(tx, row, before)
    assert _claims(tx) == {SERVER_ID: ("h1", 1, 128, 1)} and row.root_gib == 1


def server_migrate() -> Case:
    """To the other host in the size that it has, although there is room where it is."""

    def furnish(tx: Tx) -> None:
        compute._furnish_on_host(tx, compute._active(task_state=TaskState.RESIZE_PREP.value), "migrate")
        _open_resize(tx, to=None, is_larger=False)

    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        assert _on(far, "h1") == WHOLE, "nothing is removed by this saga"
        assert store.used(tx, "p1") == {"instances": 1, "cores": 1, "ram": 128}
        if state is State.UNDONE:
            assert row.host_id == "h1" and _on(far, "h2") == {} and _leaving(tx) is None
            assert far.powers["h1", SERVER_ID] is Power.RUNNING and _ports(tx) == {("h1", "")}
            _check_small_again(tx, row, far.objects["h1", "domain", SERVER_ID])
            assert _claims(tx) == {SERVER_ID: ("h1", 1, 128, 1)}
            return
        assert (row.host_id, row.vm_state, row.power_state) == ("h2", VmState.RESIZED, PowerState.RUNNING)
        assert _on(far, "h2") == WHOLE and _ports(tx) == {("h2", "")}
        assert (far.powers["h1", SERVER_ID], far.powers["h2", SERVER_ID]) == (Power.SHUTOFF, Power.RUNNING)
        assert _claims(tx) == {SERVER_ID: ("h2", 1, 128, 1), RESIZE_ID: ("h1", 1, 128, 1)}
        left = _leaving(tx)
        assert left is not None and (left.host_id, left.has_disk) == ("h1", False), "the disk stays"
        assert _status(tx) == ("finished", "h2")

    return _case(RESIZE, _resize_params(is_migration=True), furnish, check, far=_far)


# The word.


def _resized(tx: Tx, action: str, task: TaskState, *, to: str, **changes: Any) -> None:
    compute._furnish_on_host(tx, compute._active(), action)
    _open_resize(tx, to=to)
    place = {"host_id": to, "host_name": PLACES[to]}
    values = {**LARGE, **place, "root_gib": 3, "vm_state": "resized", "task_state": task.value, **changes}
    store.change(tx, SERVER_ID, values)
    for port_id in (OUR_PORT_ID, rows.USER_PORT_ID):
        ports.arrive(tx, port_id=port_id, server_id=SERVER_ID, host_id=to, zone="nova", now=1001.0)


def _far_resized(world: World) -> FakeHosts:
    """It runs on h2; on h1 is just its disk."""
    fleet = _far(world)
    for (where, noun, object_id), spec in sorted(fleet.objects.items(), key=str):
        if where != "h1" or noun not in WHOLE:
            continue
        large = {"vcpus": 2, "memory_mib": 512} if noun == "domain" else {"size_gib": 3} if noun == "disk" else {}
        fleet.graves.pop(("h2", noun, object_id), None)
        fleet.objects["h2", noun, object_id] = msgspec.structs.replace(spec, **large)
        if noun != "disk":
            del fleet.objects["h1", noun, object_id]
            fleet.graves["h1", noun, object_id] = spec.generation
    del fleet.powers["h1", SERVER_ID]
    fleet.powers["h2", SERVER_ID] = Power.RUNNING
    return fleet


def _check_waits(tx: Tx, row: Server, where: str) -> None:
    assert (row.vm_state, row.host_id, row.vcpus, row.root_gib) == (VmState.RESIZED, where, 2, 3)
    assert _claims(tx) == {SERVER_ID: (where, 2, 512, 3), RESIZE_ID: ("h1", 1, 128, 1)}
    assert resize_store.find(tx, SERVER_ID) is not None and _leaving(tx) is None
    assert _status(tx)[0] == "finished"
    assert store.used(tx, "p1") == {"instances": 1, "cores": 2, "ram": 512}
    assert _ports(tx) == {(where, "")}


def _confirm(to: str) -> Case:
    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        if state is State.UNDONE:
            _check_waits(tx, row, to)
            return
        assert (row.vm_state, row.vcpus, row.host_id) == (VmState.ACTIVE, 2, to)
        assert _claims(tx) == {SERVER_ID: (to, 2, 512, 3)}
        assert resize_store.find(tx, SERVER_ID) is None and _status(tx)[0] == "confirmed"
        left = _leaving(tx)
        assert (None if left is None else (left.host_id, left.has_disk)) == (None if to == "h1" else ("h1", True))

    here = {**POWER, "host_id": to, "host_name": PLACES[to]}
    params = ConfirmParams(**here, resize_id=RESIZE_ID, leave_id=LEAVE_ID)
    far = _far if to == "h1" else _far_resized

    def furnish(tx: Tx) -> None:
        _resized(tx, "confirmResize", TaskState.RESIZE_CONFIRMING, to=to)

    return _case(CONFIRM, params, furnish, check, far=far)


def server_confirm_resize() -> Case:
    """The new size stays."""
    return _confirm("h1")


def server_confirm_resize_elsewhere() -> Case:
    """So does the new host."""
    return _confirm("h2")


def _revert_params(to: str) -> RevertParams:
    is_elsewhere = to != "h1"
    return RevertParams(
        **{**POWER, "host_id": to, "host_name": PLACES[to]},
        was_on=True,
        resize_id=RESIZE_ID,
        leave_id=LEAVE_ID,
        back_host_id="h1" if is_elsewhere else "",
        back_host_name="name-h1" if is_elsewhere else "",
        back_root_gib=1,
        root_gib=3,
        nics=PORTS,
        has_disk=True,
    )


def _reverting(tx: Tx, to: str) -> None:
    off = {"desired": Desired.SHUTOFF.value, "generation": 2}
    _resized(tx, "revertResize", TaskState.RESIZE_REVERTING, to=to, **off)


def server_revert_resize() -> Case:
    """Back to the old one, on the same host: the disk is the same, and as large as it has become."""

    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        _is_in_step(far, row, state)
        assert far.powers["h1", SERVER_ID] is Power.RUNNING and _on(far, "h2") == {}
        domain = far.of("domain")[SERVER_ID]
        if state is State.UNDONE:
            _check_waits(tx, row, "h1")
            assert (domain.vcpus, domain.memory_mib) == (2, 512)
            return
        assert (row.vm_state, row.vcpus, row.disk_gib, row.root_gib) == (VmState.ACTIVE, 1, 1, 3)
        assert (domain.vcpus, domain.memory_mib) == (1, 128)
        assert _claims(tx) == {SERVER_ID: ("h1", 1, 128, 3)} and _status(tx)[0] == "reverted"
        assert resize_store.find(tx, SERVER_ID) is None and _leaving(tx) is None

    return _case(REVERT, _revert_params("h1"), lambda tx: _reverting(tx, "h1"), check)


def server_revert_resize_elsewhere() -> Case:
    """Back to the disk that it left on its host. On the other host nothing is removed by this saga."""

    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        assert _on(far, "h2") == WHOLE
        if state is State.UNDONE:
            _check_waits(tx, row, "h2")
            assert _on(far, "h1") == JUST_THE_DISK
            domain = far.objects["h2", "domain", SERVER_ID]
            assert (domain.vcpus, domain.memory_mib) == (2, 512)
            assert far.powers["h2", SERVER_ID] is Power.RUNNING
            assert row.pushed_generation == domain.generation.n
            return
        assert (row.vm_state, row.host_id, row.vcpus, row.root_gib) == (VmState.ACTIVE, "h1", 1, 1)
        assert _on(far, "h1") == WHOLE and _ports(tx) == {("h1", "")}
        domain = far.objects["h1", "domain", SERVER_ID]
        assert (domain.vcpus, domain.memory_mib) == (1, 128)
        assert (far.powers["h1", SERVER_ID], far.powers["h2", SERVER_ID]) == (Power.RUNNING, Power.SHUTOFF)
        assert row.pushed_generation == row.generation == domain.generation.n
        assert _claims(tx) == {SERVER_ID: ("h1", 1, 128, 1)}
        assert resize_store.find(tx, SERVER_ID) is None and _status(tx)[0] == "reverted"
        left = _leaving(tx)
        assert left is not None and (left.host_id, left.has_disk) == ("h2", True)

    return _case(REVERT, _revert_params("h2"), lambda tx: _reverting(tx, "h2"), check, far=_far_resized)


def server_delete_resized_elsewhere() -> Case:
    """While it waits for a word: the disk that stayed on its first host is not forgotten."""

    def check(far: FakeHosts, tx: Tx, row: Server, state: State) -> None:
        assert state is State.DONE and row.vm_state == VmState.DELETED
        assert _on(far, "h2") == {} and _on(far, "h1") == JUST_THE_DISK
        left = _leaving(tx)
        assert left is not None and (left.host_id, left.has_disk) == ("h1", True)
        assert _claims(tx) == {} and resize_store.find(tx, SERVER_ID) is None
        assert _status(tx)[0] == "confirmed", "nobody can say another word"

    def furnish(tx: Tx) -> None:
        _resized(tx, "delete", TaskState.DELETING, to="h2", is_deleting=True)

    params = DeleteParams(server_id=SERVER_ID, request_id=REQUEST_ID)
    return _case(DELETE, params, furnish, check, far=_far_resized)
