"""Small builders of rows for the tests of this folder."""

from typing import Any

import sqlalchemy as sa

from controller.compute import flavor_store
from controller.compute.model import Flavor, Server, TaskState, VmState
from controller.context import Context
from controller.db.tables import network as tables
from controller.db.tables.fleet import host
from controller.db.tx import Tx
from controller.image import store as image_store
from controller.image.model import Image
from controller.network import addressing
from controller.network.model import Group, Port
from controller.network.store import groups
from controller.schedule.model import Amounts, Room, Wanted


def a_context(**changes: Any) -> Context:
    values: dict[str, Any] = {
        "request_id": "req-1",
        "user_id": "u1",
        "user_name": "demo",
        "project_id": "p1",
        "project_name": "demo",
        "roles": frozenset({"member", "reader"}),
    }
    return Context(**{**values, **changes})


def an_admin(**changes: Any) -> Context:
    roles = frozenset({"admin", "manager", "member", "reader"})
    return a_context(user_id="root", project_id="admin-project", roles=roles, **changes)


def a_room(host_id: str = "h1", **changes: Any) -> Room:
    values: dict[str, Any] = {
        "host_id": host_id,
        "hostname": f"name-{host_id}",
        "zone": "nova",
        "is_up": True,
        "is_disabled": False,
        "disabled_reason": "",
        "arch": "x86_64",
        "total": Amounts(vcpus=8, memory_mib=16 * 1024, disk_gib=100),
        "used": Amounts(vcpus=0, memory_mib=0, disk_gib=0),
        "servers": 0,
    }
    return Room(**{**values, **changes})


def a_wish(server_id: str = "s1", *, vcpus: int = 1, memory_mib: int = 128, disk_gib: int = 1, **more: Any) -> Wanted:
    amounts = Amounts(vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib)
    return Wanted(server_id=server_id, project_id="p1", user_id="u1", amounts=amounts, **more)


def insert_host(tx: Tx, host_id: str, **changes: Any) -> None:
    values: dict[str, Any] = {
        "id": host_id,
        "hostname": f"name-{host_id}",
        "underlay_address": "198.18.0.1",
        "state": "enrolled",
        "up": True,
        "vcpus": 8,
        "memory_mib": 16 * 1024,
        "disk_gib": 100,
        "virt_type": "qemu",
        "hypervisor_version": 9000000,
        "cpu_model": "qemu64",
        "cpu_arch": "x86_64",
        "physical_networks": [],
        "capabilities": [],
        "created_at": 1000.0,
        "updated_at": 1000.0,
    }
    tx.execute(sa.insert(host).values(**{**values, **changes}))


def a_server(server_id: str = "11111111-1111-4111-8111-111111111111", **changes: Any) -> Server:
    values: dict[str, Any] = {
        "id": server_id,
        "project_id": "p1",
        "user_id": "u1",
        "name": "web",
        "hostname": "web",
        "description": None,
        "vm_state": VmState.BUILDING.value,
        "task_state": TaskState.SCHEDULING.value,
        "power_state": 0,
        "desired": "running",
        "generation": 1,
        "pushed_generation": 0,
        "is_deleting": False,
        "locked_by": None,
        "locked_reason": None,
        "host_id": None,
        "host_name": None,
        "availability_zone": None,
        "requested_zone": None,
        "requested_host": None,
        "is_forced_host": False,
        "image_id": "22222222-2222-4222-8222-222222222222",
        "flavor_id": "42",
        "flavor_name": "m1.nano",
        "vcpus": 1,
        "memory_mib": 128,
        "disk_gib": 1,
        "ephemeral_gib": 0,
        "swap_mib": 0,
        "extra_specs": {},
        "root_gib": 1,
        "arch": None,
        "hardware": {},
        "key_name": None,
        "key_type": None,
        "public_key": None,
        "meta": {},
        "config_drive": False,
        "has_user_data": False,
        "is_auto_disk": False,
        "access_ip_v4": None,
        "access_ip_v6": None,
        "hints": {},
        "reservation_id": "r-12345678",
        "launch_index": 0,
        "progress": 0,
        "created_at": 1000.0,
        "updated_at": 1000.0,
        "launched_at": None,
        "terminated_at": None,
        "deleted_at": None,
        "fault_code": None,
        "fault_message": None,
        "fault_details": None,
        "fault_at": None,
        "rescue_image_id": None,
        "is_rescued": False,
        "shelved_image_id": None,
        "shelved_at": None,
        "is_disk_whole": False,
    }
    return Server(**{**values, **changes})


IMAGE_ID = "22222222-2222-4222-8222-222222222222"
NETWORK_ID = "33333333-3333-4333-8333-333333333333"
SUBNET_ID = "44444444-4444-4444-8444-444444444444"
USER_PORT_ID = "55555555-5555-4555-8555-555555555555"


def insert_image(tx: Tx, **changes: Any) -> None:
    values: dict[str, Any] = {
        "id": IMAGE_ID,
        "owner": "p1",
        "name": "tiny",
        "visibility": "public",
        "status": "active",
        "disk_format": "qcow2",
        "container_format": "bare",
        "size": 1 << 20,
        "virtual_size": 100 << 20,
        "sha256": "ab" * 32,
        "created_at": 900.0,
        "updated_at": 900.0,
    }
    image_store.insert(tx, Image(**{**values, **changes}))


def insert_flavor(tx: Tx, **changes: Any) -> None:
    values: dict[str, Any] = {
        "id": "42",
        "name": "m1.nano",
        "vcpus": 1,
        "memory_mib": 128,
        "disk_gib": 1,
        "ephemeral_gib": 0,
        "swap_mib": 0,
        "rxtx_factor": 1.0,
        "is_public": True,
        "is_disabled": False,
        "description": None,
        "extra_specs": {},
        "created_at": 900.0,
        "updated_at": None,
    }
    flavor_store.insert_flavor(tx, Flavor(**{**values, **changes}))


_STANDARD: dict[str, Any] = {
    "project_id": "p1",
    "description": "",
    "revision": 0,
    "created_at": 900.0,
    "updated_at": 900.0,
}


def insert_network(tx: Tx, network_id: str = NETWORK_ID, subnet_id: str = SUBNET_ID, **changes: Any) -> None:
    values: dict[str, Any] = {
        **_STANDARD,
        "id": network_id,
        "name": "demo-net",
        "admin_state_up": True,
        "shared": False,
        "external": False,
        "is_default": False,
        "port_security_enabled": True,
        "mtu": 1450,
        "network_type": "vxlan",
        "physical_network": None,
        "segment": int(network_id[:4], 16),
        "generation": 1,
    }
    tx.execute(sa.insert(tables.network).values(**{**values, **changes}))
    part: dict[str, Any] = {
        **_STANDARD,
        "id": subnet_id,
        "name": "demo-subnet",
        "network_id": network_id,
        "ip_version": 4,
        "cidr": "10.0.0.0/24",
        "gateway_ip": "10.0.0.1",
        "enable_dhcp": True,
        "allocation_pools": [{"start": "10.0.0.2", "end": "10.0.0.254"}],
        "dns_nameservers": [],
        "host_routes": [],
    }
    tx.execute(sa.insert(tables.subnet).values(**part))


def insert_user_port(tx: Tx, port_id: str = USER_PORT_ID, project_id: str = "p1") -> None:
    new = Port(
        id=port_id,
        project_id=project_id,
        network_id=NETWORK_ID,
        mac_address="fa:16:3e:00:00:01",
        created_at=900.0,
        updated_at=900.0,
    )
    addressing.create(tx, new, fixed_ip_wanted=None, group_ids=None, now=900.0)


def insert_group(tx: Tx, name: str, project_id: str) -> None:
    groups.insert(tx, Group(id=name, project_id=project_id, name=name, created_at=900.0, updated_at=900.0))


def furnish_cloud(tx: Tx, *host_ids: str) -> None:
    """What a first server needs: hosts, a flavor, an image, a network."""
    for host_id in host_ids or ("h1",):
        insert_host(tx, host_id)
    insert_flavor(tx)
    insert_image(tx)
    insert_network(tx)
