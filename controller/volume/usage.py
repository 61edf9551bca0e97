"""What volumes and snapshots cost of a project's quota, said in Cinder's words."""

from collections.abc import Mapping
from typing import Final

from controller import quota
from controller.db.tx import Tx
from controller.errors import OverQuota
from controller.volume.store import volumes

SERVICE: Final = "volume"

_KINDS: Final = ("volumes", "gigabytes", "snapshots")


def charge(tx: Tx, project_id: str, type_name: str | None, requested: Mapping[str, int]) -> None:
    """Check that so many more volumes, gigabytes and snapshots fit, in all and of the type. Raises OverQuota."""
    of_type = {} if type_name is None else {f"{name}_{type_name}": more for name, more in requested.items()}
    try:
        quota.charge(tx, project_id, SERVICE, {**requested, **of_type}, volumes.used)
    except OverQuota as error:
        raise OverQuota(_sentence(error), why=error.why) from error


def check_size(tx: Tx, project_id: str, size_gib: int) -> None:
    """Raises OverQuota for a volume that is larger than one may be."""
    limit = quota.limits(tx, project_id, SERVICE)["per_volume_gigabytes"]
    if limit not in (quota.UNLIMITED,) and size_gib > limit:
        raise OverQuota(
            f"VolumeSizeExceedsLimit: Requested volume size {size_gib}G is larger than maximum allowed limit {limit}G.",
            why={"quota": {"per_volume_gigabytes": {"limit": limit, "requested": size_gib}}},
        )


def _sentence(error: OverQuota) -> str:
    numbers: Mapping[str, Mapping[str, int]] = (error.why or {}).get("quota", {})
    name, found = next(iter(numbers.items()))
    if name.startswith("gigabytes"):
        return (
            "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed "
            f"{name} quota. Requested {found['requested']}G, quota is {found['limit']}G and "
            f"{found['used']}G has been consumed."
        )
    kind, title = (
        ("snapshots", "SnapshotLimitExceeded") if name.startswith("snap") else ("volumes", "VolumeLimitExceeded")
    )
    return f"{title}: Maximum number of {kind} allowed ({found['limit']}) exceeded for quota '{name}'."


def names(type_names: list[str]) -> tuple[str, ...]:
    """Every resource that may be limited."""
    return (
        *quota.DEFAULTS[SERVICE],
        *(f"{kind}_{type_name}" for type_name in type_names for kind in _KINDS),
    )
