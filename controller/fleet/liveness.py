"""Who is alive, judged from heartbeats and one clock of our own. Pure: the caller says what time it is.

Theory of operation. A host is up from its first heartbeat until none has come for a whole lease. Times are those
of receipt on this machine's CLOCK_BOOTTIME; nothing that a host says about time is used. Three things could make
living hosts look dead, and each of them hands every host a new whole lease instead of a verdict: this controller
has just started (`adopt`), it could not hear (`extend`: the bus was away, the process was stopped).
"""

from typing import Final

LEASE_S: Final = 30.0
"""Silence after which a host is down. Shorter: three lost heartbeats are an outage. Longer: users wait for it."""


class Liveness:
    """The hosts of one fleet, up or down."""

    def __init__(self, lease_s: float = LEASE_S) -> None:
        self._lease_s = lease_s
        self._heard: dict[str, float | None] = {}  # None: down.

    def adopt(self, host_id: str, is_up: bool, now: float) -> None:
        """Begin to watch a host, as it was known last. One that was up has a whole lease to be heard."""
        self._heard.setdefault(host_id, now if is_up else None)

    def forget(self, host_id: str) -> None:
        """Watch it no more."""
        self._heard.pop(host_id, None)

    def knows(self, host_id: str) -> bool:
        """Whether this host is watched."""
        return host_id in self._heard

    def beat(self, host_id: str, now: float) -> bool:
        """A heartbeat arrived from a watched host; True if it turned up by that."""
        was_down = self._heard[host_id] is None
        self._heard[host_id] = now
        return was_down

    def expire(self, now: float) -> list[str]:
        """Declare down who was not heard for a lease; those."""
        late = [host_id for host_id, heard in self._heard.items() if heard is not None and now - heard > self._lease_s]
        self._heard.update(dict.fromkeys(late))
        return late

    def extend(self, now: float) -> None:
        """We could not hear until now: who is up has a new whole lease."""
        self._heard.update({host_id: now for host_id, heard in self._heard.items() if heard is not None})

    def is_up(self, host_id: str) -> bool:
        """Whether the host is known to be alive."""
        return self._heard.get(host_id) is not None

    def up(self) -> list[str]:
        """Every host that is up, sorted."""
        return sorted(host_id for host_id, heard in self._heard.items() if heard is not None)
