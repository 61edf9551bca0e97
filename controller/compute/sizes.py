"""A server's size: what of its flavor is copied into its row, and what a change of it means."""

from typing import Any

import msgspec

from controller.compute.model import Flavor, Server
from controller.errors import Invalid


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """Fields are those of the server's row. The root disk as it is, which never shrinks, is not part of it."""

    flavor_id: str
    flavor_name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    ephemeral_gib: int
    swap_mib: int
    extra_specs: dict[str, str]

    def columns(self) -> dict[str, Any]:
        """For an update of the row."""
        return msgspec.structs.asdict(self)


def of_flavor(flavor: Flavor) -> Size:
    """What the flavor gives."""
    return Size(
        flavor_id=flavor.id,
        flavor_name=flavor.name,
        vcpus=flavor.vcpus,
        memory_mib=flavor.memory_mib,
        disk_gib=flavor.disk_gib,
        ephemeral_gib=flavor.ephemeral_gib,
        swap_mib=flavor.swap_mib,
        extra_specs=flavor.extra_specs,
    )


def of_server(server: Server) -> Size:
    """What the server has."""
    return Size(**{field: getattr(server, field) for field in Size.__struct_fields__})


def root_gib(server: Server, flavor: Flavor) -> int:
    """The root disk with that flavor. It only ever grows. Raises Invalid with Nova's sentences."""
    if server.image_id is None:
        return server.root_gib
    if flavor.disk_gib == 0 and server.disk_gib != 0:
        raise Invalid("Flavor is invalid: Resize to zero disk flavor is not allowed.")
    if 0 < flavor.disk_gib < server.root_gib:
        raise Invalid(
            "Unable to resize disk down: "
            f"the root disk has {server.root_gib} GiB, flavor {flavor.id} has {flavor.disk_gib} GiB."
        )
    return max(server.root_gib, flavor.disk_gib)
