"""What a person does with a cloud, in the order of a first afternoon, with the unmodified `openstack` client."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.walk.client import OpenStack
from tests.walk.cloud import CHECKOUT, HOST, PATIENCE_S, Cloud, eventually
from tests.walk.login import Login

pytestmark = pytest.mark.usefixtures("nothing_left")

IMAGE = "hostler-tiny"
IMAGE_FILE = CHECKOUT / ".cache" / "images" / f"{IMAGE}.qcow2"
REQUEST = re.compile(r"^req-[0-9a-f-]{36}$")


@pytest.fixture
def admin(openstack: OpenStack) -> OpenStack:
    return openstack.as_cloud("hostler-admin")


def test_projects_users_and_roles(openstack: OpenStack, admin: OpenStack) -> None:
    token = openstack.show("token", "issue")
    assert token["id"].startswith("gAAAA") and token["project_id"]
    services = {entry["Type"] for entry in openstack.show("catalog", "list")}
    assert {"identity", "compute", "image", "network"} <= services

    project = admin.show("project", "create", "walkers", "--description", "çay ☕")
    user = admin.show("user", "create", "ayşe", "--password", "a long walk", "--project", project["id"])
    admin.do("role", "add", "--project", project["id"], "--user", user["id"], "member")
    (assignment,) = admin.show("role", "assignment", "list", "--user", user["id"], "--names")
    assert (assignment["Role"], assignment["Project"]) == ("member", "walkers@Default")
    assert admin.show("project", "show", "walkers")["description"] == "çay ☕"

    walker = openstack.as_user("ayşe", "a long walk", "walkers")
    assert walker.show("token", "issue")["project_id"] == project["id"]
    assert walker.show("server", "list") == []
    assert "403" in walker.refused("user", "list")

    admin.do("user", "set", user["id"], "--password", "another walk")
    assert "401" in walker.refused("token", "issue")
    walker = openstack.as_user("ayşe", "another walk", "walkers")
    walker.do("token", "issue")
    admin.do("role", "remove", "--project", project["id"], "--user", user["id"], "member")
    assert "401" in walker.refused("token", "issue")

    admin.do("user", "delete", user["id"])
    admin.do("project", "delete", project["id"])


def test_images(openstack: OpenStack, tmp_path: Path) -> None:
    image = openstack.show(
        "image", "create", "uploaded", "--file", IMAGE_FILE, "--disk-format", "qcow2", "--property", "os_distro=debian"
    )
    assert openstack.show("image", "list", "--name", "uploaded")[0]["ID"] == image["id"]
    openstack.do("image", "set", image["id"], "--name", "renamed", "--property", "colour=blue", "--tag", "walk")
    shown = openstack.show("image", "show", "renamed")
    assert (shown["status"], shown["size"], shown["tags"]) == ("active", IMAGE_FILE.stat().st_size, ["walk"])
    assert (shown["properties"]["os_distro"], shown["properties"]["colour"]) == ("debian", "blue")

    saved = tmp_path / "saved.qcow2"
    openstack.do("image", "save", "renamed", "--file", saved)
    assert saved.read_bytes() == IMAGE_FILE.read_bytes()

    openstack.do("image", "delete", "renamed")
    assert openstack.show("image", "list", "--name", "renamed") == []


def test_flavors_and_key_pairs(openstack: OpenStack, admin: OpenStack, tmp_path: Path) -> None:
    admin.do("flavor", "create", "walk.tiny", "--ram", "128", "--disk", "1", "--vcpus", "1", "--property", "a:b=c")
    flavors = {one["Name"]: one for one in openstack.show("flavor", "list")}
    assert (flavors["walk.tiny"]["RAM"], flavors["walk.tiny"]["VCPUs"]) == (128, 1)
    assert admin.show("flavor", "show", "walk.tiny")["properties"] == {"a:b": "c"}
    assert "403" in openstack.refused("flavor", "delete", "walk.tiny")
    admin.do("flavor", "delete", "walk.tiny")

    openstack.do("keypair", "create", "walking", "--private-key", tmp_path / "walking")
    assert (tmp_path / "walking").read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert "walking" in {one["Name"] for one in openstack.show("keypair", "list")}
    assert openstack.do("keypair", "show", "--public-key", "walking").startswith("ssh-")
    openstack.do("keypair", "delete", "walking")


def test_networks_without_servers(openstack: OpenStack, admin: OpenStack) -> None:
    network = openstack.show("network", "create", "empty", "--mtu", "1400")
    subnet = openstack.show(
        *("subnet", "create", "empty", "--network", "empty", "--subnet-range", "10.9.0.0/24"),
        *("--dns-nameserver", "10.9.0.53", "--allocation-pool", "start=10.9.0.10,end=10.9.0.20"),
    )
    assert (subnet["gateway_ip"], subnet["cidr"]) == ("10.9.0.1", "10.9.0.0/24")
    port = openstack.show("port", "create", "pinned", "--network", "empty", "--fixed-ip", "ip-address=10.9.0.77")
    assert port["fixed_ips"][0]["ip_address"] == "10.9.0.77" and port["status"] == "DOWN"
    openstack.do("port", "set", "pinned", "--name", "renamed", "--description", "kept")
    assert "409" in openstack.refused("subnet", "delete", subnet["id"])
    openstack.do("port", "delete", "renamed")

    group = openstack.show("security", "group", "create", "web")
    rule = openstack.show(
        *("security", "group", "rule", "create", "web", "--protocol", "tcp", "--dst-port", "80:81"),
        *("--remote-ip", "10.9.0.0/24"),
    )
    assert "409" in openstack.refused(
        *("security", "group", "rule", "create", "web", "--protocol", "tcp", "--dst-port", "80:81"),
        *("--remote-ip", "10.9.0.0/24"),
    )
    listed = {one["ID"]: one for one in openstack.show("security", "group", "rule", "list", "web")}
    assert listed[rule["id"]]["Port Range"] == "80:81" and len(listed) == 3
    openstack.do("security", "group", "rule", "delete", rule["id"])
    openstack.do("security", "group", "delete", group["id"])

    assert "403" in openstack.refused("network", "create", "mine", "--external")
    assert {one["Name"] for one in admin.show("network", "list", "--external")} == {"public"}
    openstack.do("network", "delete", network["id"])


def test_what_operators_see(openstack: OpenStack, admin: OpenStack, cloud: Cloud) -> None:
    (hypervisor,) = admin.show("hypervisor", "list")
    assert (hypervisor["Hypervisor Hostname"], hypervisor["State"]) == (HOST, "up")
    services = {one["Binary"]: one for one in admin.show("compute", "service", "list")}
    assert (services["nova-compute"]["Host"], services["nova-compute"]["State"]) == (HOST, "up")
    assert admin.show("server", "list", "--all-projects")[0]["Name"] == "first"
    assert openstack.show("availability", "zone", "list")[0]["Zone Name"] == "nova"
    assert "403" in openstack.refused("hypervisor", "list")

    limits = {one["Name"]: one["Value"] for one in openstack.show("limits", "show", "--absolute")}
    assert (limits["total_instances_used"], limits["total_cores_used"], limits["total_ram_used"]) == (1, 1, 128)
    quotas = {one["Resource"]: one["Limit"] for one in openstack.show("quota", "show")}
    assert quotas["instances"] == limits["instances"] and quotas["floating_ips"] == limits["floating_ips"]

    status = cloud.hostler("status")
    assert HOST in status and "first" in status and "not running" not in status
    assert "✗" not in cloud.hostler("doctor")


USER_DATA = """\
#!/bin/sh
echo walked by $(id -un) on $(hostname)
for key in instance-id local-ipv4 hostname public-keys/0/openssh-key; do
    echo "ec2 $key $(timeout 5 wget -q -O - http://169.254.169.254/latest/meta-data/$key)"
done
"""


@dataclass(frozen=True)
class Made:
    """What the tests with guests share: names are ids."""

    key: Path
    network: str
    group: str


@pytest.fixture
def ground(openstack: OpenStack, tmp_path: Path) -> Iterator[Made]:
    """A network behind a router, a group that lets SSH and ping in, a key pair; removed again."""
    key = tmp_path / "walk"
    openstack.do("keypair", "create", "walk", "--private-key", key)
    key.chmod(0o600)
    network = openstack.show("network", "create", "walk")["id"]
    openstack.do("subnet", "create", "walk", "--network", "walk", "--subnet-range", "192.168.77.0/24")
    slaac = ("--ip-version", "6", "--ipv6-ra-mode", "slaac", "--ipv6-address-mode", "slaac")
    openstack.do("subnet", "create", "walk6", "--network", "walk", *slaac, "--subnet-range", "fd77::/64")
    openstack.do("router", "create", "walk", "--external-gateway", "public")
    openstack.do("router", "add", "subnet", "walk", "walk")
    openstack.do("router", "add", "subnet", "walk", "walk6")
    group = openstack.show("security", "group", "create", "walk")["id"]
    openstack.do("security", "group", "rule", "create", "walk", "--protocol", "icmp")
    ping6 = ("--ethertype", "IPv6", "--protocol", "ipv6-icmp")
    openstack.do("security", "group", "rule", "create", "walk", *ping6)
    openstack.do("security", "group", "rule", "create", "walk", "--protocol", "tcp", "--dst-port", "22")
    yield Made(key, network, group)
    openstack.do("router", "remove", "subnet", "walk", "walk")
    openstack.do("router", "remove", "subnet", "walk", "walk6")
    openstack.do("router", "unset", "walk", "--external-gateway")
    openstack.do("router", "delete", "walk")
    openstack.do("network", "delete", "walk")
    openstack.do("security", "group", "delete", "walk")
    openstack.do("keypair", "delete", "walk")


def test_the_life_of_two_servers(openstack: OpenStack, cloud: Cloud, ground: Made, tmp_path: Path) -> None:
    user_data = tmp_path / "user-data"
    user_data.write_text(USER_DATA)
    port = openstack.show(
        *("port", "create", "given", "--network", "walk", "--security-group", "walk"),
        *("--fixed-ip", "ip-address=192.168.77.50"),
    )
    create = ("server", "create", "--image", IMAGE, "--flavor", "m1.nano", "--key-name", "walk")
    plug = ("--network", "walk", "--security-group", "walk")
    tell = ("--user-data", user_data)
    drive = openstack.show(*create, *plug, *tell, "--config-drive", "True", "--property", "team=walkers", "drive")
    assert drive["status"] == "BUILD"
    served = openstack.show(*create, "--port", "given", *tell, "served")
    ids = {"drive": drive["id"], "served": served["id"]}
    for server_id in ids.values():
        _active(cloud, server_id)
    listed = {one["Name"]: one for one in openstack.show("server", "list")}
    assert set(listed) == {"first", "drive", "served"}
    addresses = {name: listed[name]["Networks"]["walk"] for name in ids}
    fixed = {name: next(one for one in addresses[name] if "." in one) for name in ids}
    fixed6 = {name: next(one for one in addresses[name] if ":" in one) for name in ids}
    assert fixed["served"] == "192.168.77.50"

    floating = openstack.show("floating", "ip", "create", "public")["floating_ip_address"]
    openstack.do("server", "add", "floating", "ip", "drive", floating)
    login = Login(floating, ground.key)
    login.wait()
    other = Login(fixed["served"], ground.key, over=login)
    other.wait()

    _inside_with_a_drive(cloud, login, ids["drive"])
    _inside_with_the_service(openstack, other, ids["served"], fixed["served"])
    assert " 0% packet loss" in login.run(f"ping -c 2 {fixed['served']}")
    assert " 0% packet loss" in login.run("ping -c 2 served")  # DNS knows servers' names.
    eventually("IPv6", lambda: " 0% packet loss" in login.run(f"ping -6 -c 2 {fixed6['served']}"))
    _told_of_changes(openstack, other)

    _groups(openstack, login)
    _power(openstack, cloud, login, ids["drive"])
    _events(openstack, cloud, ids["drive"])

    openstack.do("server", "remove", "floating", "ip", "drive", floating)
    eventually("the address is free", login.is_refused)
    openstack.do("floating", "ip", "delete", floating)
    openstack.do("server", "delete", "--wait", *ids.values())
    assert [one["Name"] for one in openstack.show("server", "list")] == ["first"]
    given = openstack.show("port", "show", "given")
    assert (given["status"], given["device_id"], given["mac_address"]) == ("DOWN", "", port["mac_address"])
    openstack.do("port", "delete", "given")


def _active(cloud: Cloud, server_id: str) -> None:
    _status(cloud, server_id, "ACTIVE")


def _status(cloud: Cloud, server_id: str, wanted: str) -> None:
    demo = cloud.demo()

    def probe() -> bool:
        server = demo.get(f"/compute/v2.1/servers/{server_id}")["server"]
        if server["status"] == "ERROR" != wanted:
            pytest.fail(f"ERROR: {server.get('fault')}")
        return bool(server["status"] == wanted and server["OS-EXT-STS:task_state"] is None)

    eventually(f"server {server_id} {wanted}", probe)


def _inside_with_a_drive(cloud: Cloud, login: Login, server_id: str) -> None:
    assert login.run("cat /run/hostler-guest/source").strip() == "drive"
    found = login.run("cat /mnt/config/openstack/latest/meta_data.json")
    assert server_id in found and '"team":"walkers"' in found.replace(": ", ":")
    assert login.run("hostname").strip() == "drive"
    assert f"{server_id}-config.iso" in {path.name for path in (cloud.trial.agent_folder(HOST) / "disks").iterdir()}


def _inside_with_the_service(openstack: OpenStack, login: Login, server_id: str, address: str) -> None:
    assert login.run("cat /run/hostler-guest/source").strip() == "openstack"
    eventually("user-data ended", lambda: "user-data exit 0" in login.run("cat /run/hostler-guest/log"))
    said = openstack.do("console", "log", "show", server_id).replace("\r", "")
    assert "user-data: walked by root on served" in said
    assert re.search(r"^user-data: ec2 instance-id i-[0-9a-f]{8}$", said, re.MULTILINE)
    assert f"user-data: ec2 local-ipv4 {address}\n" in said
    assert "user-data: ec2 public-keys/0/openssh-key ssh-" in said
    get = "timeout 5 wget -q -O - http://169.254.169.254"
    assert server_id in login.run(f"{get}/openstack/latest/meta_data.json")
    assert login.run(f"{get}/latest/user-data") == USER_DATA
    assert address in login.run(f"{get}/openstack/latest/network_data.json") or "ipv4_dhcp" in login.run(
        f"{get}/openstack/latest/network_data.json"
    )


def _told_of_changes(openstack: OpenStack, login: Login) -> None:
    """What changes of a running server reaches its metadata."""
    openstack.do("server", "set", "--property", "colour=red", "served")
    get = "timeout 5 wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json"
    eventually("the guest is told", lambda: '"colour"' in login.run(get, 30))


def _groups(openstack: OpenStack, login: Login) -> None:
    """A group taken from a running server closes it, given back opens it."""
    openstack.do("server", "add", "security", "group", "drive", "default")
    openstack.do("server", "remove", "security", "group", "drive", "walk")
    shown = openstack.show("server", "show", "drive")
    assert [one["name"] for one in shown["security_groups"]] == ["default"]
    # The default group of this project lets SSH in as well; without any group nothing comes in.
    openstack.do("server", "remove", "security", "group", "drive", "default")
    eventually("nothing comes in", login.is_refused)
    openstack.do("server", "add", "security", "group", "drive", "walk")
    login.wait()


def _power(openstack: OpenStack, cloud: Cloud, login: Login, server_id: str) -> None:
    login.run("echo kept > /home/cloud/note; sync")
    boot = login.run("cat /proc/sys/kernel/random/boot_id")
    pid = cloud.qemu_pid(server_id)

    openstack.do("server", "reboot", "--soft", "drive")
    _active(cloud, server_id)
    boot = _rebooted(login, boot)

    openstack.do("server", "reboot", "--hard", "drive")
    _active(cloud, server_id)
    boot = _rebooted(login, boot)

    openstack.do("server", "stop", "drive")
    _status(cloud, server_id, "SHUTOFF")
    assert not Path(f"/proc/{pid}").exists() and "first" in openstack.do("server", "list", "--status", "ACTIVE")
    openstack.do("server", "start", "drive")
    _active(cloud, server_id)
    _rebooted(login, boot)
    assert login.run("cat /home/cloud/note") == "kept\n"


def _rebooted(login: Login, before: str) -> str:
    def probe() -> str | None:
        now = login.run("cat /proc/sys/kernel/random/boot_id", 30)
        return now if now != before else None

    return eventually("another boot", probe, 2 * PATIENCE_S)


def _events(openstack: OpenStack, cloud: Cloud, server_id: str) -> None:
    events = openstack.show("server", "event", "list", server_id)
    assert {"create", "reboot", "stop", "start"} <= {one["Action"] for one in events}
    request = next(one["Request ID"] for one in events if one["Action"] == "create")
    assert REQUEST.match(request)
    shown: dict[str, Any] = openstack.show("server", "event", "show", server_id, request)
    assert shown["action"] == "create" and shown["events"]
    explained = cloud.hostler("explain", request)
    for step in ("place", "port[0]", "image", "disk", "plug[0]", "domain"):
        assert step in explained, explained
