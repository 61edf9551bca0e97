"""A host for networking tests: a namespace of its own in which drivers run, and guests on its taps.

A guest is a namespace with a kernel's whole stack, its frames carried between its own tap and the host's by a pump;
what it must not send is written to the host's tap directly. Nothing touches the machine's own namespace.
"""

import contextlib
import fcntl
import ipaddress
import os
import selectors
import shutil
import socket
import struct
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from agent.wire.group import AddressesSpec, GroupSpec, RuleSpec
from agent.wire.lifecycle import Generation
from agent.wire.network import DhcpPort, NetworkSpec, SubnetSpec
from agent.wire.port import AddressPair, FixedIp, PortSpec
from drivers.network import dnsmasq, names, netns
from drivers.network.links import Route, opened
from drivers.network.nft import Ruleset
from drivers.network.settings import NetworkSettings

T = TypeVar("T")
G1 = Generation(0, 1)
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 2, 0x1000


class InHost:
    """A driver whose every method runs inside the host's namespace."""

    def __init__(self, namespace: str, driver: Any) -> None:
        self._namespace = namespace
        self._driver = driver

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._driver, name)
        return lambda *args, **kwargs: netns.call(self._namespace, lambda: method(*args, **kwargs))


class Host:
    """A host's namespace, its settings, its guests."""

    def __init__(self, **settings: Any) -> None:
        self.tag = uuid.uuid4().hex[:4]
        self.namespace = f"zzhost-{self.tag}"
        self.folder = Path(tempfile.mkdtemp(prefix="netlab-"))
        self.folder.chmod(0o755)
        self.settings = NetworkSettings(tag=self.tag, folder=str(self.folder / "net"), **settings)
        self.pump = Pump()
        self.guests: list[Guest] = []
        self._others: list[str] = []
        netns.ensure(self.namespace)
        self._before = self.remains()

    def run(self, fn: Callable[[], T]) -> T:
        return netns.call(self.namespace, fn)

    def driver(self, driver: Any) -> Any:
        return InHost(self.namespace, driver)

    def namespace_beside(self, name: str) -> str:
        """Another namespace, removed with the host."""
        full = f"zz{name}-{self.tag}"
        netns.ensure(full)
        self._others.append(full)
        return full

    def remains(self) -> dict[str, Any]:
        """Everything that a driver could have left behind."""
        with_folder = [
            entry.name
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and str(self.folder).encode() in _command_line(entry)
        ]
        return {
            "links": self.run(_link_names),
            "namespaces": [name for name in netns.listed() if name.startswith(f"hostler-{self.tag}")],
            "processes": with_folder,
            "tables": sorted(Ruleset(self.namespace).tables()),
            "files": sorted(str(path) for path in self.folder.rglob("*") if path.is_file()),
        }

    def leftovers(self) -> dict[str, Any]:
        """What remains now and was not there at first."""
        now = self.remains()
        return {key: now[key] for key in now if now[key] != self._before[key]}

    def close(self) -> None:
        for guest in self.guests:
            guest.close()
        self.pump.close()
        for folder in (self.folder / "net").glob("*"):
            dnsmasq.stop(folder)
        own = [name for name in netns.listed() if name.startswith(f"hostler-{self.tag}-")]  # Of a test that failed.
        for name in (*own, *self._others, self.namespace):
            netns.absent(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def guest(self, port: PortSpec, gateway: str | None = None, gateway6: str | None = None) -> "Guest":
        """A machine with a whole stack behind the port's tap."""
        guest = Guest(self, port, gateway, gateway6)
        self.guests.append(guest)
        return guest

    def wire(self, tap: str) -> "Wire":
        """The bare end of a tap: frames as bytes."""
        return Wire(self.run(lambda: open_tap(tap)))


class Wire:
    """Frames in and out of a tap."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def send(self, frame: Any) -> None:
        os.write(self.handle, bytes(frame))

    def frames(self, wait_s: float = 0.4) -> list[bytes]:
        """What comes within the time."""
        found, deadline = [], time.monotonic() + wait_s
        while (left_s := deadline - time.monotonic()) > 0:
            with selectors.DefaultSelector() as selector:
                selector.register(self.handle, selectors.EVENT_READ)
                if selector.select(left_s):
                    found.append(os.read(self.handle, 65536))
        return found

    def got(self, marker: bytes, wait_s: float = 3.0) -> bool:
        """Whether a frame with this in it comes; ends as soon as it does."""
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            if any(marker in frame for frame in self.frames(0.05)):
                return True
        return False

    def close(self) -> None:
        os.close(self.handle)


class Guest:
    """A namespace as a guest. `wire` sends what its stack would not."""

    def __init__(self, host: Host, port: PortSpec, gateway: str | None, gateway6: str | None) -> None:
        self.port = port
        self.namespace = f"zzguest-{host.tag}-{names.short(port.id)}"
        netns.ensure(self.namespace)
        outside = host.run(lambda: open_tap(names.tap(port.id)))
        inside = netns.call(self.namespace, lambda: open_tap("eth0"))
        self.outside = Wire(outside)
        self._pump = host.pump
        self._handles = (outside, inside)
        netns.call(self.namespace, lambda: self._shape(gateway, gateway6))
        host.pump.add(outside, inside)

    def _shape(self, gateway: str | None, gateway6: str | None) -> None:
        for key in ("all", "default", "eth0"):
            netns.write_sysctl(None, f"net.ipv6.conf.{key}.accept_dad", "0")
        netns.write_sysctl(None, "net.ipv4.ping_group_range", "0 0")
        with opened() as links:
            link = links.get("eth0")
            links.shape(link, address=self.port.mac)
            links.shape(link, state="up")
            texts = [f"{fixed.address}/{24 if '.' in fixed.address else 64}" for fixed in self.port.fixed_ips]
            links.ensure_addresses(link, texts)
            routes = [Route("0.0.0.0/0", gateway, link.index)] if gateway else []
            routes += [Route("::/0", gateway6, link.index)] if gateway6 else []
            links.ensure_routes(routes)

    def run(self, fn: Callable[[], T]) -> T:
        return netns.call(self.namespace, fn)

    def send(self, frame: Any) -> None:
        """A frame as if the guest had sent it."""
        self.outside.send(frame)

    @property
    def v4(self) -> str:
        return next(fixed.address for fixed in self.port.fixed_ips if "." in fixed.address)

    @property
    def v6(self) -> str:
        return next(fixed.address for fixed in self.port.fixed_ips if ":" in fixed.address)

    def pings(self, address: str, wait_s: float = 2.0) -> bool:
        """Whether an echo comes back."""
        return self.run(lambda: ping(address, wait_s))

    def serve(self, address: str, port: int) -> "Echo":
        return Echo(self.namespace, address, port)

    def connect(self, address: str, port: int, wait_s: float = 2.0, source_port: int = 0) -> socket.socket | None:
        """A TCP connection, or None."""

        def inside() -> socket.socket | None:
            handle = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            handle.settimeout(wait_s)
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                if source_port:
                    handle.bind(("", source_port))
                handle.connect((address, port))
            except OSError:
                handle.close()
                return None
            return handle

        return self.run(inside)

    def reaches(self, address: str, port: int, wait_s: float = 2.0) -> bool:
        """Whether a TCP connection can be made and carries data."""
        handle = self.connect(address, port, wait_s)
        if handle is None:
            return False
        with handle:
            return talks(handle, wait_s)

    def close(self) -> None:
        self._pump.remove(*self._handles)
        for handle in self._handles:
            os.close(handle)
        netns.absent(self.namespace)


class Echo:
    """A TCP server inside a namespace that says back what it hears, and can speak first."""

    def __init__(self, namespace: str, address: str, port: int) -> None:
        self.listener = netns.listen(namespace, address, port)
        self.listener.setblocking(True)
        self.connections: list[socket.socket] = []
        self.peers: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, peer = self.listener.accept()
            except OSError:
                return
            self.peers.append(peer[0])
            self.connections.append(connection)
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        try:
            while data := connection.recv(4096):
                connection.sendall(data)
        except OSError:
            return

    def close(self) -> None:
        for handle in (self.listener, *self.connections):
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)
            handle.close()


class Pump:
    """Carries frames between pairs of handles until closed."""

    def __init__(self) -> None:
        self._pairs: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = os.pipe()
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="pump", daemon=True)
        self._thread.start()

    def add(self, one: int, other: int) -> None:
        with self._lock:
            for near, far in ((one, other), (other, one)):
                self._pairs[near] = far
                self._selector.register(near, selectors.EVENT_READ)
        os.write(self._wake_out, b"x")

    def remove(self, one: int, other: int) -> None:
        with self._lock:
            for handle in (one, other):
                if self._pairs.pop(handle, None) is not None:
                    self._selector.unregister(handle)

    def close(self) -> None:
        self._stopping = True
        os.write(self._wake_out, b"x")
        self._thread.join(5)
        self._selector.close()
        os.close(self._wake_in)
        os.close(self._wake_out)

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(1):
                with self._lock:
                    self._carry(key.fd)

    def _carry(self, handle: int) -> None:
        if handle == self._wake_in:
            os.read(handle, 64)
            return
        far = self._pairs.get(handle)
        if far is None:
            return
        try:
            os.write(far, os.read(handle, 65536))
        except OSError:  # A tap that is down or gone: frames are lost, as on any wire.
            time.sleep(0.001)


def open_tap(name: str) -> int:
    """The frames of a tap in the calling thread's namespace; made if it is missing."""
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return handle


def ping(address: str, wait_s: float) -> bool:
    """One echo request, from the calling thread's namespace."""
    is_v6 = ":" in address
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if is_v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as handle:
        handle.settimeout(wait_s)
        try:
            handle.sendto(struct.pack("!BBHHH", 128 if is_v6 else 8, 0, 0, 0, 1) + b"netlab", (address, 0))
            return handle.recv(512)[0] in (0, 129)
        except OSError:
            return False


def talks(connection: socket.socket, wait_s: float = 2.0) -> bool:
    """Whether bytes go there and come back."""
    connection.settimeout(wait_s)
    try:
        connection.sendall(b"word")
        return connection.recv(16) == b"word"
    except OSError:
        return False


def hears(connection: socket.socket, wait_s: float) -> bool:
    """Whether the other end says something within the time."""
    connection.settimeout(wait_s)
    try:
        return connection.recv(64) != b""
    except OSError:
        return False


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def _link_names() -> list[str]:
    with opened() as links:
        return sorted(link.name for link in links.all())


# ---------------------------------------------------------------------------------------------------------------
# Specs.


def an_id(*words: object) -> str:
    """A stable id for a test's object."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join(map(str, words))))


def a_network(name: str = "net", v4: str = "10.0.0.0/24", v6: str | None = "fd00::/64", **changes: Any) -> NetworkSpec:
    """A tenant network with DHCP port .2 and gateway .1."""
    subnets, addresses = [], []
    for cidr in (v4, v6):
        if cidr is None:
            continue
        prefix = ipaddress.ip_network(cidr)
        subnet_id = an_id("subnet", name, cidr)
        subnets.append(
            SubnetSpec(id=subnet_id, cidr=cidr, ip_version=prefix.version, gateway=str(prefix[1]), dhcp=True)
        )
        addresses.append((subnet_id, str(prefix[2])))
    fields: dict[str, Any] = {
        "id": an_id("network", name),
        "generation": G1,
        "segment": 100,
        "mtu": 1450,
        "subnets": tuple(subnets),
        "dhcp": DhcpPort(port_id=an_id("dhcp", name), mac="fa:16:3e:00:00:02", addresses=tuple(addresses)),
    }
    return NetworkSpec(**{**fields, **changes})


def a_port(network: NetworkSpec, number: int, **changes: Any) -> PortSpec:
    """A port with the addresses of this number in every subnet."""
    fields: dict[str, Any] = {
        "id": an_id("port", network.id, number),
        "generation": G1,
        "network_id": network.id,
        "domain_id": an_id("domain", number),
        "mac": f"fa:16:3e:00:01:{number:02x}",
        "fixed_ips": tuple(
            FixedIp(subnet_id=subnet.id, address=str(ipaddress.ip_network(subnet.cidr)[number]))
            for subnet in network.subnets
        ),
        "hostname": f"guest-{number}",
    }
    return PortSpec(**{**fields, **changes})


def a_rule(direction: str = "ingress", ethertype: str = "IPv4", **changes: Any) -> RuleSpec:
    fields: dict[str, Any] = {"id": uuid.uuid4().hex, "direction": direction, "ethertype": ethertype}
    return RuleSpec(**{**fields, **changes})


def a_group(name: str, *rules: RuleSpec) -> GroupSpec:
    return GroupSpec(id=an_id("group", name), generation=G1, rules=rules)


def outward() -> tuple[RuleSpec, ...]:
    """The egress rules that every new group has."""
    return a_rule("egress", "IPv4"), a_rule("egress", "IPv6")


def members(group: GroupSpec, *addresses: str) -> AddressesSpec:
    return AddressesSpec(id=group.id, generation=G1, addresses=addresses)


def a_pair(cidr: str, mac: str) -> AddressPair:
    return AddressPair(cidr=cidr, mac=mac)


def by_id(*specs: Any) -> dict[str, Any]:
    return {spec.id: spec for spec in specs}


def closing(host: Host) -> Iterator[Host]:
    """For fixtures: yields, and closes even when the test failed."""
    try:
        yield host
    finally:
        host.close()
