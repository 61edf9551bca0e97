"""What users and operators do, and what goes wrong: weighted, random, from the seed, several things at a time.

Requests go through the controllers' real web layer. Users know only what they were told: ids from answers, no
states; so a delete comes in any state, and much is refused. What was accepted is remembered, for the invariants.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from agent.wire.errors import Busy, Failed, Unfit, WireError
from controller import quota
from controller.compute import store
from controller.db.tables.compute import server
from controller.db.tables.network import floating_ip, port
from controller.db.tx import Tx
from controller.network.model import INFRASTRUCTURE_OWNERS
from tests.sim import ground, host_operations, life_operations, volume_invariants, volume_operations
from tests.sim.fabric import CALM
from tests.sim.parties import AgentParty, ControllerParty
from tests.sim.thing import Thing
from tests.sim.web import Answer, ask

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

GONE_S: Final = 1500.0
"""In calm weather every server is gone by then."""

OPEN_MAX: Final = 24
"""Requests under way at once."""

COMPUTE: Final = "/compute/v2.1"
NETWORK: Final = "/network/v2.0"


class Accepted(msgspec.Struct, frozen=True):
    """A request that was promised to be carried out."""

    request_id: str
    server_id: str
    what: str
    at: float


class Users:
    """Everybody outside."""

    def __init__(self, simulation: "Simulation") -> None:
        self.simulation = simulation
        self.chance = random.Random(f"{simulation.seed}/users")
        self.counts: Counter[str] = Counter()
        self.accepted: list[Accepted] = []
        self.servers: list[Thing] = []
        self.ports: list[Thing] = []
        self.groups: list[Thing] = []
        self.rules: list[Thing] = []
        self.floating: list[Thing] = []
        self.subnets: list[Thing] = []
        self.keypairs: list[Thing] = []
        self.volumes: list[Thing] = []
        self.snapshots: list[Thing] = []
        self.attached: list[Thing] = []
        self.reserved: list[Thing] = []  # Attachments of users' own machines.
        self.shared: set[str] = set()  # Volumes for several servers.
        self.server_groups: list[tuple[str, str]] = []  # (project, id)
        self.flavors = [row[0] for row in ground.FLAVORS]
        self.asked_limits: list[tuple[str, str, int]] = []
        self._quota: dict[str, dict[str, int]] = {}
        self._open: dict[asyncio.Task[None], None] = {}
        self._made = 0

    async def play(self, count: int) -> None:
        """So many operations."""
        plan = self.simulation.plan
        table = [*OPERATIONS, *(FAULTS if plan.faults else ()), *(AMNESIA if plan.amnesia else ())]
        weights = [weight for weight, _ in table]
        for _ in range(count):
            ((_, operation),) = self.chance.choices(table, weights)
            self._begin(operation)
            await asyncio.sleep(self._gap_s())
            while len(self._open) >= OPEN_MAX:
                await asyncio.wait(list(self._open), return_when=asyncio.FIRST_COMPLETED)
            self.shared |= await self.simulation.database.read(volume_invariants.shared)
            volume_invariants.check_writers(self.simulation)
            self.simulation.check()

    async def are_quiet(self) -> bool:
        """Nobody waits for an answer."""
        return not self._open

    async def delete_everything(self) -> None:
        """Users leave, also with what they do not know of: an answer was lost, or a request made several."""
        simulation = self.simulation
        for one in await simulation.database.read(_servers):
            await self.surely("DELETE", f"{COMPUTE}/servers/{one}", "admin")

        async def are_gone() -> bool:
            return not await simulation.database.read(_servers)

        await simulation.until("every server is gone", are_gone, GONE_S)
        await volume_operations.delete_everything(self)
        for path, ids in (await simulation.database.read(_the_rest)).items():
            for one in ids:
                await self.surely("DELETE", f"{path}/{one}", "admin")

    def _gap_s(self) -> float:
        pace = self.chance.random()
        if pace < 0.35:
            return 0.0
        if pace < 0.9:
            return self.chance.uniform(0.0, 1.5)
        return self.chance.uniform(1.5, 20.0)

    def _begin(self, operation: "Operation") -> None:
        name = operation.__name__
        self.counts[name] += 1
        self.simulation.trace.note("user", name)
        task = self.simulation.loop.create_task(self._do(operation))
        self._open[task] = None
        task.add_done_callback(lambda done: self._open.pop(done, None))

    async def _do(self, operation: "Operation") -> None:
        try:
            await operation(self)
        except Exception as error:  # Requests of users never raise: not even a refusal does.
            self.simulation.report(f"operation {operation.__name__}", error)

    # How requests are made.

    async def ask(self, method: str, path: str, token: str, body: Any = None) -> Answer | None:
        """One request to one of the controllers; None if nobody knows what became of it."""
        party = self.chance.choice(self.simulation.controllers)
        answer = await party.perform(lambda: ask(party.app, method, path, token, body))
        self.counts["requests"] += 1
        status = "lost" if answer is None else str(answer.status)
        self.counts[f"status {status}"] += 1
        self.simulation.trace.note("user", f"{method} {path}: {status}")
        if answer is not None and answer.status >= 500 and answer.status != 503:
            self.simulation.fail(f"{method} {path} {body}: {answer.status} {answer.body}")
        return answer

    async def surely(self, method: str, path: str, token: str, body: Any = None) -> None:
        """Until somebody has answered."""
        while True:
            answer = await self.ask(method, path, token, body)
            if answer is not None and answer.status != 503:
                return
            await asyncio.sleep(1.0)
            self.simulation.revive()

    async def act(self, server: Thing, what: str, body: Any, token: str | None = None) -> None:
        """An action on a server."""
        path = f"{COMPUTE}/servers/{server.id}/action"
        answer = await self.ask("POST", path, token or server.project, body)
        self.note_accepted(answer, server.id, what)

    def note_accepted(self, answer: Answer | None, server_id: str, what: str) -> None:
        """Remember a promise."""
        if answer is not None and answer.is_good:
            now = self.simulation.loop.time()
            self.accepted.append(Accepted(answer.request_id, server_id, what, now))
            self.counts["accepted"] += 1

    async def sleep(self, seconds: float) -> None:
        """Somebody takes their time; in calm weather nobody does."""
        until = self.simulation.loop.time() + seconds
        while self.simulation.loop.time() < until and not self.simulation.is_calm:
            await asyncio.sleep(1.0)

    async def check_quota(self, project: str) -> None:
        """Nothing was given beyond every limit that there was since the last look."""
        limits, used = await self.simulation.database.read(_limits_and_usage, project)
        before = self._quota.get(project, {})
        for resource, count in used.items():
            asked = [limit for owner, name, limit in self.asked_limits if (owner, name) == (project, resource)]
            most = max(limits[resource], before.get(resource, 0), *asked, 0)
            if count > most:
                self.simulation.fail(f"project {project} uses {count} of {resource}, and was never allowed but {most}")
            before[resource] = max(count, limits[resource])
        self._quota[project] = before

    def any_server(self) -> Thing | None:
        """One of those that were made, mostly a late one."""
        return self._late(self.servers)

    def _late(self, things: list[Thing]) -> Thing | None:
        if not things:
            return None
        recent = things[-12:] if self.chance.random() < 0.8 else things
        return self.chance.choice(recent)

    def any_port(self) -> Thing | None:
        """One of the users' own."""
        return self._late(self.ports)

    def any_project(self) -> str:
        """One of them."""
        return self.chance.choice(ground.PROJECTS)

    def any_group(self, project: str) -> Thing | None:
        """One of a project's own."""
        mine = [one for one in self.groups if one.project == project]
        return self.chance.choice(mine) if mine else None

    def name(self, kind: str) -> str:
        """A new one."""
        self._made += 1
        return f"{kind}{self._made}"

    def any_agent(self) -> AgentParty:
        """A host."""
        return self.chance.choice(self.simulation.agents)

    def any_controller(self) -> ControllerParty:
        """A controller."""
        return self.chance.choice(self.simulation.controllers)


def _limits_and_usage(tx: Tx, project: str) -> tuple[dict[str, int], dict[str, int]]:
    return quota.limits(tx, project, "compute"), store.used(tx, project)


def _servers(tx: Tx) -> list[str]:
    return list(tx.execute(sa.select(server.c.id).where(server.c.deleted_at.is_(None)).order_by(server.c.id)).scalars())


def _the_rest(tx: Tx) -> dict[str, list[str]]:
    """What outlives servers, by path."""
    free = sa.select(port.c.id).where(port.c.device_owner.not_in(INFRASTRUCTURE_OWNERS))
    queries = {f"{NETWORK}/floatingips": sa.select(floating_ip.c.id), f"{NETWORK}/ports": free}
    return {path: sorted(tx.execute(query).scalars()) for path, query in queries.items()}


Operation = Callable[[Users], Awaitable[None]]


# Servers.


async def create_servers_at_once(users: Users) -> None:
    """Where there may be room for one, and quota for another."""
    project = users.any_project()
    await asyncio.gather(*(create_server(users, project) for _ in range(users.chance.randint(2, 5))))


async def create_server(users: Users, project: str | None = None) -> None:
    chance, project = users.chance, project or users.any_project()
    server: dict[str, Any] = {
        "name": users.name("server"),
        "imageRef": ground.RARE_IMAGE if chance.random() < 0.15 else ground.IMAGE,
        "flavorRef": chance.choices(users.flavors, [8, 6, 3, 2, 1, *([1] * (len(users.flavors) - 5))])[0],
        "networks": _networks(users, project),
        "config_drive": chance.random() < 0.3,
    }
    group = users.any_group(project)
    if group is not None and chance.random() < 0.4:
        server["security_groups"] = [{"name": group.id}]
    if chance.random() < 0.1:
        server["min_count"], server["max_count"] = 1, 3
        server["networks"] = [{"uuid": ground.NETWORKS[project][0]}]
        server["return_reservation_id"] = True
    body: dict[str, Any] = {"server": server}
    groups = [group_id for owner, group_id in users.server_groups if owner == project]
    if groups and chance.random() < 0.2:
        body["os:scheduler_hints"] = {"group": chance.choice(groups)}
    answer = await users.ask("POST", f"{COMPUTE}/servers", project, body)
    await users.check_quota(project)
    if answer is None or not answer.is_good:
        return
    if "server" in answer.body:
        made = answer.body["server"]["id"]
        users.servers.append(Thing(made, project))
        users.note_accepted(answer, made, "create")


def _networks(users: Users, project: str) -> list[dict[str, str]]:
    chance = users.chance
    wanted: list[dict[str, str]] = []
    mine = [port for port in users.ports if port.project == project]
    if mine and chance.random() < 0.35:
        wanted.append({"port": chance.choice(mine[-6:]).id})
    if not wanted or chance.random() < 0.2:
        wanted.append({"uuid": chance.choice(ground.NETWORKS[project])})
    return wanted


async def delete_server(users: Users) -> None:
    server = users.any_server()
    if server is not None:
        answer = await users.ask("DELETE", f"{COMPUTE}/servers/{server.id}", server.project)
        users.note_accepted(answer, server.id, "delete")


async def start_server(users: Users) -> None:
    server = users.any_server()
    if server is not None:
        await users.act(server, "start", {"os-start": None})


async def stop_server(users: Users) -> None:
    server = users.any_server()
    if server is not None:
        await users.act(server, "stop", {"os-stop": None})


async def reboot_softly(users: Users) -> None:
    server = users.any_server()
    if server is not None:
        await users.act(server, "reboot", {"reboot": {"type": "SOFT"}})


async def reboot_hard(users: Users) -> None:
    server = users.any_server()
    if server is not None:
        await users.act(server, "reboot", {"reboot": {"type": "HARD"}})


async def set_metadata(users: Users) -> None:
    server = users.any_server()
    if server is not None:
        body = {"metadata": {"color": users.name("blue")}}
        await users.ask("PUT", f"{COMPUTE}/servers/{server.id}/metadata", server.project, body)


async def lock_server(users: Users) -> None:
    server = users.any_server()
    if server is not None:
        body: dict[str, Any] = {"lock": None} if users.chance.random() < 0.3 else {"unlock": None}
        await users.ask("POST", f"{COMPUTE}/servers/{server.id}/action", server.project, body)


async def show_server(users: Users) -> None:
    server = users.any_server()
    if server is not None:
        await users.ask("GET", f"{COMPUTE}/servers/{server.id}", server.project)


async def read_console(users: Users) -> None:
    server = users.any_server()
    if server is not None:
        body: dict[str, Any] = {"os-getConsoleOutput": {"length": 10}}
        await users.ask("POST", f"{COMPUTE}/servers/{server.id}/action", server.project, body)


async def open_console(users: Users) -> None:
    """A permission to look; nobody connects, since there are no sockets here."""
    server = users.any_server()
    if server is not None:
        body = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
        await users.ask("POST", f"{COMPUTE}/servers/{server.id}/remote-consoles", server.project, body)


async def evict_image(users: Users) -> None:
    """An operator wants room on a host, and does not care who asked for the image a moment ago."""
    agent = users.any_agent()
    body = {"image": users.chance.choice(("tiny", "rare")), "force": True}
    await users.ask("POST", f"/operator/v1/hosts/{agent.host_id}/image-cache/evict", "admin", body)


# What belongs to servers.


async def create_keypair(users: Users) -> None:
    project, name = users.any_project(), users.name("key")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEkyPnLrBrGrfjzdOVv8bOkwPzmLCFGvVhCLbxSJ5ZxS"
    body = {"keypair": {"name": name, "public_key": key}}
    answer = await users.ask("POST", f"{COMPUTE}/os-keypairs", project, body)
    if answer is not None and answer.is_good:
        users.keypairs.append(Thing(name, project))


async def delete_keypair(users: Users) -> None:
    if users.keypairs:
        key = users.keypairs.pop()
        await users.ask("DELETE", f"{COMPUTE}/os-keypairs/{key.id}", key.project)


async def create_flavor(users: Users) -> None:
    flavor = {"name": users.name("flavor"), "ram": 256, "vcpus": 1, "disk": 2}
    answer = await users.ask("POST", f"{COMPUTE}/flavors", "admin", {"flavor": flavor})
    if answer is not None and answer.is_good:
        users.flavors.append(answer.body["flavor"]["id"])


async def change_quota(users: Users) -> None:
    project = users.any_project()
    _, used = await users.simulation.database.read(_limits_and_usage, project)
    some = users.chance.choice((1, 2, 100))
    name, unit = users.chance.choice((("instances", 1), ("instances", 1), ("cores", 1), ("ram", 256)))
    limits = {name: used[name] + some * unit}
    asked = [(project, resource, limit) for resource, limit in limits.items()]
    users.asked_limits += asked
    await users.ask("PUT", f"{COMPUTE}/os-quota-sets/{project}", "admin", {"quota_set": limits})
    await users.check_quota(project)
    for one in asked:
        users.asked_limits.remove(one)


# Networking.


async def create_port(users: Users) -> None:
    project = users.any_project()
    port: dict[str, Any] = {"network_id": users.chance.choice(ground.NETWORKS[project]), "name": users.name("port")}
    group = users.any_group(project)
    if group is not None and users.chance.random() < 0.4:
        port["security_groups"] = [group.id]
    answer = await users.ask("POST", f"{NETWORK}/ports", project, {"port": port})
    if answer is not None and answer.is_good:
        users.ports.append(Thing(answer.body["port"]["id"], project))


async def delete_port(users: Users) -> None:
    port = users.any_port()
    if port is not None:
        answer = await users.ask("DELETE", f"{NETWORK}/ports/{port.id}", port.project)
        if answer is not None and answer.is_good and port in users.ports:
            users.ports.remove(port)


async def change_port(users: Users) -> None:
    port = users.any_port()
    if port is None:
        return
    chance = users.chance
    changes: dict[str, Any] = {}
    mine = [one.id for one in users.groups if one.project == port.project]
    if chance.random() < 0.6:
        changes["security_groups"] = chance.sample(mine, min(len(mine), chance.randint(0, 2)))
    elif chance.random() < 0.5:
        changes["admin_state_up"] = chance.random() < 0.5
    else:
        changes["allowed_address_pairs"] = [{"ip_address": f"192.0.2.{chance.randint(1, 200)}"}]
    await users.ask("PUT", f"{NETWORK}/ports/{port.id}", port.project, {"port": changes})


async def create_group(users: Users) -> None:
    project = users.any_project()
    body = {"security_group": {"name": users.name("group")}}
    answer = await users.ask("POST", f"{NETWORK}/security-groups", project, body)
    if answer is not None and answer.is_good:
        users.groups.append(Thing(answer.body["security_group"]["id"], project))


async def delete_group(users: Users) -> None:
    if not users.groups:
        return
    group = users.chance.choice(users.groups)
    answer = await users.ask("DELETE", f"{NETWORK}/security-groups/{group.id}", group.project)
    if answer is not None and answer.is_good and group in users.groups:
        users.groups.remove(group)


async def add_rule(users: Users) -> None:
    project = users.any_project()
    group = users.any_group(project)
    if group is None:
        return
    rule: dict[str, Any] = {"security_group_id": group.id, "direction": "ingress", "protocol": "tcp"}
    rule["port_range_min"] = rule["port_range_max"] = users.chance.randint(1, 65535)
    other = users.any_group(project)
    if other is not None and users.chance.random() < 0.4:
        rule["remote_group_id"] = other.id
    answer = await users.ask("POST", f"{NETWORK}/security-group-rules", project, {"security_group_rule": rule})
    if answer is not None and answer.is_good:
        users.rules.append(Thing(answer.body["security_group_rule"]["id"], project))


async def remove_rule(users: Users) -> None:
    if users.rules:
        rule = users.rules.pop(users.chance.randrange(len(users.rules)))
        await users.ask("DELETE", f"{NETWORK}/security-group-rules/{rule.id}", rule.project)


async def create_floating_ip(users: Users) -> None:
    project = users.any_project()
    body = {"floatingip": {"floating_network_id": ground.EXTERNAL}}
    answer = await users.ask("POST", f"{NETWORK}/floatingips", project, body)
    if answer is not None and answer.is_good:
        users.floating.append(Thing(answer.body["floatingip"]["id"], project))


async def associate_floating_ip(users: Users) -> None:
    if not users.floating:
        return
    one = users.chance.choice(users.floating)
    mine = [port.id for port in users.ports if port.project == one.project]
    port_id = users.chance.choice(mine) if mine and users.chance.random() < 0.7 else None
    body = {"floatingip": {"port_id": port_id}}
    await users.ask("PUT", f"{NETWORK}/floatingips/{one.id}", one.project, body)


async def delete_floating_ip(users: Users) -> None:
    if users.floating:
        one = users.floating.pop(users.chance.randrange(len(users.floating)))
        await users.ask("DELETE", f"{NETWORK}/floatingips/{one.id}", one.project)


async def create_subnet(users: Users) -> None:
    project = users.any_project()
    number = users.chance.randint(2, 250)
    subnet = {
        "network_id": users.chance.choice(ground.NETWORKS[project]),
        "ip_version": 4,
        "cidr": f"10.{number}.0.0/24",
        "enable_dhcp": users.chance.random() < 0.7,
    }
    answer = await users.ask("POST", f"{NETWORK}/subnets", project, {"subnet": subnet})
    if answer is not None and answer.is_good:
        users.subnets.append(Thing(answer.body["subnet"]["id"], project))


async def delete_subnet(users: Users) -> None:
    if users.subnets:
        one = users.subnets.pop()
        await users.ask("DELETE", f"{NETWORK}/subnets/{one.id}", one.project)


# What guests do.


async def power_off_inside(users: Users) -> None:
    _poke(users, "power_off_from_inside")


async def crash_guest(users: Users) -> None:
    _poke(users, "crash")


async def pause_guest(users: Users) -> None:
    _poke(users, "pause")


def _poke(users: Users, what: str) -> None:
    agent = users.any_agent()
    running = agent.site.running()
    if running:
        domain_id = users.chance.choice(running)
        users.simulation.trace.note(agent.name, f"guest {domain_id[:8]}: {what}")
        agent.site.host.falls[domain_id] += 1
        agent.poke(getattr(agent.site.host, what), domain_id)


async def hold_disks(users: Users) -> None:
    """A guest does not let go of its volumes for a while."""
    agent = users.any_agent()
    running = agent.site.running()
    if running:
        domain_id = users.chance.choice(running)
        holds = not agent.site.host.get(domain_id).holds_disks
        users.simulation.trace.note(agent.name, f"guest {domain_id[:8]} holds its disks: {holds}")
        agent.site.host.hold_disks(domain_id, holds)


# What goes wrong.

VERBS: Final = {
    "host": (
        "define", "start", "destroy", "undefine", "shutdown", "find", "list",
        "pause", "save", "plug_nics", "plug_disks", "copy_disk",
    ),
    "net": ("ensure_network", "ensure_port", "absent_port", "absent_network", "ensure_router", "apply", "dhcp.ensure"),
    "storage": ("volumes.ensure", "volumes.absent", "volumes.ensure_snapshot", "exporter.ensure", "exporter.absent"),
    "images": (
        "cache.fetch", "cache.find", "disks.ensure", "disks.absent", "disks.ensure_config", "disks.find",
        "disks.begin_copy", "disks.fill_copy", "disks.end_copy",
    ),
}  # fmt: skip


NEVER: Final = (
    "define", "save", "ensure_network", "ensure_port", "ensure_router", "cache.fetch",
    "disks.ensure", "disks.fill_copy", "volumes.ensure", "volumes.ensure_snapshot", "exporter.ensure",
)  # fmt: skip
"""What a host may refuse for good. Removing is never refused: who asked would wait for an operator."""


async def fail_driver(users: Users) -> None:
    chance, agent = users.chance, users.any_agent()
    part = chance.choice(sorted(VERBS))
    verb = chance.choice(VERBS[part])
    kinds: tuple[type[WireError], ...] = (Failed, Failed, Failed, Busy)
    if verb in NEVER:
        kinds = (*kinds, Unfit)
    error = chance.choice(kinds)("it was made to fail")
    is_after = chance.random() < 0.5
    times = chance.choice((1, 1, 1, 2, 6))
    users.simulation.trace.note(agent.name, f"{verb} will fail {times} times: {error.code} {is_after=}")
    for _ in range(times):
        getattr(agent.site, part).fail_next(verb, error, is_after_effect=is_after)


async def kill_target_daemon(users: Users) -> None:
    """What a storage host exported is gone; guests wait for it."""
    agent = users.any_agent()
    users.simulation.trace.note(agent.name, "its target daemon dies")
    agent.poke(lambda _: agent.site.storage.kill_daemon(), "")


EVERYWHERE: Final = (
    ("host", "define"),
    ("net", "ensure_port"),
    ("images", "disks.ensure"),
    ("images", "cache.fetch"),
    ("storage", "volumes.ensure"),
    ("storage", "exporter.ensure"),
)
"""What may be refused by every host at once."""


async def fail_everywhere(users: Users) -> None:
    """No host can do something for a while: what needs it fails for good."""
    chance = users.chance
    part, verb = chance.choice(EVERYWHERE)
    times = chance.choice((1, 2, 3))
    users.simulation.trace.note("user", f"{verb} will fail {times} times everywhere")
    for agent in users.simulation.agents:
        for _ in range(times):
            getattr(agent.site, part).fail_next(
                verb, Unfit("it was made to fail"), is_after_effect=chance.random() < 0.5
            )


async def crash_agent(users: Users) -> None:
    users.any_agent().crash(users.chance.choice((0.5, 2.0, 10.0, 60.0)))


async def crash_controller(users: Users) -> None:
    users.any_controller().crash(users.chance.choice((0.5, 2.0, 10.0, 40.0)))


async def plan_crash_of_agent(users: Users) -> None:
    users.any_agent().hands.crash_at(users.chance.randint(1, 60), is_after=users.chance.random() < 0.5)


async def plan_crash_of_controller(users: Users) -> None:
    users.any_controller().hands.crash_at(users.chance.randint(1, 60), is_after=users.chance.random() < 0.5)


async def stop_controller(users: Users) -> None:
    await users.any_controller().stop()


async def lose_power(users: Users) -> None:
    users.any_agent().lose_power(users.chance.choice((5.0, 40.0, 90.0)))


async def lose_ledger(users: Users) -> None:
    users.any_agent().lose_ledger()


async def stand_still(users: Users) -> None:
    simulation = users.simulation
    party = users.chance.choice((*simulation.controllers, users.chance.choice(simulation.agents)))
    if not party.alive or party.life.is_paused:
        return
    life = party.life
    party.pause()
    await asyncio.sleep(users.chance.choice((0.5, 3.0, 15.0, 45.0)))
    if party.life is life:
        party.resume()


async def cut_off(users: Users) -> None:
    party = users.chance.choice(users.simulation.parties)
    endpoint = party.endpoint
    if endpoint is None:
        return
    users.simulation.trace.note(party.name, "is cut off")
    users.simulation.fabric.cut(endpoint)
    await asyncio.sleep(users.chance.choice((1.0, 5.0, 20.0, 60.0)))
    users.simulation.trace.note(party.name, "is reachable again")
    users.simulation.fabric.heal(endpoint)


async def change_weather(users: Users) -> None:
    simulation = users.simulation
    simulation.fabric.weather = CALM if users.chance.random() < 0.4 else simulation.a_weather()
    for agent in simulation.agents:
        agent.site.host.obeys_power_button = users.chance.random() < 0.8


async def lose_messages(users: Users) -> None:
    """A slow consumer: the bus has dropped something, and says so."""
    party = users.chance.choice(users.simulation.parties)
    if party.endpoint is not None:
        users.simulation.fabric.gap(party.endpoint)


OPERATIONS: Final[tuple[tuple[int, Operation], ...]] = (
    (22, create_server),
    (2, create_servers_at_once),
    (14, delete_server),
    (8, start_server),
    (9, stop_server),
    (4, reboot_softly),
    (5, reboot_hard),
    (4, set_metadata),
    *life_operations.OPERATIONS,
    (1, lock_server),
    (2, show_server),
    (1, read_console),
    (1, open_console),
    (3, evict_image),
    (1, create_keypair),
    (1, delete_keypair),
    (1, create_flavor),
    (3, change_quota),
    (6, create_port),
    (3, delete_port),
    (4, change_port),
    (3, create_group),
    (2, delete_group),
    (4, add_rule),
    (2, remove_rule),
    (2, create_floating_ip),
    (4, associate_floating_ip),
    (1, delete_floating_ip),
    (1, create_subnet),
    (1, delete_subnet),
    *volume_operations.OPERATIONS,
    *host_operations.OPERATIONS,
    (3, power_off_inside),
    (2, crash_guest),
    (1, pause_guest),
)

FAULTS: Final[tuple[tuple[int, Operation], ...]] = (
    (8, fail_driver),
    (2, kill_target_daemon),
    (1, hold_disks),
    (2, fail_everywhere),
    (3, crash_agent),
    (2, crash_controller),
    (6, plan_crash_of_agent),
    (6, plan_crash_of_controller),
    (1, stop_controller),
    (1, lose_power),
    *host_operations.FAULTS,
    (3, cut_off),
    (3, stand_still),
    (3, change_weather),
    (1, lose_messages),
)

AMNESIA: Final[tuple[tuple[int, Operation], ...]] = ((2, lose_ledger),)
