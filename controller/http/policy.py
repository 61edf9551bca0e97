"""Who may do what: predicates over (caller, target), named by OpenStack's rules in each slice's `policy.py`.

A row's rule is checked before the body is read, with an empty target: then only scope and role count. Handlers
check again with `call.authorize(rule, target)` once they know the object; `project_id` or `domain_id` in the target
must then be the caller's own. Roles imply (admin > manager > member > reader): a context already holds them all.
Role admin in any scope is the cloud's admin, as in the deployments that clients know.
"""

from collections.abc import Mapping
from typing import Any, Final

from controller.context import Context
from controller.errors import Forbidden
from controller.http.op import Predicate

Target = Mapping[str, Any]

NO_TARGET: Final[Target] = {}

_DECLARED: Final[dict[str, Predicate]] = {}
"""Every rule of every service in this process; filled when the app is built."""


def declare(rules: Mapping[str, Predicate]) -> None:
    """Make a slice's rules known to `check`."""
    _DECLARED.update(rules)


def is_allowed(ctx: Context, rule: str, target: Target = NO_TARGET) -> bool:
    """Whether the rule lets this caller do it, for views that differ and filters that are dropped silently."""
    return _DECLARED[rule](ctx, target)


def check(ctx: Context, rule: str, target: Target) -> None:
    """Raises Forbidden, which names the rule."""
    if not _DECLARED[rule](ctx, target):
        raise forbidden(rule)


def forbidden(rule: str) -> Forbidden:
    """The refusal of a rule."""
    return Forbidden(f"Policy doesn't allow {rule} to be performed.", why={"rule": rule})


def anyone(ctx: Context, target: Target) -> bool:
    """With or without a token."""
    return True


def authenticated(ctx: Context, target: Target) -> bool:
    """Any valid token, unscoped ones too."""
    return bool(ctx.user_id)


def nobody(ctx: Context, target: Target) -> bool:
    """Never."""
    return False


def role(name: str) -> Predicate:
    """That role, in whatever scope."""

    def holds(ctx: Context, target: Target) -> bool:
        return name in ctx.roles

    return holds


reader: Final = role("reader")
member: Final = role("member")
manager: Final = role("manager")
admin: Final = role("admin")
service: Final = role("service")


def in_project(name: str) -> Predicate:
    """That role in a project scope; the target, if it has a project, belongs to it (to an admin: any does)."""

    def holds(ctx: Context, target: Target) -> bool:
        if ctx.project_id is None or name not in ctx.roles:
            return False
        return "admin" in ctx.roles or target.get("project_id", ctx.project_id) == ctx.project_id

    return holds


def in_domain(name: str) -> Predicate:
    """That role in a domain scope; the target, if it has a domain, is of that domain."""

    def holds(ctx: Context, target: Target) -> bool:
        if ctx.domain_id is None or name not in ctx.roles:
            return False
        return bool(target.get("domain_id", ctx.domain_id) == ctx.domain_id)

    return holds


def in_system(name: str) -> Predicate:
    """That role in system scope."""

    def holds(ctx: Context, target: Target) -> bool:
        return ctx.is_system and name in ctx.roles

    return holds


project_reader: Final = in_project("reader")
project_member: Final = in_project("member")
project_manager: Final = in_project("manager")
domain_reader: Final = in_domain("reader")
domain_manager: Final = in_domain("manager")
system_reader: Final = in_system("reader")
system_admin: Final = in_system("admin")


def any_of(*predicates: Predicate) -> Predicate:
    """At least one holds."""

    def holds(ctx: Context, target: Target) -> bool:
        return any(predicate(ctx, target) for predicate in predicates)

    return holds


def owner(field: str = "user_id") -> Predicate:
    """The target's user is the caller. Without a target: anyone with a token."""

    def holds(ctx: Context, target: Target) -> bool:
        return bool(ctx.user_id) and target.get(field, ctx.user_id) == ctx.user_id

    return holds


def admin_or_owner(field: str = "user_id") -> Predicate:
    """An admin, or the target's own user."""
    return any_of(admin, owner(field))


project_reader_or_admin: Final = any_of(project_reader, admin)
"""For rows that work without a project of the caller's own, such as lists over all projects."""

project_member_or_admin: Final = any_of(project_member, admin)
