"""A cloud of two hosts with real guests: networks between them, a server that moves, and a host that dies."""

import subprocess
import time
from typing import Any

import pytest

from controller.cli import furnish
from controller.cli.api import ApiError
from controller.cli.furnish import KEY_NAME
from controller.cli.up import ssh_argv
from tests.walk.cloud import Cloud, eventually, output

COMPUTE = "/compute/v2.1"
DOWN_S = 60


def shown(cloud: Cloud, server_id: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.admin().get(f"{COMPUTE}/servers/{server_id}")["server"]
    return found


def host_of(cloud: Cloud, server_id: str) -> str:
    return str(shown(cloud, server_id)["OS-EXT-SRV-ATTR:host"])


def inside(cloud: Cloud, address: str, *argv: str) -> str:
    """What a program prints inside a guest, once it can be logged into."""

    def said() -> str | None:
        argv_ = (*ssh_argv(cloud.trial, address), "-o", "BatchMode=yes", *argv)
        done = subprocess.run(argv_, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout if done.returncode == 0 else None

    try:
        return eventually(f"{argv} in the guest at {address}", said)
    except pytest.fail.Exception as failure:
        first = cloud.server_id("first")
        console = cloud.demo().post(f"{COMPUTE}/servers/{first}/action", {"os-getConsoleOutput": {"length": 40}})
        raise AssertionError(f"{failure}\n{console['output']}\n{_routers(cloud)}") from failure


def _routers(cloud: Cloud) -> str:
    """For whoever looks into a failure: what every host's routers and bridges know."""
    look = "for n in $(ls /run/netns | grep router); do ip netns exec $n sh -c 'ip -br addr; ip route; ip neigh'; done"
    return "\n".join(f"{host}: {cloud.inside('sh', '-c', look, host=host)}" for host in cloud.trial.hosts)


def act(cloud: Cloud, server_id: str, body: dict[str, Any]) -> float:
    """Do it as the admin; how long it took until the server rested."""
    began = time.monotonic()
    cloud.admin().post(f"{COMPUTE}/servers/{server_id}/action", body)
    eventually(f"{body} done", lambda: shown(cloud, server_id)["OS-EXT-STS:task_state"] is None)
    return time.monotonic() - began


def left_of(cloud: Cloud, host: str, server_id: str) -> list[str]:
    """Domains, taps and disks of a server on a host."""
    disks = cloud.trial.agent_folder(host) / "disks"
    found = [path.name for path in disks.glob(f"*{server_id}*")]
    found += [line for line in cloud.inside("virsh", "-q", "list", "--all", "--name", host=host).split() if line]
    return found + [link for link in cloud.inside("ls", "/sys/class/net", host=host).split() if link.startswith("t")]


def test_servers_on_two_hosts_are_one_network(pair: Cloud) -> None:
    demo, first = pair.demo(), pair.server_id("first")
    network = demo.get("/network/v2.0/networks?name=demo")["networks"][0]["id"]
    image = demo.get("/image/v2/images?name=hostler-tiny")["images"][0]["id"]
    wish = {"name": "second", "imageRef": image, "flavorRef": "42", "networks": [{"uuid": network}]}
    wish["key_name"] = KEY_NAME
    body = {"server": wish, "os:scheduler_hints": {"different_host": [first]}}
    second = demo.post(f"{COMPUTE}/servers", body)["server"]["id"]
    eventually("second is ACTIVE", lambda: shown(pair, second)["status"] == "ACTIVE")
    assert {host_of(pair, first), host_of(pair, second)} == {"host1", "host2"}
    (fixed,) = [one["addr"] for ports in shown(pair, second)["addresses"].values() for one in ports]
    said = inside(pair, pair.floating_address(first), "ping", "-c", "3", "-w", "20", fixed)
    assert "0% packet loss" in said
    mtu = inside(pair, pair.floating_address(first), "cat", "/sys/class/net/eth0/mtu")
    assert mtu.strip() == "1450"
    assert "0% packet loss" in inside(pair, pair.floating_address(first), "ping", "-s", "1422", "-c", "2", fixed)
    floating = furnish.floating_ip(demo, demo.get("/network/v2.0/networks?name=public")["networks"][0]["id"], second)
    assert inside(pair, floating, "hostname").strip() == "second"
    demo.delete(f"{COMPUTE}/servers/{second}")
    eventually("second is gone", lambda: second not in str(demo.get(f"{COMPUTE}/servers")))


def test_a_cold_migration_keeps_the_disk_and_leaves_nothing(pair: Cloud) -> None:
    first = pair.server_id("first")
    before, address = host_of(pair, first), pair.floating_address(first)
    inside(pair, address, "echo kept > kept; sync")
    print(f"cold migration: {act(pair, first, {'migrate': None}):.1f} s")
    after = host_of(pair, first)
    assert shown(pair, first)["status"] == "VERIFY_RESIZE" and after != before
    assert inside(pair, address, "cat", "kept").strip() == "kept"
    inside(pair, address, "echo lost > lost; sync")
    eventually("only the disk stays", lambda: len(left_of(pair, before, first)) == 1)
    print(f"and back: {act(pair, first, {'revertResize': None}):.1f} s")
    assert (shown(pair, first)["status"], host_of(pair, first)) == ("ACTIVE", before)
    assert inside(pair, address, "test ! -e lost && cat kept").strip() == "kept", "it is the disk that it left"
    eventually("nothing is left there", lambda: not left_of(pair, after, first))
    act(pair, first, {"migrate": None})
    act(pair, first, {"confirmResize": None})
    assert (shown(pair, first)["status"], host_of(pair, first)) == ("ACTIVE", after)
    assert inside(pair, address, "cat", "kept").strip() == "kept"
    eventually("nothing is left behind", lambda: not left_of(pair, before, first))
    newest = pair.admin().get(f"{COMPUTE}/os-migrations?instance_uuid={first}")["migrations"]
    told = [(one["status"], one["source_compute"]) for one in newest[:2]]
    assert told == [("confirmed", before), ("reverted", before)]


def test_a_host_that_dies_loses_its_server_to_another_and_is_cleaned_when_it_returns(pair: Cloud) -> None:
    first = pair.server_id("first")
    before, address = host_of(pair, first), pair.floating_address(first)
    with pytest.raises(ApiError, match="still in use"):
        act(pair, first, {"evacuate": {"onSharedStorage": False}})
    output("ip", "link", "set", pair.space_of(before).veth, "down")
    try:
        hosts = f"{COMPUTE}/os-services?host={before}"
        eventually("the host is down", lambda: pair.admin().get(hosts)["services"][0]["state"] == "down", DOWN_S)
        _gets_no_volume(pair, first)
        print(f"evacuation: {act(pair, first, {'evacuate': {'onSharedStorage': False}}):.1f} s")
        assert shown(pair, first)["status"] == "ACTIVE" and host_of(pair, first) != before
        assert inside(pair, address, "hostname").strip() == "first"
        assert left_of(pair, before, first), "nobody could reach it"
    finally:
        output("ip", "link", "set", pair.space_of(before).veth, "up")
    eventually("it is cleaned", lambda: not left_of(pair, before, first))


def _gets_no_volume(cloud: Cloud, server_id: str) -> None:
    """A volume is not attached to a server on a dead host, and is as it was."""
    demo = cloud.demo()
    path = f"/volume/v3/volumes/{demo.post('/volume/v3/volumes', {'volume': {'size': 1}})['volume']['id']}"
    made = eventually("it is there", lambda: (one := demo.get(path)["volume"])["status"] == "available" and one)
    with pytest.raises(ApiError, match=r"409 .*its host is down"):
        wish = {"volumeAttachment": {"volumeId": made["id"]}}
        demo.post(f"{COMPUTE}/servers/{server_id}/os-volume_attachments", wish)
    assert demo.get(path)["volume"]["status"] == "available"
    demo.delete(path)


def test_a_drained_host_is_empty(pair: Cloud) -> None:
    first = pair.server_id("first")
    before, address = host_of(pair, first), pair.floating_address(first)
    assert f"{before} is empty" in pair.hostler("host", "drain", before)
    after = host_of(pair, first)
    assert after != before
    assert inside(pair, address, "hostname").strip() == "first"
    pair.hostler("host", "enable", before)
    eventually("nothing is left behind", lambda: not left_of(pair, before, first))
    act(pair, first, {"os-stop": None})
    assert f"{after} is empty" in pair.hostler("host", "drain", after)
    assert (shown(pair, first)["status"], host_of(pair, first)) == ("SHUTOFF", before)
    pair.hostler("host", "enable", after)
    act(pair, first, {"os-start": None})
    assert "drained" not in pair.hostler("host", "list")
