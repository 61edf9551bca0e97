"""Which volume driver an agent uses, by the name in its settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from agent.wire.errors import Unfit
from drivers.volume.base import Exporter, Volumes
from drivers.volume.fake import FakeExporter, FakeStorage, FakeVolumes


class VolumeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where volumes lie, and how they are exported."""

    driver: str = "file"  # file | fake | none
    pools: dict[str, str] = {}  # Name → folder. Empty: one named `files`, `volumes` in the agent's state folder.
    port: int = 3260  # Of the iSCSI portal, on the underlay address.
    uid: int = 65529  # Who exports volumes. It owns those that were exported, and nothing else on the host.
    timeout_s: float = 60.0  # For one call; what is copied has its own time on top.
    fake_latency_s: float = 0.0


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver is told of its host."""

    tag: str  # The cloud's mark.
    state: str  # The agent's own folder.
    run: str  # For sockets.
    address: str  # The underlay address.
    confined_uid: int  # Who parses the bytes of strangers.


class VolumeDrivers(msgspec.Struct, frozen=True, kw_only=True):
    """The two halves; they know of each other by paths only."""

    volumes: Volumes
    exporter: Exporter


def load(settings: VolumeSettings, place: Place) -> VolumeDrivers:
    """The volume drivers of this host. Raises Unfit for an unknown driver."""
    constructor = DRIVERS.get(settings.driver)
    if constructor is None:
        raise Unfit(f"there is no volume driver {settings.driver!r}; there are: {', '.join(sorted(DRIVERS))}")
    return constructor(settings, place)


def _fake(settings: VolumeSettings, place: Place) -> VolumeDrivers:
    storage = FakeStorage(folder=f"{place.state}/fake-volumes", latency_s=settings.fake_latency_s)
    return VolumeDrivers(volumes=FakeVolumes(storage), exporter=FakeExporter(storage, place.tag, place.address))


def _file(settings: VolumeSettings, place: Place) -> VolumeDrivers:
    return _files(settings, place, settings.pools or {"files": f"{place.state}/volumes"})


def _none(settings: VolumeSettings, place: Place) -> VolumeDrivers:
    """A host that keeps no volumes; its guests may have those of others."""
    return _files(settings, place, {})


def _files(settings: VolumeSettings, place: Place, pools: dict[str, str]) -> VolumeDrivers:
    from drivers.volume.file import FileVolumes
    from drivers.volume.tgt import TgtExporter

    folders = {name: Path(folder) for name, folder in pools.items()}
    return VolumeDrivers(
        volumes=FileVolumes(folders, confined_uid=place.confined_uid, timeout_s=settings.timeout_s),
        exporter=TgtExporter(
            tag=place.tag, folder=Path(place.run) / "tgt", host=place.address, port=settings.port, uid=settings.uid
        ),
    )


DRIVERS: Final[dict[str, Callable[[VolumeSettings, Place], VolumeDrivers]]] = {
    "fake": _fake,
    "file": _file,
    "none": _none,
}
