"""The microversions of the volume API: what each changed, and where it stands here.

A version is listed only when every change it brings to a route that we have is in the tables; a version that only
concerns routes that we do not have is listed too, because those routes are 404 in every version. The meaning of each
version is Cinder's (its REST API version history).
"""

from typing import Any, Final

from controller.http.op import Call, Reply, Version

HISTORY: Final[tuple[tuple[int, str], ...]] = (
    (0, "the beginning"),
    (1, "uploading volumes as images: not here"),
    (2, "the filter `bootable` takes what it shows (it does in every version)"),
    (3, "messages"),
    (4, "the filter `glance_metadata`"),
    (5, "paging of messages"),
    (6, "consistency groups: not here"),
    (7, "services show their cluster: there is none"),
    (8, "managing volumes: not here"),
    (9, "backups: not here"),
    (10, "the filter `group_id`: no volume has one"),
    (11, "group types: not here"),
    (12, "a summary of volumes"),
    (13, "volumes show their group: they have none"),
    (14, "snapshots show their group: they have none"),
    (15, "ETag of metadata: not here, it is informational"),
    (16, "migration: not here"),
    (17, "managing volumes: not here"),
    (18, "backups: not here"),
    (19, "group snapshots: not here"),
    (20, "groups: not here"),
    (21, "volumes show provider_id to admins"),
    (22, "snapshots can be filtered by metadata"),
    (23, "DELETE with force"),
    (24, "cleaning up workers: not here"),
    (25, "groups: not here"),
    (26, "failover: not here"),
    (27, "attachments"),
    (28, "filters of pools"),
    (29, "group snapshots: not here"),
    (30, "snapshots can be sorted by name"),
    (31, "unknown filters are refused"),
    (32, "log levels of services: not here"),
    (33, "which filters there are"),
    (34, "filters by a part of a text: `name~`"),
    (35, "the filter `volume_type` of pools"),
    (36, "the summary has metadata"),
    (37, "backups: not here"),
    (38, "groups: not here"),
    (39, "limits of another project, for admins"),
    (40, "reverting to a snapshot: not here"),
    (41, "snapshots show their user"),
    (42, "extending volumes in use"),
    (43, "backups: not here"),
    (44, "completing an attachment"),
    (45, "lists say how many there are in all"),
    (46, "images of Nova's snapshots of volumes: there are none yet"),
    (47, "volumes from backups: there are none"),
    (48, "volumes show shared_targets and service_uuid"),
    (49, "services show the state of their backend"),
    (50, "`multiattach` is a matter of the type"),
    (51, "backups: not here"),
    (52, "types can be filtered by extra specs"),
    (53, "bodies are checked strictly (they are in every version)"),
    (54, "attachments have a mode"),
    (55, "transfers: not here"),
    (56, "backups: not here"),
    (57, "transfers: not here"),
    (58, "groups: not here"),
    (59, "transfers: not here"),
    (60, "filters by time"),
    (61, "volumes show their cluster to admins: there is none"),
    (62, "a default type of each project"),
    (63, "volumes show volume_type_id"),
    (64, "encryption keys: there are none"),
    (65, "volumes and snapshots show consumes_quota"),
    (66, "snapshots of volumes in use need no force"),
    (67, "no project in the path (in every version)"),
    (68, "imaging again: not here"),
    (69, "shared_targets may be null"),
    (70, "transfers: not here"),
)

VERSIONS: Final[tuple[Version, ...]] = tuple((3, minor) for minor, _ in HISTORY)


def _entry(url: str) -> dict[str, Any]:
    low, high = (f"{version[0]}.{version[1]}" for version in (VERSIONS[0], VERSIONS[-1]))
    return {
        "id": "v3.0",
        "status": "CURRENT",
        "version": high,
        "min_version": low,
        "updated": "2023-08-31T00:00:00Z",
        "links": [
            {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"},
            {"rel": "self", "href": url},
        ],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}],
    }


async def choices(call: Call) -> Reply:
    """GET /volume: 300, as Cinder has it."""
    return Reply({"versions": [_entry(f"{call.base_url}/")]}, status=300)


async def version(call: Call) -> dict[str, Any]:
    """GET /volume/v3"""
    return {"versions": [_entry(f"{call.base_url}/")]}
