"""`hostler status` and `hostler doctor`: how it is, and what to do about what is not well."""

import os
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from controller.cli import processes
from controller.cli.api import ApiError, Client
from controller.cli.trial import Trial


def status(trial: Trial) -> bool:
    """Print processes, hosts, servers and reconcilers; says whether all is well."""
    console = Console(highlight=False)
    running = processes.states(trial)
    table = Table("process", "pid", title=f"cloud {trial.name}", title_justify="left")
    for name, pid in running.items():
        table.add_row(name, str(pid) if pid is not None else "[red]not running[/red]")
    console.print(table)
    if running.get("controller") is None:
        return False
    admin = Client(trial.api_url, "admin", trial.password("admin"), "admin")
    try:
        found = admin.get("/operator/v1/status")
        servers = admin.get("/compute/v2.1/servers/detail?all_tenants=1")["servers"]
    except (OSError, ApiError) as error:
        console.print(f"[red]the API does not answer: {error}[/red]")
        return False
    _print_hosts(console, found)
    _print_servers(console, servers)
    failing = [one for one in found["reconcilers"] if one["failures"]]
    for one in failing:
        console.print(f"[red]reconciler {one['name']} fails: {one['error']}[/red]")
    for one in found["sagas"]:
        console.print(f"saga {one['kind']} {one['state']} at {one['step']} for {one['target']} {one['reason']}")
    up = all(one["is_up"] for one in found["hosts"] if one["state"] == "enrolled")
    return all(pid is not None for pid in running.values()) and up and not failing


def _print_hosts(console: Console, found: dict[str, Any]) -> None:
    table = Table("host", "id", "state", "virt", "vCPUs", "memory MiB")
    for one in found["hosts"]:
        state = "up" if one["is_up"] else "[red]down[/red]"
        table.add_row(one["hostname"], one["id"], state, one["virt_type"], str(one["vcpus"]), str(one["memory_mib"]))
    console.print(table)


def _print_servers(console: Console, servers: list[dict[str, Any]]) -> None:
    table = Table("server", "id", "status", "addresses")
    for one in servers:
        addresses = ", ".join(port["addr"] for ports in one["addresses"].values() for port in ports)
        table.add_row(one["name"], one["id"], one["status"], addresses)
    console.print(table)


def doctor(trial: Trial | None) -> bool:
    """Check the machine, then each host of the cloud if one runs; says whether nothing is wrong."""
    console = Console(highlight=False)
    findings = [*_machine(), *(_cloud(trial) if trial is not None else [])]
    for ok, what, remedy in findings:
        console.print(f"[green]✓[/green] {what}" if ok else f"[red]✗[/red] {what}: {remedy}")
    return all(ok for ok, _, _ in findings)


def _machine() -> list[tuple[bool, str, str]]:
    programs = ("libvirtd", "qemu-system-x86_64", "qemu-img", "dnsmasq", "nft", "ip", "nsenter", "setpriv")
    found = [
        (shutil.which(name) is not None, f"program {name}", "run packaging/setup.sh to install it") for name in programs
    ]
    found.append((os.geteuid() == 0, "running as root", "bridges and virtual machines need root"))
    found.append((Path("/dev/net/tun").exists(), "/dev/net/tun", "guests need tap devices: load the module tun"))
    free_gib = shutil.disk_usage(Path.cwd()).free / (1 << 30)
    found.append((free_gib > 5, f"{free_gib:.0f} GiB of disk free", "images and disks need at least 5 GiB"))
    return found


def _cloud(trial: Trial) -> list[tuple[bool, str, str]]:
    logs = trial.folder / "logs"
    found = [
        (pid is not None, f"process {name}", f"see {logs / name}.log, then `make up`")
        for name, pid in processes.states(trial).items()
    ]
    admin = Client(trial.api_url, "admin", trial.password("admin"), "admin")
    try:
        for host in admin.get("/operator/v1/hosts")["hosts"]:
            found += [
                (one["ok"], f"{host['hostname']}: {one['name']}", one["detail"]) for one in host.get("findings", [])
            ]
    except (OSError, ApiError) as error:
        found.append((False, "the API answers", str(error)))
    return found
