"""`hostler up`: from nothing to a server that SSH answers. Every step looks before it makes, so twice is harmless."""

import json
import os
import shutil
import socket
import sys
import time
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import msgspec

from controller.cli import clouds, furnish, guests, processes
from controller.cli.api import Client, wait_for
from controller.cli.progress import Progress
from controller.cli.space import Outside, Space
from controller.cli.trial import Trial, host_names, load, locate, new_tag, run_root, save
from drivers.command import CommandFailed, run

API_S: Final = 60.0
HOST_S: Final = 120.0
HOSTS_MAX: Final = 16
"""Each is a libvirtd, an agent and a guard: some 200 MB."""
ACTIVE_S: Final = 240.0
LOGIN_S: Final = 240.0
"""Generous: guests are emulated where KVM does not work, and machines are shared."""
ROUTES_S: Final = 10.0
LIBVIRT_LEARNED: Final = "qemu/capabilities"
"""Below libvirt's cache folder."""


class NotPossible(Exception):
    """Something about this machine is in the way; says what, and what to do."""


def up(
    name: str, changes: dict[str, Any], *, hosts: int | None = None, root: Path | None = None, furnished: bool = True
) -> Trial:
    """Bring the cloud up. `changes` are settings of a new cloud (ports, ranges, drivers)."""
    progress = Progress()
    began = time.monotonic()
    trial = _sized(load(name, root) or _new(name, changes, root), hosts)
    _check_machine(trial)
    save(trial)
    usable_s = _start(trial, progress) - began
    if furnished and trial.drivers == "real":
        address = _furnish(trial, progress)
        _farewell(trial, progress, address, usable_s, time.monotonic() - began)
    else:
        clouds.write(trial)
        progress.say(f"export OS_CLIENT_CONFIG_FILE={clouds.path(trial)} OS_CLOUD=hostler")
    return trial


def _new(name: str, changes: dict[str, Any], root: Path | None) -> Trial:
    places = {
        "state": str(locate(name, root).absolute()),
        "run": str(run_root() / name),
        "cache": str(Path.cwd() / ".cache"),
    }
    return msgspec.convert({"name": name, "tag": new_tag(), **places, **changes}, Trial)


def _sized(trial: Trial, hosts: int | None) -> Trial:
    """With as many hosts as asked for. Raises NotPossible when that cannot be now."""
    if hosts is None or hosts == len(trial.hosts):
        return trial
    if not 1 <= hosts <= HOSTS_MAX:
        raise NotPossible(f"A cloud on one machine has 1 to {HOSTS_MAX} hosts, not {hosts}.")
    if (trial.folder / "cloud.json").exists():
        if hosts < len(trial.hosts):
            raise NotPossible(f"The cloud {trial.name} has {len(trial.hosts)} hosts: `make clean` it to have fewer.")
        if any(Space(trial, host).exists for host in trial.hosts):
            raise NotPossible(f"The cloud {trial.name} runs with {len(trial.hosts)} hosts: `make down` it to add some.")
    return msgspec.structs.replace(trial, hosts=host_names(hosts))


def _check_machine(trial: Trial) -> None:
    if os.geteuid() != 0:
        raise NotPossible("A cloud makes bridges, namespaces and virtual machines: run this as root.")
    running = processes.states(trial)
    if running.get("controller") is None:
        _check_ranges(trial)
    for what, port, user in (
        ("API", trial.api_port, "controller"),
        ("metrics", trial.metrics_port, "controller"),
        ("metering", trial.exporter_port, "collector"),
    ):
        if running.get(user) is None:
            _check_port(what, port)


def _check_port(what: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise NotPossible(f"Port {port} ({what}) is taken: stop what uses it, or pass another one.") from error


def _check_ranges(trial: Trial) -> None:
    """Two clouds with one range would take each other's routes away, and so would one that lies in a real network."""
    try:
        ranges = {"underlay": ip_network(trial.underlay), "external": ip_network(trial.external)}
    except ValueError as error:
        raise NotPossible(f"{error}: --underlay and --external are ranges such as 198.18.1.0/24.") from error
    for route in json.loads(run(["ip", "-j", "-4", "route", "show"], timeout_s=ROUTES_S).text):
        if route["dst"] == "default" or route.get("dev") in (None, trial.bridge):
            continue  # What remains of this cloud, and where no packet goes.
        for option, ours in ranges.items():
            if ours.overlaps(ip_network(route["dst"], strict=False)):
                raise NotPossible(f"{ours} leads to {route['dev']} on this machine: pass another --{option}.")


def _start(trial: Trial, progress: Progress) -> float:
    """Namespaces, processes, hosts joined; returns when the cloud was usable."""
    is_any_new = False
    with progress.step("Networks and namespaces"):
        if not trial.is_single:
            Outside(trial).make()
        for host in trial.hosts:
            trial.agent_folder(host).mkdir(parents=True, exist_ok=True)
            is_any_new |= Space(trial, host).make()
    with progress.step("Keys and settings"):
        processes.prepare(trial)
    with progress.step("NATS, controller, agent, guard"):
        processes.start(trial)
        wait_for("the API", lambda: _admin(trial).get("/operator/v1/status"), API_S)
        admin = _admin(trial)
        if is_any_new:
            guests.note_running(trial, admin)
    with progress.step("Hosts join"):
        _join(trial, admin)
        wait_for("every host up", lambda: _hosts_up(trial, admin), HOST_S)
    usable_at = time.monotonic()
    _keep_learned(trial)
    if started := guests.switch_on(trial, admin):
        progress.say(f"Starting again what ran: {started} servers")
    return usable_at


def _admin(trial: Trial) -> Client:
    return Client(trial.api_url, "admin", trial.password("admin"), "admin")


def _demo(trial: Trial) -> Client:
    return Client(trial.api_url, "demo", trial.password("demo"), "demo")


def _join(trial: Trial, admin: Client) -> None:
    """A token for every host that has not joined yet; its agent waits for the file."""
    for host in trial.hosts:
        folder = trial.agent_folder(host)
        token_file = folder / "join-token"
        if (folder / "identity" / "host.json").exists() or token_file.exists():
            continue
        token = admin.post("/operator/v1/join-tokens", {})["token"]
        token_file.touch(mode=0o600)
        token_file.write_text(token)


def _hosts_up(trial: Trial, admin: Client) -> bool | None:
    hosts = admin.get("/operator/v1/status")["hosts"]
    return len([one for one in hosts if one["is_up"]]) >= len(trial.hosts) or None


def _keep_learned(trial: Trial) -> None:
    """What libvirtd learned of QEMU, in seconds, is planted into the next new cloud."""
    if not trial.cache:
        return
    kept = Path(trial.cache) / "libvirt" / LIBVIRT_LEARNED
    for file in (trial.agent_folder(trial.hosts[0]) / "libvirt" / "cache" / LIBVIRT_LEARNED).glob("*.xml"):
        old = kept / file.name
        if old.exists() and old.read_bytes() == file.read_bytes():
            continue
        kept.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, kept / f"{file.name}.{trial.tag}")
        (kept / f"{file.name}.{trial.tag}").replace(old)


def _furnish(trial: Trial, progress: Progress) -> str:
    """Images, networks, the server `first`; returns its floating IP once SSH answers."""
    admin, demo = _admin(trial), _demo(trial)
    folder = Path(trial.cache or trial.state) / "images"
    with progress.step("Guest images"):
        builder = Path.cwd() / "packaging" / "guest" / "build.py"
        debs = Path(trial.cache or trial.state) / "debs"
        argv = (sys.executable, str(builder), "--out", str(folder), "--cache", str(debs))
        run(argv, timeout_s=900.0, env={"HOME": os.environ.get("HOME", "/root")})
        furnish.images(admin, folder)
    with progress.step("Networks, router, rules, key pair"):
        external_id = furnish.external_network(admin, trial)
        network_id = furnish.demo_network(demo, external_id)
        furnish.login_rules(demo)
        furnish.keypair(demo, _public_key(trial))
    clouds.write(trial)
    with progress.step(f"Server {furnish.SERVER_NAME} is ACTIVE"):
        server_id = furnish.server(demo, network_id, furnish.IMAGE_NAME)
        furnish.started(demo, server_id)
        furnish.active(demo, server_id, ACTIVE_S)
        address = furnish.floating_ip(demo, external_id, server_id)
    with progress.step(f"SSH into {furnish.SERVER_NAME}"):
        wait_for(f"SSH to {address}", lambda: _logged_in(trial, address), LOGIN_S, every_s=0.5)
    return address


def _public_key(trial: Trial) -> str:
    private = key_path(trial)
    if not private.exists():
        run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"hostler-{trial.name}", "-f", str(private)],
            timeout_s=30.0,
        )
    return private.with_suffix(".pub").read_text().strip()


def key_path(trial: Trial) -> Path:
    """The private key of the key pair `hostler`."""
    return trial.folder / "id_ed25519"


def ssh_argv(trial: Trial, address: str) -> tuple[str, ...]:
    """How to log in; host keys are the guests' own and new each time."""
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=5")
    flags = (word for option in options for word in ("-o", option))
    return ("ssh", "-i", str(key_path(trial)), *flags, f"cloud@{address}")


def _logged_in(trial: Trial, address: str) -> bool | None:
    try:
        run((*ssh_argv(trial, address), "-o", "BatchMode=yes", "true"), timeout_s=20.0)
    except CommandFailed:
        return None
    return True


def _farewell(trial: Trial, progress: Progress, address: str, usable_s: float, all_s: float) -> None:
    progress.say()
    progress.say(
        f"The cloud [bold]{trial.name}[/bold] was usable after {usable_s:.1f} s, all done after {all_s:.1f} s."
    )
    progress.say("It has the projects admin and demo, the networks public and demo, a router, the key pair hostler,")
    progress.say(f"two images, and the server [bold]{furnish.SERVER_NAME}[/bold] at {address}.")
    progress.say()
    progress.say("Use it with any OpenStack client:")
    progress.say(f"  export OS_CLIENT_CONFIG_FILE={clouds.path(trial)} OS_CLOUD=hostler")
    progress.say("  openstack server list        (OS_CLOUD=hostler-admin for the admin)")
    progress.say("Log in:")
    progress.say(f"  ssh -i {key_path(trial)} -o StrictHostKeyChecking=no cloud@{address}")
    progress.say(
        f"State: {trial.state}   logs: {trial.folder / 'logs'}   `make down` stops it, `make clean` removes it."
    )
    if shutil.which("openstack") is None:
        progress.say("(The client is one command away: python3 -m pip install python-openstackclient)")
