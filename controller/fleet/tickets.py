"""Tickets as the controller issues them, for its own listener and for those of hosts; see agent.wire.ticket."""

from collections.abc import Callable
from typing import Protocol

from agent.wire import ticket
from agent.wire.host import Door
from agent.wire.ticket import Doorkeeper
from agent.wire.world import World
from controller.errors import Forbidden


class Signer(Protocol):
    """The authority, as far as tickets need it."""

    def sign_ticket(self, claims: bytes) -> bytes:
        """Its signature."""
        ...

    def verify_ticket(self, signature: bytes, claims: bytes) -> bool:
        """Whether it is that."""
        ...


class BadTicket(Forbidden):
    """One sentence for all reasons: who guesses learns nothing."""


class Tickets:
    """Issues tickets for whatever door, and redeems those for our own."""

    def __init__(self, world: World, signer: Signer) -> None:
        self._world = world
        self._sign: Callable[[bytes], bytes] = signer.sign_ticket
        self._keeper = Doorkeeper(world.entropy.hex(32), signer.verify_ticket, world.clock)

    def issue(self, peer_id: str, kind: str, object_id: str, door: Door | None = None) -> str:
        """A ticket for a peer at a door, ours if none is named."""
        if door is None:
            door = Door(address="", id=self._keeper.door_id, boottime_s=self._world.clock.boottime())
        return ticket.issue(self._sign, self._world.entropy.hex(32), door, peer_id, kind, object_id)

    def redeem(self, presented: str, peer_id: str, kind: str, object_id: str) -> None:
        """Spend a ticket at our own door. Raises BadTicket."""
        try:
            self._keeper.redeem(presented, peer_id, kind, object_id)
        except ticket.BadTicket as error:
            raise BadTicket(str(error)) from error
