"""What an image really is, found out without QEMU: a pure look at its first bytes, for use in a confined child.

An image is taken for what it was declared to be only if it is that and nothing else. Any match of another format is a
refusal, so a file that two readers would read differently never becomes a disk. What oslo.utils' format inspector
knows decides first (it names formats, and checks descriptors, partition tables and nested containers); the formats
that QEMU would recognise beyond it are refused by their magic, and qcow2 headers are held against our own limits.

`python -m drivers.image.inspect` is the child: it opens the file, gives up every right (drivers.image.rights), looks,
and prints one line of JSON. drivers.image.confined starts it.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import IO, Final

import msgspec
from oslo_utils.imageutils import format_inspector

from agent.wire.errors import Failed
from drivers.image import qcow2, rights

HEAD_BYTES: Final = 2 * 1024 * 1024
"""How much is looked at. Every format says what it is within its first MiB; more would only cost time."""

VIRTUAL_BYTES_MAX: Final = 16 << 40

_CHUNK: Final = 65536
_SECTOR: Final = 512

_FOREIGN: Final = (
    (0, b"QFI\xfb", "qcow"),
    (0, b"QED\x00", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"conectix", "vhd"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"Bochs Virtual HD Image", "bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "cloop"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
)
"""Beginnings that QEMU would take for a format, also in files too short for an inspector to say so."""

_FOREIGN_ENDS: Final = ((b"conectix", "vhd"), (b"koly", "dmg"))
"""Last sectors that make a file another format: a fixed VHD is a raw disk with a footer."""


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    disk_format: str
    virtual_bytes: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the child prints: exactly one of the two."""

    found: Inspection | None = None
    refused: str = ""


def inspect(path: str, declared: str, virtual_bytes_max: int = VIRTUAL_BYTES_MAX) -> Inspection:
    """Look at the file in this process. Raises Failed, with a sentence, when it is not safely what was declared."""
    with Path(path).open("rb") as file:
        return inspect_file(file, declared, virtual_bytes_max)


def inspect_file(file: IO[bytes], declared: str, virtual_bytes_max: int = VIRTUAL_BYTES_MAX) -> Inspection:
    """As `inspect`, on an open file."""
    try:
        found = _looked_at(file, declared)
    except qcow2.Refused as refusal:
        raise Failed(f"the image {refusal}") from refusal
    if not 0 < found.virtual_bytes <= virtual_bytes_max:
        raise Failed(f"the image claims {found.virtual_bytes} bytes, which is not between 1 and {virtual_bytes_max}")
    return found


def _looked_at(file: IO[bytes], declared: str) -> Inspection:
    file_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(max(0, file_bytes - _SECTOR))
    end = file.read(_SECTOR)
    if declared == "raw":
        _check_raw(head, end)
        return Inspection(disk_format="raw", virtual_bytes=file_bytes)
    if declared == "qcow2":
        _check_only(head, "qcow2")
        header = qcow2.check(head[: qcow2.HEAD_BYTES_MAX], file_bytes)
        return Inspection(disk_format="qcow2", virtual_bytes=header.virtual_bytes)
    raise qcow2.Refused(f"is declared as {declared!r}, which hosts do not boot")


def _check_raw(head: bytes, end: bytes) -> None:
    for offset, magic, name in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise qcow2.Refused(f"is declared as 'raw' but begins as {name}")
    if head[:64].lower().startswith(b"# disk descriptorfile"):
        raise qcow2.Refused("is declared as 'raw' but begins as vmdk")
    for magic, name in _FOREIGN_ENDS:
        if end.startswith(magic):
            raise qcow2.Refused(f"is declared as 'raw' but ends as {name}")
    _check_only(head, "gpt")


def _check_only(head: bytes, allowed: str) -> None:
    """Refuses a head that matches any format but `allowed`, or that is unsafe as that. No match at all is raw."""
    inspectors = {name: _fed(head, name) for name in format_inspector.ALL_FORMATS if name != "raw"}
    matching = sorted(name for name, inspector in inspectors.items() if _matches(inspector))
    foreign = [name for name in matching if name != allowed]
    if foreign:
        raise qcow2.Refused(f"is declared as {'raw' if allowed == 'gpt' else allowed!r} but looks like {foreign[0]}")
    if allowed not in matching:
        if allowed == "gpt":
            return
        raise qcow2.Refused(f"is declared as {allowed!r} but is not")
    try:
        inspectors[allowed].safety_check()
    except (format_inspector.SafetyCheckFailed, format_inspector.ImageFormatError) as failure:
        raise qcow2.Refused(f"is not safe ({_reasons(failure)})") from failure


def _fed(head: bytes, name: str) -> format_inspector.FileInspector:
    """One inspector that has eaten the head; one that fails on the way is asked for its match all the same."""
    inspector = format_inspector.ALL_FORMATS[name]()
    try:
        for at in range(0, len(head), _CHUNK):
            inspector.eat_chunk(head[at : at + _CHUNK])
            if inspector.complete:
                break
    except Exception:  # noqa: S110  A parser of other people's formats: whatever it raises, it did not understand.
        pass
    inspector.finish()
    return inspector


def _matches(inspector: format_inspector.FileInspector) -> bool:
    try:
        return bool(inspector.format_match)
    except Exception:  # As above: a match is asked of data that the parser may have given up on.
        return False


def _reasons(failure: Exception) -> str:
    if isinstance(failure, format_inspector.SafetyCheckFailed):
        return "; ".join(str(reason) for _, reason in sorted(failure.failures.items()))
    return str(failure)


def main(argv: list[str]) -> int:
    """The child: one line of JSON on stdout, code 0 whatever was found. Any other end is a refusal too."""
    parser = argparse.ArgumentParser(prog="drivers.image.inspect")
    parser.add_argument("--format", required=True)
    parser.add_argument("--virtual-bytes-max", type=int, default=VIRTUAL_BYTES_MAX)
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("path")
    options = parser.parse_args(argv)
    with Path(options.path).open("rb") as file:
        rights.give_up(options.uid)
        try:
            verdict = Verdict(found=inspect_file(file, options.format, options.virtual_bytes_max))
        except Failed as refusal:
            verdict = Verdict(refused=str(refusal))
    sys.stdout.buffer.write(msgspec.json.encode(verdict) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
