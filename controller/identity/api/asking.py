"""What the handlers of identity have in common: reading one noun for a caller, listing, writing."""

from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from controller.db.tx import Tx
from controller.errors import NotFound
from controller.http.filters import Filter, boolean, conditions, folded
from controller.http.op import Call
from controller.http.paging import page_of
from controller.identity import store, users
from controller.identity.api import views
from controller.identity.model import Actor, ActorKind, Domain, Group, Project, User
from controller.identity.store import Noun

P = ParamSpec("P")
T = TypeVar("T")


def flag(key: str, value: str) -> bool:
    """A query's boolean; a key without value is true."""
    return boolean(key, value) if value else True


def new_id(call: Call) -> str:
    """Keystone's ids have no dashes."""
    return call.cloud.world.entropy.hex(32)


async def write(call: Call, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A change that may end tokens: they are checked anew before the reply leaves."""
    try:
        return await call.cloud.db.write(fn, *args, **kwargs)
    finally:
        call.cloud.tokens.changed()


async def seen(call: Call, kind: type[Noun], id: str, rule: str) -> Noun:
    """One noun that the rule lets the caller see or change. Who may not see all gets 403 also for what is not there.

    Raises Forbidden, NotFound.
    """
    found = await call.cloud.db.read(store.find, kind, id)
    call.authorize(rule, await target_of(call, id, found))
    if found is None:
        raise store.missing(kind, id)
    return found


async def target_of(call: Call, id: str, found: Any) -> dict[str, Any]:
    """What the rules know of a noun. An absent one belongs to nobody."""
    if isinstance(found, Domain):
        return {"domain_id": id}
    target: dict[str, Any] = {"domain_id": getattr(found, "domain_id", "")}
    if isinstance(found, Project):
        target["project_id"] = id
    elif isinstance(found, User):
        actor = Actor(ActorKind.USER, id)
        target |= {"user_id": id, "is_privileged": await call.cloud.db.read(users.is_admin, actor)}
    elif isinstance(found, Group):
        target["is_privileged"] = await call.cloud.db.read(users.is_admin, Actor(ActorKind.GROUP, id))
    elif found is None:
        target |= {"user_id": "", "project_id": ""}
    else:
        target = {}
    return target


async def page(
    call: Call,
    kind: type[Noun],
    key: str,
    filters: Mapping[str, Filter],
    *more: sa.ColumnElement[bool],
) -> dict[str, Any]:
    """A page of nouns that live in a domain (or are one); a domain's reader sees that domain's only."""
    if call.ctx.domain_id is not None and not call.ctx.is_admin:
        own = store.TABLES[kind].c["id" if kind is Domain else "domain_id"] == call.ctx.domain_id
        return await page_of_all(call, kind, key, filters, own, *more)
    return await page_of_all(call, kind, key, filters, *more)


async def page_of_all(
    call: Call,
    kind: type[Noun],
    key: str,
    filters: Mapping[str, Filter],
    *more: sa.ColumnElement[bool],
) -> dict[str, Any]:
    """A page of nouns as Keystone lists them."""
    wanted = page_of(call, {}, ())
    where = [*conditions(call.query, filters), *more]
    nouns = await call.cloud.db.read(store.page, kind, where, wanted)
    return views.listed(call, key, nouns, wanted)


def named(table: sa.Table) -> dict[str, Filter]:
    """Filters that most nouns have."""
    found = {"name": Filter(table.c.name_key, where=folded)}
    if "domain_id" in table.c:
        found["domain_id"] = Filter(table.c.domain_id)
    if "enabled" in table.c:
        found["enabled"] = Filter(table.c.enabled, flag)
    return found


async def owning_domain(call: Call, domain_id: str | None) -> str:
    """The domain of a new noun: as given, else the token's. Raises NotFound for one that is not there."""
    chosen = domain_id or call.ctx.domain_id or call.ctx.project_domain_id
    if await call.cloud.db.read(store.find, Domain, chosen) is None and call.ctx.is_admin:
        raise NotFound(f"Could not find domain: {chosen}.")
    return chosen


def changed_columns(found: Any, sent: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Columns of a PATCH. Kept attributes are merged; a null description is an empty one."""
    columns = dict(sent)
    if columns.get("description", "") is None:
        columns["description"] = ""
    if extra:
        columns["extra"] = {**found.extra, **extra}
    return columns
