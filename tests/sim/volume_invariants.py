"""What must be true of volumes at rest, and what must be true at any moment.

As in `invariants`: what rows say, what ledgers say and what is there are compared with each other.
"""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from controller.compute import plugs, store
from controller.compute.model import Server, VmState
from controller.config import VolumeLimits
from controller.db.tables.volume import attachment, server_volume, snapshot, volume
from controller.db.tx import Tx
from controller.volume import pools
from controller.volume.model import Attachment, AttachStatus, Snapshot, SnapshotStatus, Status, Volume, status_by
from tests.sim.ground import MULTIATTACH_ID
from tests.sim.instants import ON
from tests.sim.parties import FENCE

if TYPE_CHECKING:
    from tests.sim.invariants import Host
    from tests.sim.simulation import Simulation


def check_writers(simulation: "Simulation") -> None:
    """At any moment a volume is exported for one attachment at most, unless it is one for several."""
    exported: defaultdict[str, list[str]] = defaultdict(list)
    for agent in simulation.agents:
        for target in agent.site.storage.targets.values():
            exported[target.export.volume_id].append(target.export.id)
    several = {volume_id: ids for volume_id, ids in exported.items() if len(ids) > 1}
    if several and (wrong := [one for one in several if one not in simulation.users.shared]):
        simulation.fail(f"volumes are exported more than once: { {one: several[one] for one in wrong} }")


def left_in_tables(tx: Tx) -> list[str]:
    """What should be gone after everything was deleted."""
    found = []
    queries = {
        "volumes": sa.select(volume.c.id),
        "snapshots": sa.select(snapshot.c.id),
        "attachments": sa.select(attachment.c.id),
        "volumes of servers": sa.select(server_volume.c.attachment_id),
    }
    for what, query in queries.items():
        left = list(tx.execute(query).scalars())
        if left:
            found.append(f"{what} are left in the tables: {left}")
    return found


def wrong(tx: Tx, hosts: "list[Host]") -> list[tuple[str, str]]:
    """What is wrong at rest: (what, whose story tells more)."""
    look = _Look(tx, hosts)
    look.volumes()
    look.snapshots()
    look.attachments()
    look.guests()
    look.on_hosts()
    look.pools()
    return look.found


class _Look:
    def __init__(self, tx: Tx, hosts: "list[Host]") -> None:
        self.tx, self.hosts = tx, {host.id: host for host in hosts}
        self.found: list[tuple[str, str]] = []
        self.rows = {row.id: Volume(*row) for row in tx.execute(sa.select(volume).order_by(volume.c.id))}
        self.taken = {row.id: Snapshot(*row) for row in tx.execute(sa.select(snapshot).order_by(snapshot.c.id))}
        self.given = {row.id: Attachment(*row) for row in tx.execute(sa.select(attachment).order_by(attachment.c.id))}

    def _say(self, what: str, story_of: str) -> None:
        self.found.append((what, story_of))

    def _storage(self, host_id: str | None) -> Any:
        host = self.hosts.get(host_id or "")
        return None if host is None else host.party.site.storage

    def volumes(self) -> None:
        """Every volume is in a stable status that its attachments explain, and where its row says, as large."""
        users: defaultdict[str, list[str]] = defaultdict(list)
        for one in self.given.values():
            users[one.volume_id].append(one.status)
        for row in self.rows.values():
            expected = (status_by(users[row.id]), Status.ERROR_EXTENDING, Status.ERROR)
            if row.status not in expected or row.is_deleting or row.size_gib != row.promised_gib:
                self._say(f"volume {row.id} is {row.status}, {row.size_gib} of {row.promised_gib} GiB, at rest", row.id)
            if len(users[row.id]) > 1 and not row.is_multiattach:
                self._say(f"volume {row.id} is attached {users[row.id]} times", row.id)
            if row.status == Status.ERROR and row.host_id is None:
                continue  # It was never made.
            storage = self._storage(row.host_id)
            kept = None if storage is None else storage.volumes.get(row.id)
            if kept is None:
                self._say(f"volume {row.id} is not on {row.host_name}", row.id)
            elif kept.stored.size_bytes != row.size_gib << 30:
                self._say(f"volume {row.id} has {kept.stored.size_bytes} bytes, and {row.size_gib} GiB", row.id)

    def snapshots(self) -> None:
        """Every snapshot is in a stable status, and where its row says."""
        for row in self.taken.values():
            storage = self._storage(row.host_id)
            is_there = storage is not None and storage.snapshots.get(row.id) is not None
            if row.status not in (SnapshotStatus.AVAILABLE, SnapshotStatus.ERROR) or row.is_deleting:
                self._say(f"snapshot {row.id} is {row.status} at rest", row.id)
            elif is_there != (row.status == SnapshotStatus.AVAILABLE):
                self._say(f"snapshot {row.id} is {row.status}, and {'' if is_there else 'not '}there", row.id)

    def attachments(self) -> None:
        """Each serves a living server, is part of its domain, and is exported to its host and to nobody else."""
        plugged = {plug.attachment_id: plug for plug in self._plugs()}
        for row in self.given.values():
            if not row.is_ours:
                self._check_users_own(row)
                continue
            server = store.find(self.tx, row.server_id or "")
            plug = plugged.pop(row.id, None)
            if server is None or server.deleted_at is not None or plug is None:
                self._say(f"attachment {row.id} ({row.status}) serves no server", row.server_id or row.id)
                continue
            if row.status != AttachStatus.ATTACHED or not plug.is_plugged:
                self._say(f"attachment {row.id} is {row.status}, {plug.is_plugged=} at rest", server.id)
                continue
            storage = self._storage(self.rows[row.volume_id].host_id)
            target = next((one for one in storage.targets.values() if one.export.id == row.id), None)
            if target is None:
                self._say(f"attachment {row.id} is not exported", server.id)
            elif target.export.chap != FENCE.chap(row.id, row.secret_generation):
                self._say(f"attachment {row.id} is exported with an older secret", server.id)
            elif list(target.export.initiators) != self._expected(server):
                self._say(f"attachment {row.id} is exported to {target.export.initiators}", server.id)
        for plug in plugged.values():
            self._say(f"server {plug.server_id} was given {plug.volume_id} without an attachment", plug.server_id)

    @staticmethod
    def _expected(server: Server) -> list[str]:
        """Who reaches its volumes: its host, and nobody while it is on the shelf."""
        if server.vm_state == VmState.SHELVED_OFFLOADED:
            return []
        return [FENCE.initiator(server.host_id or "no host")]

    def _check_users_own(self, row: Attachment) -> None:
        """It is exported to whom its user named, or to nobody yet."""
        if row.status not in (AttachStatus.RESERVED, AttachStatus.ATTACHING, AttachStatus.ATTACHED):
            self._say(f"attachment {row.id} of a user is {row.status} at rest", row.id)
        storage = self._storage(self.rows[row.volume_id].host_id)
        targets = [] if storage is None else storage.targets.values()
        target = next((one for one in targets if one.export.id == row.id), None)
        have = () if target is None else target.export.initiators
        if list(have) != row.initiators:
            self._say(f"attachment {row.id} of a user is exported to {have}, not to {row.initiators}", row.id)

    def guests(self) -> None:
        """A guest that is on has the volumes that it was given, and no other."""
        given: defaultdict[str, list[str]] = defaultdict(list)
        for plug in self._plugs():
            given[plug.server_id].append(plug.attachment_id)
        for host in self.hosts.values():
            for domain in host.party.site.host.domains():
                have, server_id = sorted(disk.disk_id for disk in domain.volumes), domain.machine.spec.id
                if domain.power in ON and have != sorted(given[server_id]):
                    self._say(f"the guest of {server_id} has volumes {have}, not {given[server_id]}", server_id)

    def _plugs(self) -> list[plugs.Plug]:
        return [plugs.Plug(*row) for row in self.tx.execute(sa.select(server_volume))]

    def on_hosts(self) -> None:
        """Nothing is on a host that no row explains."""
        for host in self.hosts.values():
            storage = host.party.site.storage
            for volume_id in sorted(storage.volumes.keys()):
                row = self.rows.get(volume_id)
                if row is None or row.host_id != host.id:
                    self._say(f"volume {volume_id} on {host.party.name} is in no row", volume_id)
            for snapshot_id in sorted(storage.snapshots.keys()):
                if snapshot_id not in self.taken:
                    self._say(f"snapshot {snapshot_id} on {host.party.name} is in no row", snapshot_id)
            for target in storage.targets.values():
                if target.export.id not in self.given:
                    self._say(f"export {target.export.id} on {host.party.name} serves nobody", target.export.id)

    def pools(self) -> None:
        """No pool is promised beyond what it has."""
        for room in pools.rooms(self.tx, {}):
            if room.promised_gib > pools.capacity_gib(room.pool, VolumeLimits()):
                self._say(f"pool {room.name} is promised {room.promised_gib} GiB of {room.pool.total_gib}", "")


def shared(tx: Tx) -> set[str]:
    """Volumes for several servers."""
    return set(tx.execute(sa.select(volume.c.id).where(volume.c.type_id == MULTIATTACH_ID)).scalars())
