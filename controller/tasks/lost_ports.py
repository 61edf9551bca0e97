"""Servers whose port somebody deleted go on without it: the port is gone for good, and their host is told.

Deleting a port that a server uses is allowed, as in Neutron, and its host lets go of it at once. The server's
definition still names it, though, and a host refuses a definition with a port that is not there: the server could
not be started, rebooted or even renamed any more. So the definition follows, at a new generation.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from controller.compute import nets
from controller.tasks import server_push
from controller.tasks.driver import Task

if TYPE_CHECKING:
    from controller.cloud import Cloud

NAME: Final = "lost_ports"

PERIOD_S: Final = 30.0
"""How long such a server's next operation may have to wait. Shorter: a look at all servers' ports for nothing."""

BATCH: Final = 256


def lost_ports(cloud: "Cloud") -> Task:
    """The task."""

    async def run() -> Mapping[str, Any]:
        found = await cloud.db.read(nets.find_bereft, BATCH)
        for server_id in found:
            await cloud.db.write(nets.drop_lost, server_id)
        if found:
            cloud.tasks.kick(server_push.NAME)
        return {"servers": len(found)}

    return Task(NAME, PERIOD_S, run)
