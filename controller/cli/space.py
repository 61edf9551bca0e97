"""A host's own space on this machine: persistent network, mount and UTS namespaces, held by files.

Theory of operation. An agent in a trial must not touch the machine's own bridges, libvirt or /run/netns, and
several must live side by side. So each gets three namespaces that are pinned by bind mounts below the cloud's
run folder, not by a process: agent, libvirtd, QEMU and dnsmasq come and go inside, and an agent that restarts
enters the very same mounts again (its network namespaces are mounts too, in a tmpfs of this space, invisible
to the machine). Taking the pins away after the last process is dead frees everything at once.

The way out is one veth to the machine's underlay bridge. Floating IPs are reached by a route over it, with an
`unreachable` route behind, so that no packet for them ever leaves by the machine's uplink.

A single host is the gateway of its external network. Several hosts need a wire that they share: the switch and the
router that a provider would have stand in a network namespace of their own (`Outside`), and every host has a cable
to that switch. It forwards from the machine to floating IPs and lets answers back, nothing else.
"""

import contextlib
import os
import shlex
import signal
import time
from pathlib import Path
from typing import Final

from controller.cli.trial import Trial
from drivers.command import CommandFailed, run

_QUICK_S: Final = 15.0
_KINDS: Final = ("net", "mnt", "uts")
_LIBVIRT: Final = {
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "etc": "/etc/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
}
"""Folders of the host's own libvirt, and what they cover inside."""

AGENT_STATE: Final = "/var/lib/libvirt/hostler"
"""Where an agent finds its state inside: the same on every host, and reachable for guests' uids wherever the checkout
is (a home folder of root's is not). It lies in a folder that is the host's own already: to remove a folder of the
machine's on which another space has mounted something would take that away."""

UNREACHABLE_METRIC: Final = 4000
"""Behind any real route to the external network: what stays when the host is gone."""


class Space:
    """The namespaces of one host of a trial cloud."""

    def __init__(self, trial: Trial, host: str) -> None:
        self.trial = trial
        self.host = host
        index = trial.hosts.index(host) + 1
        self.address = trial.underlay_address(index)
        self.pins = trial.run_folder / "ns" / host
        self.veth = f"hv{trial.tag}{index}"

    @property
    def exists(self) -> bool:
        """All three pins are mounts."""
        mounted = mount_points()
        return all(str(self.pins / kind) in mounted for kind in _KINDS)

    def enter(self, *argv: str) -> tuple[str, ...]:
        """The command line that runs `argv` inside."""
        pins = (f"--{kind}={self.pins / name}" for kind, name in zip(("net", "mount", "uts"), _KINDS, strict=True))
        return ("nsenter", *pins, "--", *argv)

    def make(self) -> bool:
        """Make it, or make it anew if only a part of it is there. Says whether it did: then nothing runs inside."""
        if self.exists:
            return False
        self.remove()
        self.pins.mkdir(parents=True)
        make_private(self.trial.run_folder / "ns")
        for kind in _KINDS:
            (self.pins / kind).touch()
        state = self.trial.agent_folder(self.host)
        for name in _LIBVIRT:
            (state / "libvirt" / name).mkdir(parents=True, exist_ok=True)
        unshare = (f"--{kind}={self.pins / name}" for kind, name in zip(("net", "mount", "uts"), _KINDS, strict=True))
        run(["unshare", *unshare, "sh", "-euc", self._furnish(state)], timeout_s=_QUICK_S)
        make_underlay(self.trial)
        address = f"{self.address}/{self.trial.underlay_prefix}"
        peer = ("peer", "name", "underlay", "netns", str(self.pins / "net"))
        run(["ip", "link", "add", self.veth, "type", "veth", *peer], timeout_s=_QUICK_S)
        run(["ip", "link", "set", self.veth, "master", self.trial.bridge, "up"], timeout_s=_QUICK_S)
        run(self.enter("ip", "addr", "add", address, "dev", "underlay"), timeout_s=_QUICK_S)
        run(self.enter("ip", "link", "set", "underlay", "up"), timeout_s=_QUICK_S)
        if not self.trial.is_single:
            Outside(self.trial).connect(self)
        return True

    def _furnish(self, state: Path) -> str:
        """What is done once inside the new namespaces."""
        places = {state / "libvirt" / name: to for name, to in _LIBVIRT.items()} | {state: AGENT_STATE}
        binds = (f"mkdir -p {to} && mount --bind {shlex.quote(str(at))} {to}" for at, to in places.items())
        return "; ".join(
            (
                "mount --make-rprivate /",
                *binds,
                "mkdir -p /run/netns && mount -t tmpfs -o mode=755 tmpfs /run/netns",
                "mount -t sysfs sysfs /sys",
                f"hostname {self.host}",
                "ip link set lo up",
            )
        )

    def remove(self) -> None:
        """Kill what runs inside, then take the pins away. Harmless if there is nothing."""
        _kill_inside(self.pins / "uts")
        with contextlib.suppress(CommandFailed):
            run(["ip", "link", "del", self.veth], timeout_s=_QUICK_S)
        for kind in reversed(_KINDS):
            unpin(self.pins / kind)
        with contextlib.suppress(OSError):
            self.pins.rmdir()


class Outside:
    """What is beyond the external network of several hosts: its switch, and its gateway."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.pin = trial.run_folder / "ns" / "outside"
        self.veth = f"ho{trial.tag}"

    def make(self) -> None:
        """Make it, or leave it as it is."""
        if str(self.pin) in mount_points():
            return
        self.remove()
        self.pin.parent.mkdir(parents=True, exist_ok=True)
        make_private(self.trial.run_folder / "ns")
        self.pin.touch()
        run(["unshare", f"--net={self.pin}", "true"], timeout_s=_QUICK_S)
        make_underlay(self.trial)
        peer = ("peer", "name", "underlay", "netns", str(self.pin))
        run(["ip", "link", "add", self.veth, "type", "veth", *peer], timeout_s=_QUICK_S)
        run(["ip", "link", "set", self.veth, "master", self.trial.bridge, "up"], timeout_s=_QUICK_S)
        gateway = f"{self.trial.external_gateway}/{self.trial.external.rpartition('/')[2]}"
        for words in (
            "ip link set lo up",
            "ip link add switch type bridge forward_delay 0",
            f"ip addr add {gateway} dev switch",
            f"ip addr add {self.trial.outside_address}/{self.trial.underlay_prefix} dev underlay",
            "ip link set switch up",
            "ip link set underlay up",
            "sysctl -q -w net.ipv4.ip_forward=1",
        ):
            self._inside(*words.split())
        self._inside("nft", _OUTSIDE_RULES)

    def connect(self, space: "Space") -> None:
        """A cable from a host's `external` to the switch."""
        index = self.trial.hosts.index(space.host) + 1
        ends = ("external", "netns", str(space.pins / "net"), "type", "veth", "peer", "name", f"host{index}")
        run(["ip", "link", "add", *ends, "netns", str(self.pin)], timeout_s=_QUICK_S)
        self._inside("ip", "link", "set", f"host{index}", "master", "switch", "up")

    def remove(self) -> None:
        """Harmless if there is nothing."""
        with contextlib.suppress(CommandFailed):
            run(["ip", "link", "del", self.veth], timeout_s=_QUICK_S)
        unpin(self.pin)

    def _inside(self, *argv: str) -> None:
        run(["nsenter", f"--net={self.pin}", "--", *argv], timeout_s=_QUICK_S)


_OUTSIDE_RULES: Final = """
table inet outside {
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        meta l4proto { icmp, icmpv6 } accept
    }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname "underlay" oifname "switch" accept
    }
}
"""
"""What guests send to the world goes nowhere: nothing of a trial leaves by the machine's uplink."""


def make_underlay(trial: Trial) -> None:
    """The machine's bridge where controller and hosts meet, and the route to floating IPs."""
    if not Path(f"/sys/class/net/{trial.bridge}").exists():
        address = f"{trial.underlay_address(0)}/{trial.underlay_prefix}"
        run(["ip", "link", "add", trial.bridge, "type", "bridge", "forward_delay", "0"], timeout_s=_QUICK_S)
        run(["ip", "link", "set", trial.bridge, "alias", f"hostler:{trial.tag}:underlay"], timeout_s=_QUICK_S)
        run(["ip", "addr", "add", address, "dev", trial.bridge], timeout_s=_QUICK_S)
        run(["ip", "link", "set", trial.bridge, "up"], timeout_s=_QUICK_S)
    behind = ("unreachable", trial.external, "metric", str(UNREACHABLE_METRIC))
    run(["ip", "route", "replace", trial.external, "via", trial.outside_address], timeout_s=_QUICK_S)
    run(["ip", "route", "replace", *behind], timeout_s=_QUICK_S)


def remove_underlay(trial: Trial) -> None:
    """The bridge and the routes. Harmless if they are gone."""
    for argv in (
        ("ip", "link", "del", trial.bridge),
        ("ip", "route", "del", "unreachable", trial.external, "metric", str(UNREACHABLE_METRIC)),
    ):
        with contextlib.suppress(CommandFailed):
            run(argv, timeout_s=_QUICK_S)
    folder = trial.run_folder / "ns"
    while str(folder) in mount_points():
        run(["umount", "--lazy", str(folder)], timeout_s=_QUICK_S)


def unpin(pin: Path) -> None:
    """Take a pin away. Harmless if it is gone."""
    while str(pin) in mount_points():
        run(["umount", "--lazy", str(pin)], timeout_s=_QUICK_S)
    pin.unlink(missing_ok=True)


def make_private(folder: Path) -> None:
    """A mount namespace can be pinned only on a mount that does not propagate."""
    if str(folder) not in mount_points():
        run(["mount", "--bind", str(folder), str(folder)], timeout_s=_QUICK_S)
        run(["mount", "--make-private", str(folder)], timeout_s=_QUICK_S)


def mount_points() -> set[str]:
    """Where something is mounted, as this process sees it."""
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def _kill_inside(pin: Path) -> None:
    """SIGKILL every process whose UTS namespace is the pinned one; nothing leaves that one by itself."""
    if str(pin) not in mount_points():
        return
    inode = pin.stat().st_ino
    for _ in range(50):
        pids = [pid for pid in _pids() if _uts_inode(pid) == inode]
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _uts_inode(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}/ns/uts").stat().st_ino
    except OSError:
        return None
