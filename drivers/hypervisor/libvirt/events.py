"""Lifecycle events of libvirt, on their way to the agent.

libvirt calls back in its event loop's thread, where no libvirt call may be made and nothing may wait. So callbacks only
put a line into a bounded queue, and one thread of ours empties it: it leaves out domains that are not ours, asks
libvirt where an event is ambiguous, and calls the listener. A full queue or a lost connection is a gap; after a gap
every domain is asked for its power, because what happened meanwhile cannot be known. Only changes are told: libvirt
makes two events of one start.
"""

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

import libvirt

from agent.wire.errors import WireError
from agent.wire.lifecycle import Power
from drivers.hypervisor.base import PowerListener
from drivers.hypervisor.libvirt import state

QUEUE_MAX: Final = 4096
"""Events that wait. A host of 500 guests that all restart at once makes 1500; beyond this, all are told anew."""

_Event = tuple[str, int, int]


class PowerEvents:
    """From libvirt's callback to the listeners. `observe` tells the power of one of our domains, or of all (None)."""

    def __init__(self, observe: Callable[[str | None], dict[str, Power]]) -> None:
        self._observe = observe
        self._queue: queue.Queue[_Event | None] = queue.Queue(QUEUE_MAX)
        self._gap = threading.Event()
        self._listeners: list[PowerListener] = []
        self._told_last: dict[str, Power] = {}
        self._is_closed = False
        self._has_heard = False
        self._thread = threading.Thread(target=self._run, name="libvirt-power", daemon=True)

    def listen(self, listener: PowerListener) -> None:
        """One more listener."""
        self._listeners.append(listener)
        if not self._thread.is_alive() and not self._is_closed:
            self._thread.start()

    def register(self, connection: libvirt.virConnect) -> None:
        """Hear a new connection's events; what happened since the one before it was lost is a gap."""
        connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_event, None)
        if self._has_heard:
            self.resync()
        self._has_heard = True

    def resync(self) -> None:
        """Ask every domain for its power, as after a gap."""
        self._gap.set()
        self._wake()

    def close(self) -> None:
        """Tell nobody anything any more."""
        self._is_closed = True
        self._listeners.clear()
        self._wake()

    def _on_event(
        self, _connection: libvirt.virConnect, domain: libvirt.virDomain, event: int, detail: int, _opaque: Any
    ) -> None:
        if not self._listeners:
            return
        try:
            self._queue.put_nowait((domain.UUIDString(), event, detail))
        except queue.Full:
            self._gap.set()

    def _wake(self) -> None:
        with contextlib.suppress(queue.Full):  # A full queue wakes the thread as well.
            self._queue.put_nowait(None)

    def _run(self) -> None:
        while not self._is_closed:
            event = self._queue.get()
            try:
                powers = self._all() if self._gap.is_set() else self._told(event)
            except WireError:  # libvirtd is away, or slow: what is now is told when it answers again.
                self._gap.set()
                continue
            for domain_id, power in powers.items():
                self._tell(domain_id, power)

    def _tell(self, domain_id: str, power: Power) -> None:
        if self._told_last.get(domain_id) is power:
            return
        self._told_last[domain_id] = power
        for listener in tuple(self._listeners):
            with contextlib.suppress(RuntimeError):  # An agent that stops has closed its event loop.
                listener(domain_id, power)

    def _all(self) -> dict[str, Power]:
        """After a gap. What waits in the queue is older than what is observed now."""
        self._gap.clear()
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        powers = self._observe(None)
        self._told_last = {domain_id: power for domain_id, power in self._told_last.items() if domain_id in powers}
        return powers

    def _told(self, event: _Event | None) -> dict[str, Power]:
        if event is None:
            return {}
        domain_id, kind, detail = event
        if kind == libvirt.VIR_DOMAIN_EVENT_UNDEFINED:
            self._told_last.pop(domain_id, None)
        power = state.power_of_event(kind, detail)
        if power is None:
            return {}
        now = self._observe(domain_id)  # Empty for what is not ours, or is gone.
        return now if state.is_ambiguous(kind, detail) else dict.fromkeys(now, power)
