"""Packets between the hosts of a whole cloud: API, controller and agents are real, guests are stacks on taps."""

import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from controller.cli.api import ApiError
from drivers.network import netns
from tests.host.netlab import Guest, ping, talks
from tests.walk.cloud import eventually, output, running_cloud
from tests.walk.leftovers import traces
from tests.walk.wires import COMPUTE, NETWORK, Wires, wired

ONE, TWO = "host1", "host2"

MTU = 1450
HEADERS = 28
"""Of IP and UDP, and of IP and ICMP."""


@pytest.fixture(scope="module")
def wires() -> Iterator[Wires]:
    with running_cloud("wires-", 2, "--drivers", "network", "--bare") as cloud:
        trial = cloud.trial
        with wired(cloud) as wires:
            yield wires
    left = traces(trial)
    assert not left, "left on this machine:\n" + "\n".join(left)


@pytest.fixture(scope="module")
def mine(wires: Wires) -> dict[str, Any]:
    """A network of the administrators' project, whose default group lets its members and ping in."""
    made = wires.network(wires.admin, "mine", "10.0.0.0/24")
    assert made["mtu"] == MTU
    group = default_group(wires)
    rule = {"direction": "ingress", "ethertype": "IPv4", "protocol": "icmp", "security_group_id": group}
    wires.admin.post(f"{NETWORK}/security-group-rules", {"security_group_rule": rule})
    return made


@pytest.fixture(scope="module")
def ends(wires: Wires, mine: dict[str, Any]) -> tuple[Guest, Guest]:
    """A guest on either host."""
    one, two = (wires.guest(wires.admin, mine, host) for host in (ONE, TWO))
    eventually("they reach each other", lambda: one.pings(two.v4, 0.5))
    return one, two


def default_group(wires: Wires) -> str:
    project = wires.admin.get(f"{NETWORK}/networks?name=mine")["networks"][0]["project_id"]
    found = wires.admin.get(f"{NETWORK}/security-groups?name=default&project_id={project}")["security_groups"]
    return str(found[0]["id"])


class Watch:
    """Asks after an address all the time; when the first answer came."""

    def __init__(self, guest: Guest, address: str) -> None:
        self.first: float | None = None
        # A kernel asks for a MAC once a second: here, often enough to see when the network would answer.
        guest.run(lambda: netns.write_sysctl(None, "net.ipv4.neigh.eth0.retrans_time_ms", "10"))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=guest.run, args=(lambda: self._ask(address),), daemon=True)
        self._thread.start()

    def _ask(self, address: str) -> None:
        while not self._stop.is_set():
            if ping(address, 0.1):
                self.first = time.monotonic()
                return

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)


def test_a_new_port_is_reached_from_the_other_host_within_a_second(
    wires: Wires, mine: dict[str, Any], ends: tuple[Guest, Guest]
) -> None:
    """From its binding to the first frame answered; how long its own host takes with it is measured beside."""
    found = []
    for _ in range(3):
        began = time.monotonic()
        for _ in range(20):
            wires.admin.get(f"{NETWORK}/networks/{mine['id']}")
        request_s = (time.monotonic() - began) / 20
        port = wires.port(wires.admin, mine)
        with closing(Watch(ends[0], port["fixed_ips"][0]["ip_address"])) as watch:
            wires.boot(wires.admin, port, zone=TWO)
            path = f"{NETWORK}/ports/{port['id']}"
            eventually(
                "bound", lambda path=path: wires.admin.get(path)["port"]["binding:host_id"] == TWO, every_s=0.005
            )  # type: ignore[misc]
            bound = time.monotonic()
            wires.wire(port, TWO)
            wired_at = time.monotonic()
            eventually("answered", lambda watch=watch: watch.first, every_s=0.005)  # type: ignore[misc]
        assert watch.first is not None
        found.append((watch.first - bound, wired_at - bound, request_s))
        print(f"bound to answered {found[-1][0]:.3f} s, to wired {found[-1][1]:.3f} s; a request {request_s:.4f} s")
    assert statistics.median(answered_s / wired_s for answered_s, wired_s, _ in found) < 8, "others learn late"


def test_the_mtu_is_right_from_end_to_end(wires: Wires, ends: tuple[Guest, Guest]) -> None:
    """A packet of exactly the MTU passes whole; one byte more does not, neither here nor, forced, on the way."""
    one, two = ends
    assert echoed(one, two.v4, MTU - HEADERS)
    with pytest.raises(OSError, match="too long"):
        echoed(one, two.v4, MTU - HEADERS + 1)
    one.run(lambda: output("ip", "link", "set", "eth0", "mtu", "1500"))
    try:
        assert not echoed(one, two.v4, MTU - HEADERS + 1)
        assert echoed(one, two.v4, MTU - HEADERS)
    finally:
        one.run(lambda: output("ip", "link", "set", "eth0", "mtu", str(MTU)))


def echoed(guest: Guest, address: str, size: int) -> bool:
    """Whether an echo of so many bytes, not to be cut in pieces, comes back."""

    def ask() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as handle:
            handle.setsockopt(socket.IPPROTO_IP, 10, 3)  # IP_MTU_DISCOVER: IP_PMTUDISC_PROBE, DF and no memory.
            handle.settimeout(2.0)
            handle.sendto(b"\x08\0\0\0\0\x01\0\x01" + bytes(size), (address, 0))
            try:
                return len(handle.recv(65536)) == size + 8
            except TimeoutError:
                return False

    return guest.run(ask)


def test_bulk_goes_across_hosts_both_ways_at_once(wires: Wires, ends: tuple[Guest, Guest]) -> None:
    one, two = ends
    payload = bytes(range(256)) * 4096 * 8
    with closing(two.serve(two.v4, 5000)):
        connection = one.connect(two.v4, 5000)
        assert connection is not None
        with connection:
            connection.settimeout(60)
            began = time.monotonic()
            sender = threading.Thread(target=connection.sendall, args=(payload,), daemon=True)
            sender.start()
            got = bytearray()
            while len(got) < len(payload) and (data := connection.recv(1 << 16)):
                got += data
            sender.join(10)
            assert bytes(got) == payload
            print(f"{len(payload) >> 20} MiB there and back in {time.monotonic() - began:.1f} s")


def test_tenants_with_the_same_addresses_do_not_meet(wires: Wires, ends: tuple[Guest, Guest]) -> None:
    """Another project has the same subnet on both hosts, and the very addresses."""
    theirs = wires.network(wires.demo, "theirs", "10.0.0.0/24")
    found = []
    placed: dict[str, str] = {}
    for guest in ends:
        fixed = [{"subnet_id": theirs["subnet_id"], "ip_address": guest.v4}]
        port = wires.port(wires.demo, theirs, fixed_ips=fixed)
        server = wires.boot(wires.demo, port, hints={"different_host": list(placed)} if placed else {})
        placed[server] = wires.host_of(server)
        found.append(wires.wire(port, placed[server]))
    assert set(placed.values()) == {ONE, TWO}
    eventually("they reach each other", lambda: reaches(found[0], found[1], 7000))
    for own, foreign in ((ends[0], found[0]), (ends[1], found[1]), (ends[0], found[1])):
        with closing(foreign.serve(foreign.v4, 7001)):
            assert not own.reaches(foreign.v4, 7001, 0.5), "it answers at the own neighbour's address"


def reaches(one: Guest, other: Guest, port: int) -> bool:
    with closing(other.serve(other.v4, port)):
        return one.reaches(other.v4, port, 1.0)


def test_groups_follow_their_members_on_the_other_host(
    wires: Wires, mine: dict[str, Any], ends: tuple[Guest, Guest]
) -> None:
    """Who joins is let in, who leaves is cut off, in the middle of a connection."""
    _, two = ends
    bare = wires.admin.post(f"{NETWORK}/security-groups", {"security_group": {"name": "bare"}})["security_group"]["id"]
    stranger = wires.guest(wires.admin, mine, ONE, security_groups=[bare])
    path = f"{NETWORK}/ports/{stranger.port.id}"
    with closing(two.serve(two.v4, 22)):
        eventually("ping reaches it", lambda: stranger.pings(two.v4, 0.5))
        assert not stranger.reaches(two.v4, 22, 0.7)
        wires.admin.put(path, {"port": {"security_groups": [bare, default_group(wires)]}})
        connection = eventually("let in", lambda: stranger.connect(two.v4, 22, 0.5))
        with connection:
            assert talks(connection, 3.0)
            wires.admin.put(path, {"port": {"security_groups": [bare]}})
            eventually("cut off", lambda: not talks(connection, 0.5))
        assert not stranger.reaches(two.v4, 22, 0.5)


def test_floating_ips_lead_to_guests_of_either_host_and_back(wires: Wires, mine: dict[str, Any]) -> None:
    admin, trial = wires.admin, wires.cloud.trial
    public = external(wires)
    router = admin.post(
        f"{NETWORK}/routers", {"router": {"name": "out", "external_gateway_info": {"network_id": public}}}
    )
    router_id = router["router"]["id"]
    admin.put(f"{NETWORK}/routers/{router_id}/add_router_interface", {"subnet_id": mine["subnet_id"]})
    group = default_group(wires)
    rule = {"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "security_group_id": group}
    admin.post(f"{NETWORK}/security-group-rules", {"security_group_rule": rule})
    fronts: dict[str, str] = {}
    for host in (ONE, TWO):
        port = wires.port(admin, mine)
        assert wires.host_of(wires.boot(admin, port, zone=host)) == host
        guest = wires.wire(port, host, gateway="10.0.0.1")
        body = {"floatingip": {"floating_network_id": public, "port_id": port["id"]}}
        front = admin.post(f"{NETWORK}/floatingips", body)["floatingip"]["floating_ip_address"]
        wires.closables.append(guest.serve(guest.v4, 80))
        eventually(f"{front} leads to {host}", lambda front=front: connects(front, 80))  # type: ignore[misc]
        fronts[host] = front
        assert guest.pings(trial.external_gateway, 3.0), f"a guest of {host} gets no answer from outside"
    assert len(set(fronts.values())) == 2


def connects(address: str, port: int) -> bool:
    """From this machine, which stands outside of the cloud."""
    try:
        with socket.create_connection((address, port), 1.0) as handle:
            return talks(handle, 2.0)
    except OSError:
        return False


def external(wires: Wires) -> str:
    body = {
        "name": "public",
        "router:external": True,
        "provider:network_type": "flat",
        "provider:physical_network": "external",
    }
    made: str = wires.admin.post(f"{NETWORK}/networks", {"network": body})["network"]["id"]
    trial = wires.cloud.trial
    subnet = {"network_id": made, "ip_version": 4, "cidr": trial.external, "gateway_ip": trial.external_gateway}
    wires.admin.post(f"{NETWORK}/subnets", {"subnet": {**subnet, "enable_dhcp": False}})
    return made


def test_a_host_that_was_cut_off_stops_its_evacuated_guest_before_anything_else_about_it(
    wires: Wires, mine: dict[str, Any], ends: tuple[Guest, Guest]
) -> None:
    """Its guests run on meanwhile. Afterwards the one that stayed finds the one that went, and nothing leads astray."""
    stays, elsewhere = ends
    admin, cloud = wires.admin, wires.cloud
    port = wires.port(admin, mine)
    server = wires.boot(admin, port, zone=ONE)
    assert wires.host_of(server) == ONE
    old = wires.wire(port, ONE)
    eventually("it is reached", lambda: elsewhere.pings(old.v4, 0.5))
    evacuate = (f"{COMPUTE}/servers/{server}/action", {"evacuate": {}})
    with pytest.raises(ApiError, match="still in use"):
        admin.post(*evacuate, version="compute 2.14")
    log = cloud.trial.folder / "logs" / f"agent-{ONE}.log"
    output("ip", "link", "set", cloud.space_of(ONE).veth, "down")
    try:
        service = f"{COMPUTE}/os-services?host={ONE}&binary=nova-compute"
        eventually("the host is down", lambda: admin.get(service)["services"][0]["state"] == "down")
        admin.post(*evacuate, version="compute 2.14")
        eventually("it is elsewhere", lambda: wires.host_of(server) == TWO)
        new = wires.wire(port, TWO)
        eventually("it is reached there", lambda: elsewhere.pings(new.v4, 0.5))
        assert stays.pings(old.v4), "on the host that is cut off it runs on"
        began = log.stat().st_size
    finally:
        output("ip", "link", "set", cloud.space_of(ONE).veth, "up")
    eventually("its tap is gone", lambda: not wires.hosts[ONE].has_tap(port["id"]))
    eventually("who stayed finds it where it is", lambda: stays.pings(new.v4, 0.5))
    assert elsewhere.pings(new.v4) and not old.pings(elsewhere.v4, 0.5)
    with log.open() as file:
        file.seek(began)
        said = [one for line in file if server in line or port["id"] in line for one in [json.loads(line)]]
    steps = [(one["event"], one["noun"]) for one in said if one["event"] in ("asked", "converged")]
    assert steps[:2] == [("asked", "domain"), ("converged", "domain")], steps
    assert (said[0]["verb"], ("converged", "port") in steps) == ("absent", True)
    assert entries(wires, ONE, port["mac_address"]) == {cloud.space_of(TWO).address}
    assert entries(wires, TWO, port["mac_address"]) == set()


def entries(wires: Wires, host: str, mac: str) -> set[str]:
    """Where a host's tunnels send what is for a MAC."""
    found = json.loads(wires.cloud.inside("bridge", "-j", "fdb", "show", host=host))
    return {str(one["dst"]) for one in found if one["mac"] == mac and "dst" in one}
