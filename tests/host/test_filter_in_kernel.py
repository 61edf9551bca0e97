"""Every state's rules are taken by the kernel, and differences lead to where a fresh start would."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.network import conntrack, netns
from drivers.network import filter as rules
from drivers.network.base import FilterState
from drivers.network.conntrack import Flow, Tuple
from drivers.network.nft import NftFailed, Ruleset
from drivers.network.tables import SetSpec, TableSpec, change, replace
from tests.drivers import filter_states

pytestmark = pytest.mark.host

TAG = "abcd"


@pytest.fixture(scope="module")
def rulesets() -> Iterator[tuple[Ruleset, Ruleset]]:
    spaces = [f"zznft-{uuid.uuid4().hex[:6]}" for _ in range(2)]
    for space in spaces:
        netns.ensure(space)
    yield Ruleset(spaces[0]), Ruleset(spaces[1])
    for space in spaces:
        netns.absent(space)


def content(ruleset: Ruleset) -> set[str]:
    """The whole ruleset, without handles and order of elements."""
    found = set()
    for row in ruleset.objects("list ruleset"):
        for kind, value in row.items():
            if kind != "metainfo":
                found.add(json.dumps({kind: bare(value)}, sort_keys=True))
    return found


def bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: bare(one) for key, one in value.items() if key != "handle"}
    if isinstance(value, list):
        plain = [bare(one) for one in value]
        return sorted(plain, key=lambda one: json.dumps(one, sort_keys=True))
    return value


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(sequence=st.lists(filter_states.states(), min_size=1, max_size=4))
def test_differences_lead_where_a_fresh_start_leads(
    rulesets: tuple[Ruleset, Ruleset], sequence: list[FilterState]
) -> None:
    stepwise, fresh = rulesets
    for ruleset in rulesets:
        ruleset.run("flush ruleset")
    numbers = rules.Numbers()
    before: tuple[TableSpec, TableSpec] | None = None
    for state in sequence:
        numbers = rules.number(state, numbers)
        tables = rules.tables(state, numbers, TAG)
        if before is None:
            stepwise.run("".join(replace(table) for table in tables))
        elif commands := "".join(change(old, new) for old, new in zip(before, tables, strict=True)):
            stepwise.check(commands)
            stepwise.run(commands)
        before = tables
    assert before is not None
    fresh.run("".join(replace(table) for table in before))
    assert content(stepwise) == content(fresh)


def test_a_transaction_is_all_or_nothing(rulesets: tuple[Ruleset, Ruleset]) -> None:
    ruleset, _ = rulesets
    ruleset.run("flush ruleset")
    with pytest.raises(NftFailed, match="No such file"):
        ruleset.run("add table inet good\nadd element inet good nothing { 1 }\n")
    assert ruleset.tables() == frozenset()


def test_has_table_sees_family_and_name(rulesets: tuple[Ruleset, Ruleset]) -> None:
    ruleset, _ = rulesets
    ruleset.run("flush ruleset")
    ruleset.run("add table inet one")
    assert ruleset.has_table("inet", "one")
    assert not ruleset.has_table("bridge", "one") and not ruleset.has_table("inet", "on")
    ruleset.drop_table("inet", "one")
    ruleset.drop_table("inet", "one")
    assert not ruleset.has_table("inet", "one")


def test_many_elements_are_written_in_pieces(rulesets: tuple[Ruleset, Ruleset]) -> None:
    ruleset, _ = rulesets
    ruleset.run("flush ruleset")
    keys = {f"10.{number >> 8}.{number & 255}.1": "" for number in range(2000)}
    table = TableSpec(family="inet", name="big", sets={"s": SetSpec(kind="type ipv4_addr;", elements=keys)})
    ruleset.run(replace(table))
    (found,) = (row["set"] for row in ruleset.objects("list set inet big s") if "set" in row)
    assert len(found["elem"]) == 2000


@pytest.mark.parametrize("ends", [("10.0.0.3", "198.18.0.1"), ("fd00::3", "2001:db8::1")])
def test_a_connection_that_began_elsewhere_is_known_in_both_directions(ends: tuple[str, str]) -> None:
    space = f"zznft-{uuid.uuid4().hex[:6]}"
    netns.ensure(space)
    try:
        (guest, far), zone = ends, 7
        flow = Flow(zone=zone, original=Tuple(far, guest, 6, 50000, 22), reply=Tuple(guest, far, 6, 22, 50000))
        for _ in range(2):  # Said twice, it is said once.
            conntrack.create([flow], space)
        (found,) = conntrack.flows(space, zone)
        assert (found.zone, found.original, found.reply) == (zone, flow.original, flow.reply)
        assert conntrack.delete([found], space) == 1
    finally:
        netns.absent(space)
