"""What becomes of a server, seen from inside it: paused, asleep, rescued, resized, pictured, shelved and rebuilt."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.walk.client import OpenStack
from tests.walk.cloud import PATIENCE_S, Cloud, eventually
from tests.walk.login import Login

pytestmark = pytest.mark.usefixtures("nothing_left")

IMAGE = "hostler-tiny"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
INTERFACES = "ls /sys/class/net | grep -c eth"


@dataclass(frozen=True)
class Life:
    """A server that keeps a note, and the way into it."""

    id: str
    login: Login


@pytest.fixture
def elsewhere(openstack: OpenStack) -> Iterator[str]:
    """A second network."""
    network: str = openstack.show("network", "create", "elsewhere")["id"]
    openstack.do("subnet", "create", "elsewhere", "--network", "elsewhere", "--subnet-range", "192.168.78.0/24")
    yield network
    openstack.do("network", "delete", "elsewhere")


@pytest.fixture
def life(openstack: OpenStack, cloud: Cloud) -> Iterator[Life]:
    create = ("server", "create", "--image", IMAGE, "--flavor", "m1.nano", "--key-name", "hostler")
    server_id: str = openstack.show(*create, "--network", "demo", "life")["id"]
    _is(cloud, server_id, "ACTIVE")
    floating = openstack.show("floating", "ip", "create", "public")["floating_ip_address"]
    openstack.do("server", "add", "floating", "ip", "life", floating)
    login = Login(floating, cloud.trial.folder / "id_ed25519")
    login.wait()
    login.run("echo kept > /home/cloud/note; sync")
    yield Life(server_id, login)
    openstack.do("server", "delete", "--wait", "life")
    openstack.do("floating", "ip", "delete", floating)


def test_a_server_is_paused_sleeps_gets_interfaces_and_becomes_an_image(
    openstack: OpenStack, cloud: Cloud, elsewhere: str, life: Life
) -> None:
    _stands_still_and_sleeps(openstack, cloud, life.id, life.login)
    _gets_an_interface_and_loses_it(openstack, cloud, life.id, life.login)
    openstack.do("server", "image", "create", "--name", "picture", "--wait", "life")
    _is(cloud, life.id, "ACTIVE")
    life.login.run("echo lost > /home/cloud/later; sync")
    _is_rebuilt_from_its_picture(openstack, cloud, life.id, life.login)
    _was_told(openstack, life, "pause", "unpause", "suspend", "resume", "attach_interface", "createImage", "rebuild")
    openstack.do("image", "delete", "picture")


def test_a_server_is_rescued_resized_and_shelved(openstack: OpenStack, cloud: Cloud, life: Life) -> None:
    _is_rescued(openstack, cloud, life.id, life.login)
    _is_resized(openstack, cloud, life.id, life.login)
    _is_shelved(openstack, cloud, life.id, life.login)
    _was_told(openstack, life, "rescue", "unrescue", "resize", "confirmResize", "shelve", "unshelve")


def _was_told(openstack: OpenStack, life: Life, *actions: str) -> None:
    assert set(actions) <= {one["Action"] for one in openstack.show("server", "event", "list", life.id)}


def _is(cloud: Cloud, server_id: str, wanted: str) -> None:
    demo = cloud.demo()

    def probe() -> bool:
        server = demo.get(f"/compute/v2.1/servers/{server_id}")["server"]
        if server["status"] == "ERROR" != wanted:
            pytest.fail(f"ERROR: {server.get('fault')}")
        return bool(server["status"] == wanted and server["OS-EXT-STS:task_state"] is None)

    eventually(f"server {server_id} {wanted}", probe, 2 * PATIENCE_S)


def _stands_still_and_sleeps(openstack: OpenStack, cloud: Cloud, server_id: str, login: Login) -> None:
    boot, pid = login.run(BOOT_ID), cloud.qemu_pid(server_id)
    openstack.do("server", "pause", "life")
    _is(cloud, server_id, "PAUSED")
    assert login.is_refused() and cloud.qemu_pid(server_id) == pid
    openstack.do("server", "unpause", "life")
    _is(cloud, server_id, "ACTIVE")
    login.wait()
    openstack.do("server", "suspend", "life")
    _is(cloud, server_id, "SUSPENDED")
    assert login.is_refused()
    openstack.do("server", "resume", "life")
    _is(cloud, server_id, "ACTIVE")
    login.wait()
    assert login.run(BOOT_ID) == boot and cloud.qemu_pid(server_id) != pid


def _gets_an_interface_and_loses_it(openstack: OpenStack, cloud: Cloud, server_id: str, login: Login) -> None:
    assert login.run(INTERFACES) == "1\n"
    openstack.do("server", "add", "network", "life", "elsewhere")
    eventually("the guest sees it", lambda: login.run(INTERFACES) == "2\n")
    assert "elsewhere" in openstack.show("server", "show", "life")["addresses"]
    openstack.do("server", "remove", "network", "life", "elsewhere")
    eventually("the guest has let go", lambda: login.run(INTERFACES) == "1\n")

    def is_alone() -> bool:
        return len(cloud.demo().get(f"/compute/v2.1/servers/{server_id}/os-interface")["interfaceAttachments"]) == 1

    eventually("it is the server's no more", is_alone)


def _is_rescued(openstack: OpenStack, cloud: Cloud, server_id: str, login: Login) -> None:
    openstack.do("server", "rescue", "life")
    _is(cloud, server_id, "RESCUE")
    login.wait()
    assert "vdb" in login.run("cat /proc/partitions")
    assert login.run("ls /home/cloud").strip() == ""
    openstack.do("server", "unrescue", "life")
    _is(cloud, server_id, "ACTIVE")
    login.wait()
    assert login.run("cat /home/cloud/note") == "kept\n"


def _is_resized(openstack: OpenStack, cloud: Cloud, server_id: str, login: Login) -> None:
    memory = "awk '/MemTotal/ {print $2}' /proc/meminfo"
    before = int(login.run(memory))
    openstack.do("server", "resize", "--flavor", "m1.tiny", "life")
    _is(cloud, server_id, "VERIFY_RESIZE")
    assert "409" in openstack.refused("server", "resize", "--flavor", "m1.small", "life")
    login.wait()
    assert int(login.run(memory)) > before + 100_000
    openstack.do("server", "resize", "confirm", "life")
    _is(cloud, server_id, "ACTIVE")


def _is_shelved(openstack: OpenStack, cloud: Cloud, server_id: str, login: Login) -> None:
    openstack.do("server", "shelve", "life")
    _is(cloud, server_id, "SHELVED_OFFLOADED")
    disks = {path.name for path in (cloud.trial.agent_folder("host1") / "disks").iterdir()}
    assert not any(name.startswith(server_id) for name in disks)
    openstack.do("server", "unshelve", "life")
    _is(cloud, server_id, "ACTIVE")
    login.wait()
    assert login.run("cat /home/cloud/note") == "kept\n"


def _is_rebuilt_from_its_picture(openstack: OpenStack, cloud: Cloud, server_id: str, login: Login) -> None:
    boot = login.run(BOOT_ID)
    openstack.do("server", "rebuild", "--image", "picture", "life")
    _is(cloud, server_id, "ACTIVE")
    eventually("another boot", lambda: login.run(BOOT_ID, 30) != boot, 2 * PATIENCE_S)
    assert login.run("cat /home/cloud/note") == "kept\n"
    assert login.run("ls /home/cloud").split() == ["note"]
