"""The agent's settings, their defaults, and what each is for. In agent.toml, or HOSTLER_<SECTION>_<KEY>.

The sections [hypervisor], [image] and [volume] belong to their drivers (drivers.hypervisor.load, drivers.image.load,
drivers.volume.load).
"""

import ipaddress
from pathlib import Path

import msgspec

from agent.effects import Places
from agent.guard import RUN, UID
from drivers.hypervisor.load import HypervisorSettings
from drivers.image.load import ImageSettings
from drivers.network.settings import NetworkSettings, PhysicalNetwork, Underlay
from drivers.volume.load import Place, VolumeSettings


class Agent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [agent]."""

    state: str = "/var/lib/hostler/agent"  # Ledger, keys, images, disks: what must outlive everything.
    run: str = RUN  # Sockets.
    hostname: str = ""  # Empty: the machine's.
    underlay_address: str = "127.0.0.1"  # This host's address among hosts and controllers.
    underlay_cidr: str = "127.0.0.0/8"  # All of them; guests never reach it.
    controller: str = "127.0.0.1:5443"  # A controller's host channel, where a new host joins.
    join_token_file: str = ""  # Empty: `join-token` in the state folder. Read once, when the host joins.
    channel_port: int = 5444  # This host's own channel, on its underlay address; controllers' are at 5443.
    metrics_listen: str = "127.0.0.1:9465"  # Empty: no metrics.
    log_level: str = "info"
    threads: int = 16  # Blocking calls at once. More: memory. Fewer: image fetches hold up the rest.
    shutdown_grace_s: float = 60.0  # From the power button to the plug.
    uid_first: int = 200_000  # Guests' own uids, a range that nothing else on the host uses.
    uid_count: int = 65_536

    @property
    def folder(self) -> Path:
        """Everything that survives."""
        return Path(self.state)

    @property
    def token_path(self) -> Path:
        """Where the join token is."""
        return Path(self.join_token_file) if self.join_token_file else self.folder / "join-token"


class Guard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [guard]: the unprivileged process that serves metadata."""

    uid: int = UID
    socket: str = ""  # Empty: `guard.sock` in the agent's run folder. The guard must be told the same path.


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [network]."""

    driver: str = "bridge"  # bridge | fake
    physical_networks: dict[str, PhysicalNetwork] = {}  # Name → bridge, NIC, addresses, uplink.
    infrastructure: tuple[str, ...] = ()  # Further CIDRs that guests never reach; the underlay is one anyway.
    vxlan_port: int = 4789
    host: str = ""  # Tells hosts apart that share /run/netns; lower case letters and digits.
    folder: str = ""  # dnsmasq's files; empty: `dhcp` in the agent's run folder. All its parents must be searchable.
    fake_latency_s: float = 0.0


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything in agent.toml."""

    agent: Agent = Agent()
    guard: Guard = Guard()
    hypervisor: HypervisorSettings = HypervisorSettings()
    network: Network = Network()
    image: ImageSettings = ImageSettings()
    volume: VolumeSettings = VolumeSettings()

    def guard_socket(self) -> Path:
        """Where agent and guard meet."""
        return Path(self.guard.socket) if self.guard.socket else Path(self.agent.run) / "guard.sock"

    def places(self) -> Places:
        """Where guests live."""
        return Places(
            guests=str(self.agent.folder / "guests"),
            uids=range(self.agent.uid_first, self.agent.uid_first + self.agent.uid_count),
            shutdown_grace_s=self.agent.shutdown_grace_s,
            totals=self.agent.folder / "ledger" / "totals.json",
        )

    def volume_place(self, tag: str) -> Place:
        """What the volume drivers are told."""
        return Place(
            tag=tag,
            state=str(self.agent.folder),
            run=self.agent.run,
            address=self.agent.underlay_address,
            confined_uid=self.image.confined_uid,
        )

    def network_settings(self, tag: str) -> NetworkSettings:
        """What the network drivers are told. Raises ValueError for what cannot be."""
        agent = self.agent
        is_alone = ipaddress.ip_address(agent.underlay_address).is_loopback
        return NetworkSettings(
            tag=tag,
            folder=self.network.folder or f"{self.agent.run}/dhcp",
            host=self.network.host,
            driver=self.network.driver,
            physical_networks=self.network.physical_networks,
            underlay=None
            if is_alone
            else Underlay(address=agent.underlay_address, cidr=agent.underlay_cidr, vxlan_port=self.network.vxlan_port),
            infrastructure=self.network.infrastructure,
            latency_s=self.network.fake_latency_s,
        )
