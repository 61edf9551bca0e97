"""Projects with many servers, straight into the tables: what the cost of a request must not depend on."""

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
_SPACE: Final = uuid.UUID("88888888-8888-4888-8888-888888888888")


class Crowd(msgspec.Struct, frozen=True):
    """A project with `count` servers that are ACTIVE, each with a port, and as many images."""

    project_id: str
    name: str
    count: int

    def id(self, kind: str, index: int = 0) -> str:
        """Of the index-th object of a kind: the same in every cloud, spread over the whole range as ids are."""
        return str(uuid.uuid5(_SPACE, f"{self.name}/{kind}/{index}"))

    def gather(self, tx: Tx) -> None:
        """Into a cloud that has the crowd's host."""
        rows.insert_network(
            tx, self.id("network"), self.id("subnet"), project_id=self.project_id, segment=len(self.name) + 1000
        )
        standard = {"description": "", "revision": 0, "created_at": 900.0, "updated_at": 900.0, "generation": 1}
        group = {"id": self.id("group"), "project_id": self.project_id, "name": "default", "is_default": True}
        tx.execute(sa.insert(network.security_group).values(**standard, **group, stateful=True, members_generation=1))
        for table, made in self._tables().items():
            tx.execute(sa.insert(table), list(made))

    def _tables(self) -> dict[sa.Table, Iterator[dict[str, Any]]]:
        each = range(self.count)
        group_id = self.id("group")
        return {
            compute.server: (_fields(self._server(i)) for i in each),
            compute.server_guest: ({"server_id": self.id("server", i)} for i in each),
            compute.server_nic: (_fields(self._nic(i)) for i in each),
            network.port: (_columns(network.port, self._port(i)) for i in each),
            network.ip_allocation: (self._address(i) for i in each),
            network.port_security_group: ({"port_id": self.id("port", i), "group_id": group_id} for i in each),
            allocation: (self._allocation(i) for i in each),
            image: (_columns(image, self._image(i)) for i in each),
        }

    def _server(self, index: int) -> Server:
        return rows.a_server(
            self.id("server", index),
            project_id=self.project_id,
            name=f"{self.name}-{index}",
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

    def _nic(self, index: int) -> Nic:
        names = (self.id("server", index), 0, self.id("port", index))
        return Nic(*names, True, self.id("network"), None, [], None, _mac(index), 1450, [_ip(index)])

    def _port(self, index: int) -> Port:
        return Port(
            id=self.id("port", index),
            project_id=self.project_id,
            network_id=self.id("network"),
            mac_address=_mac(index),
            device_id=self.id("server", index),
            device_owner="compute:nova",
            hostname=f"{self.name}-{index}",
            host_id=HOST_ID,
            created_at=1000.0 + index,
            updated_at=1000.0 + index,
        )

    def _address(self, index: int) -> dict[str, Any]:
        return {
            "subnet_id": self.id("subnet"),
            "address": _ip(index),
            "port_id": self.id("port", index),
            "network_id": self.id("network"),
            "number": (10 << 24 | index + 2).to_bytes(16, "big"),
        }

    def _allocation(self, index: int) -> dict[str, Any]:
        whose = {"consumer_id": self.id("server", index), "project_id": self.project_id, "user_id": "u1"}
        return {**whose, "host_id": HOST_ID, "vcpus": 1, "memory_mib": 128, "disk_gib": 1, "created_at": 1000.0}

    def _image(self, index: int) -> Image:
        return Image(
            id=self.id("image", index),
            owner=self.project_id,
            name=f"{self.name}-{index}",
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


def insert_host(tx: Tx) -> None:
    """Where they all are."""
    rows.insert_host(tx, HOST_ID)


def _fields(one: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__}


def _columns(table: sa.Table, one: msgspec.Struct) -> dict[str, Any]:
    return {column.name: msgspec.to_builtins(getattr(one, column.name)) for column in table.columns}


def _ip(index: int) -> str:
    number = index + 2
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def _mac(index: int) -> str:
    return f"fa:16:3e:{index >> 16:02x}:{index >> 8 & 255:02x}:{index & 255:02x}"
