"""Handlers of security groups and their rules."""

from typing import Any, Final

from controller.db.tables.network import security_group, security_group_rule
from controller.db.tx import Tx
from controller.http.filters import Filter
from controller.http.op import Call
from controller.identity import projects
from controller.network import groups
from controller.network.api import lists, views
from controller.network.api.bodies import RuleCreate, given, number, posted
from controller.network.api.lists import Listed, standard_filters, standard_sortable
from controller.network.api.requests import authorize, owned, owner, revision, settle, standard
from controller.network.model import Group, Rule
from controller.network.store import groups as store

LISTED: Final = Listed(
    collection="security_groups",
    table=security_group,
    filters=standard_filters(security_group),
    sortable=standard_sortable(),
    visible=store.visible,
    complete=store.complete,
)

_RULE_TEXTS: Final = {
    "security_group_id": "group_id",
    "direction": "direction",
    "ethertype": "ethertype",
    "protocol": "protocol",
    "remote_ip_prefix": "remote_ip_prefix",
    "remote_group_id": "remote_group_id",
}
_RULE_NUMBERS: Final = {"port_range_min": "port_min", "port_range_max": "port_max"}


def _without_name(table: dict[str, Any]) -> dict[str, Any]:
    """Rules have no name that anyone could see."""
    return {key: value for key, value in table.items() if key != "name"}


RULES_LISTED: Final = Listed(
    collection="security_group_rules",
    table=security_group_rule,
    filters={
        **_without_name(standard_filters(security_group_rule)),
        **{key: Filter(security_group_rule.c[name]) for key, name in _RULE_TEXTS.items()},
        **{key: Filter(security_group_rule.c[name], lists.number) for key, name in _RULE_NUMBERS.items()},
    },
    sortable=_without_name({**standard_sortable(), **_RULE_TEXTS, **_RULE_NUMBERS}),
    visible=store.rules_visible,
    complete=store.complete_rules,
)


async def index(call: Call) -> dict[str, Any]:
    """GET /security-groups."""
    await _touch(call)
    return await lists.listed(call, LISTED, views.group)


async def show(call: Call) -> dict[str, Any]:
    """GET /security-groups/{id}."""
    found = await call.cloud.db.read(store.get, call.ctx, call.params["group_id"])
    return {"security_group": lists.chosen(call, views.group(found))}


async def create(call: Call) -> dict[str, Any]:
    """POST /security-groups."""
    bodies, is_bulk = posted("security_group", call.body.security_group, call.body.security_groups)
    now, entropy = call.cloud.world.clock.now(), call.cloud.world.entropy
    new = []
    for body in bodies:
        project_id = owner(call, body)
        authorize(call, "create_security_group", {"project_id": project_id})
        new.append(Group(**standard(call, body, project_id, now)))
    rule_ids = [(entropy.uuid(), entropy.uuid()) for _ in new]
    made = await call.cloud.db.write(groups.create_all, new, rule_ids, now)
    settle(call)
    shown = [views.group(one) for one in made]
    return {"security_groups": shown} if is_bulk else {"security_group": shown[0]}


async def update(call: Call) -> dict[str, Any]:
    """PUT /security-groups/{id}."""
    found = await _changeable(call, "update_security_group")
    now, changes = call.cloud.world.clock.now(), given(call.body.security_group)
    made = await call.cloud.db.write(groups.update, found.id, changes, revision(call), now)
    return {"security_group": views.group(made)}


async def delete(call: Call) -> None:
    """DELETE /security-groups/{id}."""
    found = await _changeable(call, "delete_security_group")
    await call.cloud.db.write(groups.delete, call.ctx, found.id, revision(call), call.cloud.world.clock.now())
    settle(call)


async def index_rules(call: Call) -> dict[str, Any]:
    """GET /security-group-rules."""
    await _touch(call)
    return await lists.listed(call, RULES_LISTED, views.rule)


async def show_rule(call: Call) -> dict[str, Any]:
    """GET /security-group-rules/{id}."""
    found = await call.cloud.db.read(store.get_rule, call.ctx, call.params["rule_id"])
    return {"security_group_rule": lists.chosen(call, views.rule(found))}


async def create_rules(call: Call) -> dict[str, Any]:
    """POST /security-group-rules."""
    bodies, is_bulk = posted("security_group_rule", call.body.security_group_rule, call.body.security_group_rules)
    now = call.cloud.world.clock.now()
    rules = [await _rule(call, body, now) for body in bodies]
    made = await call.cloud.db.write(groups.add_rules, call.ctx, rules, now)
    settle(call)
    shown = [views.rule(one) for one in made]
    return {"security_group_rules": shown} if is_bulk else {"security_group_rule": shown[0]}


async def delete_rule(call: Call) -> None:
    """DELETE /security-group-rules/{id}."""
    found = await call.cloud.db.read(store.get_rule, call.ctx, call.params["rule_id"])
    authorize(call, "delete_security_group_rule", owned(found))
    now = call.cloud.world.clock.now()
    await call.cloud.db.write(groups.delete_rule, call.ctx, found.id, revision(call), now)
    settle(call)


async def _touch(call: Call) -> None:
    """The default group appears when a project looks at its groups for the first time.

    An administrator who asks for another project's groups touches that one, if it exists.
    """
    asked = call.query.get("project_id") or call.query.get("tenant_id")
    project_id = asked if asked and call.ctx.is_admin else call.ctx.project_id
    if project_id and not await call.cloud.db.read(_is_settled, project_id, is_own=project_id == call.ctx.project_id):
        await call.cloud.db.write(store.ensure_default, project_id, call.cloud.world.clock.now())


def _is_settled(tx: Tx, project_id: str, *, is_own: bool) -> bool:
    """Whether there is nothing to make: the group is there, or the project is not."""
    return store.has_default(tx, project_id) or not (is_own or projects.exists(tx, project_id))


async def _changeable(call: Call, rule: str) -> Group:
    found = await call.cloud.db.read(store.get, call.ctx, call.params["group_id"])
    authorize(call, rule, owned(found))
    return found


async def _rule(call: Call, body: RuleCreate, now: float) -> Rule:
    """The rule that a body asks for, in the words in which it is stored. Raises Invalid or NotFound."""
    ethertype = groups.ethertype_text(body.ethertype)
    protocol = groups.protocol_text(body.protocol, ethertype)
    low, high = (
        number(name, value) if value is not None else None
        for name, value in (("port_range_min", body.port_range_min), ("port_range_max", body.port_range_max))
    )
    groups.check_ports(protocol, ethertype, low, high)
    prefix = groups.prefix_text(body.remote_ip_prefix, ethertype)
    groups.check_remotes(prefix, body.remote_group_id)
    direction = groups.direction_text(body.direction)
    owner(call, body)
    around = await call.cloud.db.read(store.get, call.ctx, body.security_group_id)
    authorize(call, "create_security_group_rule", owned(around))
    return Rule(
        **standard(call, body, around.project_id, now),
        group_id=around.id,
        direction=direction,
        ethertype=ethertype,
        protocol=protocol,
        port_min=low,
        port_max=high,
        remote_ip_prefix=prefix,
        remote_group_id=body.remote_group_id,
    )
