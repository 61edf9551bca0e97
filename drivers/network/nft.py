"""nftables through its own library: ctypes on libnftables, text or JSON in, text or JSON out.

One call is one transaction: the kernel takes all of it or nothing. A context is made for each call, in the
namespace asked for, because its netlink socket belongs to the namespace it was opened in; that costs about a tenth
of what starting `nft` does. The library keeps process-wide state in its parser, so one lock serialises all calls.

Text is the language of the drivers (it reads as the manual does). Whoever composes it must have parsed every value
that came from outside (addresses, numbers, MACs); nothing is quoted here.
"""

import contextlib
import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from agent.wire.errors import Failed
from drivers.network import netns as namespaces

LIBRARY: Final = "libnftables.so.1"

_JSON: Final = 1 << 4
_NUMERIC: Final = (1 << 6) | (1 << 7) | (1 << 8)  # Protocols, priorities and symbols as numbers.
_TERSE: Final = 1 << 11
_MESSAGE_CHARS_KEPT: Final = 600

_lock = threading.Lock()
_loaded: ctypes.CDLL | None = None


class NftFailed(Failed):
    """The kernel or the library refused a transaction; nothing of it was done."""


class Ruleset:
    """The packet filter of one network namespace: `None` is the one the process runs in."""

    def __init__(self, netns: str | None = None) -> None:
        self.netns = netns

    def run(self, commands: str) -> None:
        """Do these commands, all or none. Raises NftFailed."""
        self._call(commands, flags=0, dry_run=False)

    def check(self, commands: str) -> None:
        """Ask the kernel whether it would take these commands. Raises NftFailed."""
        self._call(commands, flags=0, dry_run=True)

    def text(self, command: str) -> str:
        """What a `list` command answers, as text."""
        return self._call(command, flags=0, dry_run=False)

    def objects(self, command: str, *, terse: bool = False) -> list[dict[str, Any]]:
        """What a `list` command answers, as a list of objects (the array under "nftables")."""
        answer = self._call(command, flags=_JSON | _NUMERIC | (_TERSE if terse else 0), dry_run=False)
        return msgspec.json.decode(answer, type=_Listing).nftables if answer else []

    def tables(self) -> frozenset[tuple[str, str]]:
        """(family, name) of every table."""
        rows = (row["table"] for row in self.objects("list tables") if "table" in row)
        return frozenset((row["family"], row["name"]) for row in rows)

    def has_table(self, family: str, name: str) -> bool:
        """Whether there is such a table. Asked of the kernel directly: the library would first read every set."""
        return namespaces.call(self.netns, lambda: _has_table(family, name))

    def drop_table(self, family: str, name: str) -> None:
        """Delete a table, or nothing if there is none."""
        self.run(f"add table {family} {name}\ndelete table {family} {name}\n")

    def _call(self, commands: str, *, flags: int, dry_run: bool) -> str:
        return namespaces.call(self.netns, lambda: _transact(commands, flags, dry_run))


_FAMILIES: Final = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
_GET_TABLE: Final = (10 << 8) | 1  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETTABLE


def _has_table(family: str, name: str) -> bool:
    """One netlink request: answered with the table, or with ENOENT."""
    attribute = struct.pack("=HH", 4 + len(name) + 1, 1) + name.encode() + b"\0"  # NFTA_TABLE_NAME
    payload = struct.pack("=BBH", _FAMILIES[family], 0, 0) + attribute + bytes(-len(attribute) % 4)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as link:  # NETLINK_NETFILTER
        link.settimeout(10)
        link.send(struct.pack("=IHHII", 16 + len(payload), _GET_TABLE, 1, 1, 0) + payload)
        answer = link.recv(65536)
    kind = struct.unpack_from("=H", answer, 4)[0]
    if kind != 2:  # NLMSG_ERROR
        return True
    code = -struct.unpack_from("=i", answer, 16)[0]
    if code in (0, errno.ENOENT):
        return bool(code == 0)
    raise NftFailed(f"nftables: {os.strerror(code)}")


class _Listing(msgspec.Struct, frozen=True):
    nftables: list[dict[str, Any]]


def _transact(commands: str, flags: int, dry_run: bool) -> str:
    with _lock, _context(_library()) as (lib, context):
        lib.nft_ctx_output_set_flags(context, flags)
        lib.nft_ctx_set_dry_run(context, dry_run)
        code = lib.nft_run_cmd_from_buffer(context, commands.encode())
        output = (lib.nft_ctx_get_output_buffer(context) or b"").decode()
        if code != 0:
            errors = (lib.nft_ctx_get_error_buffer(context) or b"").decode("utf-8", "replace").strip()
            raise NftFailed(f"nftables refused: {errors[:_MESSAGE_CHARS_KEPT] or 'no reason given'}")
        return output


@contextlib.contextmanager
def _context(lib: ctypes.CDLL) -> Iterator[tuple[ctypes.CDLL, ctypes.c_void_p]]:
    context = ctypes.c_void_p(lib.nft_ctx_new(0))
    if not context:
        raise NftFailed("nftables could not be opened (is this process root, and has the kernel nf_tables?)")
    try:
        lib.nft_ctx_buffer_output(context)
        lib.nft_ctx_buffer_error(context)
        yield lib, context
    finally:
        lib.nft_ctx_free(context)


def _library() -> ctypes.CDLL:
    global _loaded  # The library is loaded once, and only on hosts that filter: the fakes need none.
    if _loaded is None:
        try:
            lib = ctypes.CDLL(LIBRARY)
        except OSError as cause:
            raise NftFailed(f"{LIBRARY} is missing: install nftables") from cause
        lib.nft_ctx_new.restype = ctypes.c_void_p
        lib.nft_ctx_new.argtypes = [ctypes.c_uint32]
        lib.nft_ctx_free.argtypes = [ctypes.c_void_p]
        lib.nft_ctx_buffer_output.argtypes = [ctypes.c_void_p]
        lib.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
        lib.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        lib.nft_ctx_set_dry_run.argtypes = [ctypes.c_void_p, ctypes.c_bool]
        lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        for getter in (lib.nft_ctx_get_output_buffer, lib.nft_ctx_get_error_buffer):
            getter.argtypes = [ctypes.c_void_p]
            getter.restype = ctypes.c_char_p
        _loaded = lib
    return _loaded
