"""What a new cloud has of compute: four flavors. Operators may delete them; they do not come back."""

from typing import Final

from controller.compute.flavor_store import insert_flavor
from controller.compute.model import Flavor
from controller.db.tx import Tx

FLAVORS: Final = (
    ("42", "m1.nano", 1, 128, 1),
    ("1", "m1.tiny", 1, 256, 1),
    ("2", "m1.small", 1, 512, 5),
    ("3", "m1.medium", 2, 1024, 10),
)
"""(id, name, vCPUs, MiB of memory, GiB of disk), under the ids that test suites expect."""


def found(tx: Tx, now: float) -> None:
    """Insert the flavors of a new cloud."""
    for flavor_id, name, vcpus, memory_mib, disk_gib in FLAVORS:
        new = Flavor(
            id=flavor_id,
            name=name,
            vcpus=vcpus,
            memory_mib=memory_mib,
            disk_gib=disk_gib,
            ephemeral_gib=0,
            swap_mib=0,
            rxtx_factor=1.0,
            is_public=True,
            is_disabled=False,
            description=None,
            extra_specs={},
            created_at=now,
            updated_at=None,
        )
        insert_flavor(tx, new)
