"""A bus in memory with hosts that a test scripts: what is sent is delivered at once, or not at all."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from agent.wire import host as host_calls
from agent.wire import subjects
from agent.wire.bus import Handler, Message, answering
from agent.wire.errors import NotFound, Silent, Stale, WireError
from agent.wire.host import Heartbeat, Inventory, LedgerEntry, LedgerPage, LedgerRequest
from agent.wire.lifecycle import Generation, Progress
from agent.wire.port import ABSENT, ENSURE, GET, PortSpec, PortStatus
from agent.wire.specs import Absence, Empty, EventEnvelope, Ref, encode


class MemoryBus:
    """Delivers within one process."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.patterns: list[tuple[str, Handler]] = []
        self.gap: list[Callable[[], None]] = []
        self.is_cut = False  # Everything is lost.
        self.requests: list[tuple[str, Mapping[str, str]]] = []

    async def request(self, subject: str, data: bytes, headers: Mapping[str, str], timeout_s: float) -> bytes:
        self.requests.append((subject, headers))
        handler = self.handlers.get(subject)
        if self.is_cut or handler is None:
            raise Silent(subject)
        answer = await handler(Message(subject, data, headers))
        if answer is None or self.is_cut:
            raise Silent(subject)
        return answer

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        if not self.is_cut:
            for pattern, handler in self.patterns:
                if _matches(pattern, subject):
                    await handler(Message(subject, data, headers or {}))

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Any:
        self.patterns.append((subject, handler))
        return _Subscription()

    def on_gap(self, callback: Callable[[], None]) -> None:
        self.gap.append(callback)


class _Subscription:
    async def close(self) -> None: ...


def _matches(pattern: str, subject: str) -> bool:
    wanted, got = pattern.split("."), subject.split(".")
    return len(wanted) == len(got) and all(w in ("*", g) for w, g in zip(wanted, got, strict=True))


class ScriptedHost:
    """A host that holds ports. `outcome` says what becomes of one that it accepts; `failure` is answered to all."""

    def __init__(self, bus: MemoryBus, host_id: str) -> None:
        self.bus = bus
        self.id = host_id
        self.boot = "boot-1"
        self.sequence = 0
        self.incarnation = "ledger-1"
        self.ports: dict[str, PortStatus] = {}
        self.tombstones: dict[str, Generation] = {}
        self.outcome: Callable[[PortStatus], PortStatus] = lambda status: status
        self.failure: WireError | None = None
        self.calls: list[str] = []
        self.digest_override: str | None = None
        for row, handle in (
            (ENSURE, self._ensure),
            (ABSENT, self._absent),
            (GET, self._get),
            (host_calls.LEDGER, self._ledger),
            (host_calls.INVENTORY, self._inventory),
        ):
            bus.handlers[subjects.host(host_id, row.name)] = answering(row, handle)  # type: ignore[arg-type]

    async def _ensure(self, spec: PortSpec, _: Message) -> PortStatus:
        self._note("ensure")
        known = self.ports.get(spec.id)
        if known is not None and known.generation > spec.generation:
            raise Stale(f"port {spec.id} is at {known.generation}")
        if known is None or known.generation < spec.generation:
            fresh = PortStatus(id=spec.id, generation=spec.generation, progress=Progress.PENDING)
            self.ports[spec.id] = self.outcome(fresh)
        return self.ports[spec.id]

    async def _absent(self, absence: Absence, _: Message) -> PortStatus:
        self._note("absent")
        self.ports.pop(absence.id, None)
        self.tombstones[absence.id] = absence.generation
        return PortStatus(id=absence.id, generation=absence.generation, progress=Progress.ABSENT)

    async def _get(self, ref: Ref, _: Message) -> PortStatus:
        self._note("get")
        if ref.id not in self.ports:
            raise NotFound(f"no port {ref.id}")
        return self.ports[ref.id]

    async def _ledger(self, request: LedgerRequest, _: Message) -> LedgerPage:
        self._note("ledger")
        entries = sorted(self.entries(), key=lambda entry: entry.id)
        rest = [entry for entry in entries if request.after is None or entry.id > request.after]
        page, more = rest[:2], rest[2:]
        return LedgerPage(entries=tuple(page), next=page[-1].id if more else None)

    async def _inventory(self, _: Empty, __: Message) -> Inventory:
        self._note("inventory")
        return self.inventory()

    def _note(self, name: str) -> None:
        self.calls.append(name)
        if self.failure is not None:
            raise self.failure

    def entries(self) -> list[LedgerEntry]:
        held = [LedgerEntry("port", one.id, one.generation, False, one.progress.value) for one in self.ports.values()]
        return held + [LedgerEntry("port", gone, n, True, "absent") for gone, n in self.tombstones.items()]

    def inventory(self, **changed: Any) -> Inventory:
        values = {
            "host_id": self.id,
            "hostname": "h",
            "underlay_address": "198.18.0.11",
            "agent_version": "0.1.0",
            "wire_version": 1,
            "boot_id": "b",
            "ledger_incarnation": self.incarnation,
            "ledger_high_water": Generation(1, 5),
            "vcpus": 4,
            "memory_mib": 8192,
            "disk_gib": 100,
            "virt_type": "qemu",
            "hypervisor_version": 9000000,
            "cpu_model": "x",
            "cpu_arch": "x86_64",
            "physical_networks": ("external",),
            "capabilities": (),
        }
        return Inventory(**{**values, **changed})

    async def beat(self) -> None:
        digest = self.digest_override or host_calls.digest(self.entries())
        await self.tell(
            host_calls.HEARTBEAT,
            Heartbeat(
                host_id="somebody else",  # Never read.
                boot=self.boot,
                digest=digest,
                ledger_high_water=Generation(1, 1),
                disk_free_gib=50,
                memory_free_mib=4096,
                load_1=0.1,
                running_domains=0,
            ),
        )

    async def tell(self, noun: str, body: msgspec.Struct, *, sequence: int | None = None) -> None:
        self.sequence = self.sequence + 1 if sequence is None else sequence
        envelope = EventEnvelope(boot=self.boot, sequence=self.sequence, body=msgspec.Raw(encode(body)))
        await self.bus.publish(subjects.host_event(self.id, noun), encode(envelope))


async def turns(count: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)
