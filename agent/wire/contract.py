"""Every call and every event there is: the contract as one table.

The tests render it as JSON schema, so that any change shows in review; the controller reads events by it.
"""

from typing import Any, Final

from agent.wire import capture, disk, domain, forwarding, group, host, image, network, port, router, samples, volume
from agent.wire.specs import Call, ObjectStatus

CALLS: Final[tuple[Call[Any, Any], ...]] = (
    capture.ENSURE,
    capture.ABSENT,
    capture.GET,
    disk.ENSURE,
    disk.ABSENT,
    disk.GET,
    domain.ENSURE,
    domain.ABSENT,
    domain.GET,
    domain.LIST,
    domain.REBOOT,
    domain.HASTEN,
    domain.CONSOLE,
    forwarding.ENSURE,
    forwarding.DELTA,
    forwarding.ABSENT,
    forwarding.GET,
    group.ENSURE,
    group.ABSENT,
    group.GET,
    group.ADDRESSES_ENSURE,
    group.ADDRESSES_DELTA,
    group.ADDRESSES_ABSENT,
    group.ADDRESSES_GET,
    host.INVENTORY,
    host.LEDGER,
    host.DOCTOR,
    image.ENSURE,
    image.ABSENT,
    image.GET,
    image.LIST,
    network.ENSURE,
    network.ABSENT,
    network.GET,
    port.ENSURE,
    port.ABSENT,
    port.GET,
    router.ENSURE,
    router.ABSENT,
    router.GET,
    samples.GET,
    volume.ENSURE,
    volume.ABSENT,
    volume.GET,
    volume.SNAPSHOT_ENSURE,
    volume.SNAPSHOT_ABSENT,
    volume.SNAPSHOT_GET,
    volume.EXPORT_ENSURE,
    volume.EXPORT_ABSENT,
    volume.EXPORT_GET,
)
"""What a controller may ask of a host."""

QUESTIONS: Final[tuple[Call[Any, Any], ...]] = (host.LEASE,)
"""What a host may ask of the controllers."""

STATUSES: Final[dict[str, type[ObjectStatus]]] = {
    row.noun: row.reply for row in CALLS if row.name.endswith(".get") and issubclass(row.reply, ObjectStatus)
}
"""Body of a noun's event: the status that `<noun>.get` answers."""

EVENTS: Final[dict[str, type[Any]]] = {host.HEARTBEAT: host.Heartbeat, host.STARTED: host.Inventory, **STATUSES}
"""Body of every event, inside an `EventEnvelope`."""
