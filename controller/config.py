"""The controller's settings, their defaults, and what each is for."""

import msgspec

from controller.schedule.model import Ratios


class Controller(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [controller]."""

    database: str = (
        ""  # SQLAlchemy URL; empty: SQLite in the state folder; postgresql+asyncpg://… for several controllers
    )
    cloud: str = "default"  # The cloud's name; only a new database takes it.
    tag: str = ""  # Four hex digits in every name of a host object; empty: drawn when the database is new.
    state: str = "/var/lib/hostler/controller"
    images: str = ""  # Folder of images' bytes; empty: `images` in the state folder. Several controllers share one.
    listen: str = "127.0.0.1:5000"
    public_url: str = "http://127.0.0.1:5000"  # What the catalog shows.
    tls_certificate: str = ""  # PEM of the API's listener, with its chain; required beyond loopback.
    tls_key: str = ""  # Its key; empty: in the same file.
    channel_listen: str = ""  # host channel (TLS): underlay address:5443; empty: 127.0.0.1:5443
    novnc: str = "/usr/share/novnc"  # The console's page: what Debian's package `novnc` has there.
    metrics_listen: str = "127.0.0.1:9464"  # Empty: no metrics.
    nats: str = "tls://127.0.0.1:4222"
    nats_folder: str = ""  # Its configuration, which we write, and its pid file; empty: `nats` beside the state folder.
    region: str = "RegionOne"
    uid: int = 65532  # What it becomes when it is started as root; the bus's server, which it signals, has the same.
    inspector_uid: int = 65531  # What looks at the bytes of images becomes then. Both own nothing else on the machine.
    log_level: str = "info"
    slow: float = 1.0  # Factor on every time-out; 5 under TCG.


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [limits]: bounds that protect the controller."""

    page: int = 1000  # Rows a list returns at most. Higher: one request can hold the loop for longer.
    body_bytes: int = 1 << 20  # Request bodies, except streams.
    body_depth: int = 64  # Nesting of JSON.
    image_bytes: int = 64 << 30  # One image.


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [identity]."""

    token_s: float = 3600.0  # Life of a token. Longer: a stolen one is useful longer; shorter: long work logs in again.


class VolumeLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [volume]: how far pools may be promised away."""

    over_subscription: float = 20.0  # Of thin pools. Higher: more may be promised than ever fits.
    reserved_percentage: int = 10  # Of each pool. Lower: a full pool stops guests before anybody notices.
    default_type: str = "__DEFAULT__"  # Name of the type of a volume that asks for none.


class Compute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [compute]."""

    offloads_shelved: bool = True  # A shelved server leaves its host at once. False: when an admin says so.


class ImageCache(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [image_cache]: what each host may keep of images that it uses no more."""

    host_gib: float = 100.0  # With those in use, which always stay. Lower: images are fetched again.
    free_gib: float = 5.0  # Of the host's disk; below it, unused images go, the least used first.
    age_days: float = 30.0  # Unused for longer: gone.


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything in controller.toml."""

    controller: Controller = Controller()
    limits: Limits = Limits()
    identity: Identity = Identity()
    compute: Compute = Compute()
    scheduler: Ratios = Ratios()
    volume: VolumeLimits = VolumeLimits()
    image_cache: ImageCache = ImageCache()
