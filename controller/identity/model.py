"""The nouns of identity as values, and what a token says."""

import enum
from typing import Any

import msgspec


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """A name space of projects, users and groups."""

    id: str
    name: str
    description: str
    enabled: bool
    auth_generation: int
    extra: dict[str, Any]
    created_at: float


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """What owns resources. `parent_id` is a project, or the domain for those on top."""

    id: str
    domain_id: str
    parent_id: str
    name: str
    description: str
    enabled: bool
    tags: list[str]
    auth_generation: int
    extra: dict[str, Any]
    created_at: float


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Who logs in."""

    id: str
    domain_id: str
    name: str
    enabled: bool
    default_project_id: str | None
    auth_generation: int
    extra: dict[str, Any]
    created_at: float


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Users that are given roles together."""

    id: str
    domain_id: str
    name: str
    description: str
    extra: dict[str, Any]
    created_at: float


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A name that policies speak of."""

    id: str
    name: str
    description: str
    extra: dict[str, Any]
    created_at: float


class Region(msgspec.Struct, frozen=True, kw_only=True):
    """A place in the catalog."""

    id: str
    description: str
    parent_region_id: str | None
    extra: dict[str, Any]


class CatalogService(msgspec.Struct, frozen=True, kw_only=True):
    """One API in the catalog."""

    id: str
    type: str
    name: str
    description: str
    enabled: bool
    extra: dict[str, Any]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where an API answers."""

    id: str
    service_id: str
    region_id: str | None
    interface: str
    url: str
    enabled: bool
    extra: dict[str, Any]


class ActorKind(enum.StrEnum):
    """Who holds an assignment."""

    USER = "user"
    GROUP = "group"


class TargetKind(enum.StrEnum):
    """Where an assignment counts; also the kinds of scope that carry roles."""

    PROJECT = "project"
    DOMAIN = "domain"
    SYSTEM = "system"


SYSTEM_ID = "all"
"""The system has no parts."""


class Actor(msgspec.Struct, frozen=True):
    """A user or a group."""

    kind: ActorKind
    id: str


class Target(msgspec.Struct, frozen=True):
    """A project, a domain or the system."""

    kind: TargetKind
    id: str


SYSTEM = Target(TargetKind.SYSTEM, SYSTEM_ID)


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """A role given to an actor on a target."""

    id: str
    actor_kind: ActorKind
    actor_id: str
    target_kind: TargetKind
    target_id: str
    role_id: str


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """An id with its name, and the domain that makes the name unique."""

    id: str
    name: str
    domain_id: str = ""
    domain_name: str = ""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a token's holder may do now: everything that `Context` and token bodies show.

    `generations` are those of user, user's domain, target and target's domain (0 where there is none).
    """

    user: Named
    target: Target | None
    project: Named | None
    domain: Named | None
    roles: tuple[tuple[str, str], ...]  # (id, name), with the implied ones, by name.
    generations: tuple[int, int, int, int]
