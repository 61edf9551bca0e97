"""Hosts as the controller's client of them sees them, with the rules that real ones keep.

Generations and tombstones as in `agent.wire.lifecycle`; a rule that is broken is remembered in `broken`, for
`check` functions to assert that there is none. The fake is idempotent, and survives crashes of the controller.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec

from agent.wire import image as image_calls
from agent.wire.capture import CaptureSpec
from agent.wire.disk import DiskStatus
from agent.wire.domain import (
    ConsoleLog,
    ConsoleRequest,
    Desired,
    DomainList,
    DomainSpec,
    DomainStatus,
    Hardware,
    Landing,
    Passage,
    Reboot,
)
from agent.wire.host import Door, Heartbeat
from agent.wire.image import ImageList, ImageStatus, Offer
from agent.wire.lifecycle import Generation, Power, Progress
from agent.wire.specs import Absence, Call, Empty, ObjectSpec, Ref
from agent.wire.volume import ExportStatus, VolumeStatus
from controller import errors
from controller.saga.model import Transient

Key = tuple[str, str, str]


class FakeHosts:
    """A fleet. `silent` hosts do not answer; `refuse` maps (host, call) to the error that they answer."""

    def __init__(self, *host_ids: str) -> None:
        self.host_ids = set(host_ids)
        self.silent: set[str] = set()
        self.lost: set[str] = set()  # Silent now, or once: of their guests nothing can be said.
        self.refuse: dict[tuple[str, str], Exception] = {}
        self.objects: dict[Key, Any] = {}
        self.graves: dict[Key, Generation] = {}
        self.powers: dict[tuple[str, str], Power] = {}
        self.reboots: dict[str, str] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.broken: list[str] = []
        self.sizes: dict[str, int] = {}  # Of volumes: they never shrink.
        self.turns: dict[Key, asyncio.Lock] = {}
        self.doors: dict[str, Door] = {}
        self.deliver: Callable[[str], None] = lambda image_id: None  # A captured disk reaches the image store.
        self.callbacks: defaultdict[str, list[Callable[[str, Any], Any]]] = defaultdict(list)

    async def ensure(self, host_id: str, row: Call[Any, Any], spec: ObjectSpec, deadline: float) -> Any:
        self._reach(host_id, row.name, spec.id)
        key = (host_id, row.noun, spec.id)
        if key in self.graves and spec.generation <= self.graves[key]:
            raise errors.Conflict("The host refused it: stale", why={"host": host_id, "code": "stale"})
        known = self.objects.get(key)
        if known is not None and spec.generation < known.generation:
            raise errors.Conflict("The host refused it: stale", why={"host": host_id, "code": "stale"})
        if known is not None and spec.generation == known.generation and spec != known:
            self.broken.append(f"{row.name} {spec.id}: generation {spec.generation} came with other content")
        self._check_order(host_id, row.noun, spec)
        self._check_volume(host_id, row.noun, spec)
        self.objects[key] = spec
        await asyncio.sleep(0.01)
        if isinstance(spec, CaptureSpec):
            self.deliver(spec.id)
        return self._status(host_id, row, spec)

    def _check_volume(self, host_id: str, noun: str, spec: Any) -> None:
        if noun == "volume":
            self.sizes[spec.id] = max(spec.size_gib, self.sizes.get(spec.id, 0))
        elif noun in ("export", "snapshot") and (host_id, "volume", spec.volume_id) not in self.objects:
            self.broken.append(f"{noun} {spec.id} of a volume that is not there")

    def _check_order(self, host_id: str, noun: str, spec: Any) -> None:
        if not isinstance(spec, DomainSpec):
            return
        self.lost |= self.silent
        for disk in spec.disks:
            if disk.iscsi is not None:
                self._check_export(spec.id, disk)
            elif (host_id, "disk", disk.disk_id) not in self.objects:
                self.broken.append(f"domain {spec.id} was started without its disk")
        for nic in spec.nics:
            if (host_id, "port", nic.port_id) not in self.objects:
                self.broken.append(f"domain {spec.id} was started without its port")
        before = self.powers.get((host_id, spec.id), Power.SHUTOFF)
        if spec.desired in (Desired.LANDING, Desired.LEAVING, Desired.STAYING):
            self.powers[host_id, spec.id] = self._moving(host_id, spec)
            return
        self.powers[host_id, spec.id] = _carried_out(before, spec.desired)
        living = (key for key in self.powers if key[1] == spec.id and key[0] not in (host_id, *self.lost, *self.silent))
        others = [self.powers[key] for key in living]
        if self.powers[host_id, spec.id] is Power.RUNNING and Power.RUNNING in others:
            self.broken.append(f"domain {spec.id} runs twice")

    def _moving(self, host_id: str, spec: DomainSpec) -> Power:
        """It stands still where it goes; there it goes on when it is asked to."""
        here = self.powers.get((host_id, spec.id), Power.UNKNOWN)
        if spec.desired is Desired.LEAVING and here in (Power.RUNNING, Power.PAUSED):
            assert spec.leaving is not None
            there = (spec.leaving.landing.gate, spec.id)
            if self.powers.get(there) is not Power.UNKNOWN:
                self.broken.append(f"domain {spec.id} was sent where nobody waits for it")
            self.powers[there] = Power.PAUSED
            return Power.UNKNOWN
        return here

    def _check_export(self, domain_id: str, disk: Any) -> None:
        """Whether the volume can be reached as the domain was told."""
        found = [spec for (_, noun, name), spec in self.objects.items() if (noun, name) == ("export", disk.disk_id)]
        if not found:
            self.broken.append(f"domain {domain_id} was given {disk.disk_id}, which nobody exports")
            return
        (export,) = found
        if export.chap != disk.iscsi.chap or disk.iscsi.initiator not in export.initiators:
            self.broken.append(f"domain {domain_id} cannot log in to {disk.disk_id}")
        if export.volume_id != disk.iscsi.volume_id:
            self.broken.append(f"domain {domain_id} was given another volume than {disk.disk_id} exports")

    def _status(self, host_id: str, row: Call[Any, Any], spec: Any) -> Any:
        common = {"id": spec.id, "generation": spec.generation, "progress": Progress.READY}
        if row.reply is DomainStatus:
            hardware = msgspec.structs.replace(spec.hardware, machine="pc-q35-7.2", cpu_model="qemu64")
            landing = Landing(uid=200000, gid=200000, folder="/guests", gate=host_id)
            return DomainStatus(
                **common,
                power=self.powers[host_id, spec.id],
                hardware=hardware,
                landing=landing if spec.desired is Desired.LANDING else None,
            )
        if row.reply is ExportStatus:
            where = {"host": "198.18.0.1", "port": 3260, "iqn": f"iqn.test:{spec.id}"}
            return ExportStatus(**common, volume_id=spec.volume_id, **where)
        if row.reply is VolumeStatus:
            return VolumeStatus(**common, size_gib=self.sizes[spec.id])
        if row.reply is DiskStatus:
            return DiskStatus(**common, size_bytes=spec.size_gib << 30)
        return row.reply(**common)

    async def absent(self, host_id: str, row: Call[Any, Any], absence: Absence, deadline: float) -> Any:
        self._reach(host_id, row.name, absence.id)
        key = (host_id, row.noun, absence.id)
        known = self.objects.get(key)
        if known is not None and absence.generation <= known.generation:
            raise errors.Conflict("The host refused it: stale", why={"host": host_id, "code": "stale"})
        if row.noun in ("disk", "port"):
            self._check_freed(host_id, row.noun, absence.id)
        if row.noun in ("export", "volume"):
            self._check_unused(row.noun, absence.id)
        self.objects.pop(key, None)
        self.powers.pop((host_id, absence.id), None)
        self.graves[key] = max(absence.generation, self.graves.get(key, absence.generation))
        await asyncio.sleep(0.01)
        return row.reply(id=absence.id, generation=absence.generation, progress=Progress.ABSENT)

    def _check_unused(self, noun: str, object_id: str) -> None:
        """A volume goes after its exports, an export after the domain has let go. A host that is lost is shut out."""
        for (host_id, kind, name), spec in self.objects.items():
            if host_id in self.silent:
                continue
            if noun == "volume" and kind == "export" and spec.volume_id == object_id:
                self.broken.append(f"volume {object_id} was removed below export {name}")
            if noun == "export" and kind == "domain" and object_id in {disk.disk_id for disk in spec.disks}:
                self.broken.append(f"export {object_id} was removed below domain {name}")

    def _check_freed(self, host_id: str, noun: str, object_id: str) -> None:
        for (host, kind, _), spec in self.objects.items():
            if host == host_id and kind == "domain":
                held = {disk.disk_id for disk in spec.disks} | {nic.port_id for nic in spec.nics}
                if object_id in held:
                    self.broken.append(f"{noun} {object_id} was freed below domain {spec.id}")

    async def call(self, host_id: str, row: Call[Any, Any], request: Any) -> Any:
        self._reach(host_id, row.name, getattr(request, "id", ""))
        if isinstance(request, Reboot):
            return self._reboot(host_id, row, request)
        if isinstance(request, ConsoleRequest):
            return ConsoleLog(text="booting\nlogin:\n")
        if row.name == image_calls.LIST.name:
            return self._images(host_id)
        if isinstance(request, Empty):
            found = [spec for (host, noun, _), spec in self.objects.items() if (host, noun) == (host_id, "domain")]
            look = Call("domain.get", Ref, DomainStatus)
            return DomainList(domains=tuple(self._status(host_id, look, spec) for spec in found))
        spec = self.objects.get((host_id, row.noun, request.id))
        if spec is None:
            raise errors.NotFound(f"{request.id} is not known to this host")
        return self._status(host_id, row, spec)

    def _images(self, host_id: str) -> ImageList:
        look = Call("image.get", Ref, ImageStatus)
        here = [spec for (host, noun, _), spec in self.objects.items() if (host, noun) == (host_id, "image")]
        disks = [spec for (host, noun, _), spec in self.objects.items() if (host, noun) == (host_id, "disk")]
        used = tuple({disk.image_id for disk in disks if disk.image_id is not None})
        known = ((one.size_bytes, self._status(host_id, look, one)) for one in here)
        statuses = tuple(msgspec.structs.replace(status, size_bytes=size) for size, status in known)
        return ImageList(images=statuses, used=used)

    def _reboot(self, host_id: str, row: Call[Any, Any], request: Reboot) -> Any:
        spec = self.objects.get((host_id, "domain", request.id))
        if spec is None:
            raise errors.NotFound(f"{request.id} is not known to this host")
        self.reboots.setdefault(request.operation_id, request.id)
        self.powers[host_id, request.id] = Power.RUNNING
        return self._status(host_id, row, spec)

    def turn(self, host_id: str, noun: str, object_id: str) -> asyncio.Lock:
        return self.turns.setdefault((host_id, noun, object_id), asyncio.Lock())

    def holds(self, host_id: str, noun: str, object_id: str, generation: Generation, *, absent: bool) -> bool:
        key = (host_id, noun, object_id)
        if absent:
            return self.graves.get(key, Generation(0, 0)) >= generation
        return key in self.objects and self.objects[key].generation == generation

    def is_up(self, host_id: str) -> bool:
        return host_id in self.host_ids and host_id not in self.silent

    def up(self) -> list[str]:
        return sorted(self.host_ids - self.silent)

    def heartbeat(self, host_id: str) -> Heartbeat | None:
        return None

    def door(self, host_id: str) -> Door | None:
        return self.doors.get(host_id)

    def on_event(self, noun: str, callback: Callable[[str, Any], Any]) -> None:
        self.callbacks[noun].append(callback)

    def power_changes(self, host_id: str, server_id: str, power: Power) -> None:
        """The guest did it by itself: the host tells."""
        self.powers[host_id, server_id] = power
        spec = self.objects[host_id, "domain", server_id]
        status = self._status(host_id, Call("domain.get", Ref, DomainStatus), spec)
        for callback in self.callbacks["domain"]:
            callback(host_id, status)

    def of(self, noun: str) -> dict[str, Any]:
        """Objects of a kind, by id, on whatever host."""
        return {object_id: spec for (_, kind, object_id), spec in self.objects.items() if kind == noun}

    def _reach(self, host_id: str, name: str, object_id: str) -> None:
        self.asked.append((host_id, name, object_id))
        if host_id in self.silent:
            self.lost.add(host_id)
            raise Transient(f"Host {host_id} did not answer {name}.")
        refused = self.refuse.get((host_id, name))
        if refused is not None:
            raise refused


def _carried_out(before: Power, desired: Desired) -> Power:
    """What becomes of a guest's power."""
    if desired in (Desired.RUNNING, Desired.SHUTOFF):
        return Power.RUNNING if desired is Desired.RUNNING else Power.SHUTOFF
    if before not in (Power.RUNNING, Power.PAUSED):
        return before  # What is off has nothing to be stopped.
    return Power.PAUSED if desired is Desired.PAUSED else Power.SUSPENDED


class FakeChannel:
    """Tickets and addresses of images."""

    def image_url(self, image_id: str) -> str:
        return f"https://198.18.0.1:5443/image/{image_id}"

    def ticket(self, host_id: str, image_id: str) -> str:
        return f"{host_id}/{image_id}"

    def offer(self, host_id: str, image_id: str) -> Offer:
        return Offer(url=self.image_url(image_id), name="", ticket=f"{host_id}/{image_id}")

    def neighbours_offer(self, host_id: str, neighbour_id: str, door: Door, sha256: str) -> Offer:
        url = f"https://{door.address}/image/{sha256}"
        return Offer(url=url, name=neighbour_id, ticket=f"{door.id}/{host_id}/{sha256}")

    def disk_offer(self, host_id: str, other_id: str, door: Door, disk_id: str) -> Offer:
        return Offer(
            url=f"https://{door.address}/disk/{disk_id}", name=other_id, ticket=f"{door.id}/{host_id}/{disk_id}"
        )

    def passage(
        self,
        host_id: str,
        other_id: str,
        door: Door,
        server_id: str,
        landing: Landing,
        *,
        has_disks: bool,
        limit_s: float,
    ) -> Passage:
        offer = Offer(url=f"https://{door.address}/x/{server_id}", name=other_id, ticket=f"{door.id}/{host_id}")
        disks = offer if has_disks else None
        return Passage(landing=landing, control=offer, memory=offer, disks=disks, arrival=offer, limit_s=limit_s)

    def upload_offer(self, host_id: str, image_id: str) -> Offer:
        return Offer(url=self.image_url(image_id), name="", ticket=self.ticket(host_id, image_id))


RESOLVED = Hardware(machine="pc-q35-7.2", cpu_model="qemu64")
