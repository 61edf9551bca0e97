"""The kernel's table of flows: list it, delete from it. Straight netlink, because a busy host has 100,000 entries
and decoding each into general-purpose objects takes a hundred times as long as reading the six values we want.

Formats are from linux/netfilter/nfnetlink_conntrack.h: messages of nested attributes, addresses and ports in network
order. An entry is deleted by its original tuple and zone, whose bytes are kept as they came.
"""

import contextlib
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from agent.wire.errors import Failed
from drivers.network import netns as namespaces

_SUBSYSTEM: Final = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_NEW, _GET, _DELETE = 0, 1, 2  # IPCTNL_MSG_CT_*
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
_NETLINK_NETFILTER: Final = 12
_TUPLE_ORIG, _TUPLE_REPLY, _ZONE = 1, 2, 18
_IP, _PROTO = 1, 2
_STATUS, _PROTOINFO, _TIMEOUT = 3, 4, 7
_CREATE: Final = 0x600  # NLM_F_CREATE | NLM_F_EXCL
_CONFIRMED_BOTH_WAYS: Final = 0x0E  # IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED
_ESTABLISHED: Final = 3  # TCP_CONNTRACK_ESTABLISHED
_LIBERAL: Final = b"\x08\x08"  # IP_CT_TCP_FLAG_BE_LIBERAL, and that this is what is said.
ESTABLISHED_S: Final = 432000
"""How long a silent flow is remembered: the kernel's own default."""
_TYPE_MASK: Final = 0x3FFF  # Without the flags "nested" and "network order".
_NESTED: Final = 0x8000
_RECEIVE_BYTES: Final = 1 << 18
_DUMP_TRIES_MAX: Final = 5
"""A dump that the kernel says was interrupted is taken again; after this many times what was seen must do."""

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


class Tuple(msgspec.Struct, frozen=True):
    """One direction of a flow. Of ICMP `sport` is the identifier."""

    source: str
    destination: str
    protocol: int
    sport: int = 0
    dport: int = 0
    icmp_type: int | None = None
    icmp_code: int | None = None


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """An entry: both directions (they differ where NAT is at work) and its zone."""

    zone: int
    original: Tuple
    reply: Tuple
    handle: bytes = b""  # The original tuple as the kernel wrote it: what a deletion names.


def flows(netns: str | None = None, zone: int | None = None) -> list[Flow]:
    """Every flow of a namespace (None: ours), or those of one zone."""
    return namespaces.call(netns, lambda: _dump(zone))


def delete(found: Iterable[Flow], netns: str | None = None) -> int:
    """Delete these flows; returns how many were still there."""
    wanted = list(found)
    return namespaces.call(netns, lambda: _delete(wanted)) if wanted else 0


def create(found: Iterable[Flow], netns: str | None = None) -> None:
    """Make these TCP flows known as established, in both directions; nothing where one is known already.

    Nobody has seen their windows, so the kernel is told to be liberal about them.
    """
    wanted = list(found)
    if wanted:
        namespaces.call(netns, lambda: _create(wanted))


def _create(wanted: list[Flow]) -> None:
    with _socket() as link:
        for flow in wanted:
            family = socket.AF_INET6 if ":" in flow.original.source else socket.AF_INET
            body = _attribute(_TUPLE_ORIG | _NESTED, _raw(flow.original))
            body += _attribute(_TUPLE_REPLY | _NESTED, _raw(flow.reply))
            body += _attribute(_STATUS, struct.pack("!I", _CONFIRMED_BOTH_WAYS))
            body += _attribute(_TIMEOUT, struct.pack("!I", ESTABLISHED_S))
            state = _attribute(1, bytes([_ESTABLISHED])) + _attribute(4, _LIBERAL) + _attribute(5, _LIBERAL)
            body += _attribute(_PROTOINFO | _NESTED, _attribute(1 | _NESTED, state))
            body += _attribute(_ZONE, struct.pack("!H", flow.zone))
            link.send(_message(_NEW, _REQUEST | _ACK | _CREATE, body, family))
            with contextlib.suppress(FileExistsError):
                for _ in _answers(link):
                    pass


def _raw(way: Tuple) -> bytes:
    """As the kernel wants a TCP flow's direction."""
    is_v6 = ":" in way.source
    family, first = (socket.AF_INET6, 3) if is_v6 else (socket.AF_INET, 1)
    ends = (socket.inet_pton(family, address) for address in (way.source, way.destination))
    addresses = b"".join(_attribute(first + index, raw) for index, raw in enumerate(ends))
    ports = b"".join(
        _attribute(2 + index, struct.pack("!H", port)) for index, port in enumerate((way.sport, way.dport))
    )
    protocol = _attribute(1, bytes([way.protocol])) + ports
    return _attribute(_IP | _NESTED, addresses) + _attribute(_PROTO | _NESTED, protocol)


def _dump(zone: int | None) -> list[Flow]:
    request = _attribute(_ZONE, struct.pack("!H", zone)) if zone is not None else b""
    result: dict[tuple[int, bytes], Flow] = {}
    with _socket() as link:
        for _ in range(_DUMP_TRIES_MAX):
            interrupted = False
            link.send(_message(_GET, _REQUEST | _DUMP, request))
            for kind, flags, body in _answers(link):
                interrupted = interrupted or bool(flags & 0x10)  # NLM_F_DUMP_INTR
                if kind == _SUBSYSTEM | _NEW:
                    flow = _flow(body)
                    if flow is not None and zone in (None, flow.zone):  # Kernels before 6.8 ignore the filter.
                        result[flow.zone, flow.handle] = flow
            if not interrupted:
                break
    return list(result.values())


def _delete(wanted: list[Flow]) -> int:
    count = 0
    with _socket() as link:
        for flow in wanted:
            family = socket.AF_INET6 if ":" in flow.original.source else socket.AF_INET
            body = _attribute(_TUPLE_ORIG | _NESTED, flow.handle)
            if flow.zone:
                body += _attribute(_ZONE, struct.pack("!H", flow.zone))
            link.send(_message(_DELETE, _REQUEST | _ACK, body, family))
            try:
                for _ in _answers(link):
                    pass
            except FileNotFoundError:
                continue  # It ended by itself.
            count += 1
    return count


def _socket() -> socket.socket:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    link.settimeout(10)
    link.bind((0, 0))
    return link


def _message(kind: int, flags: int, body: bytes, family: int = socket.AF_UNSPEC) -> bytes:
    payload = struct.pack("=BBH", family, 0, 0) + body
    return _HEADER.pack(_HEADER.size + len(payload), _SUBSYSTEM | kind, flags, 1, 0) + payload


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _answers(link: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """(type, flags, body) of each message up to the end of a dump or the acknowledgement. Raises OSError, Failed."""
    while True:
        try:
            data = link.recv(_RECEIVE_BYTES)
        except TimeoutError as cause:
            raise Failed("the kernel did not answer about its flows") from cause
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
            body = data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = -struct.unpack_from("=i", body)[0]
                if code == 0:
                    return
                raise OSError(code, f"conntrack: {os.strerror(code)} ({errno.errorcode.get(code, code)})")
            yield kind, flags, body


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset, end = 0, len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & _TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _flow(body: bytes) -> Flow | None:
    zone, handle, original, reply = 0, b"", None, None
    for kind, value in _attributes(body[4:]):
        if kind == _TUPLE_ORIG:
            handle, original = value, _tuple(value)
        elif kind == _TUPLE_REPLY:
            reply = _tuple(value)
        elif kind == _ZONE:
            zone = int.from_bytes(value[:2], "big")
    if original is None or reply is None:
        return None
    return Flow(zone=zone, original=original, reply=reply, handle=handle)


def _tuple(data: bytes) -> Tuple | None:
    source = destination = ""
    protocol, values = 0, {}
    for kind, value in _attributes(data):
        if kind == _IP:
            for which, raw in _attributes(value):  # 1, 2: IPv4 source, destination; 3, 4: IPv6.
                if which in (1, 3):
                    source = _address(raw)
                elif which in (2, 4):
                    destination = _address(raw)
        elif kind == _PROTO:
            values = {which: int.from_bytes(raw, "big") for which, raw in _attributes(value)}
            protocol = values.get(1, 0)
    if not source or not destination:
        return None
    base = 4 if 5 in values else 7  # ICMP: id, type, code are 4, 5, 6; ICMPv6: 7, 8, 9.
    return Tuple(
        source,
        destination,
        protocol,
        values.get(2, values.get(base, 0)),
        values.get(3, 0),
        values.get(base + 1),
        values.get(base + 2),
    )


def _address(raw: bytes) -> str:
    if len(raw) == 4:
        return socket.inet_ntop(socket.AF_INET, raw)
    return str(ipaddress.IPv6Address(raw))
