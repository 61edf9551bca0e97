"""How the controller fares: reconcilers, sagas that do not rest, hosts."""

from controller.fleet import store as fleet
from controller.http.op import Call
from controller.saga import log
from controller.saga.model import State

_RESTLESS = (State.RUNNING, State.UNWINDING, State.STUCK)


async def show(call: Call) -> dict[str, object]:
    """GET /status."""
    sagas = await call.cloud.db.read(log.summaries, _RESTLESS)
    hosts = await call.cloud.db.read(fleet.list_hosts)
    return {
        "hosts": [
            {
                "id": host.id,
                "hostname": host.hostname,
                "state": host.state,
                "is_up": call.cloud.hosts.is_up(host.id),
                "virt_type": host.virt_type,
                "vcpus": host.vcpus,
                "memory_mib": host.memory_mib,
                "agent_version": host.agent_version,
            }
            for host in hosts
        ],
        "sagas": sagas,
        "reconcilers": call.cloud.tasks.statuses(),
    }
