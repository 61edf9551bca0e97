"""Guests without machines: a server's tap on its host, and behind it a namespace with a kernel's stack instead of QEMU.

A cloud whose hosts pretend everything but the network makes the same bridges, tunnels, filters and routers for it, so
that packets can be looked at without waiting for guests to boot.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from agent.wire.lifecycle import Generation
from agent.wire.port import FixedIp, PortSpec
from controller.cli.api import Client
from drivers.network import names, netns
from drivers.network.links import opened
from tests.host.netlab import Guest, Pump
from tests.several import ground
from tests.walk.cloud import Cloud, eventually

T = TypeVar("T")

COMPUTE, NETWORK = "/compute/v2.1", "/network/v2.0"


class HostOfWires:
    """What a guest of `tests.host.netlab` wants of its host: here, one of a cloud's."""

    def __init__(self, cloud: Cloud, name: str, pump: Pump) -> None:
        self.name = name
        self.tag = f"{cloud.trial.tag}-{name}"
        self.pump = pump
        self._namespace = str(cloud.space_of(name).pins / "net")

    def run(self, fn: Callable[[], T]) -> T:
        """In the host's network namespace."""
        return netns.call(self._namespace, fn)

    def has_tap(self, port_id: str) -> bool:
        """Whether it is in its bridge, and the agent done with it."""

        def look() -> bool:
            with opened() as links:
                found = links.find(names.tap(port_id))
                return found is not None and found.master != 0 and found.is_up

        return self.run(look)


class Wires:
    """A cloud, and the stacks behind its servers' taps."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.admin, self.demo = cloud.admin(), cloud.demo()
        self.pump = Pump()
        self.hosts = {name: HostOfWires(cloud, name, self.pump) for name in cloud.trial.hosts}
        self.image = ground.image(self.admin)
        self.closables: list[Any] = []
        self._guests: list[Guest] = []

    def network(self, client: Client, name: str, cidr: str, **subnet: Any) -> dict[str, Any]:
        """A tenant network with a subnet."""
        made: dict[str, Any] = client.post(f"{NETWORK}/networks", {"network": {"name": name}})["network"]
        body = {"network_id": made["id"], "ip_version": 4, "cidr": cidr, **subnet}
        made["subnet_id"] = client.post(f"{NETWORK}/subnets", {"subnet": body})["subnet"]["id"]
        return made

    def port(self, client: Client, network: dict[str, Any], **values: Any) -> dict[str, Any]:
        body = {"port": {"network_id": network["id"], **values}}
        made: dict[str, Any] = client.post(f"{NETWORK}/ports", body)["port"]
        return made

    def boot(self, client: Client, port: dict[str, Any], **wish: Any) -> str:
        """A server with this port, accepted. `zone` (administrators) names the host, `hints` are the scheduler's."""
        hints = wish.pop("hints", {})
        body = {"name": port["id"][:8], "imageRef": self.image, "flavorRef": "42", "networks": [{"port": port["id"]}]}
        if "zone" in wish:
            body["availability_zone"] = f"nova:{wish['zone']}"
        answer = client.post(f"{COMPUTE}/servers", {"server": body, "os:scheduler_hints": hints})
        return str(answer["server"]["id"])

    def host_of(self, server_id: str) -> str:
        """Where it is, once it is ACTIVE."""

        def look() -> str | None:
            found = self.admin.get(f"{COMPUTE}/servers/{server_id}")["server"]
            assert found["status"] != "ERROR", found.get("fault")
            return str(found["OS-EXT-SRV-ATTR:host"]) if found["status"] == "ACTIVE" else None

        return eventually(f"server {server_id} is ACTIVE", look)

    def wire(self, port: dict[str, Any], host: str, mtu: int = 1450, gateway: str | None = None) -> Guest:
        """The stack behind a port's tap, as soon as that is there."""
        eventually(f"the tap of {port['id']}", lambda: self.hosts[host].has_tap(port["id"]) or None, every_s=0.005)
        fixed = tuple(FixedIp(subnet_id=one["subnet_id"], address=one["ip_address"]) for one in port["fixed_ips"])
        spec = PortSpec(
            id=port["id"],
            generation=Generation(1, 1),
            network_id=port["network_id"],
            domain_id="",
            mac=port["mac_address"],
            fixed_ips=fixed,
            hostname="",
            groups=(),
        )
        guest = Guest(self.hosts[host], spec, gateway, None)  # type: ignore[arg-type]
        self._guests.append(guest)

        def narrow() -> None:
            with opened() as links:
                links.shape(links.get("eth0"), mtu=mtu)

        guest.run(narrow)
        return guest

    def guest(self, client: Client, network: dict[str, Any], host: str, **values: Any) -> Guest:
        """A server on a host (by an administrator), and its stack."""
        port = self.port(client, network, **values)
        assert self.host_of(self.boot(client, port, zone=host)) == host
        return self.wire(port, host)

    def close(self) -> None:
        for closable in self.closables:
            closable.close()
        for guest in self._guests:
            guest.close()
        self.pump.close()


@contextmanager
def wired(cloud: Cloud) -> Iterator[Wires]:
    """Its stacks go before the cloud does."""
    wires = Wires(cloud)
    try:
        yield wires
    finally:
        wires.close()
