"""The ledger: order does not matter, nothing that was acknowledged is lost, and a full disk takes only what it must."""

import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.ledger import OPERATION_S, TOMBSTONE_S, Ledger, Operation, open_ledger
from agent.nouns import Key, Noun
from agent.wire.domain import Hardware
from agent.wire.errors import Conflict, ReadOnly, Stale, Unfit
from agent.wire.lifecycle import Generation
from agent.wire.specs import encode
from tests.agent.rig import a_domain, a_network, a_port, an_image, gen

UIDS = range(200000, 200003)


def in_memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


def put(ledger: Ledger, spec: Any, noun: Noun = Noun.NETWORK, now: float = 0.0) -> bool:
    return ledger.put(noun, spec, encode(spec), now)


class LedgerMachine(RuleBasedStateMachine):
    """A few objects, generations and contents in any order, with restarts in between, against a plain model."""

    @initialize()
    def begin(self) -> None:
        self.database = in_memory()
        self.ledger = Ledger(self.database, "i-1")
        self.model: dict[str, tuple[Generation, bool, int]] = {}

    @rule(name=st.sampled_from("ab"), epoch=st.integers(1, 2), n=st.integers(1, 4), mtu=st.sampled_from([1450, 1500]))
    def ensure(self, name: str, epoch: int, n: int, mtu: int) -> None:
        spec = a_network(id=name, generation=Generation(epoch, n), mtu=mtu)
        known = self.model.get(name)
        expected: type[Exception] | None = None
        if known is not None and spec.generation < known[0]:
            expected = Stale
        elif known is not None and spec.generation == known[0] and (known[1] or known[2] != mtu):
            expected = Conflict
        if expected is not None:
            with pytest.raises(expected):
                put(self.ledger, spec)
            return
        assert put(self.ledger, spec) == (known is None or known[0] != spec.generation)
        self.model[name] = (spec.generation, False, mtu)

    @rule(name=st.sampled_from("ab"), epoch=st.integers(1, 2), n=st.integers(1, 4))
    def absent(self, name: str, epoch: int, n: int) -> None:
        generation = Generation(epoch, n)
        known = self.model.get(name)
        expected: type[Exception] | None = None
        if known is not None and generation < known[0]:
            expected = Stale
        elif known is not None and generation == known[0] and not known[1]:
            expected = Conflict
        if expected is not None:
            with pytest.raises(expected):
                self.ledger.bury(Key(Noun.NETWORK, name), generation, 0.0)
            return
        self.ledger.bury(Key(Noun.NETWORK, name), generation, 0.0)
        self.model[name] = (generation, True, 0)

    @rule(name=st.sampled_from("ab"))
    def settle(self, name: str) -> None:
        if name in self.model:
            self.ledger.settle(Key(Noun.NETWORK, name), self.model[name][0])

    @rule()
    def restart(self) -> None:
        self.ledger = Ledger(self.database, "i-2")

    @invariant()
    def is_the_model(self) -> None:
        assert self.ledger.incarnation == "i-1"
        found = {}
        for entry in self.ledger.rows(Noun.NETWORK):
            mtu = 0 if entry.absent or entry.spec is None else entry.spec.mtu
            found[entry.key.id] = (entry.generation, entry.absent, mtu)
        assert found == self.model
        assert self.ledger.high_water == max((row[0] for row in self.model.values()), default=Generation(0, 0))
        assert self.ledger.digest() == Ledger(self.database, "").digest()


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_order_and_repetition_ends_at_the_newest(data: st.DataObject) -> None:
    is_absent = [data.draw(st.booleans()) for _ in range(5)]
    commands = data.draw(st.permutations(list(range(5)) * 2))
    ledger = Ledger(in_memory(), "i")
    key = Key(Noun.NETWORK, "a")
    for n in commands:
        try:
            if is_absent[n]:
                ledger.bury(key, gen(n), 0.0)
            else:
                put(ledger, a_network(n, id="a", mtu=1000 + n))
        except Stale:
            pass
    entry = ledger.find(key)
    assert entry is not None
    assert (entry.generation, entry.absent) == (gen(4), is_absent[4])
    assert entry.absent or entry.spec == a_network(4, id="a", mtu=1004)


def test_a_tombstone_keeps_the_spec_until_the_removal_is_finished() -> None:
    database = in_memory()
    ledger = Ledger(database, "i")
    put(ledger, a_port(1), Noun.PORT)
    key = Key(Noun.PORT, a_port().id)
    ledger.bury(key, gen(2), 0.0)
    again = Ledger(database, "i")
    assert again.find(key) == ledger.find(key)
    assert again.find(key).spec == a_port(1)
    again.settle(key, gen(2))
    for one in (again, Ledger(database, "i")):
        assert one.find(key).spec is None and one.find(key).is_settled


def test_what_was_carried_out_is_remembered_with_its_generation() -> None:
    database = in_memory()
    ledger = Ledger(database, "i")
    put(ledger, a_domain(1), Noun.DOMAIN)
    key = Key(Noun.DOMAIN, a_domain().id)
    ledger.settle(key, gen(1))
    put(ledger, a_domain(2), Noun.DOMAIN)
    ledger.settle(key, gen(1))  # Late: there is something newer.
    for one in (ledger, Ledger(database, "i")):
        assert one.find(key).settled == gen(1) and not one.find(key).is_settled


def test_what_the_host_resolved_of_a_domains_hardware_may_come_back() -> None:
    ledger = Ledger(in_memory(), "i")
    put(ledger, a_domain(), Noun.DOMAIN)
    ledger.settle(Key(Noun.DOMAIN, a_domain().id), gen(1))
    assert put(ledger, a_domain(hardware=Hardware(machine="pc-q35-7.2")), Noun.DOMAIN)
    assert ledger.find(Key(Noun.DOMAIN, a_domain().id)).is_settled
    with pytest.raises(Conflict):
        put(ledger, a_domain(memory_mib=129), Noun.DOMAIN)


def test_an_images_ticket_is_not_its_content() -> None:
    ledger = Ledger(in_memory(), "i")
    put(ledger, an_image(1), Noun.IMAGE)
    assert not put(ledger, an_image(1), Noun.IMAGE)
    assert put(ledger, an_image(1, ticket="t2"), Noun.IMAGE)
    assert ledger.find(Key(Noun.IMAGE, an_image().id)).spec.ticket == "t2"


def test_fields_that_this_agent_does_not_know_are_kept() -> None:
    database = in_memory()
    raw = encode(a_network()).replace(b'"segment"', b'"of_tomorrow":1,"segment"')
    Ledger(database, "i").put(Noun.NETWORK, a_network(), raw, 0.0)
    (kept,) = database.execute("SELECT spec FROM object").fetchone()
    assert kept == raw
    Ledger(database, "i").settle(Key(Noun.NETWORK, a_network().id), gen(1))
    assert database.execute("SELECT spec FROM object").fetchone() == (raw,)


def test_old_tombstones_go_and_the_high_water_stays() -> None:
    database = in_memory()
    ledger = Ledger(database, "i")
    key = Key(Noun.NETWORK, "a")
    ledger.bury(key, gen(7), 100.0)
    ledger.bury(Key(Noun.NETWORK, "b"), gen(3), 100.0)
    ledger.settle(key, gen(7))
    ledger.purge(100.0 + TOMBSTONE_S - 1)
    assert ledger.find(key) is not None
    ledger.purge(101.0 + TOMBSTONE_S)
    for one in (ledger, Ledger(database, "i")):
        assert one.find(key) is None
        assert one.find(Key(Noun.NETWORK, "b")) is not None  # Its removal is not finished.
        assert one.high_water == gen(7)


def test_results_of_acts_are_remembered_for_as_long_as_anybody_may_ask() -> None:
    database = in_memory()
    ledger = Ledger(database, "i")
    act = Operation(id="op", domain_id="d", request=b"{}", result=None, at=5.0)
    assert ledger.begin(act) == act
    assert ledger.begin(msgspec.structs.replace(act, request=b"x")).request == b"{}"
    assert [one.id for one in Ledger(database, "i").open_operations("d")] == ["op"]
    ledger.end("op", b"done")
    for one in (ledger, Ledger(database, "i")):
        assert one.find_operation("op").result == b"done" and not one.open_operations("d")
    ledger.purge(6.0 + OPERATION_S)
    assert ledger.find_operation("op") is None


def test_uids_are_unique_durable_and_not_reused_at_once() -> None:
    database = in_memory()
    ledger = Ledger(database, "i")
    assert [ledger.uid(name, UIDS) for name in ("a", "b", "a")] == [200000, 200001, 200000]
    ledger.free_uid("a")
    assert ledger.uid("c", UIDS) == 200002
    assert Ledger(database, "i").uid("d", UIDS) == 200000
    ledger = Ledger(database, "i")
    with pytest.raises(Unfit):
        ledger.uid("e", UIDS)


def test_domains_under_way_at_a_boot_are_held_until_released() -> None:
    database = in_memory()
    ledger = Ledger(database, "i")
    ledger.note_boot("boot-1")
    put(ledger, a_domain(1), Noun.DOMAIN)
    assert not ledger.is_new_boot("boot-1") and ledger.is_new_boot("boot-2")
    ledger = Ledger(database, "i")
    ledger.note_boot("boot-2")
    for _ in range(2):
        assert ledger.held == {a_domain().id}
        ledger = Ledger(database, "i")
        ledger.note_boot("boot-2")
    ledger.release(a_domain().id)
    assert not ledger.held and not Ledger(database, "i").held


class FullDisk:
    """A connection whose disk is full for as long as the reserve is there, or for good."""

    def __init__(self, connection: sqlite3.Connection, reserve: Path) -> None:
        self._connection, self._reserve = connection, reserve
        self.is_full = self.is_full_for_good = False

    def execute(self, statement: str, values: Any = ()) -> Any:
        writes = not statement.startswith(("SELECT", "PRAGMA"))
        if writes and (self.is_full_for_good or (self.is_full and self._reserve.exists())):
            raise sqlite3.OperationalError("database or disk is full")
        return self._connection.execute(statement, values)

    def executemany(self, statement: str, values: Any) -> None:
        for row in values:
            self.execute(statement, row)

    def executescript(self, script: str) -> None:
        self._connection.executescript(script)


@pytest.mark.parametrize("for_good", [False, True])
def test_with_a_full_disk_absent_is_served_and_ensure_refused(tmp_path: Path, for_good: bool) -> None:
    reserve = tmp_path / "ledger.reserve"
    connection = in_memory()
    disk: Any = FullDisk(connection, reserve)
    ledger = Ledger(disk, "i", reserve)
    put(ledger, a_network(1))
    ledger.purge(0.0)
    assert reserve.exists()
    disk.is_full, disk.is_full_for_good = True, for_good
    key = Key(Noun.NETWORK, a_network().id)
    with pytest.raises(ReadOnly):
        put(ledger, a_network(2))
    assert ledger.find(key).generation == gen(1)
    assert ledger.bury(key, gen(3), 0.0)
    assert ledger.find(key).absent and not reserve.exists()
    assert Ledger(connection, "i").find(key).absent is not for_good
    with pytest.raises(Stale):
        put(ledger, a_network(2))
    disk.is_full = disk.is_full_for_good = False
    assert ledger.is_writable
    assert Ledger(connection, "i").find(key).absent


def test_a_damaged_file_is_set_aside_and_shows_as_a_new_incarnation(tmp_path: Path) -> None:
    path = tmp_path / "agent" / "ledger.sqlite"
    ledger = open_ledger(path, lambda: "i-1")
    for n in range(200):
        put(ledger, a_network(1, id=f"n-{n}"))
    ledger.close()
    data = bytearray(path.read_bytes())
    data[4096:12288] = random.Random(1).randbytes(8192)
    path.write_bytes(data)
    again = open_ledger(path, lambda: "i-2")
    assert again.incarnation == "i-2" and again.entries() == []
    assert (tmp_path / "agent" / "ledger.sqlite.damaged").exists()
    again.close()


def test_two_agents_never_share_a_ledger(tmp_path: Path) -> None:
    first = open_ledger(tmp_path / "ledger.sqlite", lambda: "i")
    put(first, a_network())
    with pytest.raises(ReadOnly):
        open_ledger(tmp_path / "ledger.sqlite", lambda: "i")
    first.close()


_WRITER = """
import sys
from pathlib import Path
from agent.ledger import open_ledger
from agent.nouns import Key, Noun
from agent.wire.specs import encode
from tests.agent.rig import a_network, gen
ledger = open_ledger(Path(sys.argv[1]), lambda: "i")
first = ledger.high_water.n + 1
for n in range(first, first + 100000):
    if n % 3:
        spec = a_network(n, id=f"n-{n % 7}")
        ledger.put(Noun.NETWORK, spec, encode(spec), 0.0)
    else:
        ledger.bury(Key(Noun.NETWORK, f"n-{n % 7}"), gen(n), 0.0)
    print(n, flush=True)
"""


def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    for round_number in range(4):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(20 + 13 * round_number):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        acknowledged = [int(line) for line in process.stdout.read().split() if line]
        process.wait()
        ledger = open_ledger(path, lambda: "other")
        assert ledger.incarnation == "i"
        assert ledger.high_water.n >= max(acknowledged, default=0)
        newest = {n % 7: n for n in acknowledged}
        for slot, n in newest.items():
            entry = ledger.find(Key(Noun.NETWORK, f"n-{slot}"))
            assert entry is not None and entry.generation.n >= n
        ledger.close()
