"""Which network drivers an agent uses, by the name in its settings; and how to remove all of a cloud from a host."""

from collections.abc import Callable
from typing import Final

import msgspec

from agent.wire.errors import Unfit
from drivers.network.base import Dhcp, Fabric, Filter
from drivers.network.fake import FakeDhcp, FakeFabric, FakeFilter, FakeNetwork
from drivers.network.settings import NetworkSettings


class NetworkDrivers(msgspec.Struct, frozen=True, kw_only=True):
    """The three hands on a host's network."""

    fabric: Fabric
    filter: Filter
    dhcp: Dhcp


def load(settings: NetworkSettings) -> NetworkDrivers:
    """The network drivers of this host. Raises Unfit when there are none of that name."""
    constructor = DRIVERS.get(settings.driver)
    if constructor is None:
        raise Unfit(f"there is no network driver {settings.driver!r}; there are: {', '.join(sorted(DRIVERS))}")
    return constructor(settings)


def purge(settings: NetworkSettings) -> None:
    """Remove everything of this cloud from this host's network: by tag, without any record, also after a crash.

    Runs inside the network namespace that was the host's, as root. What is not there is no error.
    """
    # Imported here for the same reason as in `_bridge`.
    from drivers.network.bridge import BridgeFabric
    from drivers.network.nft_filter import NftFilter

    NftFilter(settings).clear()
    BridgeFabric(settings).purge()


def _bridge(settings: NetworkSettings) -> NetworkDrivers:
    # Imported here: pyroute2 is part of the agent's extra and slow to load; hosts with fakes do without it.
    from drivers.network.bridge import BridgeFabric
    from drivers.network.dnsmasq import DnsmasqDhcp
    from drivers.network.nft_filter import NftFilter

    return NetworkDrivers(fabric=BridgeFabric(settings), filter=NftFilter(settings), dhcp=DnsmasqDhcp(settings))


def _fake(settings: NetworkSettings) -> NetworkDrivers:
    net = FakeNetwork(
        folder=settings.folder,
        physical_networks=tuple(settings.physical_networks),
        latency_s=settings.latency_s,
    )
    return NetworkDrivers(
        fabric=FakeFabric(net, settings.tag, settings.host), filter=FakeFilter(net), dhcp=FakeDhcp(net)
    )


DRIVERS: Final[dict[str, Callable[[NetworkSettings], NetworkDrivers]]] = {"bridge": _bridge, "fake": _fake}
