"""The ground on which every simulated cloud is built: one database for a process, put back before each run.

Tables, two projects' networks, a router, flavors and an image are made once by the use-cases, and copied into the
same memory ever after: SQLAlchemy's compiled statements stay warm, which is half of a run's time.
"""

import functools
from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa

from controller import quota
from controller.compute import flavor_store
from controller.compute.model import Flavor
from controller.context import Context
from controller.db import migrations
from controller.db.sqlite import SqliteDatabase
from controller.db.tables.fleet import host
from controller.db.tx import Tx
from controller.image import store as image_store
from controller.image.model import Image, Visibility
from controller.image.model import Status as ImageStatus
from controller.network import networks, routers, subnets
from controller.volume import types as volume_types
from controller.volume.model import VolumeType
from tests.databases import raw_connection
from tests.virtual import EPOCH

IMAGE: Final = "a0000000-0000-4000-8000-000000000001"
RARE_IMAGE: Final = "a0000000-0000-4000-8000-000000000002"
"""Few servers are made of it, so that caches hold it in vain."""
EXTERNAL: Final = "b0000000-0000-4000-8000-000000000009"

PROJECTS: Final = ("p1", "p2")

NETWORKS: Final = {
    "p1": ("c0000000-0000-4000-8000-000000000001", "c0000000-0000-4000-8000-000000000002"),
    "p2": ("c0000000-0000-4000-8000-000000000003",),
}
"""By project. The first of each is behind the project's router."""

MULTIATTACH: Final = "shared"
MULTIATTACH_ID: Final = "e0000000-0000-4000-8000-000000000002"
"""A type whose volumes may be attached to several servers."""

VOLUMES_MAX: Final = 6
GIGABYTES_MAX: Final = 25
"""Of the second project, which so has its quota used up now and then."""

FLAVORS: Final = (("42", 1, 128, 1), ("1", 1, 256, 1), ("2", 1, 512, 5), ("3", 2, 1024, 10), ("9", 64, 1 << 20, 9))
"""Id, vCPUs, MiB, GiB. No host holds the last."""

SERVERS_MAX: Final = 5
"""Of the second project, which so has its quota used up most of the time."""

POOL_GIB: Final = 20
"""Of each host, for volumes. A tenth of it is kept free."""

HOST_VCPUS: Final = 2
HOST_MEMORY_MIB: Final = 2048
HOST_DISK_GIB: Final = 30
"""Hosts are small, so that there is not room for everybody."""


def member(project_id: str) -> Context:
    """A user of a project."""
    roles = frozenset({"member", "reader"})
    return Context(request_id="", user_id=f"u-{project_id}", project_id=project_id, roles=roles)


def admin() -> Context:
    """The operator."""
    roles = frozenset({"admin", "manager", "member", "reader"})
    return Context(request_id="", user_id="root", project_id="admin", roles=roles)


CALLERS: Final = {"admin": admin(), **{project: member(project) for project in PROJECTS}}
"""Who a token stands for."""


def host_id(index: int) -> str:
    """The id of a host."""
    return f"d0000000-0000-4000-8000-00000000000{index}"


_now: list[Callable[[], float]] = []


@functools.cache
def _memory() -> tuple[SqliteDatabase, bytes]:
    database = SqliteDatabase(None, threaded=False, now=lambda: _now[-1]() if _now else EPOCH)
    database.build(migrations.upgrade)  # Not by the metadata: it has sets, and indexes would come in any order.
    database.build(_furnish)
    return database, raw_connection(database).serialize()


def fresh_database(now: Callable[[], float], hosts: int) -> SqliteDatabase:
    """The process's one database, as new. Whoever had it before must be done."""
    _now[:] = [now]
    database, template = _memory()
    raw_connection(database).deserialize(template)
    database.build(lambda tx: _enroll(tx, hosts))
    return database


def _enroll(tx: Tx, hosts: int) -> None:
    for index in range(1, hosts + 1):
        values = {
            "id": host_id(index),
            "hostname": f"host{index}",
            "underlay_address": f"198.18.0.{10 + index}",
            "state": "enrolled",
            "up": False,
            "physical_networks": ["external"],
            "capabilities": [],
            "created_at": EPOCH,
            "updated_at": EPOCH,
        }
        tx.execute(sa.insert(host).values(values))


def _image(image_id: str, name: str, sha256: str) -> Image:
    return Image(
        id=image_id,
        owner="admin",
        name=name,
        visibility=Visibility.PUBLIC,
        status=ImageStatus.ACTIVE,
        disk_format="qcow2",
        container_format="bare",
        size=1 << 20,
        virtual_size=100 << 20,
        sha256=sha256,
        created_at=EPOCH,
        updated_at=EPOCH,
    )


def _furnish(tx: Tx) -> None:
    for flavor_id, vcpus, memory_mib, disk_gib in FLAVORS:
        flavor_store.insert_flavor(tx, _flavor(flavor_id, vcpus, memory_mib, disk_gib))
    for image_id, name, sha256 in ((IMAGE, "tiny", "ab" * 32), (RARE_IMAGE, "rare", "cd" * 32)):
        image_store.insert(tx, _image(image_id, name, sha256))
    quota.set_limits(tx, PROJECTS[1], "compute", {"instances": SERVERS_MAX})
    quota.set_limits(tx, PROJECTS[1], "volume", {"volumes": VOLUMES_MAX, "gigabytes": GIGABYTES_MAX})
    volume_types.found(tx, "e0000000-0000-4000-8000-000000000001", EPOCH)
    several = {"multiattach": "<is> True"}
    volume_types.create(tx, VolumeType(MULTIATTACH_ID, MULTIATTACH, None, True, several, EPOCH, None))
    _make_network(tx, EXTERNAL, "admin", "203.0.113.0/24", external=True)
    for project, ids in NETWORKS.items():
        for index, network_id in enumerate(ids):
            _make_network(tx, network_id, project, f"10.{index}.0.0/24")
        _make_router(tx, project, ids[0])


def _flavor(flavor_id: str, vcpus: int, memory_mib: int, disk_gib: int) -> Flavor:
    return Flavor(
        id=flavor_id,
        name=f"flavor {flavor_id}",
        vcpus=vcpus,
        memory_mib=memory_mib,
        disk_gib=disk_gib,
        ephemeral_gib=0,
        swap_mib=0,
        rxtx_factor=1.0,
        is_public=True,
        is_disabled=False,
        description=None,
        extra_specs={},
        created_at=EPOCH,
        updated_at=None,
    )


def _make_network(tx: Tx, network_id: str, project: str, cidr: str, *, external: bool = False) -> None:
    times: dict[str, Any] = {"created_at": EPOCH, "updated_at": EPOCH}
    kind: dict[str, Any] = (
        {"network_type": "flat", "physical_network": "external", "external": True} if external else {}
    )
    networks.create(tx, [networks.Draft(id=network_id, project_id=project, name="net", **times, **kind)])
    part = subnets.Draft(
        id=subnet_id(network_id),
        project_id=project,
        network_id=network_id,
        ip_version=4,
        cidr=cidr,
        enable_dhcp=not external,
        **times,
    )
    subnets.create(tx, [part], EPOCH)


def subnet_id(network_id: str) -> str:
    """The id of the one subnet of a network that was there from the start."""
    return f"e{network_id[1:]}"


def _make_router(tx: Tx, project: str, network_id: str) -> None:
    ids = {"p1": "1", "p2": "2"}[project]
    router_id = f"f0000000-0000-4000-8000-00000000000{ids}"
    gateway = routers.Gateway(network_id=EXTERNAL, port_id=f"f0000000-0000-4000-8000-00000000001{ids}")
    draft = routers.Draft(id=router_id, project_id=project, created_at=EPOCH, updated_at=EPOCH, gateway=gateway)
    routers.create(tx, member(project), draft, EPOCH)
    leg = f"f0000000-0000-4000-8000-00000000002{ids}"
    routers.add_subnet(tx, member(project), router_id, subnet_id(network_id), leg, EPOCH)


def usable_hosts(tx: Tx) -> int:
    """How many hosts take work."""
    return tx.execute(sa.select(sa.func.count()).select_from(host).where(host.c.up, host.c.vcpus > 0)).scalar_one()
