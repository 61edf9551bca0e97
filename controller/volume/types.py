"""Volume types: what operators offer. One is there from the beginning, and is meant where none is named."""

from collections.abc import Mapping
from typing import Any, Final

from controller import quota
from controller.config import VolumeLimits
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict, Invalid, NotFound
from controller.volume.model import VolumeType
from controller.volume.store import types as store
from controller.volume.usage import SERVICE

FIRST: Final = "__DEFAULT__"


def found(tx: Tx, type_id: str, now: float) -> None:
    """The type of a cloud that has none."""
    if not store.names(tx):
        store.insert(tx, VolumeType(type_id, FIRST, "Default Volume Type", True, {}, now, None))


class TypeInUse(Invalid):
    """It cannot go: Cinder says 400."""


def named(tx: Tx, ctx: Context, name_or_id: str) -> VolumeType:
    """A type as users name it. Raises NotFound."""
    one = store.find(tx, name_or_id) or store.find_named(tx, name_or_id)
    if one is None or not store.may_use(tx, ctx, one):
        raise NotFound(f"Volume type with name {name_or_id} could not be found.")
    return one


def default(tx: Tx, project_id: str | None, limits: VolumeLimits) -> VolumeType | None:
    """What no type means: the project's own default, or the cloud's."""
    own = None if project_id is None else store.default_of(tx, project_id)
    return store.find_named(tx, limits.default_type) if own is None else store.find(tx, own)


def create(tx: Tx, new: VolumeType) -> VolumeType:
    """Raises Conflict for a name that is taken."""
    _check_name(tx, new.name, "")
    store.insert(tx, new)
    return new


def _check_name(tx: Tx, name: str, own_id: str) -> None:
    there = store.find_named(tx, name)
    if there is not None and there.id != own_id:
        raise Conflict(f"Volume Type {name} already exists.")


def update(tx: Tx, ctx: Context, type_id: str, values: Mapping[str, Any], now: float) -> VolumeType:
    """Raises NotFound, Conflict."""
    one = store.get(tx, ctx, type_id)
    if "name" in values:
        _check_name(tx, values["name"], one.id)
    store.change(tx, one.id, {**values, "updated_at": now})
    return store.get(tx, ctx, type_id)


def delete(tx: Tx, ctx: Context, type_id: str, limits: VolumeLimits) -> None:
    """Raises NotFound; TypeInUse while a volume has it, or nothing would mean it."""
    one = store.get(tx, ctx, type_id)
    if one.name == limits.default_type or store.is_default(tx, one.id):
        raise TypeInUse(f"The volume type {one.id} is a default volume type and cannot be deleted.")
    if store.is_used(tx, one.id):
        raise TypeInUse("Target volume type is still in use.")
    store.drop(tx, one.id)


def set_specs(tx: Tx, ctx: Context, type_id: str, specs: Mapping[str, str], now: float) -> dict[str, str]:
    """Add or replace extra specs; all of them then. Raises NotFound; TypeInUse where volumes rely on one."""
    one = store.get(tx, ctx, type_id)
    after = {**one.extra_specs, **specs}
    _check_specs(tx, one, after)
    store.change(tx, one.id, {"extra_specs": after, "updated_at": now})
    return after


def drop_spec(tx: Tx, ctx: Context, type_id: str, key: str, now: float) -> None:
    """Raises NotFound."""
    one = store.get(tx, ctx, type_id)
    if key not in one.extra_specs:
        raise NotFound(f"Volume Type {type_id} has no extra specs with key {key}.")
    after = {name: value for name, value in one.extra_specs.items() if name != key}
    _check_specs(tx, one, after)
    store.change(tx, one.id, {"extra_specs": after, "updated_at": now})


def _check_specs(tx: Tx, before: VolumeType, after: dict[str, str]) -> None:
    changed = VolumeType(before.id, before.name, None, before.is_public, after, 0.0, None)
    if changed.is_multiattach != before.is_multiattach and store.is_used(tx, before.id):
        raise TypeInUse("Extra spec 'multiattach' cannot be changed while volumes have this type.")


# Who may use a private type.


def access(tx: Tx, ctx: Context, type_id: str) -> tuple[VolumeType, list[str]]:
    """Raises NotFound, also for a public one: everybody may use that."""
    one = store.get(tx, ctx, type_id)
    if one.is_public:
        raise NotFound("Access list not available for public volume types.")
    return one, store.grants(tx, one.id)


def grant(tx: Tx, ctx: Context, type_id: str, project_id: str) -> None:
    """Raises NotFound; Conflict where it is granted or public."""
    one = store.get(tx, ctx, type_id)
    if one.is_public:
        raise Conflict("Type access modification is not applicable to public volume type.")
    if project_id in store.grants(tx, one.id):
        raise Conflict(f"Volume type access for {type_id} / {project_id} combination already exists.")
    store.grant(tx, one.id, project_id)


def revoke(tx: Tx, ctx: Context, type_id: str, project_id: str) -> None:
    """Raises NotFound; Conflict for a public type."""
    one = store.get(tx, ctx, type_id)
    if one.is_public:
        raise Conflict("Type access modification is not applicable to public volume type.")
    if not store.revoke(tx, one.id, project_id):
        raise NotFound(f"Volume type access not found for {type_id} / {project_id} combination.")


def limits_of(tx: Tx, project_id: str) -> dict[str, int]:
    """Every limit of a project, also those of types that nobody limited."""
    own = quota.limits(tx, project_id, SERVICE)
    every: dict[str, int] = {}
    for name in store.names(tx).values():
        every |= {f"{kind}_{name}": quota.UNLIMITED for kind in ("volumes", "snapshots", "gigabytes")}
    known = {key: value for key, value in own.items() if key in quota.DEFAULTS[SERVICE] or key in every}
    return {**every, **known}
