"""What an agent needs to keep volumes and to export them. Calls block; the agent runs them in threads.

Two halves that know of each other by paths only. `Volumes` keeps bytes: volumes, and snapshots that stand alone.
`Exporter` makes them reachable over iSCSI, one target for each attachment. The agent sees to it that a volume which is
being copied in a pool that cannot do so in an instant is not exported meanwhile, and that no volume goes while it is
exported.

Every method may be called again after a crash in its middle and must then come to the same end.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from agent.wire.volume import Chap, PoolStatus, SourceKind


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a new volume begins as. `path` and `format` are there for images only: files that the cache verified."""

    kind: SourceKind
    id: str
    size_bytes: int  # As a guest sees it; no volume made of it is smaller.
    path: str = ""
    format: str = ""  # raw | qcow2


class StoredVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume or a snapshot on this host. `path` is what an exporter opens: a raw file or a block device."""

    id: str
    pool: str
    path: str
    size_bytes: int
    allocated_bytes: int


class Volumes(Protocol):
    """Volumes and snapshots, in pools. Ids are unique in the cloud, so no call but `ensure` names a pool."""

    def pools(self) -> tuple[PoolStatus, ...]:
        """The pools as they are now. None: this host keeps no volumes."""
        ...

    def ensure(self, volume_id: str, pool: str, size_bytes: int, origin: Origin | None) -> StoredVolume:
        """Make it once; afterwards only grow it. What a crash left half-made is made anew.

        Nothing of what lay in its place before can be read from it. Raises Unfit for an unknown pool or one that is
        smaller than its origin, NotFound when the origin is not on this host, Failed when there is no room: nothing
        is left then.
        """
        ...

    def find(self, volume_id: str) -> StoredVolume | None:
        """One volume, or None."""
        ...

    def absent(self, volume_id: str) -> None:
        """Remove it; nothing if it is not there. Its snapshots stay."""
        ...

    def list(self) -> tuple[str, ...]:
        """The ids of all volumes."""
        ...

    def ensure_snapshot(self, snapshot_id: str, volume_id: str) -> StoredVolume:
        """Keep what the volume holds now, once: a snapshot that is there never changes.

        It stands alone afterwards. Raises NotFound without the volume, Failed when there is no room.
        """
        ...

    def find_snapshot(self, snapshot_id: str) -> StoredVolume | None:
        """One snapshot, or None."""
        ...

    def absent_snapshot(self, snapshot_id: str) -> None:
        """Remove it; nothing if it is not there. What was made of it stays."""
        ...

    def list_snapshots(self) -> tuple[str, ...]:
        """The ids of all snapshots."""
        ...


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be reachable, by whom."""

    id: str  # The attachment's.
    volume_id: str
    path: str
    size_bytes: int
    initiators: tuple[str, ...]
    chap: Chap
    is_read_only: bool = False


class Portal(msgspec.Struct, frozen=True, kw_only=True):
    """Where an export is reachable."""

    host: str
    port: int
    iqn: str
    lun: int


class ObservedExport(msgspec.Struct, frozen=True, kw_only=True):
    """An export of this cloud that is reachable now."""

    id: str
    sessions: tuple[str, ...] = ()  # The initiators that are logged in.


GoneListener = Callable[[], None]
"""Called from any thread: what was exported may be exported no longer."""


class Exporter(Protocol):
    """Exports over iSCSI. It may forget everything at any time (a daemon that died): then `list` says so."""

    def ensure(self, export: Export) -> Portal:
        """Reachable by these initiators with this account, and by nobody else, from the first instant on.

        If nothing changed nothing is touched. A wider list of initiators disturbs no session; whoever is not on the
        list any more is thrown out. A new size, path or secret makes the target anew: its sessions end, and initiators
        that are still welcome come back by themselves without an error. Raises Unfit if this host cannot export.
        """
        ...

    def absent(self, export_id: str) -> None:
        """Reachable by nobody: on return no session is left and no write of one is under way. Nothing if unknown."""
        ...

    def list(self) -> tuple[ObservedExport, ...]:
        """What is exported now."""
        ...

    def watch(self, listener: GoneListener) -> None:
        """Hear of exports that went by themselves. May lose one: callers also look."""
        ...

    def close(self) -> None:
        """Stop watching; exports stay."""
        ...
