"""What must be true of a cloud at rest, and what must be true at any moment.

The tables are read directly, not through a controller; hosts are looked at as they are, not as agents tell. So the
three (what rows say, what ledgers say, what is there) are compared with each other by somebody who is none of them.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from agent.nouns import SHAPES, Key, Noun
from agent.wire.domain import DomainSpec
from agent.wire.lifecycle import Generation, Power
from agent.wire.specs import ObjectSpec, decode
from controller.compute import domains, store
from controller.compute.model import GONE, Server, VmState, rescue_disk_id, root_disk_id
from controller.config import Settings
from controller.db.tables.compute import server, server_action, server_resize
from controller.db.tables.migration import migration
from controller.db.tables.network import host_object, ip_allocation, port
from controller.db.tables.placement import allocation
from controller.db.tables.saga import saga
from controller.db.tables.usage import server_usage
from controller.db.tx import Tx
from controller.fleet import store as fleet
from controller.fleet.liveness import LEASE_S
from controller.image import store as image_store
from controller.network import intent
from controller.network.model import INFRASTRUCTURE_OWNERS, Port, Status
from controller.network.store import ports
from controller.saga.log import trace
from controller.saga.model import State
from drivers.image.fake import FakeDisk
from tests.databases import raw_connection
from tests.sim import network_invariants, volume_invariants
from tests.sim.life_operations import BOOTS
from tests.sim.parties import EPOCH, FENCE, AgentParty

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

RESTING: Final = (State.DONE.value, State.UNDONE.value)

_POWERS: Final = {
    VmState.ACTIVE: (Power.RUNNING, Power.PAUSED),
    VmState.PAUSED: (Power.PAUSED,),
    VmState.SUSPENDED: (Power.SUSPENDED,),
    VmState.STOPPED: (Power.SHUTOFF, Power.CRASHED),
    VmState.SHELVED: (Power.SHUTOFF, Power.CRASHED),
}
"""Of domains, by what their rows say. A rescued or resized guest may have switched itself off."""

_SHARED: Final = (Noun.NETWORK, Noun.FORWARDING, Noun.GROUP, Noun.ADDRESSES, Noun.ROUTER)


class Host(msgspec.Struct, frozen=True):
    """One host as its ledger says, and as it is."""

    party: AgentParty
    ledger: dict[Key, tuple[Generation, bool, ObjectSpec | None]]

    @property
    def id(self) -> str:
        return self.party.host_id

    def wanted(self, noun: Noun) -> dict[str, ObjectSpec]:
        """What should be there, by its ledger."""
        found = {}
        for key, (_, absent, spec) in self.ledger.items():
            if key.noun is noun and not absent:
                assert spec is not None, f"{key} is wanted and has no spec"
                found[key.id] = spec
        return found


async def rests(simulation: "Simulation") -> bool:
    """Whether no saga is at work."""
    return not await simulation.database.read(_at_work)


def _at_work(tx: Tx) -> int:
    busy = sa.select(sa.func.count()).select_from(saga)
    return tx.execute(busy.where(saga.c.state.in_(("running", "unwinding")))).scalar_one()


async def tell_restless(simulation: "Simulation") -> None:
    """What the sagas do that do not come to rest."""

    def restless(tx: Tx) -> list[str]:
        look = _Look(simulation, tx, [])
        look.sagas()
        return look.wrong

    for what in await simulation.database.read(restless):
        simulation.fail(what)


def check_one_host(simulation: "Simulation", domain_id: str) -> None:
    """At any moment a domain is on at most one host."""
    on = [agent.name for agent in simulation.agents if domain_id in agent.site.running()]
    if len(on) > 1:
        simulation.fail(f"domain {domain_id} runs on {', '.join(on)} at the same time")


def check_power_on(simulation: "Simulation", party: AgentParty, domain_id: str) -> None:
    """A guest is on one host at most; and after a boot of the machine only if somebody asked for it again."""
    check_one_host(simulation, domain_id)
    if domain_id not in party.site.asked:
        simulation.fail(f"{domain_id} was switched on on {party.name} without being asked for since the boot")


def check_verdict(simulation: "Simulation", name: str, host_id: str) -> None:
    """Nobody is declared dead by a controller that could not have heard them for a whole lease."""
    (judge,) = (party for party in simulation.controllers if party.name == name)
    heard_since = max(judge.started_at, judge.resumed_at)
    listened_s = simulation.loop.time() - heard_since
    if listened_s < LEASE_S:
        simulation.fail(f"{name} declared {host_id} dead after having listened for {listened_s:.1f} s")


async def check_rest(simulation: "Simulation", when: str) -> None:
    """Everything, at rest."""
    hosts = [_host(agent) for agent in simulation.agents]
    found = await simulation.database.read(lambda tx: _Look(simulation, tx, hosts).all())
    for what in found:
        simulation.fail(f"{when}: {what}")


async def check_emptiness(simulation: "Simulation") -> None:
    """After everything was deleted nothing is left."""
    for agent in simulation.agents:
        site = agent.site
        left = {
            "domains": [one.machine.spec.id for one in site.host.domains()],
            "disks": site.images.disks.keys(),
            "volumes": site.storage.volumes.keys(),
            "snapshots": site.storage.snapshots.keys(),
            "exports": site.storage.targets.keys(),
            "torn copies": site.storage.torn,
            "taps": site.net.taps.keys(),
            "networks": site.net.networks.keys(),
            "routers": site.net.routers.keys(),
            "leases": sorted(site.net.leases),
            "filtered": [] if site.net.filter is None else [one.id for one in site.net.filter.ports],
            "groups": [] if site.net.filter is None else sorted(site.net.filter.groups),
            "addresses": [] if site.net.filter is None else sorted(site.net.filter.addresses),
            "uids": sorted(site.uids()),
            "documents": sorted(site.guard.documents),
            "metadata networks": sorted(site.guard.networks),
        }
        for what, ids in left.items():
            if ids:
                simulation.fail(f"{what} are left on {agent.name}: {ids}")
    for what in await simulation.database.read(_left_in_tables):
        simulation.fail(what)


def _left_in_tables(tx: Tx) -> list[str]:
    found = []
    queries = {
        "servers": sa.select(server.c.id).where(server.c.deleted_at.is_(None)),
        "claims": sa.select(allocation.c.consumer_id),
        "ports": sa.select(port.c.id).where(port.c.device_owner.not_in(INFRASTRUCTURE_OWNERS)),
        "objects of hosts": sa.select(host_object.c.object_id).where(host_object.c.is_wanted),
    }
    for what, query in queries.items():
        left = list(tx.execute(query).scalars())
        if left:
            found.append(f"{what} are left in the tables: {left}")
    return [*found, *volume_invariants.left_in_tables(tx)]


def digest(simulation: "Simulation") -> str:
    """Of all tables."""
    dump = "\n".join(raw_connection(simulation.database).iterdump())
    return hashlib.blake2b(dump.encode(), digest_size=16).hexdigest()


def _host(party: AgentParty) -> Host:
    return Host(party, _read_ledger(party.site.ledger))


def _read_ledger(connection: sqlite3.Connection) -> dict[Key, tuple[Generation, bool, ObjectSpec | None]]:
    rows = connection.execute("SELECT noun, id, epoch, n, absent, spec FROM object ORDER BY noun, id")
    found = {}
    for noun, name, epoch, n, absent, spec in rows:
        key = Key(Noun(noun), name)
        decoded = None if spec is None else decode(spec, SHAPES[key.noun].spec)
        found[key] = (Generation(epoch, n), bool(absent), decoded)
    return found


class _Look:
    """One look at everything, in one transaction; gathers what is wrong."""

    def __init__(self, simulation: "Simulation", tx: Tx, hosts: list[Host]) -> None:
        self.simulation, self.tx, self.hosts = simulation, tx, hosts
        self.wrong: list[str] = []
        self.live = [Server(*row) for row in tx.execute(sa.select(server).where(store.LIVE).order_by(server.c.id))]
        self.by_id = {one.id: one for one in self.live}
        self.bound = {host.id: self._bound(host.id) for host in hosts}

    def all(self) -> list[str]:
        """What is wrong."""
        self.sagas()
        self.promises()
        self.servers()
        self.charged()
        self.boots()
        self.claims()
        self.addresses()
        for host in self.hosts:
            self.what_is_on(host)
            self.network_of(host)
            self.reality_of(host)
        self.mirrors()
        for what, story_of in volume_invariants.wrong(self.tx, self.hosts):
            self._say(what, story_of)
        for what in network_invariants.wrong(self.tx, self.hosts):
            self._say(what)
        return self.wrong

    def _bound(self, host_id: str) -> list[Port]:
        found = ports.on_host(self.tx, host_id)
        return [one for one in found if one.device_owner not in INFRASTRUCTURE_OWNERS]

    def _say(self, what: str, story_of: str | None = None) -> None:
        if story_of is not None:
            lines = [
                f"    {line.at - 1_800_000_000:9.2f} {line.kind:16} {line.step:10} {line.event:11} {line.error[:150]}"
                for line in trace(self.tx, target=story_of)[-25:]
            ]
            what = "\n".join([what, *lines])
        self.wrong.append(what)

    # Sagas and promises.

    def sagas(self) -> None:
        """Every saga rests."""
        restless = sa.select(saga).where(saga.c.state.not_in(RESTING))
        for row in self.tx.execute(restless):
            self._say(f"saga {row.kind} is {row.state}: {row.reason}", row.target)

    def promises(self) -> None:
        """Every request that was accepted has come to an end that its user can read."""
        for one in self.simulation.users.accepted:
            row = store.find(self.tx, one.server_id)
            if row is None:
                self._say(f"{one.what} of {one.server_id} was accepted, but there is no row")
                continue
            if one.what == "delete" and row.deleted_at is None:
                self._say(f"the deletion of {one.server_id} was accepted, but it is {row.status}", one.server_id)
            if one.what == "delete":
                continue  # A second one, while the first is under way, is no action of its own.
            mine = (server_action.c.server_id == one.server_id, server_action.c.request_id == one.request_id)
            action = self.tx.execute(sa.select(server_action).where(*mine)).first()
            if action is None:
                self._say(f"{one.what} of {one.server_id} was accepted, but is no action of the server")

    # Servers.

    def servers(self) -> None:
        """Every server is in a stable state, and on its host as its row says."""
        for one in self.live:
            if one.task_state is not None or one.vm_state == VmState.BUILDING or one.is_deleting:
                self._say(f"server {one.id} is {one.vm_state}/{one.task_state} at rest", one.id)
            elif one.vm_state == VmState.ERROR:
                self._in_error(one)
            elif one.vm_state == VmState.SHELVED_OFFLOADED:
                self._on_the_shelf(one)
            else:
                self._on_its_host(one)
            self._elsewhere(one)

    def _in_error(self, one: Server) -> None:
        if not one.fault_message:
            self._say(f"server {one.id} is in ERROR without a fault", one.id)
        if one.host_id is not None:
            return
        if self.tx.execute(sa.select(allocation).where(allocation.c.consumer_id == one.id)).first():
            self._say(f"server {one.id} was never built and holds a claim", one.id)
        if ports.of_devices(self.tx, [one.id]):
            self._say(f"server {one.id} was never built and has ports", one.id)

    def _on_the_shelf(self, one: Server) -> None:
        """It is nowhere, and there is what it comes back from."""
        if (
            one.host_id is not None
            or self.tx.execute(sa.select(allocation).where(allocation.c.consumer_id == one.id)).first()
        ):
            self._say(f"server {one.id} left its host and still has a place", one.id)
        if one.image_id is not None and image_store.find(self.tx, one.shelved_image_id or "") is None:
            self._say(f"server {one.id} is on the shelf, and what its disk was kept as is gone", one.id)

    def _on_its_host(self, one: Server) -> None:
        host = next((host for host in self.hosts if host.id == one.host_id), None)
        if host is None:
            self._say(f"server {one.id} is {one.status} and on no host", one.id)
            return
        where = f"server {one.id} is {one.status} on {host.party.name}"
        domain = host.party.site.host._domains.get(one.id)
        if domain is None:
            self._say(f"{where}, but there is no such domain", one.id)
            return
        if domain.power not in _POWERS.get(VmState(one.vm_state), Power):
            self._say(f"{where}, but its domain is {domain.power.value}", one.id)
        if one.pushed_generation != one.generation:
            self._say(f"{where}: generation {one.generation}, its host knows {one.pushed_generation}", one.id)
        if one.desired == GONE:
            self._say(f"{where}, and its row is between two domains", one.id)
            return
        wanted = domains.spec_of(domains.whole(self.tx, one.id), EPOCH, FENCE)
        _, absent, spec = host.ledger.get(Key(Noun.DOMAIN, one.id), (None, True, None))
        if absent or not _is_told(spec, wanted):
            self._say(f"{where}, but its host was told otherwise: {_difference(spec, wanted)}", one.id)
        if wanted.hardware != domain.hardware:
            self._say(f"{where} and has other hardware: {domain.hardware} instead of {wanted.hardware}", one.id)
        if one.image_id is not None:
            self._disk(one, host.party.site.images.disks.get(root_disk_id(one.id)), where)
        has_rescue_disk = host.party.site.images.disks.get(rescue_disk_id(one.id)) is not None
        if not has_rescue_disk == (one.rescue_image_id is not None) == one.is_rescued:
            self._say(f"{where}: {has_rescue_disk=}, {one.rescue_image_id=}, {one.is_rescued=}", one.id)
        have, told = sorted(nic.mac for nic in domain.nics), sorted(nic.mac for nic in wanted.nics)
        if domain.power in (Power.RUNNING, Power.PAUSED) and have != told:
            self._say(f"{where} and its guest sees interfaces {have}, not {told}", one.id)

    def _disk(self, one: Server, disk: FakeDisk | None, where: str) -> None:
        if disk is None:
            self._say(f"{where} without a disk", one.id)
            return
        image = image_store.find(self.tx, one.image_id or "")
        below = None if one.is_disk_whole else disk.image_sha256 if image is None else image.sha256
        if disk.image_sha256 != below:
            self._say(f"{where}: its disk lies upon {disk.image_sha256}, and the row says {below}", one.id)

    def charged(self) -> None:
        """Who is ACTIVE is charged, and nobody else."""
        charged = set(
            self.tx.execute(sa.select(server_usage.c.server_id).where(server_usage.c.ended_at.is_(None))).scalars()
        )
        for server_id in sorted(charged ^ {one.id for one in self.live if one.vm_state == VmState.ACTIVE}):
            how = "charged without being" if server_id in charged else "not charged although it is"
            self._say(f"server {server_id} is {how} ACTIVE", server_id)

    def boots(self) -> None:
        """No guest was switched on more often than anybody asked for, or than it fell."""
        asked = sa.select(server_action.c.server_id, server_action.c.action)
        actions: Counter[str] = Counter()
        for server_id, action in self.tx.execute(asked):
            actions[server_id] += BOOTS.get(action, 0)
        for host in self.hosts:
            machine = host.party.site.host
            for server_id, boots in sorted(machine.boots.items()):
                most = 1 + actions[server_id] + machine.falls[server_id]
                if boots > most:
                    self._say(f"{server_id} was switched on {boots} times on {host.party.name}, not {most}", server_id)

    def _elsewhere(self, one: Server) -> None:
        for host in self.hosts:
            if host.id != one.host_id and host.party.site.host._domains.get(one.id) is not None:
                self._say(f"server {one.id} of {one.host_name} has a domain on {host.party.name}", one.id)

    def claims(self) -> None:
        """Claims are those of the servers, and fit."""
        every = {row.consumer_id: row for row in self.tx.execute(sa.select(allocation))}
        resizes = {row.id: row for row in self.tx.execute(sa.select(server_resize))}
        for resize_id, row in sorted(resizes.items()):
            if row.server_id not in self.by_id or resize_id not in every:
                self._say(f"the old size of {row.server_id} is not claimed, or nobody's", row.server_id)
            elif every[resize_id].host_id != row.from_host_id:
                self._say(f"the old size of {row.server_id} is claimed on another host", row.server_id)
        self._listed_moves(set(resizes))
        claims = {key: row for key, row in every.items() if key not in resizes}
        placed = {one.id: one for one in self.live if one.host_id is not None}
        for server_id in sorted(claims.keys() - placed.keys()):
            self._say(f"a claim of {server_id} on {claims[server_id].host_id} has no server", server_id)
        for server_id in sorted(placed.keys() - claims.keys()):
            self._say(f"server {server_id} is on {placed[server_id].host_name} without a claim", server_id)
        for server_id in sorted(claims.keys() & placed.keys()):
            one, row = placed[server_id], claims[server_id]
            has = (row.host_id, row.vcpus, row.memory_mib, row.disk_gib)
            if has != (one.host_id, one.vcpus, one.memory_mib, one.root_gib):
                self._say(f"server {server_id} claims {has}", server_id)
        ratios = Settings().scheduler
        for host in fleet.list_hosts(self.tx):
            mine = [row for row in every.values() if row.host_id == host.id]
            free = (
                host.vcpus * ratios.cpu - sum(row.vcpus for row in mine),
                (host.memory_mib - ratios.reserved_memory_mib) * ratios.memory - sum(row.memory_mib for row in mine),
                host.disk_gib * ratios.disk - sum(row.disk_gib for row in mine),
            )
            if min(free) < 0:
                self._say(f"host {host.hostname} is promised away beyond what it has: {free} are left")

    def _listed_moves(self, waiting: set[str]) -> None:
        """Of changes of host and size those that wait for a word are listed so, and the others as over."""
        mine = migration.c.kind.in_(("migration", "resize"))
        for row in self.tx.execute(sa.select(migration.c.uuid, migration.c.server_id, migration.c.status).where(mine)):
            over = ("finished",) if row.uuid in waiting else ("confirmed", "reverted", "error")
            if row.status not in over:
                self._say(f"the migration {row.uuid} of {row.server_id} is listed as {row.status}", row.server_id)

    # Networking.

    def addresses(self) -> None:
        """No address and no MAC twice; none without a port; none of a server that is gone."""
        rows = self.tx.execute(sa.select(ip_allocation)).all()
        twice = [key for key, n in Counter((row.network_id, row.address) for row in rows).items() if n > 1]
        if twice:
            self._say(f"addresses given twice: {twice}")
        macs = Counter((spec.network_id, spec.mac) for host in self.hosts for spec in host.party.site.net.taps.values())
        if any(n > 1 for n in macs.values()):
            self._say(f"MACs on several taps: {[key for key, n in macs.items() if n > 1]}")
        owned = sa.select(port.c.id, port.c.device_id).where(port.c.device_owner.like("compute:%"))
        for row in self.tx.execute(owned):
            if row.device_id not in self.by_id:
                self._say(f"port {row.id} belongs to server {row.device_id}, which is gone", row.device_id)

    def what_is_on(self, host: Host) -> None:
        """Nothing is on a host without its row, and no row without its object."""
        site, name = host.party.site, host.party.name
        mine = {one.id for one in self.live if one.host_id == host.id}
        for domain in site.host.domains():
            if domain.machine.spec.id not in mine:
                self._say(f"domain {domain.machine.spec.id} on {name} has no server", domain.machine.spec.id)
        kept = self._kept_on(host.id)
        for server_id in sorted(kept):
            if site.images.disks.get(root_disk_id(server_id)) is None:
                self._say(f"the disk of the size that {server_id} had is gone from {name}", server_id)
        mine |= kept
        for disk_id in site.images.disks.keys():  # noqa: SIM118  a journal is no dict.
            if disk_id.rpartition("-")[0] not in mine:
                self._say(f"disk {disk_id} on {name} has no server", disk_id.rpartition("-")[0])
        for domain_id in site.uids():
            if domain_id not in mine:
                self._say(f"a uid on {name} belongs to {domain_id}, which has no server", domain_id)
        wired = {one.id: one for one in self.bound[host.id] if one.status == Status.ACTIVE}
        for port_id in sorted(set(site.net.taps.keys()) - wired.keys()):
            self._say(f"a tap on {name} belongs to port {port_id}, which is not there", _server_of(host, port_id))
        for port_id in sorted(wired.keys() - set(site.net.taps.keys())):
            self._say(f"port {port_id} is ACTIVE on {name} without a tap", wired[port_id].device_id)
        if site.net.exposed:
            self._say(f"taps on {name} were up without a filter: {sorted(site.net.exposed)}")

    def _kept_on(self, host_id: str) -> set[str]:
        """Servers elsewhere that wait for a word about their size, and whose disk stayed here."""
        gone = [one for one in self.tx.execute(sa.select(server_resize)) if one.from_host_id == host_id]
        known = [self.by_id[one.server_id] for one in gone if one.server_id in self.by_id]
        return {one.id for one in known if one.host_id != host_id and one.image_id is not None}

    def network_of(self, host: Host) -> None:
        """The ledger holds what rows ask for, and nothing else."""
        name = host.party.name
        wanted = intent.needs(self.tx, host.id, self.bound[host.id])
        for noun in _SHARED:
            have = host.wanted(noun)
            ids = {object_id for kind, object_id in wanted if kind == noun.value}
            if have.keys() != ids:
                more, less = sorted(have.keys() - ids), sorted(ids - have.keys())
                self._say(f"{name} holds {noun} objects that nobody needs: {more}, and lacks {less}")
            for object_id in sorted(have.keys() & ids):
                spec = intent.spec(self.tx, host.id, (noun.value, object_id))
                stamped = spec and msgspec.structs.replace(spec, generation=have[object_id].generation)
                if stamped != have[object_id]:
                    self._say(f"{name} holds an old {noun} {object_id}: {_difference(have[object_id], stamped)}")
        known = host.wanted(Noun.PORT)
        for one in self.bound[host.id]:
            spec = intent.port_spec(one, EPOCH)
            if one.status == Status.ACTIVE and known.get(one.id) != spec:
                self._say(f"{name} holds an old port {one.id}: {_difference(known.get(one.id), spec)}", one.device_id)

    def reality_of(self, host: Host) -> None:
        """What is there is what the ledger says."""
        net, name = host.party.site.net, host.party.name
        for noun, journal in ((Noun.NETWORK, net.networks), (Noun.PORT, net.taps), (Noun.ROUTER, net.routers)):
            have: Any = {spec.id: spec for spec in journal.values()}
            self._same(f"{noun} objects of {name}", have, host.wanted(noun))
        self._same(f"tunnels of {name}", net.tunnels, host.wanted(Noun.FORWARDING))
        has_ports = bool(host.wanted(Noun.PORT))
        if net.filter is None:
            if has_ports:
                self._say(f"{name} has no filter")
            return
        self._same(f"ports in the filter of {name}", {one.id: one for one in net.filter.ports}, host.wanted(Noun.PORT))
        self._same(f"groups in the filter of {name}", net.filter.groups, host.wanted(Noun.GROUP))
        self._same(f"members in the filter of {name}", net.filter.addresses, host.wanted(Noun.ADDRESSES))
        served: dict[str, list[str]] = {}
        for port_id, spec in sorted(host.wanted(Noun.PORT).items()):
            served.setdefault(getattr(spec, "network_id", ""), []).append(port_id)
        networks: Any = host.wanted(Noun.NETWORK)
        wanted = {key: ids for key, ids in served.items() if key in networks and networks[key].dhcp is not None}
        self._same(f"leases of {name}", {key: [one.id for one in row.ports] for key, row in net.leases.items()}, wanted)

    def _same(self, what: str, have: dict[str, Any], wanted: dict[str, Any]) -> None:
        if have == wanted:
            return
        more, less = sorted(have.keys() - wanted.keys()), sorted(wanted.keys() - have.keys())
        other = [key for key in sorted(have.keys() & wanted.keys()) if have[key] != wanted[key]]
        told = f"{what}: {more} too much, {less} missing, {other} different"
        if other:
            told += f": {_difference(have[other[0]], wanted[other[0]])}"
        self._say(told)

    def mirrors(self) -> None:
        """Every controller believes of each host what its ledger says."""
        for controller in self.simulation.controllers:
            for host in self.hosts:
                agent = host.party.agent
                assert agent is not None
                mirror = controller.cloud.hosts._mirrors[host.id]
                if mirror.digest() != agent.ledger.digest():
                    self._say(f"{controller.name} believes something else of {host.party.name} than its ledger says")


def _server_of(host: Host, port_id: str) -> str | None:
    entry = host.ledger.get(Key(Noun.PORT, port_id))
    return getattr(entry[2], "domain_id", None) if entry is not None else None


def _is_told(spec: ObjectSpec | None, wanted: DomainSpec) -> bool:
    """Hardware that the host had to resolve is in the row since, and in the domain, but not in what it was told."""
    return isinstance(spec, DomainSpec) and msgspec.structs.replace(spec, hardware=wanted.hardware) == wanted


def _difference(have: Any, wanted: Any) -> str:
    """Which fields differ."""
    if not isinstance(have, msgspec.Struct) or not isinstance(wanted, msgspec.Struct):
        return f"{have!r:.300} instead of {wanted!r:.300}"
    fields: Iterable[str] = have.__struct_fields__
    pairs = ((name, getattr(have, name), getattr(wanted, name, None)) for name in fields)
    return ", ".join(f"{name}: {a!r:.200} instead of {b!r:.200}" for name, a, b in pairs if a != b)
