"""The header of a qcow2 file: parsed without trust, and held against limits that QEMU itself does not set.

Pure. Layout and numbers are those of QEMU's `docs/interop/qcow2.txt`. Only the header and its extensions are read,
never a table: what tables say is QEMU's to check, in a process that runs as the guest.
"""

import struct
from typing import Final

import msgspec

MAGIC: Final = b"QFI\xfb"
HEADER_BYTES: Final = 104
HEAD_BYTES_MAX: Final = 64 * 1024
"""Header and extensions end in the first cluster; more than this of it is not looked at, and refused."""

L1_BYTES_MAX: Final = 8 * 1024 * 1024
"""QEMU takes 32 MiB. 8 MiB at the usual cluster size maps 512 TiB, and bounds what a header makes QEMU allocate."""

REFCOUNT_TABLE_BYTES_MAX: Final = 8 * 1024 * 1024
SNAPSHOTS_MAX: Final = 0
"""Internal snapshots of an image serve no guest, and are one more table that a stranger filled in."""

_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN_INCOMPATIBLE: Final = _DIRTY | _COMPRESSION

_END, _BACKING_FORMAT, _FEATURE_NAMES, _BITMAPS, _CRYPTO, _DATA_FILE_NAME = (
    0x00000000,
    0xE2792ACA,
    0x6803F857,
    0x23852875,
    0x0537BE77,
    0x44415441,
)
_FORBIDDEN_EXTENSIONS: Final = {
    _BACKING_FORMAT: "names a backing file's format",
    _CRYPTO: "is encrypted",
    _DATA_FILE_NAME: "names an external data file",
    _BITMAPS: "carries dirty bitmaps",
}


class Refused(ValueError):
    """What is wrong with a file, as the end of a sentence that begins with "the image"."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a header, as they stand there."""

    version: int
    backing_offset: int
    backing_bytes: int
    cluster_bits: int
    virtual_bytes: int
    crypt_method: int
    l1_entries: int
    l1_offset: int
    refcount_table_offset: int
    refcount_table_clusters: int
    snapshots: int
    incompatible: int
    refcount_order: int
    header_bytes: int


def parse(head: bytes) -> Header:
    """The header at the start of `head`. Raises Refused when it is none, or cut off."""
    if not head.startswith(MAGIC):
        raise Refused("is no qcow2 file")
    if len(head) < HEADER_BYTES:
        raise Refused("ends within its header")
    fields = struct.unpack(">IQIIQIIQQIIQ", head[4:72])
    version, backing_offset, backing_bytes, cluster_bits, virtual_bytes, crypt, l1_entries, l1_offset = fields[:8]
    incompatible, _, _, refcount_order, header_bytes = struct.unpack(">QQQII", head[72:104])
    if version == 2:
        incompatible, refcount_order, header_bytes = 0, 4, 72
    return Header(
        version=version,
        backing_offset=backing_offset,
        backing_bytes=backing_bytes,
        cluster_bits=cluster_bits,
        virtual_bytes=virtual_bytes,
        crypt_method=crypt,
        l1_entries=l1_entries,
        l1_offset=l1_offset,
        refcount_table_offset=fields[8],
        refcount_table_clusters=fields[9],
        snapshots=fields[10],
        incompatible=incompatible,
        refcount_order=refcount_order,
        header_bytes=header_bytes,
    )


def check(head: bytes, file_bytes: int) -> Header:
    """The header of a file that may become a guest's base image. Raises Refused.

    `head` is the file's beginning, at most HEAD_BYTES_MAX of it.
    """
    header = parse(head)
    _check_claims(header)
    _check_tables(header, file_bytes)
    _check_extensions(header, head)
    return header


def backing_file(head: bytes) -> str | None:
    """The name of the backing file that a header refers to. Raises Refused when it lies outside `head`."""
    header = parse(head)
    if header.backing_offset == 0:
        return None
    end = header.backing_offset + header.backing_bytes
    if header.backing_bytes > 1023 or end > len(head):
        raise Refused("has a backing file whose name is out of reach")
    return head[header.backing_offset : end].decode("utf-8", "surrogateescape")


def _check_claims(header: Header) -> None:
    if header.version not in (2, 3):
        raise Refused(f"is of qcow2 version {header.version}")
    if header.backing_offset or header.backing_bytes:
        raise Refused("has a backing file")
    if header.incompatible & _DATA_FILE:
        raise Refused("has an external data file")
    if header.incompatible & _CORRUPT:
        raise Refused("is marked corrupt")
    if header.incompatible & ~_KNOWN_INCOMPATIBLE:
        raise Refused("uses qcow2 features that are not supported")
    if header.crypt_method:
        raise Refused("is encrypted")
    if header.snapshots > SNAPSHOTS_MAX:
        raise Refused("contains internal snapshots")


def _check_tables(header: Header, file_bytes: int) -> None:
    if not 9 <= header.cluster_bits <= 21:
        raise Refused("has an impossible cluster size")
    if header.refcount_order > 6:
        raise Refused("has an impossible refcount width")
    cluster = 1 << header.cluster_bits
    l1_bytes, refcount_bytes = header.l1_entries * 8, header.refcount_table_clusters * cluster
    needed = -(-header.virtual_bytes // (cluster * (cluster // 8)))
    if header.l1_entries < needed:
        raise Refused("has a first table that does not span its size")
    if l1_bytes > L1_BYTES_MAX or refcount_bytes > REFCOUNT_TABLE_BYTES_MAX or refcount_bytes == 0:
        raise Refused("has tables of a size that no image needs")
    for offset, size in ((header.l1_offset, l1_bytes), (header.refcount_table_offset, refcount_bytes)):
        if size and (offset == 0 or offset % cluster or offset + size > _rounded(file_bytes, cluster)):
            raise Refused("has a table outside the file")


def _check_extensions(header: Header, head: bytes) -> None:
    """Each is a type, a length and data padded to eight bytes; the list ends with a zero type."""
    cluster_end = min(1 << header.cluster_bits, HEAD_BYTES_MAX)
    if (
        header.header_bytes % 8
        or not (72 if header.version == 2 else HEADER_BYTES) <= header.header_bytes <= cluster_end
    ):
        raise Refused("has an impossible header length")
    at = header.header_bytes
    while at + 8 <= min(cluster_end, len(head)):
        kind, size = struct.unpack(">II", head[at : at + 8])
        if kind == _END:
            return
        if kind in _FORBIDDEN_EXTENSIONS:
            raise Refused(_FORBIDDEN_EXTENSIONS[kind])
        at += 8 + _rounded(size, 8)
        if at > cluster_end:
            raise Refused("has a header extension without end")


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit
