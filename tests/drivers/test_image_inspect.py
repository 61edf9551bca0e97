"""The inspector against images that attack, that are damaged, and that are something else."""

import contextlib
import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire.errors import Failed
from drivers.image import inspect, qcow2
from tests.drivers.images import MIB, qcow2_image, with_extension

GOOD = qcow2_image(8 * MIB)


def look(data: bytes, declared: str, virtual_bytes_max: int = 1 << 40) -> inspect.Inspection:
    return inspect.inspect_file(io.BytesIO(data), declared, virtual_bytes_max)


def an_mbr(*partitions: tuple[int, int]) -> bytes:
    """A disk with a partition table; each partition is a type and a first sector."""
    table = b"".join(
        struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", kind, b"\xff\xff\xff", start, 100) for kind, start in partitions
    )
    return bytes(446) + table.ljust(64, b"\x00") + b"\x55\xaa" + bytes(64 * 1024)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("cluster_bits", [9, 12, 16, 21])
def test_good_qcow2_passes(version, cluster_bits):
    found = look(qcow2_image(8 * MIB, version=version, cluster_bits=cluster_bits), "qcow2")
    assert found == inspect.Inspection(disk_format="qcow2", virtual_bytes=8 * MIB)


@pytest.mark.parametrize(
    "data",
    [bytes(MIB), b"\x7fELF" + bytes(5000), an_mbr((0x83, 2048)), an_mbr((0xEE, 1)), b"text\n" * 300],
    ids=["zeros", "elf", "mbr", "gpt", "text"],
)
def test_good_raw_passes(data):
    assert look(data, "raw") == inspect.Inspection(disk_format="raw", virtual_bytes=len(data))


ATTACKS = {
    "backing file": qcow2_image(backing_offset=512, backing_bytes=11),
    "backing length only": qcow2_image(backing_bytes=11),
    "data file": qcow2_image(incompatible=4),
    "data file's name": with_extension(GOOD, 0x44415441, b"/etc/shadow"),
    "backing file's format": with_extension(GOOD, 0xE2792ACA, b"raw"),
    "encryption": qcow2_image(crypt_method=2),
    "encryption header": with_extension(GOOD, 0x0537BE77, bytes(16)),
    "corrupt": qcow2_image(incompatible=2),
    "unknown features": qcow2_image(incompatible=1 << 40),
    "extended l2": qcow2_image(incompatible=16),
    "version 1": qcow2_image(version=1),
    "version 4": qcow2_image(version=4),
    "snapshots": qcow2_image(snapshots=1),
    "tiny clusters": qcow2_image(cluster_bits=16)[:20] + struct.pack(">I", 8) + GOOD[24:],
    "huge clusters": GOOD[:20] + struct.pack(">I", 31) + GOOD[24:],
    "huge l1": qcow2_image(l1_entries=0x7FFFFFFF),
    "l1 too small": qcow2_image(virtual_bytes=8 * MIB, l1_entries=0),
    "huge refcount table": qcow2_image(refcount_table_clusters=0x7FFFFFFF),
    "no refcount table": qcow2_image(refcount_table_clusters=0),
    "table outside": qcow2_image(l1_offset=1 << 60),
    "table unaligned": qcow2_image(l1_offset=3 * 65536 + 8),
    "table at zero": qcow2_image(l1_offset=0),
    "refcount width": qcow2_image(refcount_order=7),
    "header length": qcow2_image(header_bytes=0xFFFFFFF8),
    "endless extension": with_extension(GOOD, 0x12345678, b"")[:108] + struct.pack(">I", 0xFFFFFFF0) + GOOD[112:],
    "8 EiB": qcow2_image(virtual_bytes=8 * MIB, cluster_bits=21, l1_entries=1)[:24]
    + struct.pack(">Q", (1 << 63) - 512)
    + GOOD[32:],
    "polyglot": GOOD[:510] + b"\x55\xaa" + GOOD[512:],
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_in_qcow2_are_refused_in_either_declaration(name):
    for declared in ("qcow2", "raw"):
        with pytest.raises(Failed, match="the image"):
            look(ATTACKS[name], declared)


def test_more_than_the_limit_is_refused():
    assert look(GOOD, "qcow2", 8 * MIB).virtual_bytes == 8 * MIB
    with pytest.raises(Failed):
        look(GOOD, "qcow2", 8 * MIB - 1)
    with pytest.raises(Failed):
        look(qcow2_image(0), "qcow2")


VMDK = b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 20480 FLAT "/etc/shadow" 0\n'
ISO = bytes(32768) + b"\x01CD001\x01" + bytes(8192)
FOREIGN = {
    "vmdk text": VMDK,
    "vmdk text, other case": VMDK.upper(),
    "vmdk text without type": b'# Disk DescriptorFile\nRW 1 FLAT "/etc/shadow" 0\n' + bytes(4096),
    "vmdk sparse": b"KDMV" + bytes(4096),
    "qed": b"QED\x00" + bytes(4096),
    "vhd": b"conectix" + bytes(4096),
    "vhd at the end": bytes(8192) + b"conectix" + bytes(504),
    "dmg": bytes(8192) + b"koly" + bytes(508),
    "vhdx": b"vhdxfile" + bytes(400000),
    "luks": b"LUKS\xba\xbe\x00\x01" + bytes(8192),
    "vdi": bytes(64) + b"\x7f\x10\xda\xbe" + bytes(8192),
    "parallels": b"WithouFreSpacExt" + bytes(8192),
    "iso": ISO,
    "iso with a partition table": an_mbr((0x83, 1))[:32768] + ISO[32768:],
    "gpt with a hidden partition": an_mbr((0xEE, 1), (0x83, 2048)),
    "partition table with no partition": an_mbr(),
    "head of a qcow2": GOOD[:100],
    "magic alone": b"QFI\xfb",
    "nothing": b"",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_formats_are_refused_as_raw_and_as_qcow2(name):
    for declared in ("raw", "qcow2"):
        with pytest.raises(Failed, match="the image"):
            look(FOREIGN[name], declared)


def test_formats_that_hosts_do_not_boot_are_refused():
    for declared in ("vmdk", "iso", "luks", "", "../raw"):
        with pytest.raises(Failed):
            look(GOOD, declared)


@settings(deadline=None, max_examples=300)
@given(bit=st.integers(0, 512 * 8 - 1), declared=st.sampled_from(["qcow2", "raw"]))
def test_a_flipped_bit_never_crashes_the_inspector_nor_makes_another_format(bit, declared):
    data = bytearray(GOOD)
    data[bit // 8] ^= 1 << bit % 8
    try:
        found = look(bytes(data), declared)
    except Failed:
        return
    assert found.disk_format == declared
    if declared == "raw":
        assert not data.startswith(b"QFI\xfb")


@settings(deadline=None, max_examples=100)
@given(length=st.integers(0, len(GOOD)), declared=st.sampled_from(["qcow2", "raw"]))
def test_a_truncated_qcow2_is_refused_or_has_all_its_tables(length, declared):
    try:
        found = look(GOOD[:length], declared)
    except Failed:
        return
    if declared == "raw":
        assert length < 4  # Too short for a magic: it is raw indeed.
    else:
        assert found.virtual_bytes == 8 * MIB and length > 3 * 65536


@settings(deadline=None, max_examples=300)
@given(
    head=st.binary(max_size=600),
    magic=st.sampled_from([b"", b"QFI\xfb\x00\x00\x00\x03", b"KDMV", b"vhdxfile", b"LUKS\xba\xbe", b"# Disk Desc"]),
    tail=st.integers(0, 70000),
    declared=st.sampled_from(["qcow2", "raw"]),
)
def test_noise_never_crashes_the_inspector(head, magic, tail, declared):
    with contextlib.suppress(Failed):
        assert look(magic + head + bytes(tail), declared).disk_format == declared


@given(st.binary(max_size=200))
def test_reading_a_guests_own_header_never_crashes(noise):
    for data in (noise, qcow2.MAGIC + noise):
        try:
            qcow2.parse(data)
            qcow2.backing_file(data)
        except qcow2.Refused:
            pass


def test_the_backing_file_of_a_disk_is_read():
    name = b"/srv/images/base.qcow2"
    data = qcow2_image(backing_offset=112, backing_bytes=len(name))
    assert qcow2.backing_file(data[:112] + name + data[112 + len(name) :]) == name.decode()
    assert qcow2.backing_file(GOOD) is None
