"""Which image driver an agent uses, by the name in its settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from agent.wire.errors import Unfit
from drivers.image.base import Disks, ImageCache
from drivers.image.fake import FakeDisks, FakeImageCache, FakeImageHost


class ImageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where images and disks lie, and what an image may ask for."""

    driver: str = "local"  # local | fake
    images: str = ""  # Folder of the cache; empty: `images` in the agent's state folder.
    disks: str = ""  # Folder of the guests' disks; empty: `disks` in the agent's state folder.
    confined_uid: int = 65534  # Who parses the bytes of strangers: nobody.
    virtual_bytes_max: int = 16 << 40  # Larger images are refused: nothing on a host could hold them.
    timeout_s: float = 60.0  # For one inspection, creation or growth; stretched under TCG by the agent's factor.
    fake_latency_s: float = 0.0


class ImageDrivers(msgspec.Struct, frozen=True, kw_only=True):
    """The two halves; they know of each other through the folder only."""

    cache: ImageCache
    disks: Disks


def load(settings: ImageSettings, *, state: str) -> ImageDrivers:
    """The image drivers of this host; `state` is the agent's own folder. Raises Unfit for an unknown driver."""
    constructor = DRIVERS.get(settings.driver)
    if constructor is None:
        raise Unfit(f"there is no image driver {settings.driver!r}; there are: {', '.join(sorted(DRIVERS))}")
    return constructor(settings, state)


def _fake(settings: ImageSettings, state: str) -> ImageDrivers:
    host = FakeImageHost(folder=f"{state}/fake-images", latency_s=settings.fake_latency_s)
    return ImageDrivers(cache=FakeImageCache(host), disks=FakeDisks(host))


def _local(settings: ImageSettings, state: str) -> ImageDrivers:
    # Imported here: the config drive's library is part of the agent's extra, and hosts with fakes do without it.
    from drivers.image.bases import Bases
    from drivers.image.cache import LocalImageCache
    from drivers.image.disks import LocalDisks

    disks = Path(settings.disks or f"{state}/disks")
    bases = Bases(disks / ".bases")
    cache = LocalImageCache(
        Path(settings.images or f"{state}/images"),
        bases,
        confined_uid=settings.confined_uid,
        virtual_bytes_max=settings.virtual_bytes_max,
        timeout_s=settings.timeout_s,
    )
    return ImageDrivers(cache=cache, disks=LocalDisks(disks, bases, timeout_s=settings.timeout_s))


DRIVERS: Final[dict[str, Callable[[ImageSettings, str], ImageDrivers]]] = {
    "fake": _fake,
    "local": _local,
}
