"""Handlers of /os-keypairs. A keypair belongs to a user; admins may name another one from 2.10 on."""

from typing import Any, Final

from controller.compute import flavor_store as store
from controller.compute import keypairs
from controller.compute.api import links, queries, views
from controller.http.fields import render
from controller.http.op import Call

_RULES: Final = "os_compute_api:os-keypairs:"


async def index(call: Call) -> dict[str, Any]:
    """GET /os-keypairs"""
    queries.check_keys(call, ("user_id", "limit", "marker"))
    user_id = _user(call, "index")
    page = queries.page_of(call)
    is_paged = call.version >= (2, 35)
    marker = page.marker if is_paged else None
    limit = page.limit if is_paged else call.cloud.settings.limits.page
    rows = await call.cloud.db.read(store.list_keypairs, user_id, limit, marker)
    found: dict[str, Any] = {"keypairs": [views.keypair_line(row, call.version) for row in rows]}
    if is_paged:
        last = rows[-1].name if rows else None
        found.update(links.next_page(call, "keypairs", last, len(rows), page))
    return found


async def show(call: Call) -> dict[str, Any]:
    """GET /os-keypairs/{name}"""
    queries.check_keys(call, ("user_id",))
    row = await call.cloud.db.read(store.get_keypair, _user(call, "show"), call.params["name"])
    return {"keypair": render(views.KEYPAIR, row, call.version)}


async def create(call: Call) -> dict[str, Any]:
    """POST /os-keypairs: import a public key, or, for clients that still ask for it, make a pair."""
    new = call.body.keypair
    user_id = getattr(new, "user_id", None) or call.ctx.user_id
    call.authorize(_RULES + "create", {"user_id": user_id})
    kind = getattr(new, "type", "ssh")
    private, public = (None, new.public_key) if new.public_key is not None else await _made(call, kind, user_id)
    values = {
        "user_id": user_id,
        "name": keypairs.checked_name(new.name),
        "type": kind,
        "fingerprint": keypairs.fingerprint(public, kind),
        "public_key": public,
        "created_at": call.cloud.world.clock.now(),
    }
    row = await call.cloud.db.write(keypairs.insert, call.ctx, values)
    shown = render(views.KEYPAIR_MADE, row, call.version)
    return {"keypair": shown if private is None else {**shown, "private_key": private}}


async def _made(call: Call, kind: str, user_id: str) -> tuple[str, str]:
    if kind != "x509":
        return keypairs.made()
    world = call.cloud.world
    return await world.threads.run(keypairs.made_x509, user_id, world.clock.now(), timeout_s=keypairs.MAKING_S)


async def delete(call: Call) -> None:
    """DELETE /os-keypairs/{name}"""
    queries.check_keys(call, ("user_id",))
    await call.cloud.db.write(store.delete_keypair, _user(call, "delete"), call.params["name"])


def _user(call: Call, verb: str) -> str:
    """Whose keypairs: the caller's, or another user's for an admin, from 2.10 on."""
    asked = call.query.get("user_id") if call.version >= (2, 10) else None
    user_id = asked or call.ctx.user_id
    call.authorize(_RULES + verb, {"user_id": user_id})
    return user_id
