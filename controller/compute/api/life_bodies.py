"""Bodies of what becomes of servers: rescue, resize, rebuild, images, the shelf; their interfaces and their groups."""

from typing import Annotated, Literal

import msgspec

from controller.compute.api.bodies import Count, DiskConfig, File, Flag, Name
from controller.http.bodies import Body


class RescueAction(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`rescue`."""

    admin_pass: str | None = msgspec.field(name="adminPass", default=None)
    rescue_image_ref: str | None = None


class ResizeAction(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`resize`."""

    flavor_ref: str | int = msgspec.field(name="flavorRef")
    disk_config: DiskConfig | None = msgspec.field(name="OS-DCF:diskConfig", default=None)


class CreateImageAction(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`createImage`."""

    name: Name
    metadata: dict[str, str] = {}


class UnshelveAction(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`unshelve` from 2.77, if there is anything to say."""

    availability_zone: Name


class Rebuild21(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`rebuild`, 2.1 to 2.18."""

    image_ref: str = msgspec.field(name="imageRef")
    admin_pass: str | None = msgspec.field(name="adminPass", default=None)
    name: Name | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    disk_config: DiskConfig | msgspec.UnsetType = msgspec.field(name="OS-DCF:diskConfig", default=msgspec.UNSET)
    access_ip_v4: str | msgspec.UnsetType = msgspec.field(name="accessIPv4", default=msgspec.UNSET)
    access_ip_v6: str | msgspec.UnsetType = msgspec.field(name="accessIPv6", default=msgspec.UNSET)
    preserve_ephemeral: Flag = False
    personality: tuple[File, ...] = ()


class Rebuild219(Rebuild21, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.19 to 2.53: a description."""

    description: str | msgspec.UnsetType | None = msgspec.UNSET


class Rebuild254(Rebuild219, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.54 to 2.56: another key."""

    key_name: Name | msgspec.UnsetType | None = msgspec.UNSET


class Rebuild257(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.57 to 2.62: user data, and no personality any more."""

    image_ref: str = msgspec.field(name="imageRef")
    admin_pass: str | None = msgspec.field(name="adminPass", default=None)
    name: Name | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    disk_config: DiskConfig | msgspec.UnsetType = msgspec.field(name="OS-DCF:diskConfig", default=msgspec.UNSET)
    access_ip_v4: str | msgspec.UnsetType = msgspec.field(name="accessIPv4", default=msgspec.UNSET)
    access_ip_v6: str | msgspec.UnsetType = msgspec.field(name="accessIPv6", default=msgspec.UNSET)
    preserve_ephemeral: Flag = False
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    key_name: Name | msgspec.UnsetType | None = msgspec.UNSET
    user_data: str | msgspec.UnsetType | None = msgspec.UNSET


class Rebuild263(Rebuild257, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.63: trusted certificates."""

    trusted_image_certificates: Annotated[tuple[str, ...], msgspec.Meta(max_length=50)] | None = None


class FixedAddress(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An address that an interface should have."""

    ip_address: str


class Interface21(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new interface, 2.1 to 2.48."""

    net_id: str | None = None
    port_id: str | None = None
    fixed_ips: Annotated[tuple[FixedAddress, ...], msgspec.Meta(min_length=1, max_length=1)] | None = None


class Interface249(Interface21, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.49: a tag."""

    tag: Annotated[str, msgspec.Meta(min_length=1, max_length=60)] | None = None


class InterfaceCreate21(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /servers/{id}/os-interface, 2.1 to 2.48."""

    interface: Interface21 = msgspec.field(name="interfaceAttachment", default_factory=Interface21)


class InterfaceCreate249(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.49."""

    interface: Interface249 = msgspec.field(name="interfaceAttachment", default_factory=Interface249)


HardPolicy = Literal["anti-affinity", "affinity"]
AnyPolicy = Literal["anti-affinity", "affinity", "soft-anti-affinity", "soft-affinity"]


class ServerGroup21(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group of servers, 2.1 to 2.14."""

    name: Name
    policies: Annotated[tuple[HardPolicy, ...], msgspec.Meta(min_length=1, max_length=1)]


class ServerGroup215(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.15 to 2.63: soft policies."""

    name: Name
    policies: Annotated[tuple[AnyPolicy, ...], msgspec.Meta(min_length=1, max_length=1)]


class ServerGroupRules(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of anti-affinity."""

    max_server_per_host: Count | None = None


class ServerGroup264(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.64: one policy, with rules."""

    name: Name
    policy: AnyPolicy
    rules: ServerGroupRules | None = None


class ServerGroupCreate21(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /os-server-groups, 2.1 to 2.14."""

    server_group: ServerGroup21


class ServerGroupCreate215(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.15 to 2.63."""

    server_group: ServerGroup215


class ServerGroupCreate264(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.64."""

    server_group: ServerGroup264
