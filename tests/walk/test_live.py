"""A guest that goes from host to host while it runs, with a disk of its host's own and a volume that it writes to.

The guest counts: into a file of its root disk, into the volume, and over one TCP connection to whoever watches, in this
order. A number that is heard was written, so the longest silence is all of the move that anybody could notice.
"""

import contextlib
import itertools
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from controller.cli.api import ApiError
from tests.walk import client
from tests.walk.client import OpenStack
from tests.walk.cloud import Cloud, eventually, output
from tests.walk.login import Login
from tests.walk.test_two_hosts import COMPUTE, host_of, left_of, shown

NEWEST = "compute 2.79"
OPEN_DISKS = "#!/bin/sh\n(while :; do chmod 666 /dev/vd[b-z] 2>/dev/null; sleep 0.2; done) &\n"
COUNT = (
    "n=0; while n=$((n+1)); echo $n > counted; sync; "
    "echo $n | dd of=/dev/vdb bs=512 conv=fsync,notrunc 2>/dev/null || echo failed; echo $n; do sleep 0.02; done"
)
BUSY = "while :; do dd if=/dev/urandom of=/tmp/noise bs=64k count=400; done"


@dataclass
class Counting:
    """What the guest counted, and when it was heard."""

    process: subprocess.Popen[bytes]
    heard: list[tuple[float, int]] = field(default_factory=list)
    began: float = 0.0

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.heard.append((time.monotonic(), int(line)))

    def goes_on(self) -> None:
        """The very same connection brings new numbers."""
        before = len(self.heard)
        eventually("the guest goes on counting", lambda: len(self.heard) > before + 5)
        assert self.process.poll() is None

    def begin(self) -> None:
        """From here on."""
        self.goes_on()
        self.began = time.monotonic()

    def silence_s(self) -> float:
        """The longest one since it was begun. No number is missing, and none came twice."""
        self.goes_on()
        numbers = [number for _, number in self.heard]
        assert numbers == list(range(1, len(numbers) + 1))
        times = [at for at, _ in self.heard if at >= self.began]
        return max(after - before for before, after in itertools.pairwise(times))


@dataclass(frozen=True)
class Ground:
    """A server with a volume, and what it counts."""

    cloud: Cloud
    openstack: OpenStack
    server_id: str
    login: Login
    counting: Counting

    def asks(self, host: str | None = None) -> None:
        body = {"os-migrateLive": {"host": host, "block_migration": "auto"}}
        self.cloud.admin().post(f"{COMPUTE}/servers/{self.server_id}/action", body, version=NEWEST)

    def newest(self) -> dict[str, Any]:
        path = f"{COMPUTE}/os-migrations?instance_uuid={self.server_id}"
        found: dict[str, Any] = self.cloud.admin().get(path)["migrations"][0]
        return found

    def runs(self) -> str:
        """The path of the migration that goes on."""
        eventually("it is on its way", lambda: self.newest()["status"] == "running", every_s=0.05)
        return f"{COMPUTE}/servers/{self.server_id}/migrations/{self.newest()['id']}"

    def rests(self) -> dict[str, Any]:
        eventually("it rests", lambda: shown(self.cloud, self.server_id)["OS-EXT-STS:task_state"] is None)
        assert shown(self.cloud, self.server_id)["status"] == "ACTIVE"
        return self.newest()


@contextlib.contextmanager
def counted(login: Login) -> Iterator[Counting]:
    process = subprocess.Popen(login.argv(COUNT), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    counting = Counting(process)
    threading.Thread(target=counting.listen, daemon=True).start()
    try:
        yield counting
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def busy(login: Login) -> Iterator[None]:
    """The guest writes to its memory as fast as it can."""
    login.run(f"sh -c '{BUSY}' </dev/null >/dev/null 2>&1 & echo $! > /tmp/busy")
    try:
        yield
    finally:
        login.run("kill $(cat /tmp/busy)")


@contextlib.contextmanager
def slow_way(cloud: Cloud, host: str) -> Iterator[None]:
    """What goes to a host goes slowly, so whatever moves there is under way for minutes."""
    link = ("dev", cloud.space_of(host).veth, "root")
    output("tc", "qdisc", "add", *link, "tbf", "rate", "8mbit", "burst", "64k", "latency", "400ms")
    try:
        yield
    finally:
        output("tc", "qdisc", "del", *link)


@pytest.fixture(scope="module")
def ground(pair: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    openstack = client.openstack(pair)
    user_data = tmp_path_factory.mktemp("live") / "open"
    user_data.write_text(OPEN_DISKS)
    words = ("--flavor", "m1.nano", "--image", "hostler-tiny", "--network", "demo", "--key-name", "hostler")
    server = openstack.show("server", "create", *words, "--user-data", user_data, "--wait", "mover")["id"]
    volume = openstack.show("volume", "create", "--size", "1", "moving")["id"]
    eventually("the volume is there", lambda: openstack.show("volume", "show", volume)["status"] == "available")
    openstack.do("server", "add", "volume", server, volume)
    floating = openstack.show("floating", "ip", "create", "public")["floating_ip_address"]
    openstack.do("server", "add", "floating", "ip", server, floating)
    login = Login(floating, pair.trial.folder / "id_ed25519")
    login.wait()
    eventually("the volume is in the guest", lambda: login.run("test -w /dev/vdb && echo yes") != "")
    with counted(login) as counting:
        yield Ground(pair, openstack, server, login, counting)
    openstack.do("floating", "ip", "delete", floating)
    openstack.do("server", "delete", "--wait", server)
    openstack.do("volume", "delete", volume)
    eventually("no volume is left", lambda: openstack.show("volume", "list") == [])
    for host in ("host1", "host2"):
        if host_of(pair, pair.server_id("first")) != host:
            eventually("nothing is left", lambda host=host: not left_of(pair, host, server))


def other_than(host: str) -> str:
    return "host2" if host == "host1" else "host1"


def moved(ground: Ground, ask: Callable[[], None]) -> None:
    """It goes to the other host, and nothing of it stays."""
    before = host_of(ground.cloud, ground.server_id)
    ground.counting.begin()
    began = time.monotonic()
    ask()
    newest = ground.rests()
    print(f"live migration: {time.monotonic() - began:.1f} s", end=", ")
    print(f"the guest's longest silence {ground.counting.silence_s():.2f} s")
    assert (newest["status"], newest["source_compute"]) == ("completed", before)
    assert host_of(ground.cloud, ground.server_id) == newest["dest_compute"] != before
    first = ground.cloud.server_id("first")
    if host_of(ground.cloud, first) != before:
        eventually("nothing is left behind", lambda: not left_of(ground.cloud, before, ground.server_id))


def test_a_guest_moves_while_its_connection_and_its_disks_go_on(ground: Ground) -> None:
    moved(ground, ground.asks)


def test_it_comes_back_by_the_unmodified_client(ground: Ground) -> None:
    admin = ground.openstack.as_cloud("hostler-admin")
    moved(ground, lambda: admin.do("server", "migrate", "--live-migration", "--wait", ground.server_id) and None)
    assert ground.counting.heard[-1][1] > 1


def test_one_that_is_called_off_stays_where_it_is(ground: Ground) -> None:
    before = host_of(ground.cloud, ground.server_id)
    with busy(ground.login), slow_way(ground.cloud, other_than(before)):
        ground.counting.begin()
        ground.asks()
        path = ground.runs()
        ground.cloud.admin().delete(path, version="compute 2.24")
        assert ground.rests()["status"] == "cancelled"
        print(f"live migration that was called off: the longest silence {ground.counting.silence_s():.2f} s")
    assert host_of(ground.cloud, ground.server_id) == before


def test_one_that_is_forced_arrives(ground: Ground) -> None:
    def forced() -> None:
        with slow_way(ground.cloud, other_than(host_of(ground.cloud, ground.server_id))):
            ground.asks()
            ground.cloud.admin().post(f"{ground.runs()}/action", {"force_complete": None}, version="compute 2.22")

    with busy(ground.login):
        moved(ground, forced)


def test_a_host_that_does_not_fit_is_refused_with_the_why(ground: Ground) -> None:
    here = host_of(ground.cloud, ground.server_id)
    with pytest.raises(ApiError, match="can't be the same"):
        ground.asks(here)
    with pytest.raises(ApiError, match="could not be found"):
        ground.asks("nowhere")
    there = other_than(here)
    service = {"host": there, "binary": "nova-compute"}
    ground.cloud.admin().put(f"{COMPUTE}/os-services/disable", service)
    try:
        with pytest.raises(ApiError, match="host-disabled"):
            ground.asks(there)
    finally:
        ground.cloud.admin().put(f"{COMPUTE}/os-services/enable", service)
    assert shown(ground.cloud, ground.server_id)["OS-EXT-STS:task_state"] is None


def test_what_it_wrote_is_there(ground: Ground) -> None:
    heard = ground.counting.heard[-1][1]
    on_volume = ground.login.run("dd if=/dev/vdb bs=512 count=1 2>/dev/null | tr -d '\\0' | head -1")
    assert int(ground.login.run("cat counted")) >= heard and int(on_volume) >= heard
