"""An exporter inside a host of its own, told from outside: python -m tests.drivers.volume.inside JSON."""

import sys
from pathlib import Path

import msgspec

from drivers.volume.base import Export
from drivers.volume.load import VolumeSettings
from drivers.volume.tgt import TgtExporter

UID = VolumeSettings().uid


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, and where."""

    folder: str
    address: str
    port: int
    tag: str
    export: Export | None = None
    absent: str = ""


def main(order: Order) -> object:
    exporter = TgtExporter(tag=order.tag, folder=Path(order.folder), host=order.address, port=order.port, uid=UID)
    if order.export is not None:
        return exporter.ensure(order.export)
    if order.absent:
        return exporter.absent(order.absent)
    return exporter.list()


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(main(msgspec.json.decode(sys.argv[1], type=Order))).decode())
