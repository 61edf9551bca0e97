"""What the agent tells the guard, the unprivileged process that answers guests' questions about themselves.

The agent only ever states what should be: in which networks to listen, and who is told what. Whether the guard runs
at the moment is nobody's concern here; it is told everything when it comes back. `agent.guard_link` is the real
one, over a Unix socket; `MemoryGuard` is for hosts without guests.
"""

from collections.abc import Mapping
from typing import Protocol

from agent.wire.domain import GuestData

Documents = Mapping[tuple[str, str], GuestData]
"""(network id, source address) → what a guest with that address in that network is told."""


class Guard(Protocol):
    """Where metadata is served."""

    def serve(self, network_id: str, namespace: str) -> None:
        """Listen in this network from now on, in the namespace that is called so."""
        ...

    def withdraw(self, network_id: str) -> None:
        """Listen there no more; nothing if it did not."""
        ...

    def publish(self, documents: Documents) -> None:
        """From now on exactly these documents."""
        ...

    async def settle(self, timeout_s: float) -> bool:
        """Wait until the guard was told; False if it has not all that was said."""
        ...


class MemoryGuard:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.networks: dict[str, str] = {}
        self.documents: Documents = {}

    def serve(self, network_id: str, namespace: str) -> None:
        """See Guard."""
        self.networks[network_id] = namespace

    def withdraw(self, network_id: str) -> None:
        """See Guard."""
        self.networks.pop(network_id, None)

    def publish(self, documents: Documents) -> None:
        """See Guard."""
        self.documents = dict(documents)

    async def settle(self, timeout_s: float) -> bool:
        """See Guard."""
        return True


_: type[Guard] = MemoryGuard
