"""Every endpoint of the compute API on one page. What is not here answers 404 in every version."""

from typing import Any, Final

from controller.compute.api import (
    attachment_bodies,
    bodies,
    consoles,
    documents,
    extensions,
    flavors,
    hypervisors,
    instance_actions,
    keypairs,
    life_bodies,
    migrations,
    move_bodies,
    quotas,
    server_actions,
    server_groups,
    server_parts,
    servers,
    services,
    usages,
    volume_attachments,
    zones,
)
from controller.compute.api.versions import VERSIONS
from controller.compute.policy import RULES
from controller.http import faults
from controller.http.op import PUBLIC, Op, Service, Version

_NOVA: Final = "os_compute_api:"
_SERVER: Final = "/servers/{server_id}"
_HINTS: Final = "os:scheduler_hints is free: each scheduler has its own (compute API reference, POST /servers)"
_METADATA: Final = "metadata is the user's own (compute API reference, server metadata)"
_SPECS: Final = "extra specs are free (compute API reference, flavor extra specs)"


def _create(body: Any, since: Version | None, until: Version | None) -> Op:
    return Op(
        "POST",
        "/servers",
        servers.create,
        _NOVA + "servers:create",
        body=body,
        status=202,
        since=since,
        until=until,
        open_body=_HINTS,
    )


def _action(name: str, handler: Any, rule: str, **more: Any) -> Op:
    return Op("POST", f"{_SERVER}/action", handler, _NOVA + rule, **{"action": name, "status": 202, **more})


def _rebuild(body: Any, since: Version | None, until: Version | None) -> Op:
    more = {"body": body, "since": since, "until": until, "open_body": _METADATA}
    return _action("rebuild", server_actions.rebuild, "servers:rebuild", **more)


SERVERS: Final = (
    _create(bodies.Create21, None, (2, 18)),
    _create(bodies.Create219, (2, 19), (2, 31)),
    _create(bodies.Create232, (2, 32), (2, 32)),
    _create(bodies.Create233, (2, 33), (2, 36)),
    _create(bodies.Create237, (2, 37), (2, 41)),
    _create(bodies.Create242, (2, 42), (2, 51)),
    _create(bodies.Create252, (2, 52), (2, 56)),
    _create(bodies.Create257, (2, 57), (2, 62)),
    _create(bodies.Create263, (2, 63), (2, 66)),
    _create(bodies.Create267, (2, 67), (2, 73)),
    _create(bodies.Create274, (2, 74), None),
    Op("GET", "/servers", servers.index, _NOVA + "servers:index"),
    Op("GET", "/servers/detail", servers.detail, _NOVA + "servers:detail"),
    Op("GET", _SERVER, servers.show, _NOVA + "servers:show"),
    Op("PUT", _SERVER, servers.update, _NOVA + "servers:update", body=bodies.Update21, until=(2, 18)),
    Op("PUT", _SERVER, servers.update, _NOVA + "servers:update", body=bodies.Update219, since=(2, 19)),
    Op("DELETE", _SERVER, servers.delete, _NOVA + "servers:delete", status=204),
)

ACTIONS: Final = (
    _action("os-start", server_actions.start, "servers:start"),
    _action("os-stop", server_actions.stop, "servers:stop"),
    _action("reboot", server_actions.reboot, "servers:reboot", body=bodies.RebootAction),
    _action("os-getConsoleOutput", server_actions.console, "os-console-output", body=bodies.ConsoleAction, status=200),
    _action("pause", server_actions.pause, "os-pause-server:pause"),
    _action("unpause", server_actions.unpause, "os-pause-server:unpause"),
    _action("suspend", server_actions.suspend, "os-suspend-server:suspend"),
    _action("resume", server_actions.resume, "os-suspend-server:resume"),
    _action("rescue", server_actions.rescue, "os-rescue", body=life_bodies.RescueAction | None, status=200),
    _action("unrescue", server_actions.unrescue, "os-unrescue"),
    _action("resize", server_actions.resize, "servers:resize", body=life_bodies.ResizeAction),
    _action("confirmResize", server_actions.confirm_resize, "servers:confirm_resize", status=204),
    _action("revertResize", server_actions.revert_resize, "servers:revert_resize"),
    _action(
        "createImage",
        server_actions.create_image,
        "servers:create_image",
        body=life_bodies.CreateImageAction,
        open_body=_METADATA,
    ),
    _action("shelve", server_actions.shelve, "os-shelve:shelve"),
    _action("shelveOffload", server_actions.offload, "os-shelve:shelve_offload"),
    _action("unshelve", server_actions.unshelve, "os-shelve:unshelve", until=(2, 76)),
    _action(
        "unshelve", server_actions.unshelve, "os-shelve:unshelve", body=life_bodies.UnshelveAction | None, since=(2, 77)
    ),
    _rebuild(life_bodies.Rebuild21, None, (2, 18)),
    _rebuild(life_bodies.Rebuild219, (2, 19), (2, 53)),
    _rebuild(life_bodies.Rebuild254, (2, 54), (2, 56)),
    _rebuild(life_bodies.Rebuild257, (2, 57), (2, 62)),
    _rebuild(life_bodies.Rebuild263, (2, 63), None),
    _action("lock", server_actions.lock, "os-lock-server:lock", until=(2, 72)),
    _action("lock", server_actions.lock, "os-lock-server:lock", body=bodies.LockAction | None, since=(2, 73)),
    _action("unlock", server_actions.unlock, "os-lock-server:unlock"),
    _action("os-resetState", server_actions.reset_state, "os-admin-actions:reset_state", body=bodies.ResetStateAction),
    _action("addSecurityGroup", server_actions.add_group, "os-security-groups:add", body=bodies.GroupAction),
    _action("removeSecurityGroup", server_actions.remove_group, "os-security-groups:remove", body=bodies.GroupAction),
)


def _evacuate(body: Any, since: Version | None, until: Version | None, status: int = 200) -> Op:
    more = {"body": body, "since": since, "until": until, "status": status}
    return _action("evacuate", migrations.evacuate, "os-evacuate", **more)


def _live(body: Any, since: Version | None, until: Version | None) -> Op:
    more = {"body": body, "since": since, "until": until}
    return _action("os-migrateLive", migrations.live_migrate, "os-migrate-server:migrate_live", **more)


_MIGRATIONS: Final = f"{_SERVER}/migrations"

MOVES: Final = (
    _action("migrate", migrations.migrate, "os-migrate-server:migrate", until=(2, 55)),
    _action(
        "migrate",
        migrations.migrate,
        "os-migrate-server:migrate",
        body=move_bodies.MigrateAction | None,
        since=(2, 56),
    ),
    _evacuate(move_bodies.Evacuate21, None, (2, 13)),
    _evacuate(move_bodies.Evacuate214, (2, 14), (2, 28)),
    _evacuate(move_bodies.Evacuate229, (2, 29), (2, 67)),
    _evacuate(move_bodies.Evacuate214, (2, 68), None),
    _live(move_bodies.LiveMigrate21, None, (2, 24)),
    _live(move_bodies.LiveMigrate225, (2, 25), (2, 29)),
    _live(move_bodies.LiveMigrate230, (2, 30), (2, 67)),
    _live(move_bodies.LiveMigrate225, (2, 68), None),
    Op("GET", _MIGRATIONS, migrations.server_index, _NOVA + "servers:migrations:index", since=(2, 23)),
    Op("GET", f"{_MIGRATIONS}/{{number}}", migrations.server_show, _NOVA + "servers:migrations:show", since=(2, 23)),
    Op(
        "DELETE",
        f"{_MIGRATIONS}/{{number}}",
        migrations.server_delete,
        _NOVA + "servers:migrations:delete",
        status=202,
        since=(2, 24),
    ),
    Op(
        "POST",
        f"{_MIGRATIONS}/{{number}}/action",
        migrations.force_complete,
        _NOVA + "servers:migrations:force_complete",
        status=202,
        since=(2, 22),
        action="force_complete",
    ),
    Op("GET", "/os-migrations", migrations.index, _NOVA + "os-migrations:index"),
)

_VOLUMES: Final = f"{_SERVER}/os-volume_attachments"


def _attach(body: Any, since: Version | None, until: Version | None) -> Op:
    rule = _NOVA + "os-volumes-attachments:create"
    return Op("POST", _VOLUMES, volume_attachments.create, rule, body=body, since=since, until=until)


VOLUMES: Final = (
    Op("GET", _VOLUMES, volume_attachments.index, _NOVA + "os-volumes-attachments:index"),
    _attach(attachment_bodies.Attach21, None, (2, 48)),
    _attach(attachment_bodies.Attach249, (2, 49), (2, 78)),
    _attach(attachment_bodies.Attach279, (2, 79), None),
    Op("GET", f"{_VOLUMES}/{{volume_id}}", volume_attachments.show, _NOVA + "os-volumes-attachments:show"),
    Op(
        "DELETE",
        f"{_VOLUMES}/{{volume_id}}",
        volume_attachments.delete,
        _NOVA + "os-volumes-attachments:delete",
        status=202,
    ),
)

PARTS: Final = (
    Op("GET", f"{_SERVER}/metadata", server_parts.metadata, _NOVA + "server-metadata:index"),
    Op(
        "POST",
        f"{_SERVER}/metadata",
        server_parts.extend_metadata,
        _NOVA + "server-metadata:create",
        body=bodies.Metadata,
        open_body=_METADATA,
    ),
    Op(
        "PUT",
        f"{_SERVER}/metadata",
        server_parts.replace_metadata,
        _NOVA + "server-metadata:update_all",
        body=bodies.Metadata,
        open_body=_METADATA,
    ),
    Op("GET", f"{_SERVER}/metadata/{{key}}", server_parts.metadata_item, _NOVA + "server-metadata:show"),
    Op(
        "PUT",
        f"{_SERVER}/metadata/{{key}}",
        server_parts.set_metadata_item,
        _NOVA + "server-metadata:update",
        body=bodies.MetadataItem,
        open_body=_METADATA,
    ),
    Op(
        "DELETE",
        f"{_SERVER}/metadata/{{key}}",
        server_parts.delete_metadata_item,
        _NOVA + "server-metadata:delete",
        status=204,
    ),
    Op("GET", f"{_SERVER}/tags", server_parts.tags, _NOVA + "os-server-tags:index", since=(2, 26)),
    Op(
        "PUT",
        f"{_SERVER}/tags",
        server_parts.replace_tags,
        _NOVA + "os-server-tags:update_all",
        body=bodies.Tags,
        since=(2, 26),
    ),
    Op(
        "DELETE",
        f"{_SERVER}/tags",
        server_parts.delete_tags,
        _NOVA + "os-server-tags:delete_all",
        status=204,
        since=(2, 26),
    ),
    Op(
        "GET", f"{_SERVER}/tags/{{tag}}", server_parts.has_tag, _NOVA + "os-server-tags:show", status=204, since=(2, 26)
    ),
    Op("PUT", f"{_SERVER}/tags/{{tag}}", server_parts.add_tag, _NOVA + "os-server-tags:update", since=(2, 26)),
    Op(
        "DELETE",
        f"{_SERVER}/tags/{{tag}}",
        server_parts.delete_tag,
        _NOVA + "os-server-tags:delete",
        status=204,
        since=(2, 26),
    ),
    Op("GET", f"{_SERVER}/ips", server_parts.addresses, _NOVA + "ips:index"),
    Op("GET", f"{_SERVER}/ips/{{label}}", server_parts.addresses_of_network, _NOVA + "ips:show"),
    Op("GET", f"{_SERVER}/os-interface", server_parts.interfaces, _NOVA + "os-attach-interfaces:list"),
    Op("GET", f"{_SERVER}/os-interface/{{port_id}}", server_parts.interface, _NOVA + "os-attach-interfaces:show"),
    Op(
        "POST",
        f"{_SERVER}/os-interface",
        server_parts.attach_interface,
        _NOVA + "os-attach-interfaces:create",
        body=life_bodies.InterfaceCreate21,
        until=(2, 48),
    ),
    Op(
        "POST",
        f"{_SERVER}/os-interface",
        server_parts.attach_interface,
        _NOVA + "os-attach-interfaces:create",
        body=life_bodies.InterfaceCreate249,
        since=(2, 49),
    ),
    Op(
        "DELETE",
        f"{_SERVER}/os-interface/{{port_id}}",
        server_parts.detach_interface,
        _NOVA + "os-attach-interfaces:delete",
        status=202,
    ),
    Op("GET", f"{_SERVER}/os-security-groups", server_parts.groups, _NOVA + "os-security-groups:list"),
    *VOLUMES,
    Op("GET", f"{_SERVER}/os-instance-actions", instance_actions.index, _NOVA + "os-instance-actions:list"),
    Op(
        "GET",
        f"{_SERVER}/os-instance-actions/{{request_id}}",
        instance_actions.show,
        _NOVA + "os-instance-actions:show",
    ),
)

_CONSOLES: Final = _NOVA + "os-remote-consoles"

CONSOLES: Final = (
    Op(
        "POST",
        f"{_SERVER}/remote-consoles",
        consoles.create,
        _CONSOLES,
        body=bodies.RemoteConsoleCreate26,
        since=(2, 6),
        until=(2, 7),
    ),
    Op(
        "POST",
        f"{_SERVER}/remote-consoles",
        consoles.create,
        _CONSOLES,
        body=bodies.RemoteConsoleCreate28,
        since=(2, 8),
    ),
    _action(
        "os-getVNCConsole",
        consoles.vnc,
        "os-remote-consoles",
        body=bodies.VncConsoleAction,
        status=200,
        until=(2, 5),
    ),
    _action(
        "os-getSerialConsole",
        consoles.serial,
        "os-remote-consoles",
        body=bodies.SerialConsoleAction,
        status=200,
        until=(2, 5),
    ),
)

_FLAVOR: Final = "/flavors/{flavor_id}"
_SPECS_PATH: Final = f"{_FLAVOR}/os-extra_specs"

FLAVORS: Final = (
    Op("GET", "/flavors", flavors.index, _NOVA + "flavors"),
    Op("GET", "/flavors/detail", flavors.detail, _NOVA + "flavors"),
    Op(
        "POST",
        "/flavors",
        flavors.create,
        _NOVA + "os-flavor-manage:create",
        body=bodies.FlavorCreate21,
        until=(2, 54),
    ),
    Op(
        "POST",
        "/flavors",
        flavors.create,
        _NOVA + "os-flavor-manage:create",
        body=bodies.FlavorCreate255,
        since=(2, 55),
    ),
    Op("GET", _FLAVOR, flavors.show, _NOVA + "flavors"),
    Op(
        "PUT",
        _FLAVOR,
        flavors.update,
        _NOVA + "os-flavor-manage:update",
        body=bodies.FlavorUpdate,
        since=(2, 55),
    ),
    Op("DELETE", _FLAVOR, flavors.delete, _NOVA + "os-flavor-manage:delete", status=202),
    Op("GET", _SPECS_PATH, flavors.specs, _NOVA + "os-flavor-extra-specs:index"),
    Op(
        "POST",
        _SPECS_PATH,
        flavors.extend_specs,
        _NOVA + "os-flavor-extra-specs:create",
        body=bodies.ExtraSpecs,
        open_body=_SPECS,
    ),
    Op("GET", f"{_SPECS_PATH}/{{key}}", flavors.spec, _NOVA + "os-flavor-extra-specs:show"),
    Op(
        "PUT",
        f"{_SPECS_PATH}/{{key}}",
        flavors.set_spec,
        _NOVA + "os-flavor-extra-specs:update",
        body=dict[str, str | int | float],
        open_body=_SPECS,
    ),
    Op("DELETE", f"{_SPECS_PATH}/{{key}}", flavors.delete_spec, _NOVA + "os-flavor-extra-specs:delete"),
    Op("GET", f"{_FLAVOR}/os-flavor-access", flavors.access, _NOVA + "os-flavor-access"),
    Op(
        "POST",
        f"{_FLAVOR}/action",
        flavors.add_access,
        _NOVA + "os-flavor-access:add_tenant_access",
        action="addTenantAccess",
        body=bodies.Tenant,
    ),
    Op(
        "POST",
        f"{_FLAVOR}/action",
        flavors.remove_access,
        _NOVA + "os-flavor-access:remove_tenant_access",
        action="removeTenantAccess",
        body=bodies.Tenant,
    ),
)

_KEYS: Final = "/os-keypairs"

KEYPAIRS: Final = (
    Op("GET", _KEYS, keypairs.index, _NOVA + "os-keypairs:index"),
    Op("POST", _KEYS, keypairs.create, _NOVA + "os-keypairs:create", body=bodies.KeypairCreate21, until=(2, 1)),
    Op(
        "POST",
        _KEYS,
        keypairs.create,
        _NOVA + "os-keypairs:create",
        body=bodies.KeypairCreate22,
        status=201,
        since=(2, 2),
        until=(2, 9),
    ),
    Op(
        "POST",
        _KEYS,
        keypairs.create,
        _NOVA + "os-keypairs:create",
        body=bodies.KeypairCreate210,
        status=201,
        since=(2, 10),
    ),
    Op("GET", f"{_KEYS}/{{name}}", keypairs.show, _NOVA + "os-keypairs:show"),
    Op("DELETE", f"{_KEYS}/{{name}}", keypairs.delete, _NOVA + "os-keypairs:delete", status=202, until=(2, 1)),
    Op("DELETE", f"{_KEYS}/{{name}}", keypairs.delete, _NOVA + "os-keypairs:delete", status=204, since=(2, 2)),
)

_GROUPS: Final = "/os-server-groups"


def _group(body: Any, since: Version | None, until: Version | None) -> Op:
    rule = _NOVA + "os-server-groups:create"
    return Op("POST", _GROUPS, server_groups.create, rule, body=body, since=since, until=until)


SERVER_GROUPS: Final = (
    Op("GET", _GROUPS, server_groups.index, _NOVA + "os-server-groups:index"),
    _group(life_bodies.ServerGroupCreate21, None, (2, 14)),
    _group(life_bodies.ServerGroupCreate215, (2, 15), (2, 63)),
    _group(life_bodies.ServerGroupCreate264, (2, 64), None),
    Op("GET", f"{_GROUPS}/{{group_id}}", server_groups.show, _NOVA + "os-server-groups:show"),
    Op("DELETE", f"{_GROUPS}/{{group_id}}", server_groups.delete, _NOVA + "os-server-groups:delete", status=204),
)

_HYPERVISOR: Final = "/os-hypervisors/{hypervisor_id}"
_SERVICE: Final = "/os-services/{service_id}"
_QUOTA: Final = "/os-quota-sets/{project_id}"

CLOUD: Final = (
    Op("GET", "/limits", quotas.limits, _NOVA + "limits"),
    Op("GET", _QUOTA, quotas.show, _NOVA + "os-quota-sets:show"),
    Op("GET", f"{_QUOTA}/detail", quotas.detail, _NOVA + "os-quota-sets:detail"),
    Op("GET", f"{_QUOTA}/defaults", quotas.defaults, _NOVA + "os-quota-sets:defaults"),
    Op("PUT", _QUOTA, quotas.update, _NOVA + "os-quota-sets:update", body=bodies.QuotaUpdate21, until=(2, 35)),
    Op(
        "PUT",
        _QUOTA,
        quotas.update,
        _NOVA + "os-quota-sets:update",
        body=bodies.QuotaUpdate236,
        since=(2, 36),
        until=(2, 56),
    ),
    Op("PUT", _QUOTA, quotas.update, _NOVA + "os-quota-sets:update", body=bodies.QuotaUpdate257, since=(2, 57)),
    Op("DELETE", _QUOTA, quotas.reset, _NOVA + "os-quota-sets:delete", status=202),
    Op("GET", "/os-hypervisors", hypervisors.index, _NOVA + "os-hypervisors:list"),
    Op("GET", "/os-hypervisors/detail", hypervisors.detail, _NOVA + "os-hypervisors:list-detail"),
    Op("GET", "/os-hypervisors/statistics", hypervisors.statistics, _NOVA + "os-hypervisors:statistics"),
    Op("GET", _HYPERVISOR, hypervisors.show, _NOVA + "os-hypervisors:show"),
    Op("GET", f"{_HYPERVISOR}/uptime", hypervisors.uptime, _NOVA + "os-hypervisors:uptime"),
    Op("GET", f"{_HYPERVISOR}/search", hypervisors.search, _NOVA + "os-hypervisors:search", until=(2, 52)),
    Op("GET", f"{_HYPERVISOR}/servers", hypervisors.servers, _NOVA + "os-hypervisors:servers", until=(2, 52)),
    Op("GET", "/os-services", services.index, _NOVA + "os-services:list"),
    Op("PUT", _SERVICE, services.act, _NOVA + "os-services:update", body=bodies.ServiceAction, until=(2, 52)),
    Op("PUT", _SERVICE, services.update, _NOVA + "os-services:update", body=bodies.ServiceChanges, since=(2, 53)),
    Op("GET", "/os-simple-tenant-usage", usages.index, _NOVA + "os-simple-tenant-usage:list"),
    Op("GET", "/os-simple-tenant-usage/{tenant_id}", usages.show, _NOVA + "os-simple-tenant-usage:show"),
    Op("GET", "/os-availability-zone", zones.index, _NOVA + "os-availability-zone:list"),
    Op("GET", "/os-availability-zone/detail", zones.detail, _NOVA + "os-availability-zone:detail"),
    Op("GET", "/os-aggregates", zones.aggregates, _NOVA + "os-aggregates:index"),
    Op("GET", "/extensions", extensions.index, _NOVA + "extensions"),
    Op("GET", "/extensions/{alias}", extensions.show, _NOVA + "extensions"),
)

SERVICE: Final = Service(
    name="compute",
    types=("compute",),
    prefix="/compute/v2.1",
    ops=(
        Op("GET", "/", documents.version, PUBLIC),
        *SERVERS,
        *ACTIONS,
        *MOVES,
        *CONSOLES,
        *PARTS,
        *FLAVORS,
        *KEYPAIRS,
        *SERVER_GROUPS,
        *CLOUD,
    ),
    policies=RULES,
    envelope=faults.nova,
    versions=VERSIONS,
    version_header="compute",
    catalog_path="/compute/v2.1",
    project_in_path=True,
    documents=(Op("GET", "/compute", documents.versions, PUBLIC),),
)
