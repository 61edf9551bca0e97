"""A host of its own for tests with real libvirt: mount, network, UTS and PID namespaces, and private libvirt folders.

Everything that runs in it ends with it, because the PID namespace's first process is killed. Both sides see its folder.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

from drivers import command

ROOT = Path(__file__).resolve().parents[2]
BOUND = {
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "etc": "/etc/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
}


class PrivateHost:
    """Made on construction; `close` leaves nothing."""

    def __init__(self) -> None:
        # Not pytest's folder: that is shut to all but root, and QEMU's uid must get through to its disks.
        folder = self.folder = Path(tempfile.mkdtemp(prefix="hostler-private-host-"))
        folder.chmod(0o755)
        for name in BOUND:
            (folder / name).mkdir(parents=True, exist_ok=True)
        binds = "; ".join(f"mkdir -p {target}; mount --bind {folder / name} {target}" for name, target in BOUND.items())
        script = f"{binds}; mount -t sysfs sys /sys; ip link set lo up; touch {folder}/up; while :; do sleep 1000; done"
        self._holder = command.spawn(
            ["unshare", "-m", "-n", "-u", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", script],
            log=folder / "holder.log",
        )
        wait_until(lambda: (folder / "up").exists(), "the namespaces are there")
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()
        self.pid = int(children[0])

    @property
    def uri(self) -> str:
        """Where its libvirtd listens, seen from outside."""
        return f"qemu+unix:///system?socket={self.folder}/run/libvirt-sock"

    def run(self, *argv: str, timeout_s: float = 120) -> command.Output:
        """A program inside, to its end."""
        return command.run(
            ["nsenter", "-t", str(self.pid), "-m", "-n", "-u", "-p", "--", *argv],
            timeout_s=timeout_s,
            env={"PYTHONPATH": str(ROOT)},
        )

    def ensure_daemon(self, seed: str = "") -> None:
        """libvirtd runs, started by the code under test."""
        code = f"from drivers.hypervisor.libvirt.daemon import LibvirtDaemon; LibvirtDaemon(seed={seed!r}).ensure()"
        self.run(sys.executable, "-c", code)

    def kill_daemon(self) -> None:
        """kill -9 libvirtd; on return it is gone, and nobody can take the dying one for a living one."""
        pid = (self.folder / "run" / "libvirtd.pid").read_text().strip()
        self.run("sh", "-c", f"kill -9 {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.05; done", timeout_s=30)

    def qemu_pid(self, name: str) -> int | None:
        """The pid, inside, of a domain's QEMU."""
        file = self.folder / "run" / "qemu" / f"{name}.pid"
        return int(file.read_text()) if file.exists() else None

    def close(self) -> None:
        """End everything in it, and remove its folder."""
        self._holder.stop(0)
        wait_until(lambda: not Path(f"/proc/{self.pid}").exists(), "its first process is gone")
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_until(claim, what: str, timeout_s: float = 60) -> None:
    """Until the claim holds; fails after a time that only a hang takes."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)
