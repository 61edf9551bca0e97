"""Anything of the cloud may end at any time, in order or not: guests and their connections do not notice."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from controller.cli import processes
from tests.walk.cloud import HOST, PATIENCE_S, Cloud, eventually, running_cloud
from tests.walk.leftovers import difference, leftovers, snapshot, traces
from tests.walk.login import Login

TURNS_DOWN_S = 35
"""What is promised from an agent's end until its host is shown as down."""
SLACK_S = 15
"""For asking, on a machine whose cores are busy."""

PROCESSES = ("nats", "controller", f"agent-{HOST}", f"guard-{HOST}", "libvirtd")

COUNTS_STARTS = re.compile(r"/domain-\d|row of server_action")
"""libvirt numbers domains, and servers remember who started them."""

METADATA = "timeout 5 wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json"


@pytest.fixture
def first(cloud: Cloud) -> Iterator[tuple[str, Login]]:
    """The server that `hostler up` made: its id, and how to log in."""
    server_id = cloud.server_id("first")
    login = Login(cloud.floating_address(server_id), cloud.trial.folder / "id_ed25519")
    login.wait()
    yield server_id, login


def pid_of(cloud: Cloud, process: str) -> int:
    if process == "libvirtd":
        return int((cloud.libvirt("run") / "libvirtd.pid").read_text())
    return cloud.pid(process)


def runs_anew(cloud: Cloud, process: str, before: int) -> None:
    """Another process of that name runs."""

    def probe() -> bool:
        pid = pid_of(cloud, process)
        return pid != before and Path(f"/proc/{pid}").exists()

    eventually(f"{process} runs again", probe)


def answers(cloud: Cloud, server_id: str) -> None:
    """A request that goes through every part: API, database, bus, agent, libvirt's console log."""
    demo = cloud.demo()
    action = {"os-getConsoleOutput": {"length": None}}

    def probe() -> bool:
        said = demo.post(f"/compute/v2.1/servers/{server_id}/action", action)["output"]
        return "hostler-guest" in said

    eventually("a request goes through every part", probe)


ROOT: Final = frozenset({"hostler-agent", "libvirtd"})
"""Whose work is root's: bridges, filters, disks, domains. And the supervisor, which starts them."""


def processes_of(cloud: Cloud) -> dict[int, tuple[str, set[str]]]:
    """Everything that runs for the cloud: what descends from the supervisor or lives in the host's names; its uids."""
    names = (cloud.space.pins / "uts").stat().st_ino
    parents, found, inside = {}, {}, {cloud.pid("supervisor")}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            lines = (entry / "status").read_text().splitlines()
            status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
            parents[pid] = int(status["PPid"][0])
            found[pid] = (status["Name"][0], set(status["Uid"]))
            if (entry / "ns" / "uts").stat().st_ino == names:
                inside.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in inside} - inside:
        inside |= more
    return {pid: found[pid] for pid in inside}


def test_nobody_but_agent_and_libvirtd_is_root(cloud: Cloud, first: tuple[str, Login]) -> None:
    supervisor = cloud.pid("supervisor")

    def probe() -> bool:
        running = processes_of(cloud)
        names = {name for name, _ in running.values()}
        assert {"nats-server", "hostler-control", "hostler-collect", "hostler-guard", "dnsmasq"} <= names
        assert "qemu-system-x86" in names
        return (
            not [  # What the agent runs for a moment is root too, and soon gone.
                name for pid, (name, uids) in running.items() if "0" in uids and name not in ROOT and pid != supervisor
            ]
        )

    eventually("nobody else is root", probe)
    for name in ("nats", "controller", "collector"):
        status = Path(f"/proc/{cloud.pid(name)}/status").read_text()
        assert "\nNoNewPrivs:\t1\n" in status and "\nCapEff:\t0000000000000000\n" in status
        assert "\nGroups:\t \n" in status


@pytest.mark.parametrize("process", PROCESSES)
def test_no_guest_notices_that_a_process_ends(cloud: Cloud, first: tuple[str, Login], process: str) -> None:
    server_id, login = first
    qemu = cloud.qemu_pid(server_id)
    with leftovers(cloud), login.session() as session:
        for how in (signal.SIGTERM, signal.SIGKILL):
            before = pid_of(cloud, process)
            os.kill(before, how)
            session.goes_on(f"when {process} got {how.name}")
            runs_anew(cloud, process, before)
            answers(cloud, server_id)
            session.goes_on(f"after {process} got {how.name}")
        assert cloud.qemu_pid(server_id) == qemu and Path(f"/proc/{qemu}").exists()
        eventually("metadata are served", lambda: server_id in login.run(METADATA, 30))
        assert server_status(cloud, server_id) == "ACTIVE"


def server_status(cloud: Cloud, server_id: str) -> str:
    return str(cloud.demo().get(f"/compute/v2.1/servers/{server_id}")["server"]["status"])


def test_a_server_is_made_while_everything_restarts(cloud: Cloud, first: tuple[str, Login]) -> None:
    """What was accepted is done, whoever ended meanwhile."""
    demo = cloud.demo()
    server = demo.get(f"/compute/v2.1/servers/{first[0]}")["server"]
    network = next(one for one in demo.get("/network/v2.0/networks")["networks"] if one["name"] == "demo")
    body = {
        "name": "amid",
        "imageRef": server["image"]["id"],
        "flavorRef": "42",
        "networks": [{"uuid": network["id"]}],
    }
    with leftovers(cloud):
        made = demo.post("/compute/v2.1/servers", {"server": body})["server"]["id"]
        for process in ("controller", f"agent-{HOST}", "nats"):
            os.kill(pid_of(cloud, process), signal.SIGKILL)
        try:
            eventually("amid is ACTIVE", lambda: server_status(cloud, made) == "ACTIVE", 2 * PATIENCE_S)
        finally:
            eventually("accepted", lambda: cloud.demo().delete(f"/compute/v2.1/servers/{made}") is None)
        eventually("amid is gone", lambda: _is_gone(cloud, made))


def _is_gone(cloud: Cloud, server_id: str) -> bool:
    servers = cloud.demo().get("/compute/v2.1/servers")["servers"]
    return server_id not in {one["id"] for one in servers}


def test_up_brings_back_what_was_killed_under_running_guests(cloud: Cloud, first: tuple[str, Login]) -> None:
    server_id, login = first
    qemu = cloud.qemu_pid(server_id)
    with leftovers(cloud), login.session() as session:
        kill_everything(cloud)
        session.goes_on("when everything but its guest was killed")
        assert "not running" in cloud.hostler("status", ok=False)
        assert "✗" in cloud.hostler("doctor", ok=False)
        cloud.up()
        answers(cloud, server_id)
        session.goes_on("after up")
        assert cloud.qemu_pid(server_id) == qemu and server_status(cloud, server_id) == "ACTIVE"
        assert "not running" not in eventually("all is well", lambda: cloud.hostler("status"))


def kill_everything(cloud: Cloud) -> None:
    """But guests."""
    for process in ("supervisor", *PROCESSES):  # The supervisor first: it would start the others again.
        os.kill(pid_of(cloud, process), signal.SIGKILL)


def test_what_guests_do_by_themselves_is_seen(cloud: Cloud, first: tuple[str, Login]) -> None:
    server_id, login = first
    with leftovers_but_numbers(cloud):
        os.kill(cloud.qemu_pid(server_id), signal.SIGKILL)
        start_again(cloud, server_id)
        login.wait()
        subprocess.run(replace(login, user="root").argv("poweroff"), timeout=PATIENCE_S, check=False)
        start_again(cloud, server_id)
        login.wait()


def start_again(cloud: Cloud, server_id: str) -> None:
    eventually("it is off", lambda: server_status(cloud, server_id) == "SHUTOFF")
    cloud.demo().post(f"/compute/v2.1/servers/{server_id}/action", {"os-start": None})
    eventually("it is on", lambda: server_status(cloud, server_id) == "ACTIVE")


def test_an_agent_that_is_away_is_shown_as_down_and_its_guests_run_on(cloud: Cloud, first: tuple[str, Login]) -> None:
    server_id, login = first
    admin = cloud.admin()

    def states() -> set[str]:
        services = admin.get("/compute/v2.1/os-services?binary=nova-compute")["services"]
        hypervisors = admin.get("/compute/v2.1/os-hypervisors")["hypervisors"]
        return {one["state"] for one in (*services, *hypervisors)}

    with leftovers(cloud), login.session() as session:
        assert states() == {"up"}
        os.kill(cloud.pid("supervisor"), signal.SIGKILL)  # Or it would start the agent again.
        os.kill(cloud.pid(f"agent-{HOST}"), signal.SIGTERM)
        began = time.monotonic()
        eventually("compute service and hypervisor are down", lambda: states() == {"down"}, TURNS_DOWN_S + SLACK_S)
        print(f"down after {time.monotonic() - began:.1f} s")
        session.goes_on("while its agent is away")
        cloud.up("--bare")
        eventually("they are up again", lambda: cloud.admin() and states() == {"up"})
        session.goes_on("after its agent came back")
        answers(cloud, server_id)


def test_up_twice_changes_nothing(cloud: Cloud, first: tuple[str, Login]) -> None:
    before, pids = snapshot(cloud), processes.states(cloud.trial)
    cloud.up()
    assert difference(before, snapshot(cloud)) == []
    assert processes.states(cloud.trial) == pids
    assert cloud.server_id("first") == first[0]


def test_down_and_up_bring_guests_back(cloud: Cloud, first: tuple[str, Login]) -> None:
    server_id, login = first
    login.run("echo kept > /home/cloud/note")  # Not synced: the guest is switched off in order.
    with leftovers_but_numbers(cloud):
        cloud.hostler("down")
        assert [line for line in traces(cloud.trial) if not line.startswith("folder ")] == []
        cloud.up()
        assert cloud.server_id("first") == server_id
        assert login.run("cat /home/cloud/note") == "kept\n"


@contextlib.contextmanager
def leftovers_but_numbers(cloud: Cloud) -> Iterator[None]:
    """What happens inside leaves everything as it was, but for what counts starts and remembers them."""
    before = snapshot(cloud)
    yield

    def probe() -> bool:
        changed = [one for one in difference(before, snapshot(cloud)) if not COUNTS_STARTS.search(one)]
        assert not changed, "\n".join(changed)
        return True

    eventually("everything is as it was", probe)


def test_nothing_of_a_cloud_that_was_killed_is_left_after_clean() -> None:
    with running_cloud("doomed-") as doomed:
        trial = doomed.trial
        assert len(traces(trial)) > 10
        qemu = doomed.qemu_pid(doomed.server_id("first"))
        kill_everything(doomed)
        os.kill(qemu, signal.SIGKILL)
        doomed.hostler("clean")
        assert traces(trial) == []
        assert "Nothing of a cloud" in doomed.hostler("clean")
