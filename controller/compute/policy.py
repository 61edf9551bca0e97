"""Who may do what with the compute API: Nova's rule names and defaults."""

from collections.abc import Mapping
from typing import Final

from controller.http.op import Predicate
from controller.http.policy import (
    admin,
    admin_or_owner,
    authenticated,
    project_member,
    project_member_or_admin,
    project_reader_or_admin,
)

_PREFIX: Final = "os_compute_api:"


def _named(predicate: Predicate, *names: str) -> dict[str, Predicate]:
    return {_PREFIX + name: predicate for name in names}


RULES: Final[Mapping[str, Predicate]] = {
    # Anyone with a token.
    **_named(
        authenticated,
        "flavors",
        "extensions",
        "limits",
        "os-availability-zone:list",
        "os-quota-sets:defaults",
    ),
    # A user's own keypairs; an admin's: anyone's.
    **_named(admin_or_owner(), "os-keypairs:index", "os-keypairs:show", "os-keypairs:create", "os-keypairs:delete"),
    # To see what the project has.
    **_named(
        project_reader_or_admin,
        "servers:index",
        "servers:detail",
        "servers:show",
        "servers:show:flavor-extra-specs",
        "os-flavor-extra-specs:index",
        "os-flavor-extra-specs:show",
        "os-quota-sets:show",
        "os-quota-sets:detail",
        "os-instance-actions:list",
        "os-instance-actions:show",
        "os-attach-interfaces:list",
        "os-attach-interfaces:show",
        "os-volumes-attachments:index",
        "os-security-groups:list",
        "server-metadata:index",
        "server-metadata:show",
        "os-server-tags:index",
        "os-server-tags:show",
        "ips:index",
        "ips:show",
    ),
    # A server is made in a project, so a project must be there.
    **_named(project_member, "servers:create", "servers:create:attach_network", "servers:create:attach_volume"),
    # To change what the project has.
    **_named(
        project_member_or_admin,
        "servers:update",
        "servers:delete",
        "servers:start",
        "servers:stop",
        "servers:reboot",
        "os-console-output",
        "os-remote-consoles",
        "os-lock-server:lock",
        "os-lock-server:unlock",
        "os-security-groups:add",
        "os-security-groups:remove",
        "server-metadata:create",
        "server-metadata:update",
        "server-metadata:update_all",
        "server-metadata:delete",
        "os-server-tags:update",
        "os-server-tags:update_all",
        "os-server-tags:delete",
        "os-server-tags:delete_all",
    ),
    # The cloud's own matters.
    **_named(
        admin,
        "servers:index:get_all_tenants",
        "servers:detail:get_all_tenants",
        "servers:allow_all_filters",
        "servers:show:host_status",
        "servers:create:forced_host",
        "servers:create:zero_disk_flavor",
        "os-extended-server-attributes",
        "os-admin-actions:reset_state",
        "os-lock-server:unlock:unlock_override",
        "os-instance-actions:events",
        "os-instance-actions:events:details",
        "os-flavor-manage:create",
        "os-flavor-manage:update",
        "os-flavor-manage:delete",
        "os-flavor-access",
        "os-flavor-access:add_tenant_access",
        "os-flavor-access:remove_tenant_access",
        "os-flavor-extra-specs:create",
        "os-flavor-extra-specs:update",
        "os-flavor-extra-specs:delete",
        "limits:other_project",
        "os-quota-sets:update",
        "os-quota-sets:delete",
        "os-availability-zone:detail",
        "os-aggregates:index",
        "os-hypervisors:list",
        "os-hypervisors:list-detail",
        "os-hypervisors:show",
        "os-hypervisors:statistics",
        "os-hypervisors:uptime",
        "os-hypervisors:search",
        "os-hypervisors:servers",
        "os-services:list",
        "os-services:update",
        "os-services:delete",
    ),
    "compute:servers:create:requested_destination": admin,
}
