"""`make bench`: a cloud with fake drivers (5 ms a call) and everything else real, measured as its users meet it.

    python -m tests.bench [--seconds S] [--quick]

Closed loop: each of C workers sends its next request when the answer to the last is complete. CPU a request is the CPU
time of all control-plane processes over the round, divided by its requests: it hardly depends on what else the machine
does. Medians of three rounds. The cloud is made for the run and removed after it.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from controller.cli import clean, processes
from controller.cli.api import Client
from controller.cli.trial import Trial
from controller.cli.up import up
from tests.bench import plane
from tests.bench.figures import ROWS
from tests.bench.http import Connection

CLOUD = "bench"
PLACE = {
    "underlay": "198.18.253.0/24",
    "external": "198.19.253.0/24",
    "api_port": 5253,
    "metrics_port": 9753,
    "drivers": "fake",
}
PREFIX = "bench-"


class Bench:
    """One run."""

    def __init__(self, trial: Trial, seconds: float) -> None:
        self.trial = trial
        self.seconds = seconds
        self.found: dict[str, float] = {}
        self.pids = {name: pid for name, pid in processes.states(trial).items() if pid is not None}
        self.http = Connection(trial.api_url)
        identity = {
            "methods": ["password"],
            "password": {"user": {"name": "demo", "domain": {"id": "default"}, "password": trial.password("demo")}},
        }
        scope = {"project": {"name": "demo", "domain": {"id": "default"}}}
        self.login = json.dumps({"auth": {"identity": identity, "scope": scope}}).encode()
        self.token = ""
        self.server_body = b""

    async def run(self) -> dict[str, float]:
        """All measures."""
        self.found["idle_pss"] = sum(plane.pss_mib(self.pids).values())
        await self.idle()
        self.token = await self.http.token(self.login)
        await self.prepare()
        subject = (("X-Subject-Token", self.token),)
        await self.loop("token_validate", "GET", "/identity/v3/auth/tokens", headers=subject)
        await self.loop("token_password", "POST", "/identity/v3/auth/tokens", body=self.login, workers=(1,))
        await self.loop("flavors", "GET", "/compute/v2.1/flavors/detail")
        await self.loop("images", "GET", "/image/v2/images")
        await self.singles(10)
        one = (await self.mine())[0]
        await self.loop("server", "GET", f"/compute/v2.1/servers/{one}")
        await self.loop("servers_10", "GET", "/compute/v2.1/servers/detail")
        await self.wipe(measured=False)
        await self.burst("burst", "create_cpu")
        await self.burst("burst_2", None)
        self.found["loaded_pss"] = sum(plane.pss_mib(self.pids).values())
        await self.loop("servers_200", "GET", "/compute/v2.1/servers/detail")
        await self.wipe(measured=True)
        return self.found

    async def idle(self) -> None:
        """CPU of a cloud that nobody uses."""
        before, began = plane.cpu_s(self.pids), time.monotonic()
        await asyncio.sleep(max(10.0, self.seconds * 3))
        self.found["idle_cpu"] = 100 * (plane.cpu_s(self.pids) - before) / (time.monotonic() - began)

    async def prepare(self) -> None:
        """A network, an image and room for the servers."""
        ask = self.http.json
        admin = Client(self.trial.api_url, "admin", self.trial.password("admin"), "admin")
        demo = next(one for one in admin.get("/identity/v3/projects")["projects"] if one["name"] == "demo")
        admin.put(f"/compute/v2.1/os-quota-sets/{demo['id']}", {"quota_set": {"instances": -1, "cores": -1, "ram": -1}})
        network = (await ask("POST", "/network/v2.0/networks", self.token, {"network": {"name": "bench"}}))["network"]
        subnet = {"network_id": network["id"], "ip_version": 4, "cidr": "10.9.0.0/16"}
        await ask("POST", "/network/v2.0/subnets", self.token, {"subnet": subnet})
        new = {"name": "bench", "disk_format": "raw", "container_format": "bare"}
        image = await ask("POST", "/image/v2/images", self.token, new)
        status, _, data = await self.http.request(
            "PUT", f"/image/v2/images/{image['id']}/file", self.token, os.urandom(1 << 16)
        )
        assert status == 204, data
        server = {"flavorRef": "42", "imageRef": image["id"], "networks": [{"uuid": network["id"]}]}
        self.server_body = json.dumps({"server": {**server, "name": "NAME"}}).encode()

    async def loop(
        self, key: str, method: str, path: str, body: bytes = b"", headers: Any = (), workers: tuple[int, ...] = (1, 16)
    ) -> None:
        """Rounds with one worker (for the latency) and with sixteen (for the rate and the CPU)."""
        for count in workers:
            rounds = [await self._round(count, method, path, body, headers) for _ in range(3)]
            if count == 1:
                self.found[f"{key}_p50"] = statistics.median(p50 for p50, _, _ in rounds)
            self.found[f"{key}_rate"] = statistics.median(rate for _, rate, _ in rounds)
            self.found[f"{key}_cpu"] = statistics.median(cpu for _, _, cpu in rounds)
        _say(key, {name: self.found[name] for name in self.found if name.startswith(key + "_")})

    async def _round(self, count: int, method: str, path: str, body: bytes, headers: Any) -> tuple[float, float, float]:
        """(p50 ms, requests a second, CPU ms a request)."""
        times: list[float] = []
        ends = time.perf_counter() + self.seconds

        async def worker() -> None:
            connection = Connection(self.trial.api_url)
            token = self.token if body != self.login else ""
            while (began := time.perf_counter()) < ends:
                status, _, data = await connection.request(method, path, token, body, headers)
                assert 200 <= status < 300, (status, data[:200])
                times.append(time.perf_counter() - began)
            connection.close()

        before, began = plane.cpu_s(self.pids), time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(count)))
        took = time.perf_counter() - began
        cpu = plane.cpu_s(self.pids) - before
        return 1000 * statistics.median(times), len(times) / took, 1000 * cpu / len(times)

    async def singles(self, count: int) -> None:
        """One server after the other."""
        accepted, active = [], []
        for index in range(count):
            began = time.perf_counter()
            server_id = await self.post(self.http, f"s{index}")
            accepted.append(time.perf_counter() - began)
            while await self.status(server_id) != "ACTIVE":
                await asyncio.sleep(0.005)
            active.append(time.perf_counter() - began)
        self.found["create_accepted"] = 1000 * statistics.median(accepted)
        self.found["create_active"] = 1000 * statistics.median(active)
        _say("create", {key: self.found[key] for key in ("create_accepted", "create_active")})

    async def status(self, server_id: str) -> str:
        """A server's status. An ERROR ends the run with its cause."""
        server = (await self.http.json("GET", f"/compute/v2.1/servers/{server_id}", self.token))["server"]
        assert server["status"] != "ERROR", server.get("fault")
        return str(server["status"])

    async def post(self, connection: Connection, name: str) -> str:
        """Ask for a server; its id."""
        body = self.server_body.replace(b"NAME", (PREFIX + name).encode())
        version = (("OpenStack-API-Version", "compute 2.79"),)
        status, _, data = await connection.request("POST", "/compute/v2.1/servers", self.token, body, version)
        assert status == 202, (status, data[:300])
        return str(json.loads(data)["server"]["id"])

    async def mine(self, status: str = "") -> list[str]:
        """Ids of the run's servers."""
        path: str | None = "/compute/v2.1/servers" + (f"?status={status}" if status else "")
        ids: list[str] = []
        while path:
            page = await self.http.json("GET", path, self.token)
            ids += [server["id"] for server in page["servers"] if server["name"].startswith(PREFIX)]
            following = [link["href"] for link in page.get("servers_links", ()) if link["rel"] == "next"]
            path = following[0].partition(self.trial.api_url)[2] if following else None
        return ids

    async def burst(self, key: str, cpu_key: str | None, count: int = 100) -> None:
        """Ask for many servers at once; wait until all are ACTIVE."""
        have = len(await self.mine("ACTIVE"))
        cpu, began = plane.cpu_s(self.pids), time.perf_counter()
        names = [f"{key}-{index}" for index in range(count)]
        await self._spread(names, self.post)
        accepted = time.perf_counter() - began
        while len(await self.mine("ACTIVE")) < have + count:
            assert not await self.mine("ERROR"), "a server of the burst failed"
            await asyncio.sleep(0.1)
        self.found[f"{key}_accepted"] = accepted
        self.found[f"{key}_active"] = time.perf_counter() - began
        if cpu_key:
            self.found[cpu_key] = 1000 * (plane.cpu_s(self.pids) - cpu) / count
        _say(key, {name: self.found[name] for name in (f"{key}_accepted", f"{key}_active")})

    async def wipe(self, *, measured: bool) -> None:
        """Delete every server of the run; wait until none is listed."""
        ids = await self.mine()
        cpu, began = plane.cpu_s(self.pids), time.perf_counter()

        async def delete(connection: Connection, server_id: str) -> str:
            status, _, data = await connection.request("DELETE", f"/compute/v2.1/servers/{server_id}", self.token)
            assert status == 204, (status, data[:300])
            return server_id

        await self._spread(ids, delete)
        while await self.mine():
            await asyncio.sleep(0.1)
        if measured:
            self.found["delete_gone"] = time.perf_counter() - began
            self.found["delete_cpu"] = 1000 * (plane.cpu_s(self.pids) - cpu) / len(ids)

    async def _spread(self, items: list[str], do: Callable[[Connection, str], Awaitable[str]]) -> None:
        """Sixteen connections share the work."""
        waiting = list(items)

        async def worker() -> None:
            connection = Connection(self.trial.api_url)
            while waiting:
                await do(connection, waiting.pop())
            connection.close()

        await asyncio.gather(*(worker() for _ in range(min(16, len(items)))))


def _say(key: str, found: dict[str, float]) -> None:
    print(key, " ".join(f"{name}={value:.3f}" for name, value in found.items()), file=sys.stderr, flush=True)


def table(found: dict[str, float]) -> tuple[str, bool]:
    """The table as text, and whether everything that binds is reached."""
    lines = [f"{'measure':46} {'OpenStack':>11} {'goal':>9} {'Hostler':>10}"]
    kept = True
    for row in ROWS:
        if row.key not in found:
            continue
        ours = found[row.key]
        reached = ours >= row.goal if row.is_rate else ours <= row.goal
        kept = kept and (reached or not row.is_binding)
        mark = " " if reached else ("!" if row.is_binding else "-")
        lines.append(f"{row.title:46} {row.openstack:11.4g} {row.goal:9.4g} {ours:10.4g} {row.unit} {mark}")
    return "\n".join(lines), kept


def main() -> None:
    """Make a cloud, measure it, remove it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one round")
    parser.add_argument("-o", "--output", help="also write the figures as JSON")
    options = parser.parse_args()
    clean.clean(CLOUD)
    began = time.monotonic()
    try:
        trial = up(CLOUD, PLACE, furnished=False)
        usable = time.monotonic() - began
        found = asyncio.run(Bench(trial, options.seconds).run())
    finally:
        clean.clean(CLOUD)
    found["usable"] = usable
    text, kept = table(found)
    print(text)
    if options.output:
        with Path(options.output).open("w") as file:
            json.dump(found, file, indent=1)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
