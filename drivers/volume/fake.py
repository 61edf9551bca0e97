"""Volumes and exports without disks and without iSCSI: all that the protocols promise, in memory, optionally in files.

`FakeStorage` is what lies on the host and outlives agents. A volume's bytes are one short text: what a guest would have
written. Exports live in the fake target daemon, which can be killed: then they are gone and volumes are not.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import msgspec

from agent.wire.errors import Failed, NotFound, Unfit, WireError
from agent.wire.volume import LUN, Chap, IscsiSource, PoolStatus, SourceKind, target_iqn
from drivers.fake_journal import FakeJournal
from drivers.volume.base import (
    Export,
    Exporter,
    GoneListener,
    ObservedExport,
    Origin,
    Portal,
    StoredVolume,
    Volumes,
)
from drivers.volume.names import check_account, check_id, check_initiators

PORT = 3260
_GIB = 1 << 30


class FakeVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume or snapshot of the fake host."""

    stored: StoredVolume
    content: str = ""


class FakeTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A target of the fake daemon. `makings` tells how often it was made: a new one ended all sessions."""

    tag: str
    export: Export
    makings: int = 1
    sessions: tuple[str, ...] = ()


class FakeStorage:
    """What exists on one host. Thread-safe. `fail_next` makes the next call of one verb fail.

    `pools` are sizes in GiB. `is_instant` is whether copies take no time; where they do, a copy of a volume that is
    exported by then is a bug of the caller's, and is recorded in `torn`.
    """

    def __init__(
        self,
        *,
        folder: str | None = None,
        latency_s: float = 0.0,
        pools: dict[str, int] | None = None,
        is_instant: bool = False,
    ) -> None:
        self.latency_s = latency_s
        self.pools = {"files": 1000} if pools is None else pools
        self.is_instant = is_instant
        self.volumes = FakeJournal(FakeVolume, None if folder is None else f"{folder}/volumes.jsonl")
        self.snapshots = FakeJournal(FakeVolume, None if folder is None else f"{folder}/snapshots.jsonl")
        self.targets = FakeJournal(FakeTarget, None if folder is None else f"{folder}/targets.jsonl")
        self.torn: list[str] = []
        self._listeners: list[GoneListener] = []
        self._lock = threading.RLock()
        self._failures: dict[str, list[tuple[WireError, bool]]] = {}

    def fail_next(self, verb: str, error: WireError, *, is_after_effect: bool = False) -> None:
        """The next call of `verb` (as `volumes.ensure`, `exporter.absent`) raises `error`, with nothing or all done."""
        with self._lock:
            self._failures.setdefault(verb, []).append((error, is_after_effect))

    def kill_daemon(self) -> None:
        """The target daemon dies: nothing is exported any more, and whoever watches hears of it."""
        with self._lock:
            self.power_failure()
            for listener in tuple(self._listeners):
                listener()

    def power_failure(self) -> None:
        """The machine goes dark: volumes stay."""
        with self._lock:
            for key in tuple(self.targets.keys()):
                self.targets.remove(key)

    def disconnect_all(self) -> None:
        """Nobody listens any more: what a killed agent leaves."""
        with self._lock:
            self._listeners.clear()

    def content(self, name: str) -> str:
        """What a volume or snapshot holds. Raises NotFound."""
        kept = self.volumes.get(name) or self.snapshots.get(name)
        if kept is None:
            raise NotFound(f"there is no volume or snapshot {name}")
        return kept.content

    def login(self, source: IscsiSource) -> FakeTarget:
        """As a guest's QEMU does. Raises Failed if there is no such target, or not for this initiator and account."""
        with self._lock:
            found = (one for one in self.targets.values() if target_iqn(one.tag, one.export.id) == source.iqn)
            target = next(found, None)
            if target is None or source.initiator not in target.export.initiators:
                raise Failed(f"target not found: {source.iqn}")
            if target.export.chap != source.chap:
                raise Failed(f"authorization failure: {source.iqn}")
            sessions = tuple(sorted({*target.sessions, source.initiator}))
            target = msgspec.structs.replace(target, sessions=sessions)
            self.targets.put(_key(target.tag, target.export.id), target)
            return target

    def write(self, source: IscsiSource, content: str) -> None:
        """A guest writes. Raises as `login` does."""
        with self._lock:
            target = self.login(source)
            volume = self.volumes.get(target.export.volume_id)
            if volume is None:
                raise Failed(f"volume {target.export.volume_id} is gone from under its export")
            self.volumes.put(volume.stored.id, msgspec.structs.replace(volume, content=content))

    def read(self, source: IscsiSource) -> str:
        """A guest reads. Raises as `login` does."""
        with self._lock:
            volume = self.volumes.get(self.login(source).export.volume_id)
            if volume is None:
                raise Failed("the volume is gone from under its export")
            return volume.content

    @contextlib.contextmanager
    def _call(self, verb: str) -> Iterator[None]:
        if self.latency_s > 0:
            time.sleep(self.latency_s)
        with self._lock:
            planned = self._failures.get(verb)
            error, is_after_effect = planned.pop(0) if planned else (None, False)
            if error is not None and not is_after_effect:
                raise error
            yield
            if error is not None:
                raise error

    def _copied(self, volume_id: str) -> None:
        """Somebody copies a volume."""
        if not self.is_instant and any(one.export.volume_id == volume_id for one in self.targets.values()):
            self.torn.append(volume_id)


class FakeVolumes:
    """See drivers.volume.base.Volumes for every method."""

    def __init__(self, storage: FakeStorage) -> None:
        self.storage = storage

    def pools(self) -> tuple[PoolStatus, ...]:
        """See Volumes."""
        with self.storage._call("volumes.pools"):
            return tuple(self._pool(name, total) for name, total in sorted(self.storage.pools.items()))

    def ensure(self, volume_id: str, pool: str, size_bytes: int, origin: Origin | None) -> StoredVolume:
        """See Volumes."""
        check_id(volume_id)
        with self.storage._call("volumes.ensure"):
            known = self.storage.volumes.get(volume_id)
            if known is None:
                known = self._made(volume_id, pool, size_bytes, origin)
            grown = msgspec.structs.replace(known.stored, size_bytes=max(known.stored.size_bytes, size_bytes))
            self.storage.volumes.put(volume_id, msgspec.structs.replace(known, stored=grown))
            return grown

    def find(self, volume_id: str) -> StoredVolume | None:
        """See Volumes."""
        check_id(volume_id)
        with self.storage._call("volumes.find"):
            known = self.storage.volumes.get(volume_id)
            return None if known is None else known.stored

    def absent(self, volume_id: str) -> None:
        """See Volumes."""
        check_id(volume_id)
        with self.storage._call("volumes.absent"):
            self.storage.volumes.remove(volume_id)

    def list(self) -> tuple[str, ...]:
        """See Volumes."""
        with self.storage._call("volumes.list"):
            return tuple(self.storage.volumes.keys())

    def ensure_snapshot(self, snapshot_id: str, volume_id: str) -> StoredVolume:
        """See Volumes."""
        check_id(snapshot_id)
        with self.storage._call("volumes.ensure_snapshot"):
            known = self.storage.snapshots.get(snapshot_id)
            if known is None:
                volume = self.storage.volumes.get(volume_id)
                if volume is None:
                    raise NotFound(f"volume {volume_id} is not on this host")
                self.storage._copied(volume_id)
                path = f"/fake/snapshots/{snapshot_id}.raw"
                stored = msgspec.structs.replace(volume.stored, id=snapshot_id, path=path)
                known = FakeVolume(stored=stored, content=volume.content)
                self.storage.snapshots.put(snapshot_id, known)
            return known.stored

    def find_snapshot(self, snapshot_id: str) -> StoredVolume | None:
        """See Volumes."""
        check_id(snapshot_id)
        with self.storage._call("volumes.find_snapshot"):
            known = self.storage.snapshots.get(snapshot_id)
            return None if known is None else known.stored

    def absent_snapshot(self, snapshot_id: str) -> None:
        """See Volumes."""
        check_id(snapshot_id)
        with self.storage._call("volumes.absent_snapshot"):
            self.storage.snapshots.remove(snapshot_id)

    def list_snapshots(self) -> tuple[str, ...]:
        """See Volumes."""
        with self.storage._call("volumes.list_snapshots"):
            return tuple(self.storage.snapshots.keys())

    def _pool(self, name: str, total_gib: int) -> PoolStatus:
        both = (*self.storage.volumes.values(), *self.storage.snapshots.values())
        promised = sum(one.stored.size_bytes for one in both if one.stored.pool == name)
        provisioned_gib = -(-promised // _GIB)
        return PoolStatus(
            name=name,
            driver="fake",
            total_gib=total_gib,
            free_gib=max(0, total_gib - provisioned_gib),
            provisioned_gib=provisioned_gib,
            is_thin=False,
            is_instant=self.storage.is_instant,
        )

    def _made(self, volume_id: str, pool: str, size_bytes: int, origin: Origin | None) -> FakeVolume:
        total_gib = self.storage.pools.get(pool)
        if total_gib is None:
            raise Unfit(f"there is no pool {pool[:80]!r} on this host")
        content = "" if origin is None or origin.kind is SourceKind.NONE else self._content(origin)
        if origin is not None and size_bytes < origin.size_bytes:
            raise Unfit(f"volume {volume_id} of {size_bytes} bytes does not hold {origin.kind} {origin.id}")
        if self._pool(pool, total_gib).free_gib * _GIB < size_bytes:
            raise Failed(f"pool {pool} has no room for it")
        stored = StoredVolume(
            id=volume_id, pool=pool, path=f"/fake/volumes/{volume_id}.raw", size_bytes=size_bytes, allocated_bytes=0
        )
        return FakeVolume(stored=stored, content=content)

    def _content(self, origin: Origin) -> str:
        if origin.kind is SourceKind.IMAGE:
            return f"image {origin.id}"
        kept = self.storage.snapshots if origin.kind is SourceKind.SNAPSHOT else self.storage.volumes
        source = kept.get(origin.id)
        if source is None:
            raise NotFound(f"{origin.kind} {origin.id} is not on this host")
        if origin.kind is SourceKind.VOLUME:
            self.storage._copied(origin.id)
        return source.content


class FakeExporter:
    """One cloud's way to the fake target daemon; see drivers.volume.base.Exporter for every method."""

    def __init__(self, storage: FakeStorage, tag: str, address: str) -> None:
        self.storage = storage
        self._tag = tag
        self._address = address
        self._mine: list[Callable[[], None]] = []

    def ensure(self, export: Export) -> Portal:
        """See Exporter."""
        check_id(export.id)
        check_account(export.chap)
        check_initiators(export.initiators)
        with self.storage._call("exporter.ensure"):
            known = self.storage.targets.get(_key(self._tag, export.id))
            if known is None:
                target = FakeTarget(tag=self._tag, export=export)
            elif _fixed(known.export) == _fixed(export):
                stay = tuple(one for one in known.sessions if one in export.initiators)
                target = msgspec.structs.replace(known, export=export, sessions=stay)
            else:
                target = FakeTarget(tag=self._tag, export=export, makings=known.makings + 1)
            if target != known:
                self.storage.targets.put(_key(self._tag, export.id), target)
        return Portal(host=self._address, port=PORT, iqn=target_iqn(self._tag, export.id), lun=LUN)

    def absent(self, export_id: str) -> None:
        """See Exporter."""
        check_id(export_id)
        with self.storage._call("exporter.absent"):
            self.storage.targets.remove(_key(self._tag, export_id))

    def list(self) -> tuple[ObservedExport, ...]:
        """See Exporter."""
        with self.storage._call("exporter.list"):
            mine = (one for one in self.storage.targets.values() if one.tag == self._tag)
            return tuple(ObservedExport(id=one.export.id, sessions=one.sessions) for one in mine)

    def watch(self, listener: GoneListener) -> None:
        """See Exporter."""
        with self.storage._lock:
            self._mine.append(listener)
            self.storage._listeners.append(listener)

    def close(self) -> None:
        """See Exporter."""
        with self.storage._lock:
            self.storage._listeners[:] = [one for one in self.storage._listeners if one not in self._mine]
            self._mine.clear()


def _key(tag: str, export_id: str) -> str:
    return f"{tag}/{export_id}"


def _fixed(export: Export) -> tuple[str, str, int, Chap, bool]:
    """What cannot be changed under a session."""
    return (export.volume_id, export.path, export.size_bytes, export.chap, export.is_read_only)


_: tuple[type[Volumes], type[Exporter]] = (FakeVolumes, FakeExporter)
