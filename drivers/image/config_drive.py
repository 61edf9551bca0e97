"""A config drive: what the metadata service would say, as an ISO 9660 file system labelled config-2.

The layout is OpenStack's (`openstack/<version>/…`) with EC2's beside it, as cloud-init's ConfigDrive source and
cloudbase-init read it. Names are carried thrice: as ISO identifiers that mean nothing, as Rock Ridge for Linux, and
as Joliet for Windows.
"""

import io
import json
from typing import Any, Final

import pycdlib

from agent.wire.domain import GuestData

LABEL: Final = "config-2"

OPENSTACK_VERSIONS: Final = ("2018-08-27", "latest")
"""The newest version that cloud-init asks for by name, and what everybody else asks for."""

EC2_VERSIONS: Final = ("2009-04-04", "latest")


def files(guest: GuestData) -> dict[str, bytes]:
    """Every file of the drive: path → content. Pure."""
    openstack = {
        "meta_data.json": guest.meta_data.encode(),
        "network_data.json": guest.network_data.encode(),
        "vendor_data.json": guest.vendor_data.encode(),
    }
    ec2 = {"meta-data.json": json.dumps(_nested(guest.ec2), sort_keys=True).encode()}
    if guest.user_data:  # An empty file would be taken for user data, and complained about.
        openstack["user_data"] = guest.user_data
        ec2["user-data"] = guest.user_data
    return {
        f"{service}/{version}/{name}": content
        for service, versions, documents in (
            ("ec2", EC2_VERSIONS, ec2),
            ("openstack", OPENSTACK_VERSIONS, openstack),
        )
        for version in versions
        for name, content in documents.items()
    }


def render(guest: GuestData) -> bytes:
    """The ISO's bytes. They differ from one call to the next in their time stamps only."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, sys_ident="LINUX", vol_ident=LABEL, joliet=3, rock_ridge="1.09")
    folders = {"": ""}
    for number, (path, content) in enumerate(sorted(files(guest).items())):
        folder, _, name = path.rpartition("/")
        iso.add_fp(
            io.BytesIO(content),
            len(content),
            f"{_folder(iso, folders, folder)}/F{number:07}.;1",
            rr_name=name,
            joliet_path=f"/{path}",
        )
    image = io.BytesIO()
    iso.write_fp(image)
    iso.close()
    return image.getvalue()


def _folder(iso: Any, folders: dict[str, str], path: str) -> str:
    """The ISO path of a folder, made with its parents when it is first asked for."""
    if path not in folders:
        parent, _, name = path.rpartition("/")
        folders[path] = f"{_folder(iso, folders, parent)}/D{len(folders):07}"
        iso.add_directory(folders[path], rr_name=name, joliet_path=f"/{path}")
    return folders[path]


def _nested(paths: dict[str, str]) -> dict[str, Any]:
    """EC2's tree of paths as one document: `public-keys/0/openssh-key` → {"public-keys": {"0": {…}}}.

    Where a path is both a text and a folder, as `public-keys/0` with the key's name, the text becomes `_name`.
    """
    tree: dict[str, Any] = {}
    for path, text in sorted(paths.items()):
        *parents, name = [part for part in path.split("/") if part]
        node = tree
        for parent in parents:
            inner = node.get(parent)
            if not isinstance(inner, dict):
                inner = node[parent] = {} if inner is None else {"_name": inner}
            node = inner
        node[name] = text
    return tree
