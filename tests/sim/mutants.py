"""Clouds with one safety rule taken out of their real code. The simulation must notice each of them.

A mutant is a change by monkeypatch, so that it follows the code: what is patched is the narrowest piece that holds
the rule. `rule` says what the rule is for; a mutant that survives means that the simulation does not look there.
"""

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import pytest
import sqlalchemy as sa

import agent.handlers.domain as reboots
import agent.ledger
from agent.converge import disk, port
from agent.converge import moving as leaving
from agent.converge.table import TABLE
from agent.effects import IMAGE, NETWORK, Effects
from agent.lease import Lease
from agent.ledger import Ledger
from agent.nouns import Key, Noun
from agent.reconciler import Converge
from agent.turn import Turn
from agent.wire.bus import Message
from agent.wire.domain import DomainStatus, Reboot
from agent.wire.errors import WireError
from agent.wire.group import GroupSpec
from agent.wire.host import LedgerEntry
from agent.wire.lifecycle import Progress
from agent.wire.network import NetworkSpec
from agent.wire.port import PortSpec, PortStatus
from agent.wire.specs import ObjectSpec
from controller import quota
from controller.compute import moves, plugs, servers, store
from controller.compute.sagas import (
    server_create,
    server_delete,
    server_evacuate,
    server_leave,
)
from controller.db.tables.saga import saga as table
from controller.db.tx import Tx
from controller.fleet.liveness import Liveness
from controller.fleet.mirror import Mirror
from controller.hosts import Hosts
from controller.network import wiring
from controller.network.model import Port
from controller.network.store import forwarding, members
from controller.saga import record
from controller.saga.drive import Drive
from controller.saga.model import Cause, Run, Saga, State, Step, Transient
from controller.saga.record import Change
from controller.saga.registry import REGISTRY
from controller.schedule import claim, filters
from controller.volume import attachments, pools
from controller.volume.store import volumes
from tests.sim.simulation import Plan, play

PATIENCE: Final = 60
"""Seeds that a mutant may live through. Most need one or two."""


@dataclass(frozen=True)
class Mutant:
    """One rule less."""

    name: str
    rule: str
    change: Callable[[pytest.MonkeyPatch], None]
    plan: Plan = field(default_factory=Plan)
    first: int = 1  # The seed to begin with: where it is known to be noticed.


def hunt(mutant: Mutant, patience: int = PATIENCE) -> tuple[int, str]:
    """Play seeds until one fails: how many it took, and what was noticed. AssertionError if the mutant survives."""
    with pytest.MonkeyPatch.context() as patch:
        mutant.change(patch)
        for count in range(1, patience + 1):
            played = play(mutant.first + count - 1, mutant.plan)
            if played.broken:
                return count, played.broken[0]
    raise AssertionError(f"{mutant.name} survives {patience} seeds; the rule is: {mutant.rule}")


# Agents.


def _no_tombstones(patch: pytest.MonkeyPatch) -> None:
    """What was removed is as if it had never been, for whoever wants it back."""
    put = Ledger.put

    def reviving(self: Ledger, noun: Noun, spec: ObjectSpec, raw: bytes, now: float) -> bool:
        known = self.find(Key(noun, spec.id))
        if known is not None and known.absent and known.is_settled:
            del self._entries[noun][spec.id]
        return put(self, noun, spec, raw, now)

    patch.setattr(Ledger, "put", reviving)


def _any_generation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(agent.ledger, "_refuse_older", lambda *_: None)


def _tap_before_filter(patch: pytest.MonkeyPatch) -> None:
    async def ensure(fx: Effects, turn: Turn) -> PortStatus:
        spec = turn.spec(PortSpec)
        network = fx.need(Key(Noun.NETWORK, spec.network_id), NetworkSpec)
        for group in sorted(spec.groups):
            fx.need(Key(Noun.GROUP, group), GroupSpec)
        device = await fx.run(NETWORK, turn.key, fx.drivers.fabric.ensure_port, spec, network)
        fx.wired[spec.id] = spec
        await fx.apply_filter()
        await fx.apply_dhcp(spec.network_id)
        fx.publish_documents()
        return PortStatus(id=spec.id, generation=spec.generation, progress=Progress.READY, device=device)

    patch.setitem(TABLE, Noun.PORT, Converge(ensure, port.absent))


def _reboots_without_memory(patch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count()
    reboot = reboots.reboot

    async def again(desk: Any, request: Reboot, message: Message) -> DomainStatus:
        anew = msgspec.structs.replace(request, operation_id=f"{request.operation_id}/{next(numbers)}")
        return await reboot(desk, anew, message)

    patch.setattr(reboots, "reboot", again)


def _started_again_after_a_boot(patch: pytest.MonkeyPatch) -> None:
    """Not `held`, and what was settled is carried out once more."""
    patch.setattr(Ledger, "note_boot", lambda self, boot_id: self._set_meta("boot_id", boot_id))
    patch.setattr(agent.ledger.Entry, "is_settled", property(lambda self: self.absent and self.settled is not None))


# Order on hosts.


async def _disk_absent_at_once(fx: Effects, turn: Turn) -> None:
    await fx.run(IMAGE, turn.key, fx.drivers.disks.absent, turn.key.id)


def _disk_before_domain(patch: pytest.MonkeyPatch) -> None:
    """At both ends: the host would refuse it."""
    patch.setitem(TABLE, Noun.DISK, Converge(disk.ensure, _disk_absent_at_once))
    first, *others = server_delete.DELETE.steps
    order = ["disk", "domain", "unplug", "volumes", "finish"]
    _swap(patch, server_delete.DELETE, (first, *sorted(others, key=lambda step: order.index(step.name))))


# Sagas.


def _swap(patch: pytest.MonkeyPatch, saga: Saga[Any], steps: Sequence[Step[Any]]) -> None:
    """The same kind with other steps, wherever it is known."""
    changed = dataclasses.replace(saga, steps=tuple(steps))
    patch.setitem(REGISTRY._sagas, saga.name, changed)
    for module in (server_create, server_delete, server_evacuate, server_leave, servers):
        for name, value in list(vars(module).items()):
            if value is saga:
                patch.setattr(module, name, changed)


def _without_undo(patch: pytest.MonkeyPatch, *names: str) -> None:
    async def nothing(run: Run[Any]) -> None:
        return None

    steps = server_create.CREATE.steps
    changed = [dataclasses.replace(step, undo=nothing) if step.name in names else step for step in steps]
    _swap(patch, server_create.CREATE, changed)


def _failed_step_is_not_undone(patch: pytest.MonkeyPatch) -> None:
    async def turn(self: Drive, at: int, cause: Cause, began: float, run: Run[Any] | None = None) -> None:
        failed = self._event(at, "failed", run, began, error=cause.message)
        change = Change(state=State.UNWINDING, position=self._undoable(at - 1), cause=cause)
        await self._write(change, [*self._ends, failed])

    patch.setattr(Drive, "_turn", turn)


def _ports_stay_after_undo(patch: pytest.MonkeyPatch) -> None:
    _without_undo(patch, "port")


def _claims_stay_after_undo(patch: pytest.MonkeyPatch) -> None:
    _without_undo(patch, "place")


def _delete_waits_for_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(server_delete, "settled", lambda *_: True)


def _no_fencing(patch: pytest.MonkeyPatch) -> None:
    """Whoever once had a saga may go on with it: neither its hold nor its lease is asked."""
    write: Any = record._WRITE
    columns = table.c
    careless = sa.update(table).where(columns.id == sa.bindparam("b_id"), columns.state.in_(record.ACTIVE))
    careless = careless.values(write._values).returning(columns.seq, columns.cancel_at)
    patch.setattr(record, "_WRITE", careless)
    patch.setattr(Drive, "lease_ends", property(lambda _: float("inf"), lambda _self, _value: None))


def _silence_is_absence(patch: pytest.MonkeyPatch) -> None:
    absent = Hosts.absent

    async def hasty(self: Hosts, host_id: str, row: Any, absence: Any, deadline: float) -> Any:
        try:
            return await absent(self, host_id, row, absence, deadline)
        except Transient:
            return row.reply(id=absence.id, generation=absence.generation, progress=Progress.ABSENT)

    patch.setattr(Hosts, "absent", hasty)


def _undo_at_the_old_generation(patch: pytest.MonkeyPatch) -> None:
    """Undo does not raise the generation before it sends."""

    async def same(run: Run[Any]) -> int:
        server = await run.deps.db.read(store.find, run.params.server_id)
        return int(server.generation)

    patch.setattr(server_create, "_raised", same)


# Counting.


def _claim_on_the_snapshot(patch: pytest.MonkeyPatch) -> None:
    def claimed(tx: Tx, wanted: Any, candidates: Sequence[str], ratios: Any, now: float) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(filters, "refusal", lambda *_: None)
            return real(tx, wanted, candidates, ratios, now)

    real = claim.claim
    patch.setattr(claim, "claim", claimed)


def _quota_before_the_transaction(patch: pytest.MonkeyPatch) -> None:
    """Charged in a transaction of its own, a moment earlier."""
    create, insert, charge = servers.create, servers._create, quota.charge
    is_inserting = False

    def uncharged(tx: Tx, *args: Any) -> Any:
        nonlocal is_inserting
        is_inserting = True
        try:
            return insert(tx, *args)
        finally:
            is_inserting = False

    def charged(*args: Any) -> None:
        if not is_inserting:
            charge(*args)

    async def early(cloud: Any, ctx: Any, new: Any) -> Any:
        ids = [servers._draw(cloud, 3, len(new.devices)) for _ in range(3)]
        await cloud.db.read(insert, ctx, new, ids, ("r-1", cloud.world.clock.now()), cloud.settings.volume)
        await asyncio.sleep(0.02)
        return await create(cloud, ctx, new)

    patch.setattr(quota, "charge", charged)
    patch.setattr(servers, "_create", uncharged)
    patch.setattr(servers, "create", early)


# Networks.


def _absence_at_the_same_generation(patch: pytest.MonkeyPatch) -> None:
    retire = wiring._retire

    def same(tx: Tx, port_id: str, host_id: str, now: float) -> int | None:
        n = retire(tx, port_id, host_id, now)
        return None if n is None else n - 1

    patch.setattr(wiring, "_retire", same)


def _members_are_not_told(patch: pytest.MonkeyPatch) -> None:
    def nobody(tx: Tx, group_ids: Iterable[str], port_id: str, before: Port | None = None) -> None:
        return None

    patch.setattr(members, "changed", nobody)


def _a_member_that_left_is_not_told(patch: pytest.MonkeyPatch) -> None:
    change = members.change

    def only_who_came(tx: Tx, group_id: str, since: int, until: int) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        found = change(tx, group_id, since, until)
        return None if found is None else (found[0], ())

    patch.setattr(members, "change", only_who_came)


def _who_left_stays_in_tunnels(patch: pytest.MonkeyPatch) -> None:
    changed = forwarding.port_changed

    def unless_leaving(tx: Tx, port_id: str, *, is_leaving: bool = False) -> None:
        if not is_leaving:
            changed(tx, port_id)

    patch.setattr(forwarding, "port_changed", unless_leaving)


def _gateways_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A host that is cut off lets go of nothing."""
    patch.setattr(Lease, "_may_have", lambda *_: True)


# Volumes.


def _export_gone_at_the_same_generation(patch: pytest.MonkeyPatch) -> None:
    withdraw = attachments.withdraw

    def same(tx: Tx, attachment_id: str) -> tuple[str, int] | None:
        found = withdraw(tx, attachment_id)
        return None if found is None else (found[0], found[1] - 1)

    patch.setattr(attachments, "withdraw", same)


def _export_before_domain(patch: pytest.MonkeyPatch) -> None:
    first, *others = server_delete.DELETE.steps
    order = ["volumes", "domain", "unplug", "disk", "finish"]
    _swap(patch, server_delete.DELETE, (first, *sorted(others, key=lambda step: order.index(step.name))))


def _disks_change_at_the_same_generation(patch: pytest.MonkeyPatch) -> None:
    """A volume comes to a domain, or goes, and its host is sent other words under the same number."""
    set_plugged = plugs.set_plugged

    def silent(tx: Tx, attachment_id: str, is_plugged: bool) -> bool:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(store, "bump", lambda *_: 0)
            return set_plugged(tx, attachment_id, is_plugged)

    patch.setattr(plugs, "set_plugged", silent)


def _volumes_are_taken_in_any_status(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(volumes, "_taking", lambda _: volumes._CHANGE)


def _volumes_are_had_by_several(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attachments, "_check_free", lambda *_: None)


def _pools_hold_anything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pools, "refusal", lambda room, asked, _: None if asked.only in (None, _place(room)) else "elsewhere")


def _place(room: Any) -> tuple[str, str]:
    return room.pool.host_id, room.pool.name


# Server life, and hosts.


def _resizes_hold_what_they_had(patch: pytest.MonkeyPatch) -> None:
    """The old size's claim is not given back, nor taken back."""
    patch.setattr(claim, "take_back", lambda *_: None)


def _resizes_claim_one_size(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(claim, "hand_over", lambda *_: None)


def _evacuated_from_the_living(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(moves, "_check_dead", lambda *_: None)


def _left_behind(patch: pytest.MonkeyPatch) -> None:
    """Who moves to another host leaves its domain on the one where it was."""

    async def nothing(run: Run[Any]) -> None:
        return None

    changed = [dataclasses.replace(step, do=nothing) for step in server_leave.LEAVE.steps]
    _swap(patch, server_leave.LEAVE, changed)


def _goes_on_before_it_is_gone(patch: pytest.MonkeyPatch) -> None:
    """The other host is told to go on, however the sending ended."""
    send = leaving._send

    async def told(fx: Effects, turn: Turn, way: Any) -> None:
        try:
            await send(fx, turn, way)
        except WireError:
            async with fx.source.passage(turn.key.id, way, 0) as arrive:
                await arrive(())
            raise

    patch.setattr(leaving, "_send", told)


# Knowing.


def _mirror_is_never_read_again(patch: pytest.MonkeyPatch) -> None:
    fill = Mirror.fill

    def once(self: Mirror, entries: Iterable[LedgerEntry]) -> bool:
        return fill(self, entries) if self._entries is None else False

    patch.setattr(Mirror, "fill", once)


def _no_lease_after_a_start(patch: pytest.MonkeyPatch) -> None:
    """A controller that has just started believes nobody alive whom it has not heard."""
    adopt = Liveness.adopt
    patch.setattr(Liveness, "adopt", lambda self, host_id, is_up, now: adopt(self, host_id, is_up, now - 29.0))


MUTANTS: Final = (
    Mutant("tombstone", "a late ensure does not revive what was removed", _no_tombstones),
    Mutant("generation", "an older intent never replaces a newer one", _any_generation),
    Mutant("filter", "no tap is up before its rules are there", _tap_before_filter),
    Mutant("operation-id", "an act is done once, however often it is asked for", _reboots_without_memory, first=4),
    Mutant("held", "an agent starts nothing of its own accord", _started_again_after_a_boot),
    Mutant("disk-order", "a disk is freed after its domain is gone", _disk_before_domain),
    Mutant("failed-step", "a step that failed may have happened, and is undone", _failed_step_is_not_undone),
    Mutant("undo-ports", "undo gives addresses back", _ports_stay_after_undo),
    Mutant("undo-claim", "undo gives the claim back", _claims_stay_after_undo),
    Mutant("delete-waits", "a deletion begins when nobody else works on the server", _delete_waits_for_nobody),
    Mutant("fencing", "who has lost a saga writes nothing of it any more", _no_fencing, Plan(controllers=2)),
    Mutant("silence", "silence is never taken for absence", _silence_is_absence),
    Mutant("undo-generation", "undo raises the generation before it sends", _undo_at_the_old_generation),
    Mutant("claim", "room is counted in the transaction that claims it", _claim_on_the_snapshot, first=3),
    Mutant("quota", "a quota is counted in the transaction that charges it", _quota_before_the_transaction),
    Mutant("unplug-generation", "a removal has a generation of its own", _absence_at_the_same_generation),
    Mutant("members", "hosts learn who has left a group", _members_are_not_told),
    Mutant("member-gone", "a difference says who has left a group", _a_member_that_left_is_not_told),
    Mutant("tunnels", "hosts learn who has left a network", _who_left_stays_in_tunnels),
    Mutant("gateway", "a host that is cut off lets go of gateways", _gateways_for_ever, first=10),
    Mutant("export-generation", "an export's end has a generation of its own", _export_gone_at_the_same_generation),
    Mutant("export-order", "an export goes after its disk has left the domain", _export_before_domain),
    Mutant(
        "disks-generation", "whatever a host is told of a domain is told anew", _disks_change_at_the_same_generation
    ),
    Mutant("volume-status", "a volume is taken by compare-and-set", _volumes_are_taken_in_any_status, first=3),
    Mutant("volume-free", "a volume is one server's, but for those for several", _volumes_are_had_by_several),
    Mutant("pool", "room in a pool is counted in the transaction that claims it", _pools_hold_anything, first=5),
    Mutant("resize-back", "a resize that ends gives one of its claims back", _resizes_hold_what_they_had, first=3),
    Mutant("resize-both", "both sizes are claimed until there is a word", _resizes_claim_one_size),
    Mutant("evacuate", "only the dead are evacuated", _evacuated_from_the_living, first=4),
    Mutant("arrival", "who has arrived goes on when it is gone where it was", _goes_on_before_it_is_gone, first=7),
    Mutant("leave", "who has moved is gone from where it was", _left_behind),
    Mutant("sync", "what a host holds is read again", _mirror_is_never_read_again, Plan(controllers=2), first=18),
    Mutant("lease", "a started controller waits a whole lease before it judges", _no_lease_after_a_start),
)
