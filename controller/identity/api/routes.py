"""Every endpoint of identity (Keystone v3)."""

from typing import Final

from controller.http import faults
from controller.http.op import PUBLIC, Op, Service
from controller.identity.api import (
    auth,
    catalog,
    domains,
    grants,
    groups,
    project_tags,
    projects,
    roles,
    users,
    versions,
)
from controller.identity.api.bodies import (
    EXTRAS,
    AuthBody,
    DomainBody,
    EndpointBody,
    GroupBody,
    PasswordBody,
    ProjectBody,
    ProjectTags,
    RegionBody,
    RoleBody,
    ServiceBody,
    UserBody,
)
from controller.identity.policy import RULES


def _grants(place: str, list_rule: str, check_rule: str, grant_rule: str, revoke_rule: str) -> tuple[Op, ...]:
    """The five rows of grants on one kind of place, for one kind of actor."""
    one = f"{place}/roles/{{role_id}}"
    return (
        Op("GET", f"{place}/roles", grants.index, list_rule),
        Op("GET", one, grants.check, check_rule, status=204),
        Op("HEAD", one, grants.check, check_rule, status=204),
        Op("PUT", one, grants.grant, grant_rule, status=204),
        Op("DELETE", one, grants.revoke, revoke_rule, status=204),
    )


_GRANT: Final = (
    "identity:list_grants",
    "identity:check_grant",
    "identity:create_grant",
    "identity:revoke_grant",
)


def _system(actor: str) -> tuple[str, ...]:
    return tuple(
        f"identity:{verb}_for_{actor}"
        for verb in ("list_system_grants", "check_system_grant", "create_system_grant", "revoke_system_grant")
    )


OPS: Final = (
    Op("GET", "", versions.version, PUBLIC),
    Op("POST", "/auth/tokens", auth.log_in, PUBLIC, body=AuthBody, status=201),
    Op("GET", "/auth/tokens", auth.validate, "identity:validate_token"),
    Op("HEAD", "/auth/tokens", auth.validate, "identity:check_token"),
    Op("DELETE", "/auth/tokens", auth.revoke, "identity:revoke_token", status=204),
    Op("GET", "/auth/catalog", auth.catalog, "identity:get_auth_catalog"),
    Op("GET", "/auth/projects", auth.projects, "identity:get_auth_projects"),
    Op("GET", "/auth/domains", auth.domains, "identity:get_auth_domains"),
    Op("GET", "/auth/system", auth.system, "identity:get_auth_system"),
    Op("GET", "/domains", domains.index, "identity:list_domains"),
    Op("POST", "/domains", domains.create, "identity:create_domain", DomainBody, 201, open_body=EXTRAS),
    Op("GET", "/domains/{domain_id}", domains.show, "identity:get_domain"),
    Op("PATCH", "/domains/{domain_id}", domains.update, "identity:update_domain", DomainBody, open_body=EXTRAS),
    Op("DELETE", "/domains/{domain_id}", domains.delete, "identity:delete_domain", status=204),
    Op("GET", "/projects", projects.index, "identity:list_projects"),
    Op("POST", "/projects", projects.create, "identity:create_project", ProjectBody, 201, open_body=EXTRAS),
    Op("GET", "/projects/{project_id}", projects.show, "identity:get_project"),
    Op("PATCH", "/projects/{project_id}", projects.update, "identity:update_project", ProjectBody, open_body=EXTRAS),
    Op("DELETE", "/projects/{project_id}", projects.delete, "identity:delete_project", status=204),
    Op("GET", "/projects/{project_id}/tags", project_tags.index, "identity:list_project_tags"),
    Op("PUT", "/projects/{project_id}/tags", project_tags.replace, "identity:update_project_tags", ProjectTags),
    Op("DELETE", "/projects/{project_id}/tags", project_tags.clear, "identity:delete_project_tags", status=204),
    Op("GET", "/projects/{project_id}/tags/{tag}", project_tags.check, "identity:get_project_tag", status=204),
    Op("HEAD", "/projects/{project_id}/tags/{tag}", project_tags.check, "identity:get_project_tag", status=204),
    Op("PUT", "/projects/{project_id}/tags/{tag}", project_tags.add, "identity:create_project_tag", status=201),
    Op("DELETE", "/projects/{project_id}/tags/{tag}", project_tags.remove, "identity:delete_project_tag", status=204),
    Op("GET", "/users", users.index, "identity:list_users"),
    Op("POST", "/users", users.create, "identity:create_user", UserBody, 201, open_body=EXTRAS),
    Op("GET", "/users/{user_id}", users.show, "identity:get_user"),
    Op("PATCH", "/users/{user_id}", users.update, "identity:update_user", UserBody, open_body=EXTRAS),
    Op("DELETE", "/users/{user_id}", users.delete, "identity:delete_user", status=204),
    Op("POST", "/users/{user_id}/password", users.change_password, "identity:change_password", PasswordBody, 204),
    Op("GET", "/users/{user_id}/projects", projects.of_user, "identity:list_user_projects"),
    Op("GET", "/users/{user_id}/groups", groups.of_user, "identity:list_groups_for_user"),
    Op("GET", "/groups", groups.index, "identity:list_groups"),
    Op("POST", "/groups", groups.create, "identity:create_group", GroupBody, 201, open_body=EXTRAS),
    Op("GET", "/groups/{group_id}", groups.show, "identity:get_group"),
    Op("PATCH", "/groups/{group_id}", groups.update, "identity:update_group", GroupBody, open_body=EXTRAS),
    Op("DELETE", "/groups/{group_id}", groups.delete, "identity:delete_group", status=204),
    Op("GET", "/groups/{group_id}/users", groups.members, "identity:list_users_in_group"),
    Op("GET", "/groups/{group_id}/users/{user_id}", groups.check, "identity:check_user_in_group", status=204),
    Op("HEAD", "/groups/{group_id}/users/{user_id}", groups.check, "identity:check_user_in_group", status=204),
    Op("PUT", "/groups/{group_id}/users/{user_id}", groups.add, "identity:add_user_to_group", status=204),
    Op("DELETE", "/groups/{group_id}/users/{user_id}", groups.remove, "identity:remove_user_from_group", status=204),
    Op("GET", "/roles", roles.index, "identity:list_roles"),
    Op("POST", "/roles", roles.create, "identity:create_role", RoleBody, 201, open_body=EXTRAS),
    Op("GET", "/roles/{role_id}", roles.show, "identity:get_role"),
    Op("PATCH", "/roles/{role_id}", roles.update, "identity:update_role", RoleBody, open_body=EXTRAS),
    Op("DELETE", "/roles/{role_id}", roles.delete, "identity:delete_role", status=204),
    Op("GET", "/roles/{prior_role_id}/implies", roles.implied, "identity:list_implied_roles"),
    Op("GET", "/roles/{prior_role_id}/implies/{implied_role_id}", roles.implication, "identity:get_implied_role"),
    Op(
        "HEAD",
        "/roles/{prior_role_id}/implies/{implied_role_id}",
        roles.check,
        "identity:check_implied_role",
        status=204,
    ),
    Op(
        "PUT",
        "/roles/{prior_role_id}/implies/{implied_role_id}",
        roles.imply,
        "identity:create_implied_role",
        status=201,
    ),
    Op(
        "DELETE",
        "/roles/{prior_role_id}/implies/{implied_role_id}",
        roles.stop_implying,
        "identity:delete_implied_role",
        status=204,
    ),
    Op("GET", "/role_inferences", roles.inferences, "identity:list_role_inference_rules"),
    Op("GET", "/role_assignments", grants.assigned, "identity:list_role_assignments"),
    *_grants("/projects/{project_id}/users/{user_id}", *_GRANT),
    *_grants("/projects/{project_id}/groups/{group_id}", *_GRANT),
    *_grants("/domains/{domain_id}/users/{user_id}", *_GRANT),
    *_grants("/domains/{domain_id}/groups/{group_id}", *_GRANT),
    *_grants("/system/users/{user_id}", *_system("user")),
    *_grants("/system/groups/{group_id}", *_system("group")),
    Op("GET", "/services", catalog.services, "identity:list_services"),
    Op("POST", "/services", catalog.create_service, "identity:create_service", ServiceBody, 201, open_body=EXTRAS),
    Op("GET", "/services/{service_id}", catalog.show_service, "identity:get_service"),
    Op(
        "PATCH",
        "/services/{service_id}",
        catalog.update_service,
        "identity:update_service",
        ServiceBody,
        open_body=EXTRAS,
    ),
    Op("DELETE", "/services/{service_id}", catalog.delete_service, "identity:delete_service", status=204),
    Op("GET", "/endpoints", catalog.endpoints, "identity:list_endpoints"),
    Op("POST", "/endpoints", catalog.create_endpoint, "identity:create_endpoint", EndpointBody, 201, open_body=EXTRAS),
    Op("GET", "/endpoints/{endpoint_id}", catalog.show_endpoint, "identity:get_endpoint"),
    Op(
        "PATCH",
        "/endpoints/{endpoint_id}",
        catalog.update_endpoint,
        "identity:update_endpoint",
        EndpointBody,
        open_body=EXTRAS,
    ),
    Op("DELETE", "/endpoints/{endpoint_id}", catalog.delete_endpoint, "identity:delete_endpoint", status=204),
    Op("GET", "/regions", catalog.regions, "identity:list_regions"),
    Op("POST", "/regions", catalog.create_region, "identity:create_region", RegionBody, 201, open_body=EXTRAS),
    Op("GET", "/regions/{region_id}", catalog.show_region, "identity:get_region"),
    Op("PUT", "/regions/{region_id}", catalog.put_region, "identity:create_region", RegionBody, 201, open_body=EXTRAS),
    Op("PATCH", "/regions/{region_id}", catalog.update_region, "identity:update_region", RegionBody, open_body=EXTRAS),
    Op("DELETE", "/regions/{region_id}", catalog.delete_region, "identity:delete_region", status=204),
)

SERVICE: Final = Service(
    name="identity",
    types=("identity",),
    prefix="/identity/v3",
    ops=OPS,
    policies=RULES,
    envelope=faults.keystone,
    catalog_path="/identity",
    documents=(
        Op("GET", "/", versions.choices, PUBLIC, status=300),
        Op("GET", "/identity", versions.choices, PUBLIC, status=300),
    ),
)
