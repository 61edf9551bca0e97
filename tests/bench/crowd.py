"""A project with many servers, straight into the tables: what the cost of a request must not depend on."""

import uuid
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from controller.compute.model import Nic, Server, VmState
from controller.db.tables import compute, network
from controller.db.tables.image import image
from controller.db.tables.placement import allocation
from controller.db.tx import Tx
from controller.image.model import Image, Status, Visibility
from controller.network.model import Port
from tests.controller.compute import rows

HOST_ID: Final = "66666666-6666-4666-8666-666666666666"
GROUP_ID: Final = "77777777-7777-4777-8777-777777777777"
_SPACE: Final = uuid.UUID("88888888-8888-4888-8888-888888888888")


def name_of(kind: str, index: int) -> str:
    """The id of the index-th object of a kind: the same in every crowd, spread over the whole range as ids are."""
    return str(uuid.uuid5(_SPACE, f"{kind}/{index}"))


def gather(tx: Tx, project_id: str, count: int) -> None:
    """`count` servers that are ACTIVE, each with a port, and as many images; a host, a network, a group."""
    rows.insert_host(tx, HOST_ID)
    rows.insert_network(tx, project_id=project_id)
    standard = {"project_id": project_id, "description": "", "revision": 0, "created_at": 900.0, "updated_at": 900.0}
    group = {"id": GROUP_ID, "name": "default", "is_default": True, "stateful": True}
    tx.execute(sa.insert(network.security_group).values(**standard, **group, generation=1, members_generation=1))
    for table, made in _tables(project_id, count).items():
        tx.execute(sa.insert(table), list(made))


def _tables(project_id: str, count: int) -> dict[sa.Table, Iterator[dict[str, Any]]]:
    each = range(count)
    return {
        compute.server: (_columns(_server(project_id, i)) for i in each),
        compute.server_guest: ({"server_id": name_of("server", i)} for i in each),
        compute.server_nic: (_columns(_nic(i)) for i in each),
        network.port: (_of(network.port, _port(project_id, i)) for i in each),
        network.ip_allocation: (_address(i) for i in each),
        network.port_security_group: ({"port_id": name_of("port", i), "group_id": GROUP_ID} for i in each),
        allocation: (_allocation(project_id, i) for i in each),
        image: (_of(image, _image(project_id, i)) for i in each),
    }


def _columns(one: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__}


def _of(table: sa.Table, one: msgspec.Struct) -> dict[str, Any]:
    return {column.name: msgspec.to_builtins(getattr(one, column.name)) for column in table.columns}


def _server(project_id: str, index: int) -> Server:
    return rows.a_server(
        name_of("server", index),
        project_id=project_id,
        name=f"crowd-{index}",
        vm_state=VmState.ACTIVE.value,
        task_state=None,
        power_state=1,
        pushed_generation=1,
        host_id=HOST_ID,
        host_name="host1",
        availability_zone="nova",
        created_at=1000.0 + index,
        launched_at=1000.0 + index,
    )


def _nic(index: int) -> Nic:
    address = _ip(index)
    names = (name_of("server", index), 0, name_of("port", index))
    return Nic(*names, True, rows.NETWORK_ID, None, [], None, _mac(index), 1450, [address])


def _port(project_id: str, index: int) -> Port:
    return Port(
        id=name_of("port", index),
        project_id=project_id,
        network_id=rows.NETWORK_ID,
        mac_address=_mac(index),
        device_id=name_of("server", index),
        device_owner="compute:nova",
        hostname=f"crowd-{index}",
        host_id=HOST_ID,
        created_at=1000.0 + index,
        updated_at=1000.0 + index,
    )


def _address(index: int) -> dict[str, Any]:
    return {
        "subnet_id": rows.SUBNET_ID,
        "address": _ip(index),
        "port_id": name_of("port", index),
        "network_id": rows.NETWORK_ID,
        "number": (10 << 24 | index + 2).to_bytes(16, "big"),
    }


def _allocation(project_id: str, index: int) -> dict[str, Any]:
    amounts = {"vcpus": 1, "memory_mib": 128, "disk_gib": 1}
    names = {"consumer_id": name_of("server", index), "host_id": HOST_ID, "project_id": project_id, "user_id": "u1"}
    return {**names, **amounts, "created_at": 1000.0}


def _image(project_id: str, index: int) -> Image:
    return Image(
        id=name_of("image", index),
        owner=project_id,
        name=f"crowd-{index}",
        visibility=Visibility.PRIVATE,
        status=Status.ACTIVE,
        disk_format="qcow2",
        container_format="bare",
        size=1 << 20,
        virtual_size=1 << 30,
        md5="0" * 32,
        sha256="ab" * 32,
        created_at=1000.0 + index,
        updated_at=1000.0 + index,
    )


def _ip(index: int) -> str:
    number = index + 2
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def _mac(index: int) -> str:
    return f"fa:16:3e:{index >> 16:02x}:{index >> 8 & 255:02x}:{index & 255:02x}"
