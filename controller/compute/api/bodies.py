"""Bodies of requests. The newest form of a server's is the whole one; older ones lack what came later.

Structs refuse unknown keys, so a key that a version does not have is a 400 there. What a struct cannot say
(printable names, base64) is checked in the conversion to what use-cases take.
"""

from typing import Annotated, Any, Literal

import msgspec

from controller.http.bodies import Body

Flag = bool | str
Count = int | str
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Uuid = Annotated[str, msgspec.Meta(max_length=36)]
Host = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[a-zA-Z0-9-._]*$")]
DiskConfig = Literal["AUTO", "MANUAL"]


class Net(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `networks`."""

    uuid: str | None = None
    port: str | None = None
    fixed_ip: str | None = None


class TaggedNet(Net, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.32 to 2.36, and again from 2.42."""

    tag: str | None = None


class BlockDevice(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `block_device_mapping_v2`."""

    virtual_name: str | None = None
    volume_id: str | None = None
    snapshot_id: str | None = None
    image_id: str | None = None
    volume_size: Count | None = None
    device_name: str | None = None
    delete_on_termination: Flag | None = None
    no_device: Any = None
    connection_info: str | None = None
    source_type: Literal["volume", "image", "snapshot", "blank"] | None = None
    uuid: str | None = None
    destination_type: Literal["local", "volume"] | None = None
    guest_format: str | None = None
    device_type: str | None = None
    disk_bus: str | None = None
    boot_index: Count | None = None


class TaggedBlockDevice(BlockDevice, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.32, and again from 2.42."""

    tag: str | None = None


class TypedBlockDevice(TaggedBlockDevice, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.67."""

    volume_type: str | None = None


class File(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `personality`, until 2.56."""

    path: str = ""
    contents: str = ""


class GroupName(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `security_groups`: a name or an id."""

    name: Name | None = None


class _Server(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every version has."""

    name: Name
    flavor_ref: str | int = msgspec.field(name="flavorRef")
    image_ref: str | None = msgspec.field(name="imageRef", default=None)
    admin_pass: str | None = msgspec.field(name="adminPass", default=None)
    metadata: dict[str, str] = {}
    disk_config: DiskConfig | None = msgspec.field(name="OS-DCF:diskConfig", default=None)
    access_ip_v4: str | None = msgspec.field(name="accessIPv4", default=None)
    access_ip_v6: str | None = msgspec.field(name="accessIPv6", default=None)
    availability_zone: Name | None = None
    block_device_mapping: tuple[dict[str, Any], ...] = ()
    config_drive: Flag | None = None
    key_name: Name | None = None
    min_count: Count | None = None
    max_count: Count | None = None
    return_reservation_id: Flag | None = None
    security_groups: tuple[GroupName, ...] | None = None
    user_data: str | None = None
    networks: tuple[Net, ...] | Literal["auto", "none"] | None = None
    block_device_mapping_v2: tuple[BlockDevice, ...] = ()


class Server21(_Server, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.1 to 2.18."""

    networks: tuple[Net, ...] | None = None
    personality: tuple[File, ...] = ()


class Server219(Server21, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.19: a description."""

    description: str | None = None


class Server232(Server219, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.32 alone: tags of both kinds of devices."""

    networks: tuple[TaggedNet, ...] | None = None
    block_device_mapping_v2: tuple[TaggedBlockDevice, ...] = ()


class Server233(Server219, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.33 to 2.36: tags of networks."""

    networks: tuple[TaggedNet, ...] | None = None


class Server237(_Server, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.37 to 2.41: networks are required, `auto` and `none`; no tags."""

    networks: tuple[Net, ...] | Literal["auto", "none"]
    personality: tuple[File, ...] = ()
    description: str | None = None


class Server242(Server237, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.42: tags again."""

    networks: tuple[TaggedNet, ...] | Literal["auto", "none"]
    block_device_mapping_v2: tuple[TaggedBlockDevice, ...] = ()


class Server252(Server242, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.52: the server's own tags."""

    networks: tuple[TaggedNet, ...] | Literal["auto", "none"]
    tags: tuple[str, ...] = ()


class Server257(_Server, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.57: no personality."""

    networks: tuple[TaggedNet, ...] | Literal["auto", "none"]
    block_device_mapping_v2: tuple[TaggedBlockDevice, ...] = ()
    description: str | None = None
    tags: tuple[str, ...] = ()


class Server263(Server257, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.63: trusted certificates."""

    networks: tuple[TaggedNet, ...] | Literal["auto", "none"]
    trusted_image_certificates: Annotated[tuple[str, ...], msgspec.Meta(max_length=50)] | None = None


class Server267(Server263, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.67: volume types."""

    networks: tuple[TaggedNet, ...] | Literal["auto", "none"]
    block_device_mapping_v2: tuple[TypedBlockDevice, ...] = ()


class Server274(Server267, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.74: a host by name."""

    networks: tuple[TaggedNet, ...] | Literal["auto", "none"]
    host: Host | None = None
    hypervisor_hostname: Host | None = None


class _Hinted(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scheduler hints beside the server: free objects, because every scheduler has its own (API reference)."""

    hints: dict[str, Any] = msgspec.field(name="os:scheduler_hints", default_factory=dict)
    older_hints: dict[str, Any] = msgspec.field(name="OS-SCH-HNT:scheduler_hints", default_factory=dict)


class Create21(_Hinted, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /servers, 2.1 to 2.18."""

    server: Server21


class Create219(_Hinted, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.19 to 2.31."""

    server: Server219


class Create232(_Hinted, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.32."""

    server: Server232


class Create233(_Hinted, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.33 to 2.36."""

    server: Server233


class Create237(_Hinted, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.37 to 2.41."""

    server: Server237


class Create242(_Hinted, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.42 to 2.51."""

    server: Server242


class Create252(_Hinted, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.52 to 2.56."""

    server: Server252


class Create257(_Hinted, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.57 to 2.62."""

    server: Server257


class Create263(_Hinted, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.63 to 2.66."""

    server: Server263


class Create267(_Hinted, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.67 to 2.73."""

    server: Server267


class Create274(_Hinted, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.74."""

    server: Server274


class ServerChanges(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What PUT may change."""

    name: Name | msgspec.UnsetType = msgspec.UNSET
    disk_config: DiskConfig | msgspec.UnsetType = msgspec.field(name="OS-DCF:diskConfig", default=msgspec.UNSET)
    access_ip_v4: str | msgspec.UnsetType = msgspec.field(name="accessIPv4", default=msgspec.UNSET)
    access_ip_v6: str | msgspec.UnsetType = msgspec.field(name="accessIPv6", default=msgspec.UNSET)


class DescribedChanges(ServerChanges, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.19."""

    description: str | msgspec.UnsetType | None = msgspec.UNSET


class Update21(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT /servers/{id}, 2.1 to 2.18."""

    server: ServerChanges


class Update219(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.19."""

    server: DescribedChanges


class RebootAction(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`reboot`."""

    type: Literal["HARD", "Hard", "hard", "SOFT", "Soft", "soft"]


class ConsoleAction(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`os-getConsoleOutput`: how many lines; null or -1: all."""

    length: Count | None = None


class RemoteConsole(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which console, 2.6 and 2.7."""

    protocol: Literal["vnc", "spice", "rdp", "serial"]
    type: Literal["novnc", "xvpvnc", "rdp-html5", "spice-html5", "serial"]


class MksRemoteConsole(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.8: with a kind of VMware's."""

    protocol: Literal["vnc", "spice", "rdp", "serial", "mks"]
    type: Literal["novnc", "xvpvnc", "rdp-html5", "spice-html5", "serial", "webmks"]


class RemoteConsoleCreate26(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /servers/{id}/remote-consoles, 2.6 and 2.7."""

    remote_console: RemoteConsole


class RemoteConsoleCreate28(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.8."""

    remote_console: MksRemoteConsole


class VncConsoleAction(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`os-getVNCConsole`, until 2.5."""

    type: Literal["novnc", "xvpvnc"]


class SerialConsoleAction(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`os-getSerialConsole`, until 2.5."""

    type: Literal["serial"]


class LockAction(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`lock` from 2.73."""

    locked_reason: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None


class ResetStateAction(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`os-resetState`."""

    state: Literal["active", "error"]


class GroupAction(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`addSecurityGroup` and `removeSecurityGroup`."""

    name: Name


class Metadata(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST and PUT of a server's metadata."""

    metadata: dict[str, str]


class MetadataItem(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT of one key."""

    meta: Annotated[dict[str, str], msgspec.Meta(min_length=1, max_length=1)]


class Tags(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT of all tags."""

    tags: tuple[str, ...]


class FlavorNew(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A flavor, until 2.54."""

    name: Name
    ram: Count
    vcpus: Count
    disk: Count
    id: str | int | float | None = None
    ephemeral: Count = msgspec.field(name="OS-FLV-EXT-DATA:ephemeral", default=0)
    swap: Count = 0
    rxtx_factor: float | str = 1.0
    is_public: Flag = msgspec.field(name="os-flavor-access:is_public", default=True)


class DescribedFlavorNew(FlavorNew, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.55."""

    description: str | None = None


class FlavorCreate21(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /flavors, until 2.54."""

    flavor: FlavorNew


class FlavorCreate255(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.55."""

    flavor: DescribedFlavorNew


class FlavorChanges(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The one thing that may change."""

    description: str | None


class FlavorUpdate(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT /flavors/{id}, from 2.55."""

    flavor: FlavorChanges


class ExtraSpecs(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST of extra specs."""

    extra_specs: dict[str, str | int | float]


class Tenant(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`addTenantAccess` and `removeTenantAccess`."""

    tenant: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class KeypairNew(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A keypair, in 2.1."""

    name: Name
    public_key: str | None = None


class TypedKeypairNew(KeypairNew, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.2 to 2.9."""

    type: Literal["ssh", "x509"] = "ssh"


class OwnedKeypairNew(TypedKeypairNew, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.10."""

    user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None


class KeypairCreate21(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /os-keypairs, 2.1."""

    keypair: KeypairNew


class KeypairCreate22(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.2 to 2.9."""

    keypair: TypedKeypairNew


class KeypairCreate210(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.10."""

    keypair: OwnedKeypairNew


class ServiceAction(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT /os-services/{action}, until 2.52."""

    host: Host
    binary: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    disabled_reason: Name | None = None
    forced_down: Flag | None = None


class ServiceChanges(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT /os-services/{uuid}, from 2.53."""

    status: Literal["enabled", "disabled"] | None = None
    disabled_reason: Name | None = None
    forced_down: Flag | None = None


class QuotaChanges(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits, from 2.57. -1 is unlimited."""

    instances: Count | None = None
    cores: Count | None = None
    ram: Count | None = None
    metadata_items: Count | None = None
    key_pairs: Count | None = None
    server_groups: Count | None = None
    server_group_members: Count | None = None
    force: Flag = False


class FileQuotaChanges(QuotaChanges, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.36 to 2.56: with those of injected files, which do not exist here and change nothing."""

    injected_files: Count | None = None
    injected_file_content_bytes: Count | None = None
    injected_file_path_bytes: Count | None = None


class NetworkQuotaChanges(FileQuotaChanges, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Until 2.35: with those that the network service keeps, and that change nothing here, as in Nova."""

    floating_ips: Count | None = None
    fixed_ips: Count | None = None
    security_groups: Count | None = None
    security_group_rules: Count | None = None


class QuotaUpdate21(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT /os-quota-sets/{project}, until 2.35."""

    quota_set: NetworkQuotaChanges


class QuotaUpdate236(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.36 to 2.56."""

    quota_set: FileQuotaChanges


class QuotaUpdate257(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.57."""

    quota_set: QuotaChanges
