"""What the host has and can do, told at every start, and its heartbeat."""

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.effects import Effects
from agent.nouns import Noun
from agent.probe import Probe
from agent.wire.domain import DomainStatus
from agent.wire.host import Door, Heartbeat, Inventory
from agent.wire.lifecycle import Power
from drivers.hypervisor.base import Capabilities
from drivers.network.base import NetworkCapabilities

WIRE_VERSION: Final = 1
"""The version in every subject."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this host is, as the controller said when it joined."""

    host_id: str
    cloud: str
    tag: str  # The cloud's 4 hex digits, in every name of a host object.
    underlay_address: str


class Inventories:
    """Renders them. The drivers' capabilities are asked once, at start."""

    def __init__(
        self,
        identity: Identity,
        fx: Effects,
        probe: Probe,
        hypervisor: Capabilities,
        network: NetworkCapabilities,
        door: Callable[[], Door | None] = lambda: None,
    ) -> None:
        self.identity = identity
        self.hypervisor = hypervisor
        self.network = network
        self._fx = fx
        self._probe = probe
        self._version = _version()
        self._door = door

    def inventory(self) -> Inventory:
        """What the host has and can do."""
        facts, virt, ledger = self._probe.facts(), self.hypervisor, self._fx.ledger
        return Inventory(
            host_id=self.identity.host_id,
            hostname=facts.hostname,
            underlay_address=self.identity.underlay_address,
            agent_version=self._version,
            wire_version=WIRE_VERSION,
            boot_id=facts.boot_id,
            ledger_incarnation=ledger.incarnation,
            ledger_high_water=ledger.high_water,
            vcpus=virt.vcpus,
            memory_mib=virt.memory_mib,
            disk_gib=facts.disk_gib,
            virt_type=virt.virt_type,
            hypervisor_version=virt.version,
            cpu_model=virt.cpu_model,
            cpu_arch=virt.cpu_arch,
            physical_networks=self.network.physical_networks,
            capabilities=self._capabilities(),
            pools=self._fx.pools,
        )

    def heartbeat(self, boot: str) -> Heartbeat:
        """That the host is alive, and how it is."""
        facts, ledger = self._probe.facts(), self._fx.ledger
        return Heartbeat(
            host_id=self.identity.host_id,
            boot=boot,
            digest=ledger.digest(),
            ledger_high_water=ledger.high_water,
            disk_free_gib=facts.disk_free_gib,
            memory_free_mib=facts.memory_free_mib,
            load_1=facts.load_1,
            running_domains=self._running(),
            door=self._door(),
            pools=self._fx.pools,
        )

    def _capabilities(self) -> tuple[str, ...]:
        groups = "groups:stateful" if self.network.stateful_groups else "groups:stateless"
        return (groups, f"network:{self.network.driver}", f"virt:{self.hypervisor.virt_type}")

    def _running(self) -> int:
        seen = (track.seen for key, track in self._fx.tracks.items() if key.noun is Noun.DOMAIN)
        return sum(1 for status in seen if isinstance(status, DomainStatus) and status.power is Power.RUNNING)


def _version() -> str:
    try:
        return importlib.metadata.version("hostler")
    except importlib.metadata.PackageNotFoundError:
        return "0"
