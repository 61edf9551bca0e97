"""What a cloud has from its first minute: roles, the default domain, two projects, two users, the catalog.

`found` may run at every start: it adds what is missing and changes nothing that an operator changed. Only the
built-in endpoints follow the code, since their paths are the code's. Ids are drawn by the caller: a transaction may
be run again.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import sqlalchemy as sa

from agent.wire.world import Entropy
from controller.db.tables.identity import catalog_endpoint, catalog_service
from controller.db.tx import Tx
from controller.http.op import Service
from controller.identity import store
from controller.identity.model import (
    SYSTEM,
    Actor,
    ActorKind,
    CatalogService,
    Domain,
    Endpoint,
    Project,
    Region,
    Role,
    Target,
    TargetKind,
    User,
)

DEFAULT_DOMAIN_ID: Final = "default"

ROLES: Final = ("admin", "manager", "member", "reader", "service")

IMPLIED: Final = (("admin", "manager"), ("manager", "member"), ("member", "reader"))

INTERFACES: Final = ("public", "internal", "admin")

NAMES: Final = {
    "identity": "keystone",
    "compute": "nova",
    "image": "glance",
    "network": "neutron",
    "volume": "cinder",
    "placement": "placement",
}
"""What clients and people look for in `catalog list`."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to found. A user without a hash is only made when there is one; ids come from `ids`, in order."""

    ids: tuple[str, ...]
    region: str
    now: float
    admin_password_hash: str | None = None
    demo_password_hash: str | None = None


def plan(
    entropy: Entropy,
    region: str,
    now: float,
    *,
    admin_password_hash: str | None = None,
    demo_password_hash: str | None = None,
) -> Plan:
    """A plan with enough ids for everything that could be missing."""
    return Plan(
        ids=tuple(entropy.hex(32) for _ in range(128)),
        region=region,
        now=now,
        admin_password_hash=admin_password_hash,
        demo_password_hash=demo_password_hash,
    )


class Founded(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of what is there now. A user that was never made is None."""

    admin_project_id: str
    demo_project_id: str
    admin_user_id: str | None
    demo_user_id: str | None


def found(tx: Tx, wanted: Plan, services: Sequence[Service]) -> Founded:
    """See the module."""
    ids = iter(wanted.ids)
    now = wanted.now
    if store.find(tx, Domain, DEFAULT_DOMAIN_ID) is None:
        default = Domain(
            id=DEFAULT_DOMAIN_ID,
            name="Default",
            description="The default domain",
            enabled=True,
            auth_generation=1,
            extra={},
            created_at=now,
        )
        store.insert(tx, Domain, default)
    roles = _roles(tx, ids, now)
    admin_project, demo_project = (_project(tx, ids, name, now).id for name in ("admin", "demo"))
    admin_user = _user(tx, ids, "admin", wanted.admin_password_hash, admin_project, now)
    demo_user = _user(tx, ids, "demo", wanted.demo_password_hash, demo_project, now)
    if admin_user is not None and admin_user[1]:
        actor = Actor(ActorKind.USER, admin_user[0])
        for target in (Target(TargetKind.PROJECT, admin_project), SYSTEM):
            store.grant(tx, next(ids), actor, target, roles["admin"])
    if demo_user is not None and demo_user[1]:
        actor = Actor(ActorKind.USER, demo_user[0])
        store.grant(tx, next(ids), actor, Target(TargetKind.PROJECT, demo_project), roles["member"])
    found_catalog(tx, ids, wanted.region, services)
    return Founded(
        admin_project_id=admin_project,
        demo_project_id=demo_project,
        admin_user_id=None if admin_user is None else admin_user[0],
        demo_user_id=None if demo_user is None else demo_user[0],
    )


def _roles(tx: Tx, ids: Iterator[str], now: float) -> dict[str, str]:
    """Role ids by name. Implications belong to roles that are new: an operator may have removed one."""
    new: set[str] = set()
    by_name: dict[str, str] = {}
    for name in ROLES:
        role = store.find_named(tx, Role, name)
        if role is None:
            role = store.insert(tx, Role, Role(id=next(ids), name=name, description="", extra={}, created_at=now))
            new.add(name)
        by_name[name] = role.id
    for prior, implied in IMPLIED:
        if prior in new or implied in new:
            store.imply(tx, by_name[prior], by_name[implied])
    return by_name


def _project(tx: Tx, ids: Iterator[str], name: str, now: float) -> Project:
    there = store.find_named(tx, Project, name, DEFAULT_DOMAIN_ID)
    if there is not None:
        return there
    made = Project(
        id=next(ids),
        domain_id=DEFAULT_DOMAIN_ID,
        parent_id=DEFAULT_DOMAIN_ID,
        name=name,
        description="",
        enabled=True,
        tags=[],
        auth_generation=1,
        extra={},
        created_at=now,
    )
    return store.insert(tx, Project, made)


def _user(
    tx: Tx, ids: Iterator[str], name: str, password_hash: str | None, project_id: str, now: float
) -> tuple[str, bool] | None:
    """(id, is new), or None."""
    there = store.find_named(tx, User, name, DEFAULT_DOMAIN_ID)
    if there is not None:
        return there.id, False
    if password_hash is None:
        return None
    made = User(
        id=next(ids),
        domain_id=DEFAULT_DOMAIN_ID,
        name=name,
        enabled=True,
        default_project_id=project_id,
        auth_generation=1,
        extra={},
        created_at=now,
    )
    return store.insert(tx, User, made, password_hash=password_hash).id, True


def found_catalog(tx: Tx, ids: Iterator[str], region: str, services: Sequence[Service]) -> None:
    """A row for every type of every service, with three endpoints; addresses are filled in when they are shown."""
    if store.find(tx, Region, region) is None:
        store.insert(tx, Region, Region(id=region, description="", parent_region_id=None, extra={}))
    for service in services:
        for kind in service.types:
            _catalog_service(tx, ids, region, service, kind)


def _catalog_service(tx: Tx, ids: Iterator[str], region: str, service: Service, kind: str) -> None:
    service_id = tx.execute(
        sa.select(catalog_service.c.id).where(catalog_service.c.type == kind).order_by(catalog_service.c.id).limit(1)
    ).scalar_one_or_none()
    if service_id is None:
        name = NAMES.get(service.name, service.name)
        made = CatalogService(id=next(ids), type=kind, name=name, description="", enabled=True, extra={})
        service_id = store.insert(tx, CatalogService, made).id
    url = "$(public_url)s" + (service.catalog_path or service.prefix)
    for interface in INTERFACES:
        there = tx.execute(
            sa.select(catalog_endpoint.c.id, catalog_endpoint.c.url)
            .where(catalog_endpoint.c.service_id == service_id, catalog_endpoint.c.interface == interface)
            .limit(1)
        ).first()
        if there is None:
            endpoint = Endpoint(
                id=next(ids),
                service_id=service_id,
                region_id=region,
                interface=interface,
                url=url,
                enabled=True,
                extra={},
            )
            store.insert(tx, Endpoint, endpoint)
        elif there.url.startswith("$(public_url)s") and there.url != url:
            store.update(tx, Endpoint, there.id, {"url": url})
