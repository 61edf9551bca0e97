"""What is measured: one run against one cloud.

Closed loop: each of C workers sends its next request when the answer to the last is complete. CPU a request is the CPU
time of all control-plane processes over the round, divided by its requests: it hardly depends on what else the machine
does. Medians of three rounds.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from controller.cli import processes
from controller.cli.api import Client
from controller.cli.trial import Trial
from tests.bench import growth, plane
from tests.bench.http import Connection

PREFIX: Final = "bench-"
BURST: Final = 100
WAIT_S: Final = 120.0
"""For all servers of a burst to be there, or gone."""


class NotMeasured(Exception):
    """The run cannot go on; says why."""


class Bench:
    """One run."""

    def __init__(self, trial: Trial, seconds: float) -> None:
        self.trial = trial
        self.seconds = seconds
        self.found: dict[str, float] = {}
        self.pids = {name: pid for name, pid in processes.states(trial).items() if pid is not None}
        controller = self.pids["controller"]
        (inspector,) = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
        self.pids["inspector"] = int(inspector)
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
        await self.grow()
        await self.idle()
        self.token = await self.http.token(self.login)
        await self.prepare()
        subject = (("X-Subject-Token", self.token),)
        await self.loop("token_validate", "GET", "/identity/v3/auth/tokens", headers=subject)
        await self.loop("token_password", "POST", "/identity/v3/auth/tokens", body=self.login, workers=(1,))
        await self.beside_logins("/compute/v2.1/flavors/detail")
        await self.loop("flavors", "GET", "/compute/v2.1/flavors/detail")
        await self.loop("images", "GET", "/image/v2/images")
        await self.singles(10)
        one = (await self.mine())[0]
        await self.loop("server", "GET", f"/compute/v2.1/servers/{one}")
        await self.loop("servers_10", "GET", "/compute/v2.1/servers/detail")
        await self.wipe(measured=False)
        await self.burst("burst", "create_cpu")
        await self.burst("burst_2", None)
        self.found["burst_growth"] = self.found["burst_2_active"] / self.found["burst_active"]
        self.found["loaded_memory"] = plane.memory_mib(self.pids)
        await self.loop("servers_200", "GET", "/compute/v2.1/servers/detail")
        await self.wipe(measured=True)
        return self.found

    async def idle(self) -> None:
        """Memory and CPU of a cloud that nobody uses."""
        await asyncio.sleep(5.0)
        before, began = plane.cpu_s(self.pids), time.monotonic()
        await asyncio.sleep(max(20.0, self.seconds * 3))
        self.found["idle_cpu"] = 100 * (plane.cpu_s(self.pids) - before) / (time.monotonic() - began)
        self.found["idle_memory"] = plane.memory_mib(self.pids)
        each = {name: plane.memory_mib({name: pid}) for name, pid in self.pids.items()}
        _say("idle", {key: self.found[key] for key in ("idle_cpu", "idle_memory")} | each)

    async def prepare(self) -> None:
        """A network, an image and quota for the servers."""
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
        if status != 204:
            raise NotMeasured(f"an image could not be uploaded: {status} {data[:300]!r}")
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
                if not 200 <= status < 300:
                    raise NotMeasured(f"{method} {path}: {status} {data[:300]!r}")
                times.append(time.perf_counter() - began)
            connection.close()

        before, began = plane.cpu_s(self.pids), time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(count)))
        took = time.perf_counter() - began
        cpu = plane.cpu_s(self.pids) - before
        return 1000 * statistics.median(times), len(times) / took, 1000 * cpu / len(times)

    async def beside_logins(self, path: str) -> None:
        """What others feel of password logins: their p99, with and without two clients who log in all the time."""
        alone, beside = [], []
        for _ in range(3):
            alone.append(await self._p99(path))
            logins = [asyncio.create_task(self._log_in_for_ever()) for _ in range(2)]
            beside.append(await self._p99(path))
            for login in logins:
                login.cancel()
            await asyncio.gather(*logins, return_exceptions=True)
        self.found["login_p99"] = statistics.median(beside) / statistics.median(alone)
        _say(
            "logins", {"p99_alone_ms": 1000 * statistics.median(alone), "p99_beside": 1000 * statistics.median(beside)}
        )

    async def _log_in_for_ever(self) -> None:
        connection = Connection(self.trial.api_url)
        while True:
            await connection.token(self.login)

    async def _p99(self, path: str) -> float:
        """Of requests that come one after the other, a hundred a second: a client that is not at its limit."""
        times = []
        for _ in range(int(100 * self.seconds)):
            began = time.perf_counter()
            await self.http.json("GET", path, self.token)
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.01)
        return sorted(times)[int(len(times) * 0.99)]

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
        if server["status"] == "ERROR":
            raise NotMeasured(f"server {server['name']} failed: {server.get('fault')}")
        return str(server["status"])

    async def post(self, connection: Connection, name: str) -> str:
        """Ask for a server; its id."""
        body = self.server_body.replace(b"NAME", (PREFIX + name).encode())
        version = (("OpenStack-API-Version", "compute 2.79"),)
        status, _, data = await connection.request("POST", "/compute/v2.1/servers", self.token, body, version)
        if status != 202:
            raise NotMeasured(f"POST server: {status} {data[:300]!r}")
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

    async def burst(self, key: str, cpu_key: str | None, count: int = BURST) -> None:
        """Ask for many servers at once; wait until all are ACTIVE."""
        have = len(await self.mine("ACTIVE"))
        cpu, began = plane.cpu_s(self.pids), time.perf_counter()
        names = [f"{key}-{index}" for index in range(count)]
        await self._spread(names, self.post)
        accepted = time.perf_counter() - began
        while len(await self.mine("ACTIVE")) < have + count:
            for failed in await self.mine("ERROR"):
                await self.status(failed)
            if time.perf_counter() - began > WAIT_S:
                raise NotMeasured(f"{len(await self.mine('BUILD'))} servers are not ACTIVE after {WAIT_S:.0f} s")
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
            if status != 204:
                raise NotMeasured(f"DELETE server: {status} {data[:300]!r}")
            return server_id

        await self._spread(ids, delete)
        while left := await self.mine():
            if time.perf_counter() - began > WAIT_S:
                raise NotMeasured(f"{len(left)} servers are not gone after {WAIT_S:.0f} s")
            await asyncio.sleep(0.1)
        if measured:
            self.found["delete_gone"] = time.perf_counter() - began
            self.found["delete_cpu"] = 1000 * (plane.cpu_s(self.pids) - cpu) / len(ids)

    async def grow(self) -> None:
        """Whether requests cost more where more exists; in this process, see `growth`."""
        found = await growth.ratios(1.2)
        _say("growth", found)
        self.found["growth_server"] = max(ratio for name, ratio in found.items() if name.startswith("a "))
        self.found["growth_page"] = max(ratio for name, ratio in found.items() if not name.startswith("a "))

    def client(self, argv: list[str], env: dict[str, str]) -> None:
        """`openstack server list`, in terms of what the client takes to print its help."""
        took = {}
        for name, options in (("list", []), ("help", ["--help"])):
            times = []
            for _ in range(5):
                began = time.perf_counter()
                subprocess.run([*argv, "server", "list", *options], env=env, check=True, stdout=subprocess.DEVNULL)
                times.append(time.perf_counter() - began)
            took[name] = min(times)
        self.found["client_list"] = 1000 * (took["list"] - took["help"])
        _say("client", took)

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
