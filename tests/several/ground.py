"""What tests with several controllers put into a cloud, and the races that are run on every kind of database."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from controller.cli.api import ApiError, Client
from tests.bus_server import free_port
from tests.several.site import FOREVER_S, PATIENCE_S, Site, until

__all__ = ["free_port"]

CALLERS = 50

RESERVED_MIB = 512
"""Of each host, for itself: the scheduler's default."""


def plain() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("HOSTLER_", "OS_"))}


def image(admin: Client) -> str:
    """A public image of a MiB; the same one for everybody."""
    for one in admin.get("/image/v2/images")["images"]:
        if one["name"] == "tiny" and one["status"] == "active":
            return str(one["id"])
    body = {"name": "tiny", "disk_format": "raw", "container_format": "bare", "visibility": "public"}
    made: str = admin.post("/image/v2/images", body)["id"]
    headers = {"Content-Type": "application/octet-stream"}
    admin._send("PUT", f"/image/v2/images/{made}/file", os.urandom(4096) + bytes((1 << 20) - 4096), headers)
    return made


def network(demo: Client, name: str, cidr: str = "10.77.0.0/16", **subnet: Any) -> str:
    made: str = demo.post("/network/v2.0/networks", {"network": {"name": name}})["network"]["id"]
    body = {"network_id": made, "ip_version": 4, "cidr": cidr, "gateway_ip": None, "enable_dhcp": False, **subnet}
    demo.post("/network/v2.0/subnets", {"subnet": body})
    return made


def server(demo: Client, name: str, image_id: str, network_id: str, flavor: str = "42") -> str:
    body = {"name": name, "imageRef": image_id, "flavorRef": flavor, "networks": [{"uuid": network_id}]}
    return str(demo.post("/compute/v2.1/servers", {"server": body}, version="compute 2.79")["server"]["id"])


def settled(demo: Client, server_id: str, wanted: str, timeout_s: float = PATIENCE_S) -> None:
    def probe() -> bool:
        found = demo.get(f"/compute/v2.1/servers/{server_id}")["server"]
        assert wanted == "ERROR" or found["status"] != "ERROR", found.get("fault")
        return bool(found["status"] == wanted and found["OS-EXT-STS:task_state"] is None)

    until(f"server {server_id} {wanted}", probe, timeout_s)


def is_gone(demo: Client, server_id: str) -> bool:
    try:
        demo.get(f"/compute/v2.1/servers/{server_id}")
    except ApiError as error:
        return error.status == 404
    return False


def dump(url: str) -> str:
    """Every text of every table of a PostgreSQL database."""

    async def read() -> str:
        import asyncpg

        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            found = [str(row) for (name,) in names for row in await connection.fetch(f'SELECT * FROM "{name}"')]
            return "\n".join(found)
        finally:
            await connection.close()

    return asyncio.run(read())


def race(clients: list[Client], attempt: Callable[[Client, int], Any]) -> list[Any]:
    """CALLERS attempts at once, over all controllers in turn: what each returned, or the status it was refused with."""

    def one(number: int) -> Any:
        try:
            return attempt(clients[number % len(clients)], number)
        except ApiError as error:
            return error.status

    for client in clients:
        client.login()
    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(one, range(CALLERS)))


def races(made: Site) -> None:
    """Quotas, claims, addresses and attachments are exact, however many ask at once and whomever."""
    numbers = range(len(made.controllers))
    admins, demos = [made.admin(n) for n in numbers], [made.demo(n) for n in numbers]
    for client in demos:
        client.login()
    image_id, project = image(admins[0]), demos[0].project_id
    addresses(demos)
    quotas(admins[0], demos, project, image_id)
    attachments(demos, image_id)
    claims(admins[0], demos, project, image_id)


def addresses(demos: list[Client]) -> None:
    """A pool of ten addresses gives ten."""
    pool = [{"start": "10.78.0.10", "end": "10.78.0.19"}]
    narrow = network(demos[0], "narrow", "10.78.0.0/24", allocation_pools=pool)

    def attempt(client: Client, number: int) -> Any:
        port = client.post("/network/v2.0/ports", {"port": {"network_id": narrow, "name": f"p{number}"}})["port"]
        return port["fixed_ips"][0]["ip_address"]

    outcomes = race(demos, attempt)
    given = [one for one in outcomes if isinstance(one, str)]
    assert sorted(given) == [f"10.78.0.{last}" for last in range(10, 20)], Counter(map(str, outcomes))
    assert Counter(one for one in outcomes if not isinstance(one, str)) == {409: CALLERS - 10}
    for port in demos[0].get(f"/network/v2.0/ports?network_id={narrow}")["ports"]:
        demos[0].delete(f"/network/v2.0/ports/{port['id']}")
    demos[0].delete(f"/network/v2.0/networks/{narrow}")


def quotas(admin: Client, demos: list[Client], project: str, image_id: str) -> None:
    """Room for five servers is given to five."""
    wide = network(demos[0], "wide")
    used = demos[0].get("/compute/v2.1/limits")["limits"]["absolute"]["totalInstancesUsed"]
    admin.put(f"/compute/v2.1/os-quota-sets/{project}", {"quota_set": {"instances": used + 5}})
    outcomes = race(demos, lambda client, number: server(client, f"q{number}", image_id, wide))
    made = [one for one in outcomes if isinstance(one, str)]
    assert len(made) == 5, Counter(map(str, outcomes))
    assert Counter(one for one in outcomes if not isinstance(one, str)) == {403: CALLERS - 5}
    for one in made:
        settled(demos[0], one, "ACTIVE")
    remove(demos[0], made)
    assert demos[0].get("/compute/v2.1/limits")["limits"]["absolute"]["totalInstancesUsed"] == used


def attachments(demos: list[Client], image_id: str) -> None:
    """A volume that is for one server goes to one, whichever of two asks through whomever."""
    wide = network(demos[0], "attached")
    servers = [server(demos[0], f"a{number}", image_id, wide) for number in range(2)]
    for one in servers:
        settled(demos[0], one, "ACTIVE")
    volumes = "/volume/v3/volumes"
    volume = demos[0].post(volumes, {"volume": {"size": 1, "name": "wanted"}})["volume"]["id"]

    def status() -> str:
        return str(demos[0].get(f"{volumes}/{volume}")["volume"]["status"])

    until("the volume is there", lambda: status() == "available", FOREVER_S)
    body = {"volumeAttachment": {"volumeId": volume}}

    def attempt(client: Client, number: int) -> Any:
        path = f"/compute/v2.1/servers/{servers[number // 2 % 2]}/os-volume_attachments"
        return client.post(path, body)["volumeAttachment"]["serverId"]

    outcomes = race(demos, attempt)
    (owner,) = [one for one in outcomes if isinstance(one, str)]
    assert set(outcomes) - {owner} <= {400, 409}, Counter(map(str, outcomes))
    until("it is attached", lambda: status() == "in-use", FOREVER_S)
    (row,) = demos[0].get(f"{volumes}/{volume}")["volume"]["attachments"]
    assert row["server_id"] == owner
    demos[0].delete(f"/compute/v2.1/servers/{owner}/os-volume_attachments/{volume}")
    until("it is free again", lambda: status() == "available", FOREVER_S)
    demos[0].delete(f"{volumes}/{volume}")
    remove(demos[0], servers)


def claims(admin: Client, demos: list[Client], project: str, image_id: str) -> None:
    """Hosts that have room for so many are given so many, and the others are told that there is none."""
    wide = network(demos[0], "claimed")
    unlimited = {"instances": -1, "cores": -1, "ram": -1}
    admin.put(f"/compute/v2.1/os-quota-sets/{project}", {"quota_set": unlimited})
    hosts = admin.get("/compute/v2.1/os-hypervisors/detail")["hypervisors"]
    memory_mib = min(one["memory_mb"] for one in hosts) // 4
    body = {"name": f"huge{time.time_ns()}", "vcpus": 1, "ram": memory_mib, "disk": 1}
    flavor = admin.post("/compute/v2.1/flavors", {"flavor": body})["flavor"]["id"]
    outcomes = race(demos, lambda client, number: server(client, f"c{number}", image_id, wide, flavor))
    assert all(isinstance(one, str) for one in outcomes), Counter(map(str, outcomes))

    def all_settled() -> dict[str, str] | None:
        listed = demos[0].get("/compute/v2.1/servers/detail?name=^c")["servers"]
        found = {one["id"]: one["status"] for one in listed if one["id"] in outcomes}
        return found if set(found.values()) <= {"ACTIVE", "ERROR"} else None

    statuses = until("every server rests", all_settled, FOREVER_S)
    running = [one for one, status in statuses.items() if status == "ACTIVE"]
    held = admin.get("/compute/v2.1/os-hypervisors/detail")["hypervisors"]
    room = sum((one["memory_mb"] - RESERVED_MIB) // memory_mib for one in hosts)
    assert len(running) == room, (len(running), room, Counter(statuses.values()))
    assert sum(one["memory_mb_used"] for one in held) >= len(running) * memory_mib
    remove(demos[0], list(statuses))
    admin.delete(f"/compute/v2.1/flavors/{flavor}")


def remove(demo: Client, servers: list[str]) -> None:
    for one in servers:
        demo.delete(f"/compute/v2.1/servers/{one}")
    for one in servers:
        until("it is gone", lambda one=one: is_gone(demo, one), FOREVER_S)  # type: ignore[misc]
