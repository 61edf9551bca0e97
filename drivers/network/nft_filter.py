"""The filter of a host, kept in nftables: applies what `filter.py` composes and `flows.py` judges.

The driver remembers the tables it wrote last and sends the difference. Without memory (the agent has just started)
or when someone else removed our tables it takes zones over from the kernel and replaces both tables in one
transaction, so there is no moment without a filter.

Order of a change: rules first, flows second. A flow that begins in between is judged by the new rules already.
"""

import threading
from collections.abc import Collection
from typing import Any, Final

import msgspec

from agent.wire.port import PortSpec, TcpFlow
from drivers.network import conntrack, names
from drivers.network import filter as rules
from drivers.network import flows as judge
from drivers.network.base import FilterState
from drivers.network.nft import NftFailed, Ruleset
from drivers.network.settings import NetworkSettings
from drivers.network.tables import TableSpec, change, replace

_FAMILIES: Final = ("bridge", "inet")


class NftFilter:
    """See drivers.network.base.Filter. Methods may be called from several threads; one works at a time."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._tag = settings.tag
        self._ruleset = Ruleset()
        self._lock = threading.Lock()
        self._state: FilterState | None = None
        self._tables: tuple[TableSpec, TableSpec] | None = None
        self._numbers = rules.Numbers()

    def apply(self, state: FilterState) -> None:
        """See Filter."""
        state = _copied(state)
        with self._lock:
            if not self._is_in_place():
                self._forget()
                self._numbers = self._numbers_in_kernel()
            numbers = rules.number(state, self._numbers)
            tables = rules.tables(state, numbers, self._tag)
            self._write(tables)
            before, self._state = self._state, state
            known, self._numbers = self._numbers, numbers
            if judge.narrowed(before, state):
                every = rules.Numbers(zones={**known.zones, **numbers.zones}, marks={})
                self._cut(before, state, every)

    def flows_of(self, port_ids: Collection[str]) -> tuple[TcpFlow, ...]:
        """See Filter."""
        with self._lock:
            found = [port for port in self._ports() if port.id in port_ids]
            zones = {zone for port in found if (zone := self._zone(port)) is not None}
        known = [flow for zone in sorted(zones) for flow in conntrack.flows(zone=zone)] if zones else []
        return judge.established(known, [(port, self._zone(port)) for port in found])

    def adopt(self, flows: Collection[TcpFlow]) -> None:
        """See Filter."""
        with self._lock:
            ports = {port.id: (port, self._zone(port)) for port in self._ports()}
        conntrack.create(judge.adopted(flows, ports))

    def _ports(self) -> tuple[PortSpec, ...]:
        return () if self._state is None else self._state.ports

    def _zone(self, port: PortSpec) -> int | None:
        return self._numbers.zones.get(names.bridge(port.network_id))

    def clear(self) -> None:
        """See Filter."""
        with self._lock:
            zones = set(self._numbers.zones.values()) | set(self._numbers_in_kernel().zones.values())
            for family in _FAMILIES:
                self._ruleset.drop_table(family, rules.table_name(self._tag))
            self._forget()
            if zones:
                conntrack.delete(flow for flow in conntrack.flows() if flow.zone in zones)

    def _forget(self) -> None:
        self._state = None
        self._tables = None
        self._numbers = rules.Numbers()

    def _is_in_place(self) -> bool:
        if self._tables is None:
            return False
        return all(self._ruleset.has_table(table.family, table.name) for table in self._tables)

    def _write(self, tables: tuple[TableSpec, TableSpec]) -> None:
        """All of it in one transaction; if the kernel's state is not what we remember, all anew."""
        if self._tables is not None:
            commands = "".join(change(old, new) for old, new in zip(self._tables, tables, strict=True))
            try:
                if commands:
                    self._ruleset.run(commands)
                self._tables = tables
                return
            except NftFailed:
                self._tables = None
        self._ruleset.run("".join(replace(table) for table in tables))
        self._tables = tables

    def _cut(self, before: FilterState | None, after: FilterState, numbers: rules.Numbers) -> None:
        if numbers.zones:
            conntrack.delete(judge.cut(conntrack.flows(), before, after, numbers))

    def _numbers_in_kernel(self) -> rules.Numbers:
        return rules.Numbers(zones=self._map("inet", "zones"), marks=self._map("bridge", "marks"))

    def _map(self, family: str, name: str) -> dict[str, int]:
        """The elements of one of our maps, if it is there."""
        table = rules.table_name(self._tag)
        if not self._ruleset.has_table(family, table):
            return {}
        try:
            rows = self._ruleset.objects(f"list map {family} {table} {name}")
        except NftFailed:
            return {}
        found: dict[str, Any] = next((row["map"] for row in rows if "map" in row), {})
        return {str(key): int(value) for key, value in found.get("elem", [])}


def _copied(state: FilterState) -> FilterState:
    """The state with dicts of its own: the caller may go on changing those it gave, and this one is remembered."""
    return msgspec.structs.replace(
        state, networks=dict(state.networks), groups=dict(state.groups), addresses=dict(state.addresses)
    )
