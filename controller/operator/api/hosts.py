"""Hosts as operators see them: how they fare, letting one join, taking one away."""

import asyncio
from typing import Any

import msgspec

from agent.wire import host as calls
from agent.wire.specs import Empty
from controller.cloud import Cloud
from controller.errors import CloudError
from controller.fleet import store as fleet
from controller.fleet.model import Host
from controller.http.op import Call
from controller.saga.model import Transient


async def index(call: Call) -> dict[str, Any]:
    """GET /hosts: each with the findings of its own check-up."""
    hosts = await call.cloud.db.read(fleet.list_hosts)
    findings = await asyncio.gather(*(_checked(call.cloud, host) for host in hosts))
    return {
        "hosts": [
            {**msgspec.to_builtins(host), "is_up": call.cloud.hosts.is_up(host.id), "findings": found}
            for host, found in zip(hosts, findings, strict=True)
        ]
    }


async def create_token(call: Call) -> dict[str, str]:
    """POST /join-tokens: shown once."""
    return {"token": await call.cloud.enrollment.issue_token(call.body.host_id)}


async def remove(call: Call) -> None:
    """DELETE /hosts/{host_id}: the operator says that it is gone, dead and fenced."""
    await call.cloud.enrollment.remove(call.params["host_id"])


async def _checked(cloud: Cloud, host: Host) -> list[calls.Finding]:
    if not cloud.hosts.is_up(host.id):
        return [calls.Finding(name="agent", ok=False, detail="it does not answer: see its log, then start it")]
    try:
        return list((await cloud.hosts.call(host.id, calls.DOCTOR, Empty())).findings)
    except (Transient, CloudError) as error:
        return [calls.Finding(name="agent", ok=False, detail=str(error))]
