"""How identity's nouns look to clients. The only file that spells Keystone's keys."""

import datetime
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from controller.http.fields import Field, render
from controller.http.op import Call
from controller.http.paging import Page, next_query
from controller.identity import assignments
from controller.identity.model import (
    ActorKind,
    CatalogService,
    Domain,
    Endpoint,
    Group,
    Named,
    Project,
    Region,
    Role,
    Target,
    TargetKind,
    User,
)
from controller.identity.tokens import Known, Methods

AnyNoun: TypeAlias = Domain | Project | User | Group | Role | Region | CatalogService | Endpoint

DOMAIN: Final = (
    Field("id", "id"),
    Field("name", "name"),
    Field("description", "description"),
    Field("enabled", "enabled"),
    Field("tags", lambda _: []),
    Field("options", lambda _: {}),
)
PROJECT: Final = (
    Field("id", "id"),
    Field("name", "name"),
    Field("domain_id", "domain_id"),
    Field("parent_id", "parent_id"),
    Field("is_domain", lambda _: False),
    Field("description", "description"),
    Field("enabled", "enabled"),
    Field("tags", "tags"),
    Field("options", lambda _: {}),
)
USER: Final = (
    Field("id", "id"),
    Field("name", "name"),
    Field("domain_id", "domain_id"),
    Field("enabled", "enabled"),
    Field("password_expires_at", lambda _: None),
    Field("options", lambda _: {}),
)
GROUP: Final = (
    Field("id", "id"),
    Field("name", "name"),
    Field("domain_id", "domain_id"),
    Field("description", "description"),
)
ROLE: Final = (
    Field("id", "id"),
    Field("name", "name"),
    Field("domain_id", lambda _: None),
    Field("description", "description"),
    Field("options", lambda _: {}),
)
SERVICE: Final = (
    Field("id", "id"),
    Field("type", "type"),
    Field("name", "name"),
    Field("description", "description"),
    Field("enabled", "enabled"),
)
REGION: Final = (
    Field("id", "id"),
    Field("description", "description"),
    Field("parent_region_id", "parent_region_id"),
)
ENDPOINT: Final = (
    Field("id", "id"),
    Field("service_id", "service_id"),
    Field("region", "region_id"),
    Field("region_id", "region_id"),
    Field("interface", "interface"),
    Field("enabled", "enabled"),
)

_TABLES: Final[dict[type[Any], tuple[Sequence[Field], str]]] = {
    Domain: (DOMAIN, "domains"),
    Project: (PROJECT, "projects"),
    User: (USER, "users"),
    Group: (GROUP, "groups"),
    Role: (ROLE, "roles"),
    CatalogService: (SERVICE, "services"),
    Region: (REGION, "regions"),
    Endpoint: (ENDPOINT, "endpoints"),
}


def view(call: Call, noun: AnyNoun) -> dict[str, Any]:
    """One noun, with the attributes that are only kept, and its link."""
    fields, collection = _TABLES[type(noun)]
    shown = {**noun.extra, **render(fields, noun)}
    if isinstance(noun, User) and noun.default_project_id is not None:
        shown["default_project_id"] = noun.default_project_id
    if isinstance(noun, Endpoint):
        shown["url"] = url(noun, public_url(call), None)
    shown["links"] = {"self": f"{call.base_url}/{collection}/{noun.id}"}
    return shown


def listed(call: Call, key: str, nouns: Sequence[AnyNoun], page: Page) -> dict[str, Any]:
    """A page of nouns, with a link to the next one if this one is full."""
    marker = nouns[-1].id if nouns and len(nouns) >= page.limit else None
    return {key: [view(call, noun) for noun in nouns], "links": links(call, marker)}


def links(call: Call, marker: str | None = None) -> dict[str, str | None]:
    """Keystone's links of a list."""
    here = f"{call.base_url}{call.path}"
    following = None if marker is None else f"{here}?{next_query(call, marker)}"
    return {"next": following, "self": here, "previous": None}


def time(seconds: float) -> str:
    """Keystone's times: microseconds and Z."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def public_url(call: Call) -> str:
    """What stands before every built-in endpoint's path."""
    return call.cloud.settings.controller.public_url.rstrip("/")


def url(endpoint: Endpoint, public: str, project_id: str | None) -> str:
    """An endpoint's address with its variables filled in; `$(project_id)s` stays in a token without project."""
    text = endpoint.url.replace("$(public_url)s", public)
    if project_id is None:
        return text
    for name in ("project_id", "tenant_id"):
        text = text.replace(f"$({name})s", project_id).replace(f"%({name})s", project_id)
    return text


def catalog(
    services: Iterable[tuple[CatalogService, list[Endpoint]]], public: str, project_id: str | None
) -> list[dict[str, Any]]:
    """The catalog as tokens carry it."""
    return [
        {
            "id": service.id,
            "type": service.type,
            "name": service.name,
            "endpoints": [
                {
                    "id": endpoint.id,
                    "interface": endpoint.interface,
                    "region_id": endpoint.region_id,
                    "region": endpoint.region_id,
                    "url": url(endpoint, public, project_id),
                }
                for endpoint in endpoints
            ],
        }
        for service, endpoints in services
    ]


_METHODS: Final = ((Methods.PASSWORD, "password"), (Methods.TOKEN, "token"))


def token(known: Known, shown_catalog: list[dict[str, Any]] | None) -> dict[str, Any]:
    """The body of a token. An unscoped one has neither roles nor catalog."""
    payload, holder = known.payload, known.standing
    body: dict[str, Any] = {
        "methods": [name for flag, name in _METHODS if payload.methods & flag],
        "user": {**_named(holder.user), "password_expires_at": None},
        "audit_ids": list(payload.audit_ids),
        "expires_at": time(payload.expires_at),
        "issued_at": time(payload.issued_at),
    }
    if holder.target is None:
        return body
    body["roles"] = [{"id": role_id, "name": name} for role_id, name in holder.roles]
    if holder.project is not None:
        body["project"] = _named(holder.project)
        body["is_domain"] = False
    elif holder.domain is not None:
        body["domain"] = {"id": holder.domain.id, "name": holder.domain.name}
    else:
        body["system"] = {"all": True}
    if shown_catalog is not None:
        body["catalog"] = shown_catalog
    return body


def _named(named: Named) -> dict[str, Any]:
    return {"id": named.id, "name": named.name, "domain": {"id": named.domain_id, "name": named.domain_name}}


def assignment(call: Call, effect: assignments.Effect, names: assignments.Names | None) -> dict[str, Any]:
    """One row of the list of assignments."""
    actor, target = effect.actor, effect.target
    role: dict[str, Any] = {"id": effect.role_id}
    who: dict[str, Any] = {"id": actor.id}
    if names is not None:
        role["name"] = names.roles[effect.role_id]
        who = {**_named(names.actors[actor.id]), "id": actor.id}
    shown_links = {"assignment": f"{call.base_url}{_path(effect)}"}
    source = effect.source
    if source.actor_kind is ActorKind.GROUP and actor.kind is ActorKind.USER:
        shown_links["membership"] = f"{call.base_url}/groups/{source.actor_id}/users/{actor.id}"
    if effect.prior_role_id is not None:
        shown_links["prior_role"] = f"{call.base_url}/roles/{effect.prior_role_id}/implies/{effect.role_id}"
    return {"role": role, actor.kind.value: who, "scope": _scope(target, names), "links": shown_links}


def _scope(target: Target, names: assignments.Names | None) -> dict[str, Any]:
    if target.kind is TargetKind.SYSTEM:
        return {"system": {"all": True}}
    if names is None:
        return {target.kind.value: {"id": target.id}}
    named = names.targets[target.id]
    if target.kind is TargetKind.DOMAIN:
        return {"domain": {"id": target.id, "name": named.name}}
    return {"project": {**_named(named), "id": target.id}}


def _path(effect: assignments.Effect) -> str:
    """Of the stored grant from which the effect follows."""
    source = effect.source
    place = "/system" if source.target_kind is TargetKind.SYSTEM else f"/{source.target_kind.value}s/{source.target_id}"
    return f"{place}/{source.actor_kind.value}s/{source.actor_id}/roles/{source.role_id}"


def implication(call: Call, prior: Role, implied: Sequence[Role]) -> dict[str, Any]:
    """A role with those it implies."""
    return {"prior_role": _role(call, prior), "implies": [_role(call, role) for role in implied]}


def _role(call: Call, role: Role) -> dict[str, Any]:
    return {"id": role.id, "name": role.name, "links": {"self": f"{call.base_url}/roles/{role.id}"}}
