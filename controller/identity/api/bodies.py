"""Request bodies of identity. Keystone keeps attributes that it does not know, so the inner objects are open.

Outer objects are strict; `opened` takes an inner one apart into what we know, validated, and what is only kept.
Source: https://docs.openstack.org/api-ref/identity/v3/
"""

from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from controller.errors import Invalid
from controller.http.bodies import Body, explained
from controller.identity.projects import TAGS_MAX

EXTRAS: Final = "Keystone stores attributes it does not know: https://docs.openstack.org/api-ref/identity/v3/"

EXTRA_BYTES_MAX: Final = 16 << 10
"""Of kept attributes an object. They ride along in every listing."""

S = TypeVar("S", bound=msgspec.Struct)

Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\S")]
PlaceName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"\S")]
"""Of domains and projects: Keystone's are no longer, and what clients accept as a name follows Keystone."""

Text = Annotated[str, Meta(max_length=65535)]
Id = Annotated[str, Meta(min_length=1, max_length=64)]
RegionId = Annotated[str, Meta(min_length=1, max_length=255)]
Password = Annotated[str, Meta(min_length=1, max_length=1024)]
Tag = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^,/]*$")]
Tags = Annotated[list[Tag], Meta(max_length=TAGS_MAX)]
Interface = Literal["public", "internal", "admin"]
Url = Annotated[str, Meta(min_length=1, max_length=2048)]

_OWNED: Final = frozenset({"id", "links", "is_domain", "options", "password_expires_at"})
"""Keys of our views that a client may send back; they are neither stored nor refused."""


def opened(kind: type[S], raw: dict[str, Any], noun: str) -> tuple[S, dict[str, Any]]:
    """(what we know, what is only kept). Raises Invalid with the field's name."""
    known = {field.encode_name for field in msgspec.structs.fields(kind)}
    try:
        value = msgspec.convert({key: raw[key] for key in raw if key in known}, kind)
    except msgspec.ValidationError as error:
        raise Invalid(explained(str(error), f"{noun}.")) from error
    if raw.get("is_domain"):
        raise Invalid("Projects that act as domains are not offered: create a domain.")
    if raw.get("options"):
        raise Invalid(f"Invalid input for '{noun}.options': no option is offered.")
    extra = {key: raw[key] for key in raw if key not in known and key not in _OWNED}
    if len(msgspec.json.encode(extra)) > EXTRA_BYTES_MAX:
        raise Invalid(f"The unknown attributes of the {noun} are longer than {EXTRA_BYTES_MAX} bytes.")
    return value, extra


def tag_text(text: str) -> str:
    """A tag in a path. Raises Invalid."""
    try:
        return msgspec.convert(text, Tag)
    except msgspec.ValidationError as error:
        raise Invalid(explained(str(error), "tag")) from error


def given(value: msgspec.Struct) -> dict[str, Any]:
    """The attributes that the client sent."""
    return {key: item for key, item in msgspec.structs.asdict(value).items() if item is not UNSET}


# Logging in.


class DomainPlace(Body, frozen=True):
    """A domain by id or name."""

    id: Id | None = None
    name: Name | None = None


class UserProof(Body, frozen=True):
    """A user and the user's password."""

    password: Annotated[str, Meta(max_length=4096)]
    id: Id | None = None
    name: Name | None = None
    domain: DomainPlace | None = None


class PasswordProof(Body, frozen=True):
    """Method `password`."""

    user: UserProof


class TokenProof(Body, frozen=True):
    """Method `token`."""

    id: Annotated[str, Meta(min_length=1, max_length=1024)]


class Proofs(Body, frozen=True):
    """How the client proves who it is."""

    methods: Annotated[list[str], Meta(min_length=1, max_length=4)]
    password: PasswordProof | None = None
    token: TokenProof | None = None


class ProjectPlace(Body, frozen=True):
    """A project by id, or by name in a domain."""

    id: Id | None = None
    name: Name | None = None
    domain: DomainPlace | None = None


class SystemScope(Body, frozen=True):
    """`{"all": true}`."""

    all: Literal[True]


class Scope(Body, frozen=True):
    """Where the token shall count."""

    project: ProjectPlace | None = None
    domain: DomainPlace | None = None
    system: SystemScope | None = None
    unscoped: dict[str, Any] | None = None


class Auth(Body, frozen=True):
    """Proofs and scope."""

    identity: Proofs
    scope: Scope | Literal["unscoped"] | None = None


class AuthBody(Body, frozen=True):
    """POST /auth/tokens."""

    auth: Auth


# Resources. The outer object is strict, the inner one open.


class DomainBody(Body, frozen=True):
    """POST and PATCH of domains."""

    domain: dict[str, Any]


class DomainCreate(Body, frozen=True):
    """A new domain."""

    name: PlaceName
    description: Text | None = None
    enabled: bool = True


class DomainUpdate(Body, frozen=True):
    """Changes of a domain."""

    name: PlaceName | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


class ProjectBody(Body, frozen=True):
    """POST and PATCH of projects."""

    project: dict[str, Any]


class ProjectCreate(Body, frozen=True):
    """A new project."""

    name: PlaceName
    domain_id: Id | None = None
    parent_id: Id | None = None
    description: Text | None = None
    enabled: bool = True
    tags: Tags = []


class ProjectUpdate(Body, frozen=True):
    """Changes of a project."""

    name: PlaceName | UnsetType = UNSET
    domain_id: Id | UnsetType = UNSET
    parent_id: Id | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET


class ProjectTags(Body, frozen=True):
    """PUT /projects/{project_id}/tags."""

    tags: Tags


class UserBody(Body, frozen=True):
    """POST and PATCH of users."""

    user: dict[str, Any]


class UserCreate(Body, frozen=True):
    """A new user."""

    name: Name
    domain_id: Id | None = None
    password: Password | None = None
    default_project_id: Id | None = None
    enabled: bool = True


class UserUpdate(Body, frozen=True):
    """Changes of a user."""

    name: Name | UnsetType = UNSET
    domain_id: Id | UnsetType = UNSET
    password: Password | UnsetType | None = UNSET
    default_project_id: Id | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


class PasswordPair(Body, frozen=True):
    """The old password and the new one."""

    original_password: Annotated[str, Meta(max_length=4096)]
    password: Password


class PasswordBody(Body, frozen=True):
    """POST /users/{user_id}/password."""

    user: PasswordPair


class GroupBody(Body, frozen=True):
    """POST and PATCH of groups."""

    group: dict[str, Any]


class GroupCreate(Body, frozen=True):
    """A new group."""

    name: Name
    domain_id: Id | None = None
    description: Text | None = None


class GroupUpdate(Body, frozen=True):
    """Changes of a group."""

    name: Name | UnsetType = UNSET
    domain_id: Id | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET


class RoleBody(Body, frozen=True):
    """POST and PATCH of roles."""

    role: dict[str, Any]


class RoleCreate(Body, frozen=True):
    """A new role."""

    name: Name
    domain_id: None = None  # Roles of one domain are not offered.
    description: Text | None = None


class RoleUpdate(Body, frozen=True):
    """Changes of a role."""

    name: Name | UnsetType = UNSET
    domain_id: UnsetType | None = UNSET
    description: Text | UnsetType | None = UNSET


class ServiceBody(Body, frozen=True):
    """POST and PATCH of services."""

    service: dict[str, Any]


class ServiceCreate(Body, frozen=True):
    """A new service."""

    type: Name
    name: Text = ""
    description: Text | None = None
    enabled: bool = True


class ServiceUpdate(Body, frozen=True):
    """Changes of a service."""

    type: Name | UnsetType = UNSET
    name: Text | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


class EndpointBody(Body, frozen=True):
    """POST and PATCH of endpoints."""

    endpoint: dict[str, Any]


class EndpointCreate(Body, frozen=True):
    """A new endpoint. `region` is the old name of `region_id`."""

    service_id: Id
    interface: Interface
    url: Url
    region_id: RegionId | None = None
    region: RegionId | None = None
    enabled: bool = True


class EndpointUpdate(Body, frozen=True):
    """Changes of an endpoint."""

    service_id: Id | UnsetType = UNSET
    interface: Interface | UnsetType = UNSET
    url: Url | UnsetType = UNSET
    region_id: RegionId | UnsetType | None = UNSET
    region: RegionId | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


class RegionBody(Body, frozen=True):
    """POST and PATCH of regions."""

    region: dict[str, Any]


class RegionCreate(Body, frozen=True):
    """A new region; its id may be the client's choice."""

    id: RegionId | None = None
    description: Text | None = None
    parent_region_id: RegionId | None = None


class RegionUpdate(Body, frozen=True):
    """Changes of a region."""

    description: Text | UnsetType | None = UNSET
    parent_region_id: RegionId | UnsetType | None = UNSET
