"""Taking a shelved server off its host: domain, wiring, disk and claim go; its addresses and volumes stay its own.

    step      does
    seize     waits until interfaces and volumes that come or go have; raises the generation for what follows
    domain    the domain is absent
    volumes   no host reaches its volumes
    unplug    the ports are off the host
    disk      the root disk is absent
    finish    the row is on no host any more, and claims nothing

Only forward: its disk is in the image store, and a silent host keeps it waiting. Nobody else pushes the domain
meanwhile (`domains.whole` refuses).
"""

import asyncio
from typing import Final

import msgspec

from controller.compute import carrying, domains, store
from controller.compute.model import GONE, Event
from controller.compute.sagas import power, turning
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.network import ports, wiring
from controller.saga.log import settled
from controller.saga.model import Cause, Commit, Run, Saga, Step, Transient
from controller.schedule import claim


class OffloadParams(PowerParams, frozen=True, kw_only=True):
    """Everything else is in the server's row."""


class Seized(msgspec.Struct, frozen=True, kw_only=True):
    """The output of `seize`. `is_overtaken`: the server is being deleted, which takes it off its host, too."""

    generation: int
    port_ids: tuple[str, ...]
    is_overtaken: bool = False


async def seize(run: Run[OffloadParams]) -> Commit:
    """A generation for the removals, and what there is to be unplugged."""
    run.notes["host"] = run.params.host_name
    return Commit(_seize, (run.params.server_id, run.saga_id))


def _seize(tx: Tx, server_id: str, saga_id: str) -> dict[str, object]:
    if turning.find_wanted(tx, server_id) is None:  # Its deletion waits for us: who waits for that waits for ever.
        return {"generation": 0, "port_ids": [], "is_overtaken": True}
    if not settled(tx, server_id, saga_id):
        raise Transient("another operation on this server has not come to rest yet")
    store.intend(tx, server_id, {"desired": GONE})
    return {
        "generation": store.bump(tx, server_id),
        "port_ids": [nic.port_id for nic in store.nics(tx, server_id)],
    }


async def remove_domain(run: Run[OffloadParams]) -> None:
    """The domain is gone."""
    params, seized = run.params, _seized(run)
    if not seized.is_overtaken:
        await domains.remove(run.deps, params.server_id, params.host_id, seized.generation, run.deadline)


async def withdraw(run: Run[OffloadParams]) -> None:
    """No host reaches its volumes."""
    run.notes["host"] = run.params.host_name
    await carrying.reach(run, run.params.server_id, (), "")


async def unplug(run: Run[OffloadParams]) -> None:
    """Its ports are off the host."""
    host_id = run.params.host_id
    going = [wiring.unplug(run.deps, host_id, port_id, run.deadline) for port_id in _seized(run).port_ids]
    for end in await asyncio.gather(*going, return_exceptions=True):
        if end is not None:
            raise end


async def remove_disk(run: Run[OffloadParams]) -> None:
    """Its disk is gone."""
    params, seized = run.params, _seized(run)
    if not seized.is_overtaken:
        await domains.remove_disk(run.deps, params.server_id, params.host_id, seized.generation, run.deadline)


async def finish(run: Run[OffloadParams]) -> Commit:
    """What the database holds of its place."""
    return Commit(_left, (run.params, run.deps.world.clock.now()))


def _left(tx: Tx, params: OffloadParams, now: float) -> None:
    server_id = params.server_id
    server = store.find(tx, server_id)
    assert server is not None, "rows of servers outlive their sagas"
    if not server.is_deleting:  # Else the deletion, which waits for us, gives all of it back.
        ports.take_off_host(tx, server_id=server_id, now=now)
        claim.release(tx, server_id)
        nowhere = {"host_id": None, "host_name": None, "availability_zone": None, **turning.OFF}
        store.report(tx, server_id, Event.OFFLOADED, now, **nowhere)
    store.end_action(tx, server_id, params.request_id, now, is_error=False)


def overdue(tx: Tx, params: OffloadParams, cause: Cause, now: float) -> None:
    """It takes too long: the user's action tells so. It goes on."""
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)


def _seized(run: Run[OffloadParams]) -> Seized:
    run.notes["host"] = run.params.host_name
    return msgspec.convert(run.outputs["seize"], Seized)


OFFLOAD: Final = Saga(
    "server-offload",
    1,
    OffloadParams,
    steps=(
        Step("seize", seize),
        Step("domain", remove_domain, deferred=True),
        Step("volumes", withdraw, deferred=True),
        Step("unplug", unplug, deferred=True),
        Step("disk", remove_disk, deferred=True),
        Step("finish", finish),
    ),
    forward_only=True,
    overdue=overdue,
    rested=power.network_rested,
)
