"""How host objects are called and marked, so that they can be found again without any record of our own.

Interface names have 15 characters: a letter for the kind and ten hex digits of the id. Namespaces and tables carry
the cloud's tag in their name; links carry `hostler:<tag>:<noun>:<id>:<generation>` as alias. A link whose object is
not finished yet carries generation 0.0, so a crash in the middle leaves something that looks old.
"""

import hashlib
import re
from typing import Final

import msgspec

from agent.wire.lifecycle import Generation

UNFINISHED: Final = Generation(0, 0)
"""Older than every generation that a controller hands out."""

_HEX = re.compile(r"[0-9a-f]{10}")


def short(object_id: str) -> str:
    """Ten hex digits of an id: its first ones, or of its hash if it is no UUID."""
    digits = object_id.replace("-", "").lower()[:10]
    return digits if _HEX.fullmatch(digits) else hashlib.sha256(object_id.encode()).hexdigest()[:10]


def tap(port_id: str) -> str:
    """A guest's tap."""
    return f"t{short(port_id)}"


def bridge(network_id: str) -> str:
    """A network's bridge."""
    return f"b{short(network_id)}"


def bridge_mac(network_id: str) -> str:
    """Its own MAC, under which nothing is ever sent."""
    digits = hashlib.sha256(network_id.encode()).hexdigest()[:10]
    return ":".join(("0a", *(digits[at : at + 2] for at in range(0, 10, 2))))


def vxlan(network_id: str) -> str:
    """A tenant network's tunnel port."""
    return f"x{short(network_id)}"


def dhcp_leg(network_id: str) -> str:
    """The bridge's end of the leg into the network's namespace."""
    return f"d{short(network_id)}"


def provider_leg(network_id: str) -> str:
    """A provider network's way out, the end in its own bridge."""
    return f"y{short(network_id)}"


def provider_peer(network_id: str) -> str:
    """The same, the end in the physical network's bridge."""
    return f"z{short(network_id)}"


def router_leg(port_id: str) -> str:
    """The bridge's end of a router's leg."""
    return f"r{short(port_id)}"


def router_inner(port_id: str) -> str:
    """The router's end of its leg."""
    return f"l{short(port_id)}"


def router_gateway(port_id: str) -> str:
    """The router's end of its external leg."""
    return f"g{short(port_id)}"


DHCP_INNER: Final = "dhcp0"
"""The leg inside a network's namespace."""


class Namespaces(msgspec.Struct, frozen=True):
    """Names of this host's network namespaces: `hostler-<tag>[-<host>]-<noun>-<id>`.

    /run/netns may be shared by several hosts of one cloud (namespaces as hosts), hence the host's part.
    """

    tag: str
    host: str

    def prefix(self) -> str:
        """What all of them begin with."""
        return f"hostler-{self.tag}-{self.host}-" if self.host else f"hostler-{self.tag}-"

    def network(self, network_id: str) -> str:
        """Where a network's DHCP, DNS and metadata live."""
        return f"{self.prefix()}network-{network_id}"

    def router(self, router_id: str) -> str:
        """A router."""
        return f"{self.prefix()}router-{router_id}"

    def parse(self, name: str) -> tuple[str, str] | None:
        """(noun, id) of one of ours, else None."""
        if not name.startswith(self.prefix()):
            return None
        noun, _, object_id = name[len(self.prefix()) :].partition("-")
        return (noun, object_id) if noun in ("network", "router") and object_id else None


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """The mark on a link."""

    tag: str
    noun: str
    id: str
    generation: Generation

    def text(self) -> str:
        """As the kernel stores it."""
        return f"hostler:{self.tag}:{self.noun}:{self.id}:{self.generation}"


_ALIAS = re.compile(r"hostler:([0-9a-f]{4}):([a-z-]+):([^:]+):(\d+)\.(\d+)")


def parse_alias(text: str | None) -> Alias | None:
    """The mark in a link's alias, or None if it is not ours to read."""
    match = _ALIAS.fullmatch(text or "")
    if match is None:
        return None
    tag, noun, object_id, epoch, n = match.groups()
    return Alias(tag=tag, noun=noun, id=object_id, generation=Generation(int(epoch), int(n)))
