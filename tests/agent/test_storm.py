"""One host in a storm: messages lost, repeated and late, drivers that fail, agents that die at any effect."""

import asyncio
import random
from typing import Any

import msgspec
import pytest

from agent.converge.moving import MOVING
from agent.wire import bus as wire
from agent.wire import disk, domain, group, image, network, port, router
from agent.wire.domain import Desired, DomainDisk, DomainNic
from agent.wire.errors import Conflict, Failed, Silent, WireError
from agent.wire.lifecycle import Generation, Power, Progress
from agent.wire.router import LegSpec, RouterSpec
from agent.wire.specs import Absence, Call
from tests.agent.rig import (
    Rig,
    a_disk,
    a_domain,
    a_group,
    a_network,
    a_port,
    an_image,
    gen,
    members,
    simulated,
)

SERVERS = ("a", "b")
POWERS = [desired for desired in Desired if desired not in MOVING]
FAILURES = {
    "host": ("define", "start", "destroy", "undefine", "shutdown", "find"),
    "net": ("ensure_network", "ensure_port", "absent_port", "apply", "dhcp.ensure", "ensure_router"),
    "images": ("cache.fetch", "disks.ensure", "disks.ensure_config", "disks.absent"),
}


def catalog() -> dict[str, tuple[Any, Any]]:
    """(module of calls' ENSURE and ABSENT, spec at generation 1) by a name of ours."""
    found: dict[str, tuple[Any, Any]] = {
        "network": ((network.ENSURE, network.ABSENT), a_network(id="net")),
        "group": ((group.ENSURE, group.ABSENT), a_group(id="grp", rules=())),
        "members": ((group.ADDRESSES_ENSURE, group.ADDRESSES_ABSENT), msgspec.structs.replace(members(), id="grp")),
        "image": ((image.ENSURE, image.ABSENT), an_image(id="img")),
        "router": ((router.ENSURE, router.ABSENT), a_router()),
    }
    for name in SERVERS:
        found[f"disk-{name}"] = (
            (disk.ENSURE, disk.ABSENT),
            a_disk(id=f"{name}-root", domain_id=name, image_id="img"),
        )
        found[f"port-{name}"] = (
            (port.ENSURE, port.ABSENT),
            a_port(id=f"port-{name}", domain_id=name, network_id="net", groups=("grp",), fixed_ips=()),
        )
        found[f"domain-{name}"] = (
            (domain.ENSURE, domain.ABSENT),
            a_domain(
                id=name,
                name=f"instance-{name}",
                disks=(DomainDisk(disk_id=f"{name}-root"),),
                nics=(DomainNic(port_id=f"port-{name}", mac="fa:16:3e:00:00:05", mtu=1450),),
            ),
        )
    return found


def a_router() -> RouterSpec:
    leg = LegSpec(port_id="leg", network_id="net", mac="fa:16:3e:00:00:09", addresses=("10.0.0.1/24",))
    return RouterSpec(id="rtr", generation=gen(1), legs=(leg,))


class Storm:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.rig = Rig(seed)
        self.catalog = catalog()
        self.newest = dict.fromkeys(self.catalog, 0)
        self.sent: list[tuple[Call[Any, Any], Any]] = []
        self.wanted_starts = dict.fromkeys(SERVERS, 0)

    async def run(self, operations: int) -> None:
        self.rig.start()
        await self.rig.ready()
        in_flight: list[asyncio.Task[None]] = []
        for _ in range(operations):
            what = self.random.choices(
                ["ensure", "absent", "old", "fail", "die", "guest", "wait"], weights=[40, 12, 15, 8, 6, 5, 14]
            )[0]
            if what in ("ensure", "absent"):
                in_flight.append(asyncio.create_task(self.deliver(*self.intent(what))))
            elif what == "old" and self.sent:
                in_flight.append(asyncio.create_task(self.deliver(*self.random.choice(self.sent))))
            elif what == "fail":
                self.fail()
            elif what == "die":
                await self.die()
            elif what == "guest":
                self.guest()
            else:
                await asyncio.sleep(self.random.uniform(0, 20))
            assert not self.rig.net.exposed
        await asyncio.gather(*in_flight)
        await self.come_to_rest()

    def intent(self, what: str) -> tuple[Call[Any, Any], Any]:
        name = self.random.choice(sorted(self.catalog))
        (ensure, absent), spec = self.catalog[name]
        self.newest[name] += 1
        generation = Generation(1, self.newest[name])
        if what == "absent":
            message: tuple[Call[Any, Any], Any] = (absent, Absence(id=spec.id, generation=generation))
        else:
            changes: dict[str, Any] = {"generation": generation}
            if name.startswith("domain"):
                changes["desired"] = self.random.choice(POWERS)
            message = (ensure, msgspec.structs.replace(spec, **changes))
        self.sent.append(message)
        return message

    async def deliver(self, row: Call[Any, Any], request: Any) -> None:
        """Late, and perhaps never; repeated by `old`."""
        if self.random.random() < 0.2:
            return
        await asyncio.sleep(self.random.uniform(0, 5))
        try:
            await wire.call(self.rig.bus, "h1", row, request)
        except Conflict as error:
            raise AssertionError("the same generation had other content") from error
        except (WireError, Silent):
            return

    def fail(self) -> None:
        part = self.random.choice(sorted(FAILURES))
        verb = self.random.choice(FAILURES[part])
        getattr(self.rig, part).fail_next(verb, Failed("bad luck"), is_after_effect=self.random.random() < 0.5)

    async def die(self) -> None:
        """kill -9 between two effects that are yet to come, or right now."""
        effects = self.rig.effects
        effects.die_at, effects.is_after = effects.count + self.random.randint(1, 6), self.random.random() < 0.5
        await asyncio.sleep(self.random.uniform(0, 5))
        await self.rig.kill()
        if self.random.random() < 0.1:
            self.rig.host.power_failure()
            self.rig.net.power_failure()
            boot = f"boot-{self.random.random()}"
            self.rig.probe.now = msgspec.structs.replace(self.rig.probe.now, boot_id=boot)
        self.rig.start()

    def guest(self) -> None:
        for one in self.rig.host.domains():
            if self.random.random() < 0.5:
                self.rig.host.power_off_from_inside(one.machine.spec.id)

    async def come_to_rest(self) -> None:
        """As the controller's reconcilers do: the newest intent, until the host is done with it."""
        if not self.rig.life.alive:
            self.rig.start()
        is_present = self.random.random() < 0.5
        messages = []
        for name, ((ensure, absent), spec) in self.catalog.items():
            self.newest[name] += 1
            generation = Generation(1, self.newest[name])
            if is_present:
                messages.append((ensure, msgspec.structs.replace(spec, generation=generation), Progress.READY))
            else:
                messages.append((absent, Absence(id=spec.id, generation=generation), Progress.ABSENT))
        self.random.shuffle(messages)
        await asyncio.gather(*(self.rig.until(*message) for message in messages))
        if is_present:
            self.all_is_there()
        else:
            self.nothing_is_there()
        assert not self.rig.net.exposed

    def all_is_there(self) -> None:
        rig = self.rig
        assert {one.machine.spec.id: one.power for one in rig.host.domains()} == dict.fromkeys(SERVERS, Power.RUNNING)
        assert rig.net.taps.keys() == ["port-a", "port-b"]
        assert [port.id for port in rig.net.leases["net"].ports] == ["port-a", "port-b"]
        assert rig.net.filter is not None and [port.id for port in rig.net.filter.ports] == ["port-a", "port-b"]
        assert rig.net.networks.keys() == ["net"] and rig.net.routers.keys() == ["rtr"]
        assert rig.guard.networks.keys() == {"net"}
        uids = {one.machine.uid for one in rig.host.domains()}
        assert len(uids) == len(SERVERS)
        for one in rig.host.domains():
            assert rig.images.disks.get(f"{one.machine.spec.id}-root").uid == one.machine.uid

    def nothing_is_there(self) -> None:
        rig = self.rig
        assert rig.host.domains() == []
        assert not (rig.net.taps.keys() or rig.net.networks.keys() or rig.net.routers.keys() or rig.net.leases)
        assert not (rig.images.images.keys() or rig.images.disks.keys())
        assert rig.net.filter is None and not rig.guard.networks and not rig.guard.documents
        assert rig.agent is not None and not rig.agent.ledger._uids


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_the_newest_intent_wins_and_nothing_is_exposed(seed: int) -> None:
    print(f"seed {seed}")
    simulated(lambda: Storm(seed).run(120))
