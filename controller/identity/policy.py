"""Identity's rules by Keystone's names.

Cloud admins and system readers see everything; a domain's reader sees that domain, its manager also runs it, but may
give no role above manager and not touch whoever is a cloud admin. Targets: `domain_id` and `user_id`, `project_id` of
the object; `actor_domain_id`, `role_name`, `is_privileged` where a grant or a membership speaks of two.
"""

from collections.abc import Mapping
from typing import Any, Final

from controller.context import Context
from controller.http.op import Predicate
from controller.http.policy import (
    admin,
    any_of,
    authenticated,
    domain_manager,
    domain_reader,
    owner,
    service,
    system_reader,
)

MANAGED_ROLES: Final = frozenset({"manager", "member", "reader"})
"""What a domain's manager may give; admin would reach beyond the domain."""


def _manager(ctx: Context, target: Mapping[str, Any]) -> bool:
    return (
        domain_manager(ctx, target)
        and target.get("actor_domain_id", ctx.domain_id) == ctx.domain_id
        and not target.get("is_privileged", False)
        and target.get("role_name", "reader") in MANAGED_ROLES
    )


def _domain_reader(ctx: Context, target: Mapping[str, Any]) -> bool:
    return domain_reader(ctx, target) and target.get("actor_domain_id", ctx.domain_id) == ctx.domain_id


def _own_project(ctx: Context, target: Mapping[str, Any]) -> bool:
    return ctx.project_id is not None and target.get("project_id", ctx.project_id) == ctx.project_id


def _own_domain(ctx: Context, target: Mapping[str, Any]) -> bool:
    mine = ctx.domain_id if ctx.project_id is None else ctx.project_domain_id
    return mine is not None and target.get("domain_id", mine) == mine


READ: Final = any_of(admin, system_reader)
READ_IN_DOMAIN: Final = any_of(READ, _domain_reader)
RUN: Final = any_of(admin, _manager)
SELF: Final = owner("user_id")

RULES: Final[Mapping[str, Predicate]] = {
    "identity:validate_token": any_of(admin, system_reader, service, SELF),
    "identity:check_token": any_of(admin, system_reader, service, SELF),
    "identity:revoke_token": any_of(admin, SELF),
    "identity:get_auth_catalog": authenticated,
    "identity:get_auth_projects": authenticated,
    "identity:get_auth_domains": authenticated,
    "identity:get_auth_system": authenticated,
    "identity:get_domain": any_of(READ_IN_DOMAIN, _own_domain),
    "identity:list_domains": READ_IN_DOMAIN,
    "identity:create_domain": admin,
    "identity:update_domain": admin,
    "identity:delete_domain": admin,
    "identity:get_project": any_of(READ_IN_DOMAIN, _own_project),
    "identity:list_projects": READ_IN_DOMAIN,
    "identity:list_user_projects": any_of(READ_IN_DOMAIN, SELF),
    "identity:create_project": RUN,
    "identity:update_project": RUN,
    "identity:delete_project": RUN,
    "identity:get_project_tag": any_of(READ_IN_DOMAIN, _own_project),
    "identity:list_project_tags": any_of(READ_IN_DOMAIN, _own_project),
    "identity:create_project_tag": RUN,
    "identity:update_project_tags": RUN,
    "identity:delete_project_tag": RUN,
    "identity:delete_project_tags": RUN,
    "identity:get_user": any_of(READ_IN_DOMAIN, SELF),
    "identity:list_users": READ_IN_DOMAIN,
    "identity:create_user": RUN,
    "identity:update_user": RUN,
    "identity:delete_user": RUN,
    "identity:change_password": any_of(admin, SELF),  # Whoever it is must know the old one.
    "identity:get_group": READ_IN_DOMAIN,
    "identity:list_groups": READ_IN_DOMAIN,
    "identity:list_groups_for_user": any_of(READ_IN_DOMAIN, SELF),
    "identity:list_users_in_group": READ_IN_DOMAIN,
    "identity:check_user_in_group": READ_IN_DOMAIN,
    "identity:create_group": RUN,
    "identity:update_group": RUN,
    "identity:delete_group": RUN,
    "identity:add_user_to_group": RUN,
    "identity:remove_user_from_group": RUN,
    "identity:get_role": any_of(READ, domain_manager),
    "identity:list_roles": any_of(READ, domain_manager),
    "identity:create_role": admin,
    "identity:update_role": admin,
    "identity:delete_role": admin,
    "identity:get_implied_role": READ,
    "identity:check_implied_role": READ,
    "identity:list_implied_roles": READ,
    "identity:list_role_inference_rules": READ,
    "identity:create_implied_role": admin,
    "identity:delete_implied_role": admin,
    "identity:check_grant": READ_IN_DOMAIN,
    "identity:list_grants": READ_IN_DOMAIN,
    "identity:create_grant": RUN,
    "identity:revoke_grant": RUN,
    "identity:check_system_grant_for_user": READ,
    "identity:list_system_grants_for_user": READ,
    "identity:create_system_grant_for_user": admin,
    "identity:revoke_system_grant_for_user": admin,
    "identity:check_system_grant_for_group": READ,
    "identity:list_system_grants_for_group": READ,
    "identity:create_system_grant_for_group": admin,
    "identity:revoke_system_grant_for_group": admin,
    "identity:list_role_assignments": READ_IN_DOMAIN,
    "identity:get_service": READ,
    "identity:list_services": READ,
    "identity:create_service": admin,
    "identity:update_service": admin,
    "identity:delete_service": admin,
    "identity:get_endpoint": READ,
    "identity:list_endpoints": READ,
    "identity:create_endpoint": admin,
    "identity:update_endpoint": admin,
    "identity:delete_endpoint": admin,
    "identity:get_region": authenticated,
    "identity:list_regions": authenticated,
    "identity:create_region": admin,
    "identity:update_region": admin,
    "identity:delete_region": admin,
}
