"""The two trees that guests read: OpenStack's and EC2's. From a path and a guest's documents to bytes; pure.

Sources: OpenStack's "Metadata service" user guide for names and versions (a file appears in the version that brought
it and stays), EC2's instance metadata for the listings: a directory ends with a slash, keys are listed as
`0=<name>`. cloud-init insists on the index at /openstack and gives up the data source without it.
"""

from typing import Final, NamedTuple

import msgspec

from agent.wire.domain import GuestData

OPENSTACK_SINCE: Final[dict[str, tuple[str, ...]]] = {
    "2012-08-10": ("meta_data.json", "user_data"),
    "2013-04-04": (),
    "2013-10-17": ("vendor_data.json",),
    "2015-10-15": ("network_data.json",),
    "2016-06-30": (),
    "2016-10-06": ("vendor_data2.json",),
    "2017-02-22": (),
    "2018-08-27": (),
    "2020-10-14": (),
}
"""Versions, oldest first, and the files each brought."""

EC2_VERSIONS: Final = (
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
)

LATEST: Final = "latest"


class _Keys(msgspec.Struct, frozen=True):
    """The part of meta_data.json that names the guest's keys, in the order of EC2's indexes."""

    public_keys: dict[str, str] = {}


class Found(NamedTuple):
    """What a path holds."""

    body: bytes
    kind: str = "text/plain; charset=UTF-8"


def find(path: str, guest: GuestData) -> Found | None:
    """What is at `path` for this guest, or None. Slashes may be doubled or trail; nothing goes up."""
    steps = [step for step in path.split("/") if step]
    if not steps:
        return _listing((*EC2_VERSIONS, LATEST))
    if steps[0] == "openstack":
        return _openstack(steps[1:], guest)
    if steps[0] == LATEST or steps[0] in EC2_VERSIONS:
        return _ec2(steps[1:], guest)
    return None


def _openstack(steps: list[str], guest: GuestData) -> Found | None:
    if not steps:
        return _listing((*OPENSTACK_SINCE, LATEST))
    files = _openstack_files(steps[0], guest)
    if files is None or len(steps) > 2:
        return None
    if len(steps) == 1:
        return _listing(sorted(files))
    body = files.get(steps[1])
    if body is None:
        return None
    return Found(body, "application/json" if steps[1].endswith(".json") else "application/octet-stream")


def _openstack_files(version: str, guest: GuestData) -> dict[str, bytes] | None:
    """What a version has; None if there is no such version."""
    versions = list(OPENSTACK_SINCE)
    if version == LATEST:
        version = versions[-1]
    if version not in OPENSTACK_SINCE:
        return None
    names = {name for known in versions[: versions.index(version) + 1] for name in OPENSTACK_SINCE[known]}
    bodies = {
        "meta_data.json": guest.meta_data.encode(),
        "user_data": guest.user_data,
        "vendor_data.json": guest.vendor_data.encode(),
        "vendor_data2.json": b"{}",
        "network_data.json": guest.network_data.encode(),
    }
    return {name: body for name, body in bodies.items() if name in names and body}


def _ec2(steps: list[str], guest: GuestData) -> Found | None:
    if not steps:
        return _listing(("meta-data/", "user-data") if guest.user_data else ("meta-data/",))
    if steps == ["user-data"] and guest.user_data:
        return Found(guest.user_data, "application/octet-stream")
    if steps[0] != "meta-data":
        return None
    path = "/".join(steps[1:])
    if path in guest.ec2:
        return Found(guest.ec2[path].encode())
    return _ec2_directory(f"{path}/" if path else "", guest)


def _ec2_directory(prefix: str, guest: GuestData) -> Found | None:
    """The names directly below `prefix`, directories with a slash."""
    below = (path[len(prefix) :] for path in guest.ec2 if path.startswith(prefix))
    names = {name.partition("/")[0] + ("/" if "/" in name else "") for name in below}
    if not names:
        return None if prefix else _listing(())
    if prefix == "public-keys/":
        return _listing(sorted(f"{index.rstrip('/')}={_key_name(index.rstrip('/'), guest)}" for index in names))
    return _listing(sorted(names))


def _key_name(index: str, guest: GuestData) -> str:
    try:
        named = list(msgspec.json.decode(guest.meta_data, type=_Keys).public_keys)
        return named[int(index)]
    except (msgspec.DecodeError, ValueError, IndexError):  # No name was given: EC2 has always one.
        return f"key-{index}"


def _listing(names: tuple[str, ...] | list[str]) -> Found:
    return Found("\n".join(names).encode())
