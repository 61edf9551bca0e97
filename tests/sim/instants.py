"""What must be true at every instant, as the world tells at the very moment in which it changes.

`invariants` looks when everything rests. What may never be so, not even for a moment, would be over by then.
"""

import contextvars
from typing import TYPE_CHECKING, Final

from agent.nouns import Noun
from agent.wire.lifecycle import Power
from agent.wire.network import NetworkSpec
from agent.wire.router import RouterSpec
from drivers.hypervisor.fake import FakeDomain
from drivers.network.fake import FakeFabric, FakeNetwork
from drivers.volume.fake import FakeExporter

if TYPE_CHECKING:
    from tests.sim.parties import AgentParty

ON: Final = (Power.RUNNING, Power.PAUSED)

OVERLAP_S: Final = 10.0
"""How long two hosts that both live may have the gateway of one router, when it is moved between them."""

SETTLED_S: Final = 30.0
"""After it started or went on an agent may hold what it was given before: a lease, and some."""


def check_volumes(party: "AgentParty", domain: FakeDomain) -> None:
    """A guest that is on has just got volumes. No other one may have them, unless they are for several."""
    got = {disk.iscsi.volume_id: disk.iscsi for disk in domain.volumes if disk.iscsi is not None}
    for agent in party.simulation.agents:
        for other in agent.site.host.domains():
            if other.machine.spec.id == domain.machine.spec.id or other.power not in ON:
                continue
            for disk in other.volumes:
                source = None if disk.iscsi is None else got.get(disk.iscsi.volume_id)
                if source is not None and not source.is_shared:
                    party.simulation.fail(
                        f"volume {source.volume_id} is in {other.machine.spec.id} on {agent.name} and in "
                        f"{domain.machine.spec.id} on {party.name}"
                    )


class SimExporter(FakeExporter):
    """Exports that are never taken for good from a guest that has them."""

    def __init__(self, party: "AgentParty", tag: str, address: str) -> None:
        super().__init__(party.site.storage, tag, address)
        self._party = party

    def absent(self, export_id: str) -> None:
        """See Exporter."""
        if self._is_for_good(export_id):
            for agent in self._party.simulation.agents:
                for domain in agent.site.host.domains():
                    if domain.power in ON and any(disk.disk_id == export_id for disk in domain.volumes):
                        self._party.simulation.fail(
                            f"export {export_id} is removed, and {domain.machine.spec.id} on {agent.name} has the disk"
                        )
        super().absent(export_id)

    def _is_for_good(self, export_id: str) -> bool:
        """Else it comes back in a moment: its volume is being copied."""
        query = "SELECT absent FROM object WHERE noun = ? AND id = ?"
        row = self._party.site.ledger.execute(query, (Noun.EXPORT.value, export_id)).fetchone()
        return row is not None and bool(row[0])


class SimFabric(FakeFabric):
    """A router's gateway is on one host at a time."""

    def __init__(self, party: "AgentParty", net: FakeNetwork, tag: str) -> None:
        super().__init__(net, tag, party.name)
        self._party = party

    def ensure_router(self, spec: RouterSpec, networks: dict[str, NetworkSpec]) -> None:
        """See Fabric."""
        super().ensure_router(spec, networks)
        if spec.gateway is None:
            return
        for agent in self._party.simulation.agents:
            if agent is not self._party and _has_gateway(agent, spec.id):
                # In nobody's life: whoever raised it may be dead by then.
                later = self._party.simulation.loop.call_later
                later(OVERLAP_S, _still_two, spec.id, self._party, agent, context=contextvars.Context())


def _still_two(router_id: str, one: "AgentParty", other: "AgentParty") -> None:
    """Of hosts whose agents are dead or stand still nothing can be expected, nor where letting go was made to fail."""
    simulation = one.simulation
    since = simulation.loop.time() - SETTLED_S
    for party in (one, other):
        is_well = party.alive and not party.life.is_paused and max(party.started_at, party.resumed_at) < since
        if not is_well or party.site.net._failures.get("ensure_router") or simulation.trouble.threads:
            return
    if _has_gateway(one, router_id) and _has_gateway(other, router_id):
        simulation.fail(f"the gateway of router {router_id} is on {one.name} and on {other.name}")


def _has_gateway(party: "AgentParty", router_id: str) -> bool:
    found = party.site.net.routers.get(router_id)
    return found is not None and found.gateway is not None
