"""Who may do what with the volume API: Cinder's rule names and defaults."""

from collections.abc import Mapping
from typing import Final

from controller.http.op import Predicate
from controller.http.policy import (
    admin,
    authenticated,
    project_member,
    project_member_or_admin,
    project_reader_or_admin,
)


def _named(predicate: Predicate, *names: str) -> dict[str, Predicate]:
    return dict.fromkeys(names, predicate)


RULES: Final[Mapping[str, Predicate]] = {
    # Anyone with a token.
    **_named(
        authenticated,
        "volume:availability_zone_list",
        "volume_extension:list_extensions",
        "limits_extension:used_limits",
        "volume_extension:resource_filters",
    ),
    # To see what the project has.
    **_named(
        project_reader_or_admin,
        "volume:get",
        "volume:get_all",
        "volume:get_volume_metadata",
        "volume:get_snapshot",
        "volume:get_all_snapshots",
        "volume:get_snapshot_metadata",
        "volume:attachment_get",
        "volume:attachment_get_all",
        "volume_extension:types_extra_specs:index",
        "volume_extension:types_extra_specs:show",
        "volume_extension:type_get",
        "volume_extension:type_get_all",
        "volume_extension:quotas:show",
        "message:get",
        "message:get_all",
    ),
    # A volume is made in a project, so a project must be there.
    **_named(project_member, "volume:create", "volume:create_from_image", "volume:multiattach"),
    # To change what the project has.
    **_named(
        project_member_or_admin,
        "volume:update",
        "volume:delete",
        "volume:extend",
        "volume:extend_attached_volume",
        "volume:create_volume_metadata",
        "volume:update_volume_metadata",
        "volume:delete_volume_metadata",
        "volume:create_snapshot",
        "volume:update_snapshot",
        "volume:delete_snapshot",
        "volume:update_snapshot_metadata",
        "volume:delete_snapshot_metadata",
        "volume:attachment_create",
        "volume:attachment_update",
        "volume:attachment_delete",
        "volume:attachment_complete",
        "volume_extension:volume_actions:attach",
        "volume_extension:volume_actions:detach",
        "volume_extension:volume_actions:reserve",
        "volume_extension:volume_actions:unreserve",
        "volume_extension:volume_actions:set_bootable",
        "volume:update_readonly_flag",
        "volume_extension:volume_image_metadata:show",  # An action, by POST; readers see the same with the volume.
        "volume_extension:volume_image_metadata:set",
        "volume_extension:volume_image_metadata:remove",
        "message:delete",
    ),
    # The cloud's own matters.
    **_named(
        admin,
        "volume:force_delete",
        "volume:get_all_tenants",
        "volume_extension:volume_admin_actions:reset_status",
        "volume_extension:volume_admin_actions:force_delete",
        "volume_extension:snapshot_admin_actions:reset_status",
        "volume_extension:snapshot_admin_actions:force_delete",
        "volume_extension:volume_host_attribute",
        "volume_extension:volume_mig_status_attribute",
        "volume_extension:type_create",
        "volume_extension:type_update",
        "volume_extension:type_delete",
        "volume_extension:volume_type_encryption:get",
        "volume_extension:types_extra_specs:create",
        "volume_extension:types_extra_specs:update",
        "volume_extension:types_extra_specs:delete",
        "volume_extension:types_extra_specs:read_sensitive",
        "volume_extension:volume_type_access:get_all_for_type",
        "volume_extension:volume_type_access:add_project_access",
        "volume_extension:volume_type_access:remove_project_access",
        "volume_extension:default_get",
        "volume_extension:default_get_all",
        "volume_extension:default_set_or_update",
        "volume_extension:default_unset",
        "volume_extension:quotas:update",
        "volume_extension:quotas:delete",
        "volume_extension:quota_classes:get",
        "volume_extension:services:index",
        "volume_extension:capabilities",
        "scheduler_extension:scheduler_stats:get_pools",
        "limits_extension:other_project",
    ),
}
