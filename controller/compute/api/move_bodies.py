"""Bodies of the actions that send a server to another host."""

from typing import Annotated

import msgspec

from controller.compute.api.bodies import Flag
from controller.http.bodies import Body

HostName = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class MigrateAction(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`migrate` from 2.56."""

    host: HostName | None = None


class Evacuate21(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`evacuate`, 2.1 to 2.13."""

    on_shared_storage: Flag = msgspec.field(name="onSharedStorage")
    host: HostName | None = None
    admin_pass: str | None = msgspec.field(name="adminPass", default=None)


class Evacuate214(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`evacuate`, 2.14 to 2.28, and from 2.68."""

    host: HostName | None = None
    admin_pass: str | None = msgspec.field(name="adminPass", default=None)


class Evacuate229(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`evacuate`, 2.29 to 2.67."""

    host: HostName | None = None
    admin_pass: str | None = msgspec.field(name="adminPass", default=None)
    force: Flag | None = None


class LiveMigrate21(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`os-migrateLive`, 2.1 to 2.24."""

    block_migration: Flag
    disk_over_commit: Flag
    host: HostName | None


class LiveMigrate225(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`os-migrateLive`, 2.25 to 2.29, and from 2.68. `block_migration` may be `auto`."""

    block_migration: Flag
    host: HostName | None


class LiveMigrate230(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`os-migrateLive`, 2.30 to 2.67."""

    block_migration: Flag
    host: HostName | None
    force: Flag | None = None
