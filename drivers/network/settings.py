"""What the network drivers are told about their host. The agent fills this from its own settings file."""

import ipaddress
import re

import msgspec

_TAG = re.compile(r"[0-9a-f]{4}")
_HOST = re.compile(r"[0-9a-z]{0,12}")
_INTERFACE = re.compile(r"[A-Za-z0-9_.-]{1,15}")


class PhysicalNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the map of physical networks: a bridge, made if it is missing.

    `nic` is put into the bridge. `addresses` (with prefix) are the host's own on it, which makes the host the
    gateway of that network (the trial's external network). Only with `uplink` may guests go on from there: what
    leaves through that interface is masqueraded.
    """

    bridge: str
    nic: str | None = None
    addresses: tuple[str, ...] = ()
    uplink: str | None = None

    def __post_init__(self) -> None:
        for name in (self.bridge, self.nic, self.uplink):
            if name is not None and not _INTERFACE.fullmatch(name):
                raise ValueError(f"{name!r} cannot be the name of an interface")
        for address in self.addresses:
            ipaddress.ip_interface(address)


class Underlay(msgspec.Struct, frozen=True, kw_only=True):
    """The network between hosts: this host's address on it, and the whole of it (which guests never reach)."""

    address: str
    cidr: str
    vxlan_port: int = 4789

    def __post_init__(self) -> None:
        if ipaddress.ip_address(self.address) not in ipaddress.ip_network(self.cidr):
            raise ValueError(f"{self.address} is not in the underlay {self.cidr}")


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the network drivers need to know.

    `tag` is the cloud's, four hex digits; `host` tells hosts apart that share /run/netns (lower case letters and
    digits, may be empty). `folder` holds dnsmasq's files: dnsmasq gives up root, so every parent of it must be
    searchable by others. `infrastructure` are further CIDRs that guests never reach through this host.
    """

    tag: str
    folder: str
    host: str = ""
    driver: str = "bridge"
    physical_networks: dict[str, PhysicalNetwork] = {}
    underlay: Underlay | None = None
    infrastructure: tuple[str, ...] = ()
    latency_s: float = 0.0  # Of the fakes: how long each call takes.

    def __post_init__(self) -> None:
        if not _TAG.fullmatch(self.tag):
            raise ValueError(f"the tag {self.tag!r} is not four hex digits")
        if not _HOST.fullmatch(self.host):
            raise ValueError(f"the host part {self.host!r} is not up to 12 lower case letters and digits")
        for cidr in self.infrastructure:
            ipaddress.ip_network(cidr)

    def guarded(self) -> tuple[str, ...]:
        """Every CIDR that guests never reach."""
        return (*((self.underlay.cidr,) if self.underlay else ()), *self.infrastructure)
