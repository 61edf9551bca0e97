"""Volumes of a cloud of two hosts, under guests that write all the time, by the unmodified client.

Both servers have a volume as their root disk, and are on different hosts; what moves from one to the other crosses the
wire. Their user data opens further disks to the user who logs in.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from controller.cli.api import ApiError, Client
from tests.walk import client
from tests.walk.client import OpenStack
from tests.walk.cloud import Cloud, eventually
from tests.walk.leftovers import leftovers
from tests.walk.login import Login

VOLUME, COMPUTE = "/volume/v3", "/compute/v2.1"
GUEST_S = 180
OPEN_DISKS = "#!/bin/sh\n(while :; do chmod 666 /dev/vd[b-z] 2>/dev/null; sleep 0.2; done) &\n"
MY_INITIATOR = "iqn.2026-01.org.example:walker"
ABOUT_FORCE = ("--os-volume-api-version", "3.65")
"""`--force` was the volume API's until 3.65: the client sends it only if it is told not to ask for more."""


@dataclass(frozen=True)
class Server:
    """A server, and the way into it."""

    id: str
    host: str
    login: Login

    def writes(self, device: str) -> None:
        """Begin to count in a sector of the device, for as long as that goes well."""
        loop = f"n=0; while n=$((n+1)); echo $n | dd of={device} bs=512 seek=8 conv=fsync,notrunc 2>/dev/null; do"
        body = "echo $n > /tmp/wrote; sleep 0.2; done; echo failed > /tmp/wrote"
        self.login.run(f"rm -f /tmp/wrote; sh -c '{loop} {body}' </dev/null >/dev/null 2>&1 & echo $! > /tmp/writer")
        self.goes_on()

    def goes_on(self) -> None:
        """The count rises, and never failed."""
        before = eventually("the guest writes", self._wrote)
        eventually("the guest goes on writing", lambda: self._wrote() >= before + 3, GUEST_S)

    def rests(self) -> int:
        """End the counting; how far it came."""
        return int(self.login.run("kill $(cat /tmp/writer); cat /tmp/wrote"))

    def _wrote(self) -> int:
        said = self.login.run("cat /tmp/wrote").strip()
        assert said != "failed", f"a write failed in {self.id}"
        return int(said)

    def has(self, device: str, size_gib: int) -> None:
        """Until the guest sees a disk of this size."""
        name = device.removeprefix("/dev/")
        sectors = f"cat /sys/block/{name}/size"
        eventually(f"{device} is there", lambda: self.login.run(f"test -w {device} && {sectors}") != "", GUEST_S)
        eventually(f"{device} grew", lambda: int(self.login.run(sectors)) == size_gib << 21, GUEST_S)

    def lost(self, device: str) -> None:
        eventually(f"{device} is gone", lambda: self.login.run(f"test -b {device} || echo gone") != "", GUEST_S)

    def put(self, device: str, words: str) -> None:
        self.login.run(f"echo {words} | dd of={device} bs=512 conv=fsync,notrunc")

    def said(self, device: str, sector: int = 0) -> str:
        return self.login.run(
            f"dd if={device} bs=512 skip={sector} count=1 2>/dev/null | tr -d '\\0' | head -1"
        ).strip()


@dataclass(frozen=True)
class Ground:
    """What the tests share."""

    cloud: Cloud
    openstack: OpenStack
    left: Server
    right: Server

    def volume(self, volume_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.cloud.admin().get(f"{VOLUME}/volumes/{volume_id}")["volume"]
        return found

    def is_(self, volume_id: str, status: str) -> dict[str, Any]:
        def probe() -> dict[str, Any] | None:
            shown = self.volume(volume_id)
            assert shown["status"] != "error", shown
            return shown if shown["status"] == status else None

        return eventually(f"volume {volume_id} {status}", probe)

    def makes(self, *words: str) -> str:
        volume_id: str = self.openstack.show("volume", "create", *words)["id"]
        self.is_(volume_id, "available")
        return volume_id

    def attaches(self, server: Server, volume_id: str) -> str:
        device: str = self.openstack.show("server", "add", "volume", server.id, volume_id)["Device"]
        self.is_(volume_id, "in-use")
        return device

    def took(self, server: Server, action: str) -> str:
        """How long the newest action of this name took, by the cloud's own clock."""
        path = f"{COMPUTE}/servers/{server.id}/os-instance-actions"
        admin = self.cloud.admin()
        newest = next(one for one in admin.get(path)["instanceActions"] if one["action"] == action)
        shown = admin.get(f"{path}/{newest['request_id']}")["instanceAction"]
        ended = max(datetime.fromisoformat(one["finish_time"]) for one in shown["events"])
        return f"{action}: {(ended - datetime.fromisoformat(shown['start_time'])).total_seconds():.2f} s"

    def detaches(self, server: Server, volume_id: str, device: str) -> None:
        self.openstack.do("server", "remove", "volume", server.id, volume_id)
        server.lost(device)


def timed(what: str, act: Callable[[], object], done: Callable[[], object]) -> None:
    """Print how long it takes from the request until it is so."""
    began = time.monotonic()
    act()
    done()
    print(f"{what}: {time.monotonic() - began:.2f} s")


@pytest.fixture(scope="module")
def ground(pair: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Two servers on two hosts: one boots from a volume that is made with it, the other from a snapshot's."""
    openstack = client.openstack(pair)
    with leftovers(pair):
        user_data = tmp_path_factory.mktemp("volumes") / "open"
        user_data.write_text(OPEN_DISKS)
        create = ("server", "create", "--flavor", "m1.nano", "--network", "demo", "--key-name", "hostler", "--wait")
        told = (*create, "--user-data", user_data)
        image = ("--image", "hostler-tiny", "--boot-from-volume", "1")
        left = openstack.show(*told, *image, "left")["id"]
        golden = _root_volumes(pair, openstack)
        away = ("--hint", f"different_host={left}")
        right = openstack.show(*told, "--volume", "right-root", *away, "right")["id"]
        first = Login(pair.floating_address(pair.server_id("first")), pair.trial.folder / "id_ed25519")
        servers = [_server(pair, one, first) for one in (left, right)]
        assert servers[0].host != servers[1].host
        for one in servers:
            one.login.wait(GUEST_S)
        made = Ground(pair, openstack, *servers)
        yield made
        roots = [one["id"] for server in servers for one in _volumes_of(pair, server.id)]
        openstack.do("server", "delete", "--wait", left, right)
        assert {made.is_(one, "available")["bootable"] for one in roots} == {"true"}
        openstack.do("volume", "delete", *roots)
        openstack.do("volume", "delete", "--cascade", golden)
        eventually("no volume is left", lambda: not pair.demo().get(f"{VOLUME}/volumes")["volumes"])


def _root_volumes(cloud: Cloud, openstack: OpenStack) -> str:
    """A volume of an image, its snapshot, and `right-root` of that; the id of the first."""
    golden: str = openstack.show("volume", "create", "--size", "1", "--image", "hostler-tiny", "golden")["id"]
    demo = cloud.demo()

    def rests(kind: str, found: str) -> None:
        path = f"{VOLUME}/{kind}s/{found}"
        eventually(f"{kind} {found} is there", lambda: demo.get(path)[kind]["status"] == "available")

    rests("volume", golden)
    rests("snapshot", openstack.show("volume", "snapshot", "create", "--volume", golden, "golden-snapshot")["id"])
    rests("volume", openstack.show("volume", "create", "--snapshot", "golden-snapshot", "right-root")["id"])
    return golden


def _server(cloud: Cloud, server_id: str, over: Login) -> Server:
    shown = cloud.admin().get(f"{COMPUTE}/servers/{server_id}")["server"]
    (address,) = [one["addr"] for one in shown["addresses"]["demo"]]
    return Server(server_id, shown["OS-EXT-SRV-ATTR:host"], Login(address, over.key, over=over))


def _volumes_of(cloud: Cloud, server_id: str) -> list[dict[str, Any]]:
    shown = cloud.demo().get(f"{COMPUTE}/servers/{server_id}")["server"]
    found: list[dict[str, Any]] = shown["os-extended-volumes:volumes_attached"]
    return found


def test_what_a_guest_wrote_goes_through_everything(ground: Ground) -> None:
    openstack, left, right = ground.openstack, ground.left, ground.right
    data = ground.makes("--size", "1", "data")
    ground.attaches(left, data)
    left.has("/dev/vdb", 1)
    print(ground.took(left, "attach_volume"))
    left.put("/dev/vdb", "first words")
    left.writes("/dev/vdb")
    _is_refused_while_it_is_in_use(ground, data)

    # A snapshot under the writer, a larger size under the writer, a target daemon that dies under the writer.
    force = ("volume", "snapshot", "create", "--volume", data, "--force", "asked", *ABOUT_FORCE)
    snapshot = openstack.show(*force)["id"]
    print(f"snapshot under a writer: {_taken(ground, snapshot):.2f} s")
    left.goes_on()
    timed("growing", lambda: openstack.do("volume", "set", "--size", "2", data), lambda: left.has("/dev/vdb", 2))
    left.goes_on()
    _target_dies(ground, data)
    left.goes_on()

    # Away from one host, to a server on the other.
    last = left.rests()
    ground.detaches(left, data, "/dev/vdb")
    ground.is_(data, "available")
    print(ground.took(left, "detach_volume"))
    assert "400" in openstack.refused("volume", "delete", data)  # It has a snapshot.
    ground.attaches(right, data)
    right.has("/dev/vdb", 2)
    assert right.said("/dev/vdb") == "first words"
    assert int(right.said("/dev/vdb", 8)) in (last, last + 1)
    right.put("/dev/vdb", "other words")

    # What is made of the snapshot and of the volume is what they were.
    of_snapshot = ground.makes("--snapshot", snapshot, "of-snapshot")
    of_volume = ground.makes("--source", data, "--size", "3", "of-volume")
    assert ground.volume(of_snapshot)["size"] == 1
    for volume, size_gib, words in ((of_snapshot, 1, "first words"), (of_volume, 3, "other words")):
        ground.attaches(left, volume)
        left.has("/dev/vdb", size_gib)
        assert left.said("/dev/vdb") == words
        ground.detaches(left, volume, "/dev/vdb")
        ground.is_(volume, "available")

    ground.detaches(right, data, "/dev/vdb")
    ground.is_(data, "available")
    openstack.do("volume", "snapshot", "delete", snapshot)
    eventually("the snapshot is gone", lambda: not _snapshots(ground, data))
    openstack.do("volume", "delete", data, of_snapshot, of_volume)


def _is_refused_while_it_is_in_use(ground: Ground, data: str) -> None:
    """What cannot be says so, and changes nothing."""
    openstack, cloud = ground.openstack, ground.cloud
    for server in (ground.left, ground.right):
        assert "400" in openstack.refused("server", "add", "volume", server.id, data)
    assert "400" in openstack.refused("volume", "delete", data)
    assert "400" in openstack.refused(*("volume", "snapshot", "create", "--volume", data, "no-force"), *ABOUT_FORCE)
    demo = cloud.demo()
    for size in (1, 0, -1):  # The client itself does not send these.
        with pytest.raises(ApiError, match="400"):
            demo.post(f"{VOLUME}/volumes/{data}/action", {"os-extend": {"new_size": size}})
    stranger = _stranger(cloud)
    with pytest.raises(ApiError, match="404"):
        stranger.get(f"{VOLUME}/volumes/{data}")
    with pytest.raises(ApiError, match="404"):
        stranger.post(f"{VOLUME}/snapshots", {"snapshot": {"volume_id": data, "force": True}})
    with pytest.raises(ApiError, match="404"):
        stranger.post(f"{VOLUME}/volumes", {"volume": {"source_volid": data}})
    with pytest.raises(ApiError, match="404"):
        stranger.delete(f"{VOLUME}/volumes/{data}")
    _forget_stranger(cloud)
    assert not _snapshots(ground, data)
    shown = ground.volume(data)
    assert (shown["status"], shown["size"], len(shown["attachments"])) == ("in-use", 1, 1)


def _stranger(cloud: Cloud) -> Client:
    """A member of another project."""
    admin = cloud.admin()
    project = admin.post("/identity/v3/projects", {"project": {"name": "strangers"}})["project"]["id"]
    wish = {"name": "stranger", "password": "a strange walk"}
    user = admin.post("/identity/v3/users", {"user": wish})["user"]["id"]
    (role,) = admin.get("/identity/v3/roles?name=member")["roles"]
    admin.put(f"/identity/v3/projects/{project}/users/{user}/roles/{role['id']}", {})
    return Client(cloud.trial.api_url, "stranger", "a strange walk", "strangers")


def _forget_stranger(cloud: Cloud) -> None:
    admin = cloud.admin()
    for kind, name in (("user", "stranger"), ("project", "strangers")):
        (found,) = admin.get(f"/identity/v3/{kind}s?name={name}")[f"{kind}s"]
        admin.delete(f"/identity/v3/{kind}s/{found['id']}")


def _snapshots(ground: Ground, volume_id: str) -> list[Any]:
    found: list[Any] = ground.cloud.demo().get(f"{VOLUME}/snapshots?volume_id={volume_id}")["snapshots"]
    return found


def _taken(ground: Ground, snapshot_id: str) -> float:
    """How long the snapshot took, by the cloud's own clock."""
    path = f"{VOLUME}/snapshots/{snapshot_id}"
    demo = ground.cloud.demo()
    eventually("the snapshot is there", lambda: demo.get(path)["snapshot"]["status"] == "available")
    shown = demo.get(path)["snapshot"]
    ended = datetime.fromisoformat(shown["updated_at"])
    return (ended - datetime.fromisoformat(shown["created_at"])).total_seconds()


def _target_dies(ground: Ground, volume_id: str) -> None:
    """kill -9 of the daemon that serves the volume."""
    host = ground.volume(volume_id)["os-vol-host-attr:host"].partition("@")[0]
    pid_file = ground.cloud.trial.run_folder / host / "tgt" / "pid"
    before = pid_file.read_text()
    ground.cloud.inside("kill", "-9", before.strip(), host=host)
    eventually("the target daemon is back", lambda: pid_file.exists() and pid_file.read_text() != before)


def test_a_volume_of_two_servers_outlives_its_target(ground: Ground) -> None:
    openstack, admin = ground.openstack, ground.openstack.as_cloud("hostler-admin")
    admin.do("volume", "type", "create", "--multiattach", "shared")
    both = ground.makes("--size", "1", "--type", "shared", "both")
    for server in (ground.left, ground.right):
        ground.attaches(server, both)
        server.has("/dev/vdb", 1)
    assert len(ground.volume(both)["attachments"]) == 2
    ground.left.put("/dev/vdb", "to the other")
    assert ground.right.said("/dev/vdb") == "to the other"
    ground.left.writes("/dev/vdb")
    ground.right.writes("/dev/vdb")
    _target_dies(ground, both)
    ground.left.goes_on()
    ground.right.goes_on()
    ground.left.rests()
    ground.detaches(ground.left, both, "/dev/vdb")
    ground.right.goes_on()
    assert "400" in openstack.refused("volume", "delete", both)
    ground.right.rests()
    ground.detaches(ground.right, both, "/dev/vdb")
    ground.is_(both, "available")
    openstack.do("volume", "delete", both)
    eventually("the type is free", lambda: admin.do("volume", "type", "delete", "shared") == "")


def test_who_has_no_account_gets_no_volume(pair: Cloud) -> None:
    """By the attachments API with an initiator of one's own: QEMU's, run in a host's namespaces."""
    with leftovers(pair):
        demo = pair.demo()
        mine = demo.post(f"{VOLUME}/volumes", {"volume": {"size": 1, "name": "mine"}})["volume"]["id"]
        path = f"{VOLUME}/volumes/{mine}"
        eventually("it is there", lambda: demo.get(path)["volume"]["status"] == "available")
        wish = {"volume_uuid": mine, "connector": {"initiator": MY_INITIATOR, "host": "walker"}}
        made = demo.post(f"{VOLUME}/attachments", {"attachment": wish}, "volume 3.54")["attachment"]
        told = made["connection_info"]
        assert _size(pair, told) == 1 << 30
        for without in (
            {"auth_username": None},
            {"auth_password": "x" * 32},
            {"initiator": "iqn.2026-01.org.example:you"},
        ):
            assert _size(pair, {**told, **without}) is None, without
        demo.delete(f"{VOLUME}/attachments/{made['id']}", "volume 3.54")
        assert _size(pair, told) is None
        assert demo.get(path)["volume"]["status"] == "available"
        demo.delete(path)
        eventually("it is gone", lambda: mine not in str(demo.get(f"{VOLUME}/volumes")))


def _size(cloud: Cloud, told: dict[str, Any]) -> int | None:
    """How large QEMU finds the volume; None if it is not let in."""
    options = {
        "driver": "iscsi",
        "transport": "tcp",
        "portal": told["target_portal"],
        "target": told["target_iqn"],
        "lun": told["target_lun"],
        "initiator-name": told.get("initiator", MY_INITIATOR),
    }
    if told["auth_username"] is not None:
        options |= {"user": told["auth_username"], "password-secret": "chap"}
    secret = f"secret,id=chap,data={told['auth_password']}"
    try:
        said = cloud.inside("qemu-img", "info", "--output=json", "--object", secret, f"json:{json.dumps(options)}")
    except AssertionError as error:
        assert re.search("[Aa]uth|login|not found|Failed to connect", str(error)), error
        return None
    return int(json.loads(said)["virtual-size"])
