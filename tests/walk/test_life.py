"""What becomes of a server, seen from inside it: paused, asleep, rescued, resized, pictured, shelved and rebuilt."""

from collections.abc import Iterator

import pytest

from tests.walk.client import OpenStack
from tests.walk.cloud import PATIENCE_S, Cloud, eventually
from tests.walk.login import Login

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.timeout(1200)]

IMAGE = "hostler-tiny"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
INTERFACES = "ls /sys/class/net | grep -c eth"


@pytest.fixture
def elsewhere(openstack: OpenStack) -> Iterator[str]:
    """A second network."""
    network: str = openstack.show("network", "create", "elsewhere")["id"]
    openstack.do("subnet", "create", "elsewhere", "--network", "elsewhere", "--subnet-range", "192.168.78.0/24")
    yield network
    openstack.do("network", "delete", "elsewhere")


def test_a_server_lives_through_everything(openstack: OpenStack, cloud: Cloud, elsewhere: str) -> None:
    create = ("server", "create", "--image", IMAGE, "--flavor", "m1.nano", "--key-name", "hostler", "--network", "demo")
    server_id: str = openstack.show(*create, "life")["id"]
    _is(cloud, server_id, "ACTIVE")
    floating = openstack.show("floating", "ip", "create", "public")["floating_ip_address"]
    openstack.do("server", "add", "floating", "ip", "life", floating)
    login = Login(floating, cloud.trial.folder / "id_ed25519")
    login.wait()
    login.run("echo kept > /home/cloud/note; sync")

    _stands_still_and_sleeps(openstack, cloud, server_id, login)
    _gets_an_interface_and_loses_it(openstack, cloud, server_id, login)
    openstack.do("server", "image", "create", "--name", "picture", "--wait", "life")
    _is(cloud, server_id, "ACTIVE")
    login.run("echo lost > /home/cloud/later; sync")
    _is_rescued(openstack, cloud, server_id, login)
    _is_resized(openstack, cloud, server_id, login)
    _is_shelved(openstack, cloud, server_id, login)
    _is_rebuilt_from_its_picture(openstack, cloud, server_id, login)

    events = {one["Action"] for one in openstack.show("server", "event", "list", server_id)}
    assert {"pause", "suspend", "attach_interface", "createImage", "rescue", "resize", "shelve", "rebuild"} <= events
    openstack.do("server", "delete", "--wait", "life")
    openstack.do("floating", "ip", "delete", floating)
    openstack.do("image", "delete", "picture")


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
    assert login.run("cat /home/cloud/note /home/cloud/later") == "kept\nlost\n"


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
    assert login.run("cat /home/cloud/later") == "lost\n"


def _is_rebuilt_from_its_picture(openstack: OpenStack, cloud: Cloud, server_id: str, login: Login) -> None:
    boot = login.run(BOOT_ID)
    openstack.do("server", "rebuild", "--image", "picture", "life")
    _is(cloud, server_id, "ACTIVE")
    eventually("another boot", lambda: login.run(BOOT_ID, 30) != boot, 2 * PATIENCE_S)
    assert login.run("cat /home/cloud/note") == "kept\n"
    assert login.run("ls /home/cloud").split() == ["note"]
