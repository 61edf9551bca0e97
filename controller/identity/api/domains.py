"""/domains."""

from typing import Any

from controller.db.tables.identity import domain
from controller.http.op import Call
from controller.identity import domains
from controller.identity.api import asking, views
from controller.identity.api.bodies import DomainCreate, DomainUpdate, given, opened
from controller.identity.model import Domain

FILTERS = asking.named(domain)


async def index(call: Call) -> dict[str, Any]:
    """GET /domains."""
    return await asking.page(call, Domain, "domains", FILTERS)


async def create(call: Call) -> dict[str, Any]:
    """POST /domains."""
    wanted, extra = opened(DomainCreate, call.body.domain, "domain")
    made = Domain(
        id=asking.new_id(call),
        name=wanted.name,
        description=wanted.description or "",
        enabled=wanted.enabled,
        auth_generation=1,
        extra=extra,
        created_at=call.cloud.world.clock.now(),
    )
    return {"domain": views.view(call, await asking.write(call, domains.create, made))}


async def show(call: Call) -> dict[str, Any]:
    """GET /domains/{domain_id}."""
    found = await asking.seen(call, Domain, call.params["domain_id"], "identity:get_domain")
    return {"domain": views.view(call, found)}


async def update(call: Call) -> dict[str, Any]:
    """PATCH /domains/{domain_id}."""
    changes, extra = opened(DomainUpdate, call.body.domain, "domain")
    found = await asking.seen(call, Domain, call.params["domain_id"], "identity:update_domain")
    values = asking.changed_columns(found, given(changes), extra)
    return {"domain": views.view(call, await asking.write(call, domains.update, found.id, values))}


async def delete(call: Call) -> None:
    """DELETE /domains/{domain_id}."""
    found = await asking.seen(call, Domain, call.params["domain_id"], "identity:delete_domain")
    await asking.write(call, domains.delete, found.id)
