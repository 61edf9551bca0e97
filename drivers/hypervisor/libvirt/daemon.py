"""A libvirtd of our own, for hosts where no service manager runs one.

It runs in the agent's namespaces, where /run/libvirt, /etc/libvirt and the other folders are private to this host. It
is started when nobody answers on its socket, and never stopped: it outlives the agent as the guests do, and the next
agent finds it by its socket. Killed, it is started again, and takes up the guests that went on without it.

Where only root may open /dev/kvm, libvirt's default user for QEMU becomes root. Otherwise libvirt finds that KVM was
there when it probed QEMU (which it does with root's rights) and cannot be used now (by the default user), throws away
what it had learned, and probes again for four seconds before every start of a guest. No guest runs as that user: every
domain of ours carries a label with its own. Hiding the device by a mount was tried: libvirt, which gives each QEMU a
/dev of its own, then fails to move that mount.
"""

import shutil
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Final

from agent.wire.errors import Busy
from drivers import command
from drivers.hypervisor import kvm_probe

RUN: Final = Path("/run/libvirt")
CONFIG: Final = Path("/etc/libvirt")
CACHE: Final = Path("/var/cache/libvirt")
LOG: Final = Path("/var/log/libvirt")
SOCKET: Final = RUN / "libvirt-sock"

START_TIMEOUT_S: Final = 60.0
"""From start to an answer. It takes 0.1 s, or, where it first probes QEMU on a slow host, half a minute."""

RIVAL_TIMEOUT_S: Final = 2.0

_POLL_S: Final = 0.05
_APPARMOR: Final = Path("/sys/module/apparmor/parameters/enabled")
_KVM: Final = Path("/dev/kvm")


class LibvirtDaemon:
    """Starts libvirtd if need be. `seed` is a folder with the cache of an earlier one, or empty."""

    def __init__(self, *, seed: str = "") -> None:
        self._seed = seed
        self._lock = threading.Lock()

    def ensure(self) -> None:
        """A libvirtd answers. Raises CommandFailed if it cannot be started, Busy if it does not answer in time."""
        with self._lock:
            if answers():
                return
            _configure()
            self._plant_cache()
            try:
                command.run(["libvirtd", "--daemon", "--pid-file", RUN / "libvirtd.pid"], timeout_s=START_TIMEOUT_S)
            except command.CommandFailed:
                # One that was starting already holds the pid file, and will answer.
                if not _answers_within(RIVAL_TIMEOUT_S):
                    raise
            if not _answers_within(START_TIMEOUT_S):
                raise Busy(f"libvirtd does not answer; see {LOG / 'libvirtd.log'}")

    def _plant_cache(self) -> None:
        """What an earlier libvirtd learned of QEMU spares this one seconds; it checks whether that still holds."""
        source, target = Path(self._seed, "qemu", "capabilities"), CACHE / "qemu" / "capabilities"
        if self._seed and source.is_dir() and not (target.is_dir() and any(target.iterdir())):
            shutil.copytree(source, target, dirs_exist_ok=True)


def answers() -> bool:
    """Whether somebody accepts on libvirtd's socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(SOCKET))
        except OSError:
            return False
        return True


def _answers_within(timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not answers():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def libvirtd_conf(host_uuid: str) -> str:
    """libvirtd's settings: root alone, on a unix socket alone."""
    return f"""\
# Written by the agent at every start of libvirtd; changes are lost.
host_uuid = "{host_uuid}"
unix_sock_group = "root"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
listen_tls = 0
listen_tcp = 0
log_filters = "4:util.netdev 4:util.netlink 4:util.dbus"
log_outputs = "3:file:{LOG / "libvirtd.log"}"
"""


def qemu_conf(*, has_apparmor: bool, is_kvm_roots: bool) -> str:
    """The QEMU driver's settings. Owners are set by us, per guest; libvirt changes none (`dynamic_ownership`)."""
    default_user = 'user = "root"\ngroup = "root"\n' if is_kvm_roots else ""
    return f"""\
# Written by the agent at every start of libvirtd; changes are lost.
stdio_handler = "file"
security_driver = "{"apparmor" if has_apparmor else "none"}"
seccomp_sandbox = 1
cgroup_controllers = []
dynamic_ownership = 0
remember_owner = 0
{default_user}"""


def _configure() -> None:
    for folder in (RUN, CONFIG, CACHE, LOG):
        folder.mkdir(parents=True, exist_ok=True)
    identity = CONFIG / "hostler-host-uuid"
    if not identity.exists():
        identity.write_text(str(uuid.uuid4()))
    (CONFIG / "libvirtd.conf").write_text(libvirtd_conf(identity.read_text().strip()))
    has_apparmor = _APPARMOR.exists() and _APPARMOR.read_text().strip() == "Y"
    (CONFIG / "qemu.conf").write_text(qemu_conf(has_apparmor=has_apparmor, is_kvm_roots=_is_kvm_roots()))


def _is_kvm_roots() -> bool:
    return _KVM.exists() and kvm_probe.device_gid() is None and _KVM.stat().st_mode & 0o006 != 0o006
