"""What a start does, from ledger and host alone."""

from agent.ledger import Entry
from agent.nouns import Key, Noun
from agent.reconciler import Observation, plan
from tests.agent.rig import gen


def row(noun: Noun, name: str, *, absent: bool = False, settled: bool = False) -> Entry:
    return Entry(
        key=Key(noun, name), generation=gen(1), absent=absent, spec=None, settled=gen(1) if settled else None, at=0.0
    )


def acts(entries: list[Entry], present: set[Key]) -> list[str]:
    return [f"{key.noun}:{key.id}" for key in plan(entries, Observation(frozenset(present))).act]


def test_needed_things_come_first_and_go_last() -> None:
    rows = [row(noun, "a") for noun in reversed(Noun)] + [row(noun, "z", absent=True) for noun in Noun]
    order = ("network", "forwarding", "group", "addresses", "image", "volume", "snapshot", "export")
    order = (*order, "disk", "port", "router", "domain", "capture")
    assert acts(rows, set()) == [f"{noun}:z" for noun in reversed(order)] + [f"{noun}:a" for noun in order]


def test_a_finished_removal_is_repeated_only_if_the_object_is_there() -> None:
    gone = row(Noun.DOMAIN, "d", absent=True, settled=True)
    assert acts([gone], set()) == []
    assert acts([gone], {gone.key}) == ["domain:d"]


def test_what_the_ledger_does_not_know_is_told_and_never_touched() -> None:
    known, stranger = row(Noun.PORT, "p"), Key(Noun.DOMAIN, "x")
    found = plan([known], Observation(frozenset({stranger, known.key})))
    assert found.strangers == (stranger,)
    assert stranger not in found.act
