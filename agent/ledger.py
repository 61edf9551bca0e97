"""What the controller asked of this host, durable: the one record that an agent keeps.

Theory of operation. A row per object, under (noun, id): the newest generation that was accepted, the spec as it
came, or that the object should be gone. A row only ever moves to a higher generation, so messages may come late,
twice or out of order. What should be gone leaves a *tombstone* for seven days; without it a late `ensure` would
revive a deleted machine. A tombstone keeps the last spec until the removal is finished, because removing needs to
know what there was (a port's network, a domain's disks).

`settled` is the newest generation that was carried out to its end. It is written for what must not be done again
after a restart: a domain's power (a guest that its user switched off stays off), a disk (one that was here and is
gone held a guest's data, and is not quietly made anew), a removal.

SQLite in WAL mode with synchronous=FULL: each write is one transaction, durable when the method returns, and a
kill -9 or a torn page loses nothing of it. Reads come from a mirror in memory. One process at a time (exclusive
lock). A file that fails its check is set aside and a new ledger begins, with a new *incarnation*: the controller
sees by it that this host has lost its memory, and seeds it again; nothing is removed meanwhile.

When the disk is full, `put` raises ReadOnly, while `bury` and `settle` still work: first by giving up a reserve that
was allocated beforehand, and when that is gone too, in memory, to be written as soon as there is room.
"""

import contextlib
import itertools
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from agent.nouns import SHAPES, Key, Noun, content
from agent.wire.errors import Conflict, NotFound, ReadOnly, Stale, Unfit
from agent.wire.host import LedgerEntry, digest
from agent.wire.lifecycle import Generation
from agent.wire.specs import ObjectSpec, decode

TOMBSTONE_S: Final = 7 * 86400.0
"""How long a tombstone is kept. Less: a message that was held up longer revives what was deleted. More: only space."""

OPERATION_S: Final = 7 * 86400.0
"""How long the result of an act is remembered, as long as anybody might still repeat it."""

RESERVE_BYTES: Final = 1 << 20
"""Set aside so that tombstones can be written to a full disk: some thousand of them."""

PURGE_MAX: Final = 5000
"""Rows forgotten at once: the loop stands still for some milliseconds. The rest goes next time."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS object (
  noun TEXT NOT NULL, id TEXT NOT NULL, epoch INTEGER NOT NULL, n INTEGER NOT NULL, absent INTEGER NOT NULL,
  spec BLOB, settled_epoch INTEGER, settled_n INTEGER, at REAL NOT NULL, PRIMARY KEY (noun, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS operation (
  id TEXT PRIMARY KEY, domain_id TEXT NOT NULL, request BLOB NOT NULL, result BLOB, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uid (domain_id TEXT PRIMARY KEY, uid INTEGER NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

log = structlog.get_logger()


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `spec` is None only for a tombstone whose removal is finished or that never had one."""

    key: Key
    generation: Generation
    absent: bool
    spec: ObjectSpec | None
    settled: Generation | None
    at: float

    @property
    def is_settled(self) -> bool:
        """This very generation was carried out to its end (only known of domains, disks and removals)."""
        return self.settled == self.generation


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """An act that is done once. `result` is None until it has ended."""

    id: str
    domain_id: str
    request: bytes
    result: bytes | None
    at: float


class Ledger:
    """The record. Synchronous, and used by the event loop's thread only."""

    def __init__(self, connection: sqlite3.Connection, incarnation: str, reserve: Path | None = None) -> None:
        """`connection` is in autocommit; `incarnation` is used if this ledger is a new one. See `open_ledger`."""
        self._db = connection
        self._reserve = reserve
        self._db.executescript(_SCHEMA)
        self._meta_default("incarnation", incarnation)
        self._meta_default("high_water", "0.0")
        self.incarnation = self._meta("incarnation")
        self.high_water = _parsed(self._meta("high_water"))
        self._entries: dict[Noun, dict[str, Entry]] = {noun: {} for noun in Noun}
        self._operations: dict[str, Operation] = {}
        self._uids: dict[str, int] = dict(self._db.execute("SELECT domain_id, uid FROM uid"))
        self._uid_last: int = max(self._uids.values(), default=0)
        self._unwritten: dict[Key, Entry] = {}
        self.held: set[str] = set()  # Domains that nobody starts before the controller asks for them again.
        self.departed: set[str] = set()  # Domains that have gone on on another host: nobody starts them here.
        self._digest: str | None = None
        self._load()

    def find(self, key: Key) -> Entry | None:
        """One row, or None."""
        return self._entries[key.noun].get(key.id)

    def entries(self) -> list[Entry]:
        """Every row, sorted by noun and id."""
        return [entry for noun in sorted(self._entries) for entry in self.rows(noun)]

    def rows(self, noun: Noun) -> list[Entry]:
        """Every row of one noun, sorted by id."""
        rows = self._entries[noun]
        return [entry for _, entry in sorted(rows.items(), key=lambda row: row[0])]

    def specs(self, noun: Noun) -> list[ObjectSpec]:
        """What should be there of one noun, sorted by id."""
        return [entry.spec for entry in self.rows(noun) if not entry.absent and entry.spec is not None]

    def put(self, noun: Noun, spec: ObjectSpec, raw: bytes, now: float) -> bool:
        """Accept an intent, durable on return; `raw` is the spec as it came. False if it was known already.

        Raises Stale for a smaller generation, Conflict for the same one with other content, ReadOnly.
        """
        key = Key(noun, spec.id)
        known = self.find(key)
        if known is not None:
            _refuse_older(key, spec.generation, known)
        if known is not None and known.generation == spec.generation:
            self._refuse_other_content(key, spec, known)
            if known.spec == spec:
                return False
        kept = known.settled if known is not None and not known.absent else None
        entry = Entry(key=key, generation=spec.generation, absent=False, spec=spec, settled=kept, at=now)
        try:
            self._flush()
            self._insert(entry, raw)
        except sqlite3.Error as error:
            raise ReadOnly(f"the ledger of this host cannot be written: {error}") from error
        self._remember(entry)
        return True

    def bury(self, key: Key, generation: Generation, now: float) -> bool:
        """Accept that an object should be gone: leaves a tombstone. False if it was known already.

        Raises Stale and Conflict as `put` does. Works with a full disk.
        """
        known = self.find(key)
        if known is not None:
            _refuse_older(key, generation, known)
            if known.generation == generation and not known.absent:
                raise Conflict(f"{key} is wanted in generation {generation}: to remove it takes a newer one")
            if known.generation == generation:
                return False
        spec = known.spec if known is not None else None
        self._stamp_always(Entry(key=key, generation=generation, absent=True, spec=spec, settled=None, at=now))
        return True

    def settle(self, key: Key, generation: Generation) -> None:
        """Record that this generation was carried out to its end; nothing if a newer one has come since."""
        known = self.find(key)
        if known is None or known.generation != generation or known.is_settled:
            return
        spec = None if known.absent else known.spec
        self._stamp_always(msgspec.structs.replace(known, settled=generation, spec=spec))

    def begin(self, operation: Operation) -> Operation:
        """Record an act before it is done; the one that is known already, if there is one by this id."""
        known = self._operations.get(operation.id)
        if known is not None:
            return known
        try:
            self._flush()
            self._db.execute(
                "INSERT INTO operation VALUES (?, ?, ?, NULL, ?)",
                (operation.id, operation.domain_id, operation.request, operation.at),
            )
        except sqlite3.Error as error:
            raise ReadOnly(f"the ledger of this host cannot be written: {error}") from error
        self._operations[operation.id] = operation
        return operation

    def end(self, operation_id: str, result: bytes) -> None:
        """Remember how an act ended."""
        self._operations[operation_id] = msgspec.structs.replace(self._operations[operation_id], result=result)
        with self._warned():
            self._retried("UPDATE operation SET result = ? WHERE id = ?", (result, operation_id))

    def find_operation(self, operation_id: str) -> Operation | None:
        """One act, or None."""
        return self._operations.get(operation_id)

    def open_operations(self, domain_id: str) -> list[Operation]:
        """The acts on one domain that have not ended, oldest first."""
        mine = (operation for operation in self._operations.values() if operation.domain_id == domain_id)
        return sorted((one for one in mine if one.result is None), key=lambda one: (one.at, one.id))

    def uid(self, domain_id: str, uids: range) -> int:
        """The uid of one guest, allocated at first. They are handed out in turn. Raises ReadOnly, Unfit."""
        known = self._uids.get(domain_id)
        if known is not None:
            return known
        uid = self._free_uid(uids)
        try:
            self._db.execute("INSERT INTO uid VALUES (?, ?)", (domain_id, uid))
        except sqlite3.Error as error:
            raise ReadOnly(f"the ledger of this host cannot be written: {error}") from error
        self._uids[domain_id] = self._uid_last = uid
        return uid

    def free_uid(self, domain_id: str) -> None:
        """Give a guest's uid back; nothing if it has none. Nothing on the host may belong to it any more."""
        if self._uids.pop(domain_id, None) is not None:
            with self._warned():
                self._retried("DELETE FROM uid WHERE domain_id = ?", (domain_id,))

    def is_new_boot(self, boot_id: str) -> bool:
        """Whether the machine was booted since this ledger was last in use."""
        known = self._find_meta("boot_id")
        return known is not None and known != boot_id

    def note_boot(self, boot_id: str) -> None:
        """Record which boot this is. After a new one, domains that were under way are held until asked for again."""
        held = [entry.key.id for entry in self.rows(Noun.DOMAIN) if not entry.absent and not entry.is_settled]
        self.held |= set(held) if self.is_new_boot(boot_id) else set()
        with self._warned(), self._transaction():
            for domain_id in sorted(self.held):
                self._set_meta(f"held {domain_id}", "yes")
            self._set_meta("boot_id", boot_id)

    def release(self, domain_id: str) -> None:
        """The controller asked for a held domain again; nothing if it was not held."""
        if domain_id in self.held:
            self.held.discard(domain_id)
            with self._warned():
                self._retried("DELETE FROM meta WHERE name = ?", (f"held {domain_id}",))

    def depart(self, domain_id: str) -> None:
        """A domain goes on on another host; durable on return, before it does."""
        if domain_id in self.departed:
            return
        try:
            self._set_meta(f"departed {domain_id}", "yes")
        except sqlite3.Error as error:
            raise ReadOnly(f"the ledger of this host cannot be written: {error}") from error
        self.departed.add(domain_id)

    def forget_departure(self, domain_id: str) -> None:
        """It comes back, or nothing of it is here any more; nothing if it has not left."""
        if domain_id in self.departed:
            self.departed.discard(domain_id)
            with self._warned():
                self._retried("DELETE FROM meta WHERE name = ?", (f"departed {domain_id}",))

    def digest(self) -> str:
        """Of all rows, as in heartbeats."""
        if self._digest is None:
            self._digest = digest(short(entry, "") for entry in self.entries())
        return self._digest

    def purge(self, now: float) -> None:
        """Forget finished tombstones and results that are older than anybody's memory; one transaction, bounded."""
        settled = [entry for entry in self.entries() if entry.absent and entry.is_settled]
        old = [entry.key for entry in settled if now - entry.at > TOMBSTONE_S][:PURGE_MAX]
        ended = [one for one in self._operations.values() if one.result is not None and now - one.at > OPERATION_S]
        with self._warned():
            self._flush()
            with self._transaction():
                self._set_meta("high_water", str(self.high_water))
                self._db.executemany("DELETE FROM object WHERE noun = ? AND id = ?", old)
                self._db.executemany("DELETE FROM operation WHERE id = ?", [(one.id,) for one in ended[:PURGE_MAX]])
            for key in old:
                del self._entries[key.noun][key.id]
            for operation in ended[:PURGE_MAX]:
                del self._operations[operation.id]
            self._digest = None
            self._allocate_reserve()

    @property
    def is_writable(self) -> bool:
        """Whether everything is on disk; tries to make it so."""
        try:
            self._flush()
            self._set_meta("writable", "yes")
        except sqlite3.Error:
            return False
        return True

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _load(self) -> None:
        for noun, name, epoch, n, absent, spec, settled_epoch, settled_n, at in self._db.execute(
            "SELECT noun, id, epoch, n, absent, spec, settled_epoch, settled_n, at FROM object ORDER BY noun, id"
        ):
            key = Key(Noun(noun), name)
            self._entries[key.noun][key.id] = Entry(
                key=key,
                generation=Generation(epoch, n),
                absent=bool(absent),
                spec=None if spec is None else decode(spec, SHAPES[key.noun].spec),
                settled=None if settled_epoch is None else Generation(settled_epoch, settled_n),
                at=at,
            )
            self.high_water = max(self.high_water, Generation(epoch, n))
        for name, domain_id, request, result, at in self._db.execute(
            "SELECT id, domain_id, request, result, at FROM operation"
        ):
            self._operations[name] = Operation(id=name, domain_id=domain_id, request=request, result=result, at=at)
        for (name,) in self._db.execute("SELECT name FROM meta WHERE name LIKE 'held %'"):
            self.held.add(name.removeprefix("held "))
        for (name,) in self._db.execute("SELECT name FROM meta WHERE name LIKE 'departed %'"):
            self.departed.add(name.removeprefix("departed "))

    def _refuse_other_content(self, key: Key, spec: ObjectSpec, known: Entry) -> None:
        if known.absent or known.spec is None:
            raise Conflict(f"{key} was removed in generation {known.generation}: to have it again takes a newer one")
        if content(known.spec) != content(spec):
            raise Conflict(f"{key} has other content in the same generation {known.generation}")

    def _remember(self, entry: Entry) -> None:
        self._entries[entry.key.noun][entry.key.id] = entry
        self.high_water = max(self.high_water, entry.generation)
        self._digest = None

    def _insert(self, entry: Entry, raw: bytes) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*_columns(entry)[:5], raw, *_columns(entry)[5:]),
        )

    def _stamp(self, entry: Entry) -> None:
        """Everything but the spec, which stays as it came, or goes."""
        self._db.execute(
            "INSERT INTO object (noun, id, epoch, n, absent, settled_epoch, settled_n, at) "
            "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET epoch = ?3, n = ?4, absent = ?5, "
            "settled_epoch = ?6, settled_n = ?7, at = ?8, spec = CASE WHEN ?9 THEN spec END",
            (*_columns(entry), entry.spec is not None),
        )

    def _stamp_always(self, entry: Entry) -> None:
        self._remember(entry)
        self._unwritten[entry.key] = entry
        with self._warned():
            try:
                self._flush()
            except sqlite3.Error:
                self._give_up_reserve()
                self._flush()

    def _flush(self) -> None:
        for key in sorted(self._unwritten):
            self._stamp(self._unwritten[key])
            del self._unwritten[key]

    def _retried(self, statement: str, values: tuple[Any, ...]) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.Error:
            self._give_up_reserve()
            self._db.execute(statement, values)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _warned(self) -> Iterator[None]:
        """What could not be written stays in memory; the host goes on."""
        try:
            yield
        except sqlite3.Error as error:
            log.error("the ledger cannot be written", error=str(error))

    def _give_up_reserve(self) -> None:
        if self._reserve is not None:
            self._reserve.unlink(missing_ok=True)

    def _allocate_reserve(self) -> None:
        if self._reserve is None or self._reserve.exists():
            return
        with contextlib.suppress(OSError):
            self._reserve.write_bytes(b"\xff" * RESERVE_BYTES)

    def _free_uid(self, uids: range) -> int:
        taken: set[int] = set(self._uids.values())
        after = range(max(self._uid_last + 1, uids.start), uids.stop)
        free = (uid for uid in itertools.chain(after, range(uids.start, after.start)) if uid not in taken)
        uid = next(free, None)
        if uid is not None:
            return uid
        raise Unfit(f"all {len(uids)} uids for guests are in use on this host")

    def _meta(self, name: str) -> str:
        value = self._find_meta(name)
        if value is None:
            raise NotFound(f"the ledger has no {name}")
        return value

    def _find_meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _set_meta(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def _meta_default(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, value))


def open_ledger(path: Path, new_incarnation: Callable[[], str]) -> Ledger:
    """The ledger in a file, made if there is none. Raises ReadOnly if it can be neither read nor made."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # It holds what guests are told: user-data, keys.
    try:
        connection = _connected(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise ReadOnly(f"the ledger {path} cannot be opened: {error}") from error
        log.error("the ledger is damaged and set aside; a new one begins", path=str(path), error=str(error))
        _set_aside(path)
        connection = _connected(path)
    ledger = Ledger(connection, new_incarnation(), path.with_name("ledger.reserve"))
    ledger._allocate_reserve()
    return ledger


def short(entry: Entry, progress: str) -> LedgerEntry:
    """A row as it travels."""
    noun, name = entry.key
    return LedgerEntry(noun=noun, id=name, generation=entry.generation, absent=entry.absent, progress=progress)


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=2.0)
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA cache_size=-256")
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
    except BaseException:
        connection.close()
        raise
    path.chmod(0o600)
    return connection


def _set_aside(path: Path) -> None:
    """Keep a damaged file for whoever wants to look, the newest one only."""
    for suffix in ("", "-wal", "-shm"):
        damaged = path.with_name(path.name + suffix)
        if damaged.exists():
            damaged.replace(path.with_name(f"{path.name}.damaged{suffix}"))


def _refuse_older(key: Key, generation: Generation, known: Entry) -> None:
    if generation < known.generation:
        what = "gone" if known.absent else "here"
        raise Stale(f"{key} is {what} in generation {known.generation}, newer than {generation}")


def _parsed(text: str) -> Generation:
    epoch, _, n = text.partition(".")
    return Generation(int(epoch), int(n))


def _columns(entry: Entry) -> tuple[str | int | float | None, ...]:
    settled = entry.settled
    return (
        entry.key.noun.value,
        entry.key.id,
        entry.generation.epoch,
        entry.generation.n,
        int(entry.absent),
        None if settled is None else settled.epoch,
        None if settled is None else settled.n,
        entry.at,
    )
