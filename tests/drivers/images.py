"""Small images for driver tests, as bytes: good ones, and ones that attack."""

import hashlib
import struct
from pathlib import Path

from drivers import command

MIB = 1 << 20


def sha256(data: bytes) -> str:
    """In hex."""
    return hashlib.sha256(data).hexdigest()


def qcow2_image(virtual_bytes: int = 8 * MIB, *, version: int = 3, cluster_bits: int = 16, **fields: int) -> bytes:
    """A whole, empty qcow2 file; `fields` overwrite header fields by name."""
    cluster = 1 << cluster_bits
    l1_entries = max(1, -(-virtual_bytes // (cluster * cluster // 8)))
    l1_clusters = -(-l1_entries * 8 // cluster)
    header = {
        "magic": 0x514649FB,
        "version": version,
        "backing_offset": 0,
        "backing_bytes": 0,
        "cluster_bits": cluster_bits,
        "virtual_bytes": virtual_bytes,
        "crypt_method": 0,
        "l1_entries": l1_entries,
        "l1_offset": 3 * cluster,
        "refcount_table_offset": cluster,
        "refcount_table_clusters": 1,
        "snapshots": 0,
        "snapshots_offset": 0,
        "incompatible": 0,
        "compatible": 0,
        "autoclear": 0,
        "refcount_order": 4,
        "header_bytes": 104,
        **fields,
    }
    head = struct.pack(">IIQIIQIIQQIIQQQQII", *header.values())
    if version == 2:
        head = head[:72] + bytes(32)
    data = bytearray(cluster * (3 + l1_clusters))
    data[: len(head)] = head
    struct.pack_into(">Q", data, cluster, 2 * cluster)  # The refcount table's first entry.
    for index in range(3 + l1_clusters):
        struct.pack_into(">H", data, 2 * cluster + 2 * index, 1)
    return bytes(data)


def with_extension(image: bytes, kind: int, content: bytes) -> bytes:
    """A qcow2 file with one more header extension."""
    padded = content + bytes(-len(content) % 8)
    return image[:104] + struct.pack(">II", kind, len(content)) + padded + image[112 + len(padded) :]


def made_by_qemu(folder: Path, *arguments: str) -> bytes:
    """What `qemu-img create ARGUMENTS` writes; the file's name is appended before a size, if that comes last."""
    path = folder / "made"
    *options, size = arguments
    command.run(["qemu-img", "create", "-q", *options, path, size], timeout_s=30)
    data = path.read_bytes()
    path.unlink()
    return data
