"""Handlers of /extensions: what clients of the oldest kind look for. Only what the tables have."""

from typing import Any, Final

from controller.errors import NotFound
from controller.http.op import Call

_NAMES: Final = (
    ("OS-DCF", "DiskConfig", "Disk management."),
    ("OS-EXT-AZ", "ExtendedAvailabilityZone", "The availability zone of servers."),
    ("OS-EXT-IPS", "ExtendedIps", "The type of addresses."),
    ("OS-EXT-IPS-MAC", "ExtendedIpsMac", "The MAC of addresses."),
    ("OS-EXT-SRV-ATTR", "ExtendedServerAttributes", "Where servers are, for administrators."),
    ("OS-EXT-STS", "ExtendedStatus", "The states of servers."),
    ("OS-FLV-DISABLED", "FlavorDisabled", "Disabled flavors."),
    ("OS-FLV-EXT-DATA", "FlavorExtraData", "More data of flavors."),
    ("OS-SCH-HNT", "SchedulerHints", "Hints for the scheduler."),
    ("OS-SRV-USG", "ServerUsage", "Times of servers."),
    ("os-availability-zone", "AvailabilityZone", "Availability zones."),
    ("os-config-drive", "ConfigDrive", "Config drives."),
    ("os-console-output", "ConsoleOutput", "The console's log."),
    ("os-extended-volumes", "ExtendedVolumes", "Volumes of servers."),
    ("os-flavor-access", "FlavorAccess", "Private flavors."),
    ("os-flavor-extra-specs", "FlavorExtraSpecs", "Extra specs of flavors."),
    ("os-flavor-manage", "FlavorManage", "Making and removing flavors."),
    ("os-hypervisors", "Hypervisors", "Hosts and their usage."),
    ("os-instance-actions", "InstanceActions", "What was done to a server."),
    ("os-keypairs", "Keypairs", "Keypairs."),
    ("os-lock-server", "LockServer", "Locking servers."),
    ("os-multiple-create", "MultipleCreate", "Several servers at once."),
    ("os-quota-sets", "Quotas", "Quotas."),
    ("os-services", "Services", "What works where."),
    ("os-used-limits", "UsedLimits", "Usage beside the limits."),
    ("os-simple-tenant-usage", "SimpleTenantUsage", "What projects used."),
    ("os-user-data", "UserData", "User data."),
    ("os-server-start-stop", "ServerStartStop", "Starting and stopping servers."),
)


def _view(row: tuple[str, str, str]) -> dict[str, Any]:
    alias, name, description = row
    return {
        "alias": alias,
        "name": name,
        "description": description,
        "links": [],
        "namespace": "http://docs.openstack.org/compute/ext/fake_xml",  # Never a real one in Nova either.
        "updated": "2014-12-03T00:00:00Z",
    }


async def index(call: Call) -> dict[str, Any]:
    """GET /extensions"""
    return {"extensions": [_view(row) for row in _NAMES]}


async def show(call: Call) -> dict[str, Any]:
    """GET /extensions/{alias}"""
    for row in _NAMES:
        if row[0] == call.params["alias"]:
            return {"extension": _view(row)}
    raise NotFound("The resource could not be found.")
