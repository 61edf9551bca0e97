"""Requests in parts: put together in any order, bounded, and refused rather than guessed."""

import pytest

from agent.wire.errors import Busy, Invalid
from agent.wire.parts import PARTS_MAX, Collector, Part, split

WHOLE = bytes(range(256)) * 10


def test_parts_make_the_whole_in_any_order_and_repeated() -> None:
    *pieces, last = split(WHOLE, 600)
    assert [len(piece.data) for piece in (*pieces, last)] == [600, 600, 600, 600, 160]
    collector = Collector()
    for piece in (*reversed(pieces), *pieces):
        assert collector.take("a", piece) is None
    assert collector.take("a", last) == WHOLE
    assert collector.held_bytes == 0


def test_a_missing_part_is_asked_for_again_from_the_first_on() -> None:
    first, *_, last = split(WHOLE, 600)
    collector = Collector()
    collector.take("a", first)
    with pytest.raises(Busy, match="3 of 5 parts"):
        collector.take("a", last)
    for piece in split(WHOLE, 600)[:-1]:
        collector.take("a", piece)
    assert collector.take("a", last) == WHOLE


def test_parts_of_one_subject_are_nothing_to_another() -> None:
    *pieces, last = split(WHOLE, 1000)
    collector = Collector()
    for piece in pieces:
        collector.take("a", piece)
    with pytest.raises(Busy):
        collector.take("b", last)
    assert collector.take("a", last) == WHOLE


def test_what_waits_is_bounded_and_the_oldest_goes_first() -> None:
    collector = Collector(held_bytes_max=3000)
    others = [bytes([number]) * 1500 for number in range(4)]
    for other in others:
        assert collector.take("a", split(other, 1000)[0]) is None
    assert collector.held_bytes == 3000
    with pytest.raises(Busy):
        collector.take("a", split(others[0], 1000)[1])
    assert collector.take("a", split(others[3], 1000)[1]) == others[3]


@pytest.mark.parametrize("label", ["", "x/0/2", f"{'0' * 32}/2/2", f"{'0' * 32}/0/99", f"{'0' * 32}/0/2/3"])
def test_a_mark_that_cannot_be_is_invalid(label: str) -> None:
    with pytest.raises(Invalid):
        Collector().take("a", Part(label, b"x"))


def test_bytes_that_changed_on_the_way_are_invalid() -> None:
    first, last = split(WHOLE, 2000)
    collector = Collector()
    collector.take("a", Part(first.label, b"x" * 2000))
    with pytest.raises(Invalid, match="do not make"):
        collector.take("a", last)


def test_what_no_number_of_parts_can_carry_is_refused_before_anything_is_sent() -> None:
    assert len(split(b"x" * PARTS_MAX, 1)) == PARTS_MAX
    with pytest.raises(Invalid, match="larger"):
        split(b"x" * (PARTS_MAX + 1), 1)
