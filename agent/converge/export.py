"""An export of a volume: reachable for one attachment, and for nobody once it is gone."""

from typing import Final

from agent.effects import VOLUME, Effects
from agent.nouns import Key, Noun
from agent.turn import Turn
from agent.wire.errors import Failed
from agent.wire.lifecycle import Progress
from agent.wire.volume import ExportSpec, ExportStatus, VolumeSpec
from drivers.volume.base import Export, Portal, StoredVolume

GIB: Final = 1 << 30


async def ensure(fx: Effects, turn: Turn) -> ExportStatus:
    """Reachable as asked, as large as the volume is."""
    spec = turn.spec(ExportSpec)
    async with fx.volume(spec.volume_id):  # A copy of it may be under way: then nobody writes to it.
        turn.check()
        fx.need(Key(Noun.VOLUME, spec.volume_id), VolumeSpec)
        volume = await fx.run(VOLUME, turn.key, fx.drivers.volumes.find, spec.volume_id)
        if volume is None:
            raise Failed(f"volume {spec.volume_id} is gone from this host")
        portal = await apply(fx, turn.key, spec, volume)
    return ExportStatus(
        id=spec.id,
        generation=spec.generation,
        progress=Progress.READY,
        volume_id=spec.volume_id,
        size_gib=volume.size_bytes // GIB,
        host=portal.host,
        port=portal.port,
        iqn=portal.iqn,
        lun=portal.lun,
    )


async def absent(fx: Effects, turn: Turn) -> None:
    """Reachable for nobody, and nobody is logged in. What copies the volume meanwhile would make it again: after it."""
    spec = turn.entry.spec
    async with fx.volume(spec.volume_id if isinstance(spec, ExportSpec) else turn.key.id):
        await fx.run(VOLUME, turn.key, fx.drivers.exporter.absent, turn.key.id)


async def apply(fx: Effects, owner: Key, spec: ExportSpec, volume: StoredVolume) -> Portal:
    """Tell the target. The volume's lock is held."""
    export = Export(
        id=spec.id,
        volume_id=spec.volume_id,
        path=volume.path,
        size_bytes=volume.size_bytes,
        initiators=spec.initiators,
        chap=spec.chap,
        is_read_only=spec.is_read_only,
    )
    return await fx.run(VOLUME, owner, fx.drivers.exporter.ensure, export)
