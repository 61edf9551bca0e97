"""What a guest reads about itself: the documents of the metadata service and the config drive.

Pure: a function of the server's row and of what was stored beside it. So the same generation always renders to
the same bytes, which hosts insist on (the same generation with other content is a bug). Whoever changes an
input raises the row's generation.

Layout: OpenStack's `meta_data.json` and `network_data.json`, and the tree below EC2's `latest/meta-data`.
"""

import base64
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from agent.wire.domain import GuestData
from controller.compute.model import Nic, Server
from controller.compute.store import Guest

_encode: Final = msgspec.json.Encoder(order="sorted").encode


def guest_data(server: Server, nics: Sequence[Nic], stored: Guest) -> GuestData:
    """Everything cloud-init may ask for."""
    return GuestData(
        meta_data=_encode(meta_data(server, nics)).decode(),
        network_data=stored.network_data or "{}",
        user_data=base64.b64decode(stored.user_data) if stored.user_data else b"",
        ec2=ec2_data(server, _first_ipv4(nics)),
    )


def meta_data(server: Server, nics: Sequence[Nic]) -> dict[str, Any]:
    """meta_data.json. `keys` and `public_keys` say the same twice: clients of both ages exist."""
    found: dict[str, Any] = {
        "uuid": server.id,
        "name": server.name,
        "hostname": server.hostname,
        "availability_zone": server.availability_zone or "",
        "launch_index": server.launch_index,
        "project_id": server.project_id,
        "devices": _devices(nics),
        "dedicated_cpus": [],
    }
    if server.meta:
        found["meta"] = server.meta
    if server.key_name is not None and server.public_key is not None:
        found["public_keys"] = {server.key_name: server.public_key}
        found["keys"] = [{"name": server.key_name, "type": server.key_type, "data": server.public_key}]
    return found


def ec2_data(server: Server, ipv4: str) -> dict[str, str]:
    """Paths below /latest/meta-data/ and their texts. Ids are made the way EC2 spells them, from ours."""
    found = {
        "ami-id": f"ami-{(server.image_id or server.id)[:8]}",
        "ami-launch-index": str(server.launch_index),
        "instance-id": f"i-{server.id[:8]}",
        "instance-type": server.flavor_name,
        "instance-action": "none",
        "hostname": server.hostname,
        "local-hostname": server.hostname,
        "public-hostname": server.hostname,
        "local-ipv4": ipv4,
        "reservation-id": server.reservation_id,
        "placement/availability-zone": server.availability_zone or "",
    }
    if server.key_name is not None and server.public_key is not None:
        found["public-keys/0/openssh-key"] = server.public_key
    return found


def _devices(nics: Sequence[Nic]) -> list[dict[str, Any]]:
    """Devices that were given a tag, to be found by their MAC; the guest sees the bus by itself."""
    return [
        {"type": "nic", "bus": "none", "address": "none", "mac": nic.mac, "tags": [nic.tag]}
        for nic in nics
        if nic.tag is not None and nic.mac is not None
    ]


def _first_ipv4(nics: Sequence[Nic]) -> str:
    """Of those that are part of the domain: what is on its way in or out changes at no generation of its own."""
    inside = (nic for nic in nics if nic.mac is not None)
    return next((address for nic in inside for address in nic.addresses if ":" not in address), "")
