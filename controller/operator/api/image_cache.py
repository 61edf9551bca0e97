"""Hosts' image caches as operators see them: what is where, and sending one away."""

from typing import Any, Final

import msgspec

from controller.cloud import Cloud
from controller.errors import CloudError, NotFound, Unavailable
from controller.fleet import store as fleet
from controller.fleet.model import Host
from controller.http.op import Call
from controller.image import caching
from controller.saga.model import Transient

EVICT_S: Final = 10.0


async def index(call: Call) -> dict[str, Any]:
    """GET /image-cache: of every host; one that does not answer says so."""
    hosts = await call.cloud.db.read(fleet.list_hosts)
    return {"hosts": [await _cache(call.cloud, host) for host in hosts]}


async def evict(call: Call) -> dict[str, Any]:
    """POST /hosts/{host_id}/image-cache/evict: an image, by name or by the beginning of its hash."""
    host_id, cloud = call.params["host_id"], call.cloud
    if await cloud.db.read(fleet.find_host, host_id) is None:
        raise NotFound(f"There is no host {host_id}.")
    try:
        one = caching.found(await caching.look(cloud, host_id), call.body.image)
        deadline = cloud.world.clock.now() + EVICT_S
        await caching.give_up(cloud, host_id, one, deadline, is_forced=call.body.force)
    except Transient as error:
        raise Unavailable(f"It is not gone yet, and will go as soon as it can: {error}") from error
    return {"sha256": one.sha256, "size": one.size}


async def _cache(cloud: Cloud, host: Host) -> dict[str, Any]:
    known = {"id": host.id, "hostname": host.hostname}
    try:
        seen = await caching.look(cloud, host.id)
    except (Transient, CloudError) as error:
        return {**known, "images": [], "error": str(error)}
    return {**known, "images": msgspec.to_builtins(seen), "error": ""}
