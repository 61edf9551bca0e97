"""Tickets: forged, replayed, expired, somebody else's, for another door."""

import pytest

from agent.wire import ticket
from agent.wire.host import Door
from agent.wire.ticket import BadTicket, Doorkeeper


class Clock:
    def __init__(self, boottime: float) -> None:
        self.at = boottime

    def now(self) -> float:
        return 0.0

    def boottime(self) -> float:
        return self.at


def sign(data: bytes) -> bytes:
    return b"signed " + data[::-1]


def verify(signature: bytes, data: bytes) -> bool:
    return signature == sign(data)


def a_door(boottime_s: float = 50.0) -> Door:
    return Door(address="198.18.0.11:5444", id="door", boottime_s=boottime_s)


def a_ticket(nonce: str = "n", door: Door | None = None, peer: str = "h1", kind: str = "image", id: str = "i") -> str:
    return ticket.issue(sign, nonce, door or a_door(), peer, kind, id)


@pytest.fixture
def keeper() -> Doorkeeper:
    return Doorkeeper("door", verify, Clock(50.0))


def test_a_ticket_opens_its_object_once(keeper: Doorkeeper) -> None:
    good = a_ticket()
    keeper.redeem(good, "h1", "image", "i")
    with pytest.raises(BadTicket):
        keeper.redeem(good, "h1", "image", "i")


def test_what_a_ticket_does_not_say_it_does_not_open(keeper: Doorkeeper) -> None:
    good = a_ticket()
    others = ("h2", "image", "i"), ("h1", "vnc", "i"), ("h1", "image", "j"), ("controller", "image", "i")
    for peer, kind, name in others:
        with pytest.raises(BadTicket):
            keeper.redeem(good, peer, kind, name)
    keeper.redeem(good, "h1", "image", "i")


def test_a_door_that_was_opened_anew_knows_no_older_ticket() -> None:
    again = Doorkeeper("door after a restart", verify, Clock(50.0))
    with pytest.raises(BadTicket):
        again.redeem(a_ticket(), "h1", "image", "i")


def test_a_ticket_ends_by_the_clock_of_the_door_alone() -> None:
    at_door = Clock(1_000_000.0)
    keeper = Doorkeeper("door", verify, at_door)
    early, late = (a_ticket(nonce, a_door(1_000_000.0)) for nonce in "ab")
    at_door.at += ticket.LIFE_S - 1
    keeper.redeem(early, "h1", "image", "i")
    at_door.at += 2
    with pytest.raises(BadTicket):
        keeper.redeem(late, "h1", "image", "i")


def test_forgeries_are_refused(keeper: Doorkeeper) -> None:
    good = a_ticket()
    claims, _, signature = good.partition(".")
    other = a_ticket(id="j").partition(".")[0]
    for forged in ("", ".", claims, f"{claims}.", f"{other}.{signature}", f"{claims}.{signature[:-4]}AAAA"):
        with pytest.raises(BadTicket):
            keeper.redeem(forged, "h1", "image", "i")
    for garbage in ("ä.ö", "A" * 100_000, "x.y.z", "e30=.e30="):
        with pytest.raises(BadTicket):
            keeper.redeem(garbage, "h1", "image", "i")


def test_what_was_used_is_forgotten_when_it_has_ended() -> None:
    at_door = Clock(50.0)
    keeper = Doorkeeper("door", verify, at_door)
    for number in range(100):
        keeper.redeem(a_ticket(str(number), a_door(at_door.at)), "h1", "image", "i")
        at_door.at += ticket.LIFE_S / 10
    assert len(keeper._used) < 20
