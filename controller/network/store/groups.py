"""SQL of security groups and their rules, always read together."""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.network import host_object, port_security_group, security_group, security_group_rule
from controller.db.tx import Tx
from controller.http.paging import Visible, constant
from controller.network.errors import SecurityGroupNotFound, SecurityGroupRuleNotFound
from controller.network.model import Group, Rule, from_row
from controller.network.store import members, rows

_DEFAULT_IDS: Final = uuid.UUID("5b6f8d1c-52e6-4d3f-9a1f-0c3f6d6b5f10")
"""Ids of default groups follow from the project's, so that two first touches at once make the same rows."""

_RULES = (
    sa.select(security_group_rule)
    .where(security_group_rule.c.group_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(security_group_rule.c.created_at, security_group_rule.c.id)
)
_DEFAULT = sa.select(security_group.c.id).where(
    security_group.c.project_id == sa.bindparam("project_id"), security_group.c.is_default
)


_SOME = (
    sa.select(security_group)
    .where(security_group.c.id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(security_group.c.id)
)
_OWN_GROUPS = sa.select(security_group.c.id).where(security_group.c.project_id == sa.bindparam("project_id"))
_RULES_VISIBLE = (
    constant(security_group_rule.c.project_id == sa.bindparam("project_id")),
    constant(security_group_rule.c.group_id.in_(_OWN_GROUPS)),
)
_VISIBLE = (constant(security_group.c.project_id == sa.bindparam("project_id")),)


def visible(ctx: Context) -> Visible:
    """What the caller may see: everything for admins, else their own."""
    return () if ctx.is_admin else _VISIBLE


def rules_visible(ctx: Context) -> Visible:
    """What the caller may see: everything for admins, else their own, and others' in their own groups."""
    return () if ctx.is_admin else _RULES_VISIBLE


def find(tx: Tx, group_id: str) -> Group | None:
    """One group with its rules, whoever owns it."""
    found = complete(tx, tx.execute(sa.select(security_group).where(security_group.c.id == group_id)).all())
    return found[0] if found else None


def some(tx: Tx, group_ids: Iterable[str]) -> list[Group]:
    """Groups by id, with their rules; unknown ids are passed over."""
    return complete(tx, tx.execute(_SOME, {"ids": list(group_ids)}).all())


def complete(tx: Tx, rows: Sequence[Any]) -> list[Group]:
    """Rows of `security_group` with their rules: one more query, however many rows."""
    if not rows:
        return []
    rules: defaultdict[str, list[Rule]] = defaultdict(list)
    for rule in tx.execute(_RULES, {"ids": [row.id for row in rows]}):
        rules[rule.group_id].append(from_row(Rule, rule))
    return [from_row(Group, row, rules=tuple(rules[row.id])) for row in rows]


def get(tx: Tx, ctx: Context, group_id: str) -> Group:
    """One group, if the caller may see it. Raises SecurityGroupNotFound."""
    found = find(tx, group_id)
    if found is None or not (ctx.is_admin or found.project_id == ctx.project_id):
        raise SecurityGroupNotFound(group_id)
    return found


def get_rule(tx: Tx, ctx: Context, rule_id: str) -> Rule:
    """One rule, if the caller may see it. Raises SecurityGroupRuleNotFound."""
    query = sa.select(security_group_rule).where(security_group_rule.c.id == rule_id)
    row = tx.execute(
        query if ctx.is_admin else query.where(sa.or_(*_RULES_VISIBLE)), {"project_id": ctx.project_id or ""}
    ).one_or_none()
    if row is None:
        raise SecurityGroupRuleNotFound(rule_id)
    found: Rule = from_row(Rule, row)
    return found


def complete_rules(tx: Tx, found: Sequence[Any]) -> list[Rule]:
    """Rows of `security_group_rule`."""
    return [from_row(Rule, row) for row in found]


def has_default(tx: Tx, project_id: str) -> bool:
    """Whether the project was touched before."""
    return tx.execute(_DEFAULT, {"project_id": project_id}).first() is not None


def ensure_default(tx: Tx, project_id: str, now: float) -> str:
    """The id of the project's default group, made with its four rules at first touch."""
    found: str | None = tx.execute(_DEFAULT, {"project_id": project_id}).scalar()
    if found is not None:
        return found
    group_id = str(uuid.uuid5(_DEFAULT_IDS, project_id))
    default = Group(
        id=group_id,
        project_id=project_id,
        name="default",
        description="Default security group",
        is_default=True,
        created_at=now,
        updated_at=now,
    )
    insert(tx, default)
    for direction in ("egress", "ingress"):
        for ethertype in ("IPv4", "IPv6"):
            rule = Rule(
                id=str(uuid.uuid5(_DEFAULT_IDS, f"{project_id}/{direction}/{ethertype}")),
                project_id=project_id,
                group_id=group_id,
                direction=direction,
                ethertype=ethertype,
                remote_group_id=group_id if direction == "ingress" else None,
                created_at=now,
                updated_at=now,
            )
            insert_rule(tx, rule)
    return group_id


def insert(tx: Tx, new: Group) -> None:
    """A group's row, without rules."""
    rows.insert(tx, security_group, new)


def insert_rule(tx: Tx, new: Rule) -> None:
    """A rule's row. The caller raises the group's generation (`changed`) unless the group is new."""
    rows.insert(tx, security_group_rule, new)


def delete_rule(tx: Tx, rule_id: str) -> None:
    """A rule's row. The caller raises the group's generation."""
    tx.execute(sa.delete(security_group_rule).where(security_group_rule.c.id == rule_id))


def is_used(tx: Tx, group_id: str) -> bool:
    """Whether a port has the group."""
    query = sa.select(port_security_group.c.port_id).where(port_security_group.c.group_id == group_id)
    return tx.execute(query.limit(1)).first() is not None


def delete(tx: Tx, group_id: str, now: float) -> None:
    """A group with its rules, and the rules of other groups that name it as remote."""
    naming = sa.select(security_group_rule.c.group_id).where(
        security_group_rule.c.remote_group_id == group_id, security_group_rule.c.group_id != group_id
    )
    for other in sorted(set(tx.execute(naming).scalars())):
        changed(tx, other, now)
    gone = sa.or_(security_group_rule.c.remote_group_id == group_id, security_group_rule.c.group_id == group_id)
    tx.execute(sa.delete(security_group_rule).where(gone))
    tx.execute(sa.delete(security_group).where(security_group.c.id == group_id))
    members.end(tx, group_id)
    # A project's default group may come back under its id: what hosts were told of this one is nothing of that one.
    tx.execute(
        sa.update(host_object)
        .where(host_object.c.noun.in_(("group", "addresses")), host_object.c.object_id == group_id)
        .values(version=0)
    )


def revise(tx: Tx, group_id: str, now: float, changes: Mapping[str, Any]) -> None:
    """Change what only users see."""
    rows.revise(tx, security_group, group_id, now, changes)


def changed(tx: Tx, group_id: str, now: float) -> None:
    """The group's rules are not what they were: users see a new revision, hosts a new generation."""
    raised = {
        "revision": security_group.c.revision + 1,
        "generation": security_group.c.generation + 1,
        "updated_at": now,
    }
    tx.execute(sa.update(security_group).where(security_group.c.id == group_id).values(raised))
