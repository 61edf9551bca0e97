"""The host's own check-up: what an operator would look at first, as findings with a sentence each."""

from typing import Final

from agent.effects import Effects
from agent.inventory import Inventories
from agent.probe import Probe
from agent.tracks import fault_of
from agent.wire.host import CheckUp, Finding

GUARD_WAIT_S: Final = 0.5
DISK_FREE_GIB_MIN: Final = 2
"""Less, and the ledger and the guests' disks soon cannot grow."""

POOL_FREE_PERCENT_MIN: Final = 3
"""Of a pool of volumes. Less, and guests soon cannot write."""

NAMES_MAX: Final = 10
"""Objects that one finding names."""


class Doctor:
    """Looks without touching."""

    def __init__(self, fx: Effects, probe: Probe, inventories: Inventories) -> None:
        self._fx = fx
        self._probe = probe
        self._inventories = inventories

    async def check_up(self) -> CheckUp:
        """All findings, good ones too."""
        virt, network = self._inventories.hypervisor, self._inventories.network
        free_gib = self._probe.facts().disk_free_gib
        is_guard_there = await self._fx.guard.settle(GUARD_WAIT_S)
        is_written = self._fx.ledger.is_writable
        findings = (
            Finding(name="hypervisor", ok=True, detail=f"{virt.virt_type}, version {virt.version}: {virt.why}"),
            Finding(name="packet filter", ok=network.stateful_groups, detail=network.why or network.driver),
            Finding(name="ledger", ok=is_written, detail="written" if is_written else "cannot be written"),
            Finding(name="disk", ok=free_gib >= DISK_FREE_GIB_MIN, detail=f"{free_gib} GiB free"),
            self._pools(),
            Finding(name="guard", ok=is_guard_there, detail="serves metadata" if is_guard_there else "does not answer"),
            self._breakers(),
            self._faults(),
            self._strangers(),
        )
        return CheckUp(findings=findings)

    def _pools(self) -> Finding:
        """A full pool breaks the file systems of guests whose volumes have not taken what they were promised."""
        full = [pool for pool in self._fx.pools if pool.free_gib * 100 < pool.total_gib * POOL_FREE_PERCENT_MIN]
        said = ", ".join(f"{pool.name}: {pool.free_gib} of {pool.total_gib} GiB free" for pool in self._fx.pools)
        return Finding(name="volumes", ok=not full, detail=said or "this host keeps none")

    def _breakers(self) -> Finding:
        silent = sorted(name for name, breaker in self._fx.blocking.breakers.items() if breaker.timeouts)
        detail = f"do not answer: {', '.join(silent)}" if silent else "all answer"
        return Finding(name="drivers", ok=not silent, detail=detail)

    def _faults(self) -> Finding:
        found = []
        for entry in self._fx.ledger.entries():
            fault = fault_of(entry, self._fx.tracks.get(entry.key))
            if fault is not None:
                found.append(f"{entry.key}: {fault.message}")
        return Finding(name="objects", ok=not found, detail="; ".join(found[:NAMES_MAX]) or "all as asked")

    def _strangers(self) -> Finding:
        unknown = [str(key) for key in self._fx.unknown()]
        detail = f"on the host but not asked for: {', '.join(unknown[:NAMES_MAX])}" if unknown else "none"
        return Finding(name="strangers", ok=not unknown, detail=detail)
