"""What every image driver promises: on the fake everywhere, on files and qemu-img as root."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.wire.errors import Busy, Failed, Invalid, NotFound, Unfit
from drivers.image.base import CachedImage
from drivers.image.load import ImageDrivers, ImageSettings, load
from tests.drivers.images import MIB, qcow2_image, sha256
from tests.drivers.machines import a_guest

GOOD = qcow2_image(8 * MIB)
RAW = bytes(range(256)) * 4096


@pytest.fixture(params=["fake", pytest.param("local", marks=pytest.mark.host)])
def settings(request) -> ImageSettings:
    if request.param == "local" and os.geteuid() != 0:
        pytest.skip("needs root")
    return ImageSettings(driver=request.param)


@pytest.fixture
def state() -> Iterator[Path]:
    state = Path(tempfile.mkdtemp(prefix="hostler-images-"))  # Not pytest's, which guests' uids cannot pass.
    state.chmod(0o755)
    yield state
    shutil.rmtree(state)


@pytest.fixture
def drivers(settings, state) -> ImageDrivers:
    return load(settings, state=str(state))


def fetched(drivers: ImageDrivers, data: bytes = GOOD, disk_format: str = "qcow2") -> CachedImage:
    return drivers.cache.fetch(sha256(data), len(data), disk_format, lambda path: _write(path, data))


def _write(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)


def leftovers(state: Path) -> list[str]:
    return [str(path) for path in state.rglob("*") if "part" in path.name]


@pytest.mark.parametrize(
    ("data", "disk_format", "virtual_bytes"), [(GOOD, "qcow2", 8 * MIB), (RAW, "raw", MIB)], ids=["qcow2", "raw"]
)
def test_a_good_image_is_cached_and_found(drivers, state, data, disk_format, virtual_bytes):
    assert drivers.cache.find(sha256(data)) is None
    image = fetched(drivers, data, disk_format)
    assert (image.sha256, image.disk_format) == (sha256(data), disk_format)
    assert (image.size_bytes, image.virtual_bytes) == (len(data), virtual_bytes)
    assert drivers.cache.find(sha256(data)) == image
    assert drivers.cache.list() == (image,)
    assert leftovers(state) == []


def test_a_cached_image_is_not_fetched_again(drivers):
    image = fetched(drivers)
    assert drivers.cache.fetch(sha256(GOOD), len(GOOD), "qcow2", lambda _: pytest.fail("fetched twice")) == image
    with pytest.raises(Failed):
        drivers.cache.fetch(sha256(GOOD), len(GOOD), "raw", lambda _: pytest.fail("fetched twice"))


@pytest.mark.parametrize(
    ("data", "disk_format"),
    [
        (GOOD[:-1], "qcow2"),
        (GOOD[:-1] + b"x", "qcow2"),
        (b"", "raw"),
    ],
    ids=["cut off", "changed", "empty"],
)
def test_bytes_that_are_not_the_promised_ones_fail_and_leave_nothing(drivers, state, data, disk_format):
    with pytest.raises(Failed):
        drivers.cache.fetch(sha256(GOOD), len(GOOD), disk_format, lambda path: _write(path, data))
    assert drivers.cache.list() == () and leftovers(state) == []


@pytest.mark.parametrize(
    ("data", "disk_format"),
    [(GOOD, "raw"), (RAW, "qcow2"), (qcow2_image(backing_offset=512, backing_bytes=11), "qcow2")],
    ids=["qcow2 as raw", "raw as qcow2", "backing file"],
)
def test_an_image_that_is_not_what_it_was_declared_fails_and_leaves_nothing(drivers, state, data, disk_format):
    with pytest.raises(Failed):
        fetched(drivers, data, disk_format)
    assert drivers.cache.list() == () and leftovers(state) == []


def test_a_fetch_that_fails_leaves_nothing_and_can_be_repeated(drivers, state):
    def broken(path: str) -> None:
        Path(path).write_bytes(GOOD[:1000])
        raise Failed("the source went away")

    with pytest.raises(Failed, match="went away"):
        drivers.cache.fetch(sha256(GOOD), len(GOOD), "qcow2", broken)
    assert drivers.cache.list() == () and leftovers(state) == []
    assert fetched(drivers)


def test_two_fetches_of_one_image_at_once_end_in_one_image(drivers, state):
    ready = threading.Barrier(2)
    found = []

    def one() -> None:
        def write(path: str) -> None:
            ready.wait(30)
            _write(path, GOOD)

        found.append(drivers.cache.fetch(sha256(GOOD), len(GOOD), "qcow2", write))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [drivers.cache.find(sha256(GOOD))] * 2 and leftovers(state) == []


def test_an_image_under_a_disk_stays_until_the_disk_goes(drivers):
    image = fetched(drivers)
    drivers.disks.ensure("server-root", image, 16 * MIB, 70001)
    with pytest.raises(Busy):
        drivers.cache.absent(image.sha256)
    assert drivers.cache.find(image.sha256) == image
    drivers.disks.absent("server-root")
    drivers.cache.absent(image.sha256)
    drivers.cache.absent(image.sha256)
    assert drivers.cache.find(image.sha256) is None


def test_a_disk_is_made_once_and_then_only_grows(drivers):
    image = fetched(drivers)
    made = drivers.disks.ensure("server-root", image, 16 * MIB, 70001)
    assert (made.id, made.format, made.size_bytes) == ("server-root", "qcow2", 16 * MIB)
    assert made.allocated_bytes > 0
    assert drivers.disks.ensure("server-root", image, 12 * MIB, 70001).size_bytes == 16 * MIB
    grown = drivers.disks.ensure("server-root", image, 32 * MIB, 70001)
    assert grown.size_bytes == 32 * MIB and grown.path == made.path
    assert drivers.disks.find("server-root") == grown
    assert drivers.disks.list() == ("server-root",)


def test_a_disk_that_is_a_copy_of_its_image_does_not_keep_it(drivers):
    image = fetched(drivers)
    made = drivers.disks.ensure("server-root", image, 16 * MIB, 70001, None, True)
    assert made.size_bytes == 16 * MIB
    drivers.cache.absent(image.sha256)
    assert drivers.disks.ensure("server-root", None, 32 * MIB, 70001).size_bytes == 32 * MIB


def test_a_disk_needs_no_image(drivers):
    assert drivers.disks.ensure("empty", None, 5 * MIB, 70001).size_bytes == 5 * MIB


def test_a_disk_smaller_than_its_image_is_refused(drivers, state):
    image = fetched(drivers)
    with pytest.raises(Failed):
        drivers.disks.ensure("server-root", image, 4 * MIB, 70001)
    assert drivers.disks.list() == () and leftovers(state) == []
    drivers.cache.absent(image.sha256)


def test_a_disk_over_an_image_that_left_the_cache_is_refused(drivers):
    image = fetched(drivers)
    drivers.cache.absent(image.sha256)
    with pytest.raises(NotFound):
        drivers.disks.ensure("server-root", image, 16 * MIB, 70001)
    assert drivers.disks.list() == ()


def test_a_config_drive_is_a_disk_that_is_written_anew(drivers):
    first = drivers.disks.ensure_config("server-config", a_guest(), 70001)
    second = drivers.disks.ensure_config("server-config", a_guest(user_data=b"#!/bin/sh\necho other\n"), 70001)
    assert first.format == "raw" and second.path == first.path
    assert drivers.disks.find("server-config") == second and drivers.disks.list() == ("server-config",)
    drivers.disks.absent("server-config")
    assert drivers.disks.find("server-config") is None


def test_absent_accepts_what_is_not_there(drivers):
    drivers.disks.absent("never-made")
    drivers.cache.absent(sha256(b"never fetched"))
    assert drivers.disks.find("never-made") is None


def test_a_new_agent_process_finds_images_and_disks(drivers, settings, state):
    image = fetched(drivers)
    disk = drivers.disks.ensure("server-root", image, 16 * MIB, 70001)
    later = load(settings, state=str(state))
    assert later.cache.list() == (image,) and later.disks.find("server-root") == disk
    with pytest.raises(Busy):
        later.cache.absent(image.sha256)


@pytest.mark.parametrize("wrong", ["", "../x", "a/b", ".hidden", "x" * 200, "a\x00b", "ü"])
def test_ids_that_could_leave_the_folder_are_invalid(drivers, wrong):
    for act in (drivers.disks.find, drivers.disks.absent, drivers.cache.find, drivers.cache.absent):
        with pytest.raises(Invalid):
            act(wrong)
    with pytest.raises(Invalid):
        drivers.disks.ensure(wrong, None, MIB, 70001)
    with pytest.raises(Invalid):
        drivers.disks.ensure_config(wrong, a_guest(), 70001)


def test_a_format_that_hosts_do_not_boot_is_unfit(drivers):
    with pytest.raises(Unfit):
        drivers.cache.fetch(sha256(GOOD), len(GOOD), "vmdk", lambda _: pytest.fail("fetched"))


def test_an_unknown_driver_is_unfit(settings):
    with pytest.raises(Unfit):
        load(msgspec.structs.replace(settings, driver="tape"), state="/nonexistent")
