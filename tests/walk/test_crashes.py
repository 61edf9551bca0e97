"""kill -9 in the middle of what somebody asked for: it comes to its end all the same, and nothing of it is left.

One server with a real guest for each kind of process. A volume comes to it, it goes to the other host, it comes back as
another size, and it is deleted; in the middle of each the process is killed, on both hosts, and whoever watches over it
starts it again.
"""

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.walk.cloud import PATIENCE_S, Cloud, eventually
from tests.walk.leftovers import leftovers
from tests.walk.login import Login
from tests.walk.test_sizes import flavor
from tests.walk.test_two_hosts import COMPUTE, host_of, shown

VOLUME = "/volume/v3"
GUEST_S = 180
END_S = 3 * PATIENCE_S
"""A saga of a controller that was killed waits for nobody, but a guest that boots hears its power button late."""


@dataclass(frozen=True)
class Blow:
    """What is killed."""

    cloud: Cloud
    process: str

    def falls(self, server_id: str, kind: str, after_s: float) -> None:
        """So long after the first step of the server's newest saga of that kind was done."""
        eventually(f"{kind} has begun", lambda: _steps_done(self.cloud, server_id, kind) >= 1, every_s=0.01)
        time.sleep(after_s)
        before = self._pids()
        for pid in before:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        print(f"{self.process} killed in {kind}, behind {_newest_step(self.cloud, server_id, kind)}")
        eventually(f"{self.process} is back", lambda: not set(self._pids()) & set(before))

    def _pids(self) -> list[int]:
        trial = self.cloud.trial
        if self.process == "controller":
            return [self.cloud.pid("controller")]
        if self.process == "agent":
            return [self.cloud.pid(f"agent-{host}") for host in trial.hosts]
        folders = [trial.agent_folder(host) for host in trial.hosts]
        return [int((folder / "libvirt" / "run" / "libvirtd.pid").read_text()) for folder in folders]


def _steps_done(cloud: Cloud, server_id: str, kind: str) -> int:
    """Of the newest saga of that kind; all of them, when it has ended before anybody looked."""
    return len(_events(cloud, server_id, kind))


def _newest_step(cloud: Cloud, server_id: str, kind: str) -> str:
    return (_events(cloud, server_id, kind) or ["nothing"])[-1]


def _events(cloud: Cloud, server_id: str, kind: str) -> list[str]:
    path = cloud.trial.controller_folder / "controller.db"
    newest = "SELECT id FROM saga WHERE target = ? AND kind = ? ORDER BY created_at DESC LIMIT 1"
    told = f"SELECT step FROM saga_event WHERE saga_id = ({newest}) AND event IN ('started', 'done') ORDER BY seq"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return [step for (step,) in database.execute(told, (server_id, kind))]


def _surely(request: Callable[[], Any]) -> Any:
    """Until somebody has answered."""
    return eventually("it is accepted", lambda: (request(), True)[1])


def _rests(cloud: Cloud, server_id: str, status: str) -> dict[str, Any]:
    def probe() -> dict[str, Any] | None:
        found = shown(cloud, server_id)
        if found["status"] == "ERROR":
            pytest.fail(f"{found.get('fault')}")
        return found if found["OS-EXT-STS:task_state"] is None and found["status"] == status else None

    return eventually(f"{server_id} {status}", probe, END_S)


@pytest.mark.parametrize("process", ("controller", "agent", "libvirtd"))
def test_what_was_begun_ends_whoever_was_killed(pair: Cloud, process: str) -> None:
    blow = Blow(pair, process)
    first = Login(pair.floating_address(pair.server_id("first")), pair.trial.folder / "id_ed25519")
    first.wait(GUEST_S)
    with leftovers(pair):
        began = time.monotonic()
        server_id, login = _a_server(pair, first)
        volume_id = _a_volume(pair)
        _attached_while_it_dies(pair, blow, server_id, volume_id)
        login.wait(GUEST_S)
        login.run("echo kept > kept; sync")
        assert "vdb" in login.run("cat /proc/partitions")
        _migrated_while_it_dies(pair, blow, server_id)
        _resized_while_it_dies(pair, blow, server_id)
        login.wait(GUEST_S)
        assert login.run("cat kept") == "kept\n"
        assert "vdb" in login.run("cat /proc/partitions")
        _deleted_while_it_dies(pair, blow, server_id, volume_id)
        print(f"all of it: {time.monotonic() - began:.0f} s")


def _a_server(pair: Cloud, first: Login) -> tuple[str, Login]:
    demo = pair.demo()
    network = demo.get("/network/v2.0/networks?name=demo")["networks"][0]["id"]
    image = demo.get("/image/v2/images?name=hostler-tiny")["images"][0]["id"]
    wish = {"name": "hit", "imageRef": image, "flavorRef": "42", "key_name": "hostler", "networks": [{"uuid": network}]}
    server_id = str(demo.post(f"{COMPUTE}/servers", {"server": wish})["server"]["id"])
    found = _rests(pair, server_id, "ACTIVE")
    (fixed,) = [one["addr"] for ports in found["addresses"].values() for one in ports]
    return server_id, Login(fixed, first.key, over=first)


def _a_volume(pair: Cloud) -> str:
    volume_id = str(pair.demo().post(f"{VOLUME}/volumes", {"volume": {"size": 1, "name": "hit"}})["volume"]["id"])
    _is(pair, volume_id, "available")
    return volume_id


def _is(pair: Cloud, volume_id: str, status: str) -> None:
    path = f"{VOLUME}/volumes/{volume_id}"
    eventually(f"the volume is {status}", lambda: pair.admin().get(path)["volume"]["status"] == status, END_S)


def _attached_while_it_dies(pair: Cloud, blow: Blow, server_id: str, volume_id: str) -> None:
    wish = {"volumeAttachment": {"volumeId": volume_id}}
    pair.demo().post(f"{COMPUTE}/servers/{server_id}/os-volume_attachments", wish)
    blow.falls(server_id, "volume-attach", 0.0)
    _is(pair, volume_id, "in-use")


def _migrated_while_it_dies(pair: Cloud, blow: Blow, server_id: str) -> None:
    before = host_of(pair, server_id)
    pair.admin().post(f"{COMPUTE}/servers/{server_id}/action", {"migrate": None})
    _moved_or_grown(pair, blow, server_id)
    assert host_of(pair, server_id) != before


def _resized_while_it_dies(pair: Cloud, blow: Blow, server_id: str) -> None:
    wish = {"resize": {"flavorRef": flavor(pair, "m1.tiny")}}
    pair.demo().post(f"{COMPUTE}/servers/{server_id}/action", wish)
    _moved_or_grown(pair, blow, server_id)


def _moved_or_grown(pair: Cloud, blow: Blow, server_id: str) -> None:
    blow.falls(server_id, "server-resize", 1.0)
    _rests(pair, server_id, "VERIFY_RESIZE")
    _surely(lambda: pair.demo().post(f"{COMPUTE}/servers/{server_id}/action", {"confirmResize": None}))
    _rests(pair, server_id, "ACTIVE")
    _is_just_on(pair, server_id)


def _is_just_on(pair: Cloud, server_id: str) -> None:
    """Its domain is on the host of its row, and soon on no other."""
    name, here = f"instance-{server_id[:8]}", host_of(pair, server_id)

    def probe() -> bool:
        on = [host for host in pair.trial.hosts if name in pair.inside("virsh", "-q", "list", "--all", host=host)]
        return on == [here]

    eventually(f"{name} is on {here} alone", probe)


def _deleted_while_it_dies(pair: Cloud, blow: Blow, server_id: str, volume_id: str) -> None:
    pair.demo().delete(f"{COMPUTE}/servers/{server_id}")
    blow.falls(server_id, "server-delete", 0.0)

    def is_gone() -> bool:
        return server_id not in str(pair.admin().get(f"{COMPUTE}/servers?all_tenants=1"))

    eventually("it is gone", is_gone, END_S)
    _is(pair, volume_id, "available")
    _surely(lambda: pair.demo().delete(f"{VOLUME}/volumes/{volume_id}"))
    eventually("the volume is gone", lambda: volume_id not in str(pair.demo().get(f"{VOLUME}/volumes")), END_S)
