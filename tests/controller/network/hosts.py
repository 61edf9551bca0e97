"""A fleet that does at once what it is told, and remembers what it was told."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from agent.wire import forwarding, group
from agent.wire.errors import Conflict as WireConflict
from agent.wire.errors import FaultCode
from agent.wire.forwarding import ForwardingDelta, ForwardingSpec
from agent.wire.group import AddressesDelta, AddressesSpec
from agent.wire.lifecycle import Generation, Progress
from agent.wire.specs import Absence, Call, ObjectSpec
from controller.errors import Conflict, NotFound


class ListeningHosts:
    """Holds the newest generation of every object, with tombstones, as agents do; refuses older ones."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, str, Generation]] = []
        self.objects: dict[tuple[str, str, str], ObjectSpec | Absence] = {}
        self.down: set[str] = set()
        self.before_ensure: Callable[[], Awaitable[None]] | None = None
        self.before_absent: Callable[[], Awaitable[None]] | None = None
        self.turns: dict[tuple[str, str, str], asyncio.Lock] = {}

    def take(self) -> list[tuple[str, str]]:
        """(call, object id) of everything said since the last look."""
        said = [(call, object_id) for _, call, object_id, _ in self.said]
        self.said.clear()
        return said

    def has(self, host_id: str, noun: str) -> set[str]:
        """The ids of a noun's objects on a host."""
        return {
            key[2] for key, held in self.objects.items() if key[:2] == (host_id, noun) and isinstance(held, ObjectSpec)
        }

    def spec(self, host_id: str, noun: str, object_id: str) -> Any:
        """What a host holds."""
        return self.objects[host_id, noun, object_id]

    def is_up(self, host_id: str) -> bool:
        return host_id not in self.down

    def holds(self, host_id: str, noun: str, object_id: str, generation: Generation, *, absent: bool) -> bool:
        held = self.objects.get((host_id, noun, object_id))
        return held is not None and held.generation == generation and isinstance(held, Absence) == absent

    def turn(self, host_id: str, noun: str, object_id: str) -> asyncio.Lock:
        return self.turns.setdefault((host_id, noun, object_id), asyncio.Lock())

    async def ensure(self, host_id: str, row: Call[Any, Any], spec: ObjectSpec, deadline: float) -> Any:
        if self.before_ensure is not None:
            await self.before_ensure()
        if isinstance(spec, ForwardingDelta | AddressesDelta):
            self.said.append((host_id, row.name, spec.id, spec.generation))
            held = self.objects.get((host_id, row.noun, spec.id))
            if held is not None and held.generation > spec.generation:
                raise Conflict("stale", why={"code": FaultCode.STALE.value})
            try:
                if isinstance(spec, ForwardingDelta) and isinstance(held, ForwardingSpec):
                    self.objects[host_id, row.noun, spec.id] = forwarding.applied(held, spec)
                elif isinstance(spec, AddressesDelta) and isinstance(held, AddressesSpec):
                    self.objects[host_id, row.noun, spec.id] = group.applied(held, spec)
                else:
                    raise WireConflict("it is not known to this host")
            except WireConflict as error:
                raise Conflict(f"The host refused it: {error}", why={"host": host_id, "code": "conflict"}) from error
            return row.reply(id=spec.id, generation=spec.generation, progress=Progress.READY)
        self._take(host_id, row, spec)
        return row.reply(id=spec.id, generation=spec.generation, progress=Progress.READY)

    async def absent(self, host_id: str, row: Call[Any, Any], absence: Absence, deadline: float) -> Any:
        if self.before_absent is not None:
            await self.before_absent()
        self._take(host_id, row, absence)
        return row.reply(id=absence.id, generation=absence.generation, progress=Progress.ABSENT)

    async def call(self, host_id: str, row: Call[Any, Any], request: Any) -> Any:
        held = self.objects.get((host_id, row.noun, request.id))
        if held is None:
            raise NotFound("no such object")
        await asyncio.sleep(0)  # An answer takes time.
        progress = Progress.ABSENT if isinstance(held, Absence) else Progress.READY
        return row.reply(id=held.id, generation=held.generation, progress=progress)

    def _take(self, host_id: str, row: Call[Any, Any], said: ObjectSpec | Absence) -> None:
        self.said.append((host_id, row.name, said.id, said.generation))
        held = self.objects.get((host_id, row.noun, said.id))
        if held is not None and held.generation > said.generation:
            raise Conflict("stale", why={"code": FaultCode.STALE.value})
        assert held is None or held.generation < said.generation or held == said, "same generation, other content"
        self.objects[host_id, row.noun, said.id] = said
