"""Exports by tgtd, the target that needs nothing of the kernel: a daemon of our own, with its own control socket.

Theory of operation. tgtd keeps everything in memory. So what is exported is asked of it and of nobody else: a target's
name says whose it is, its LUN's SCSI id is a digest of all that cannot be changed in place (path, size, account,
secret), and its list of initiators is the list. An agent that restarts finds targets that are right and touches
nothing.

tgtd outlives the agent: guests are in the middle of writes. It is found again by its pid file, believed only if that
process' command line is the one that would be started. When it dies, initiators (QEMU's own) hold what they have not
been told is done, and log in again as soon as their target is there; the driver tells its listener at once.

tgtd faces other hosts and is not root: started under a uid of its own, without the means to gain rights, in the one
folder that is that uid's, where its control socket is. Log and pid file are root's, beside it. A volume that is
exported is given to it: it opens what was exported and nothing else.

A target is shut before it is opened: made, given its account, given its LUN, and only then its list of initiators,
since a target without an account asks nobody for a secret. It is closed in the other order: nobody may log in any
more, who is in is thrown out, and when no command is under way the target goes.
"""

import contextlib
import hashlib
import ipaddress
import os
import resource
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from agent.wire.errors import Busy, Failed, Unfit
from agent.wire.volume import LUN, target_iqn
from drivers import command
from drivers.volume.base import Export, Exporter, GoneListener, ObservedExport, Portal
from drivers.volume.names import check_account, check_id, check_initiators, export_id
from drivers.volume.tgt_control import Code, Control, Mode, Op, Refused, Session, Target

T = TypeVar("T")

PROGRAM: Final = "/usr/sbin/tgtd"

THREADS: Final = 4
"""That read and write, for each target. More: threads that stand idle. Fewer: a disk's queue is not kept full."""

START_S: Final = 15.0
STOP_S: Final = 5.0
ANSWER_S: Final = 10.0

DRAIN_S: Final = 20.0
"""How long commands that are under way may take to end after their session did. They only wait for this host's disk."""

DYING_S: Final = 1.0

_LOOK_AGAIN_S: Final = 0.01
LOG_BYTES_MAX: Final = 1 << 20


class TgtExporter:
    """See drivers.volume.base.Exporter for every method. `folder` is for the socket, the pid and the log."""

    def __init__(self, *, tag: str, folder: Path, host: str, port: int, uid: int) -> None:
        self._tag = tag
        self._host, self._port = host, port
        self._uid = uid
        self._daemon = Tgtd(folder, host, port, uid)
        self._control = Control(str(self._daemon.ipc / "socket.0"), uid=uid, timeout_s=ANSWER_S)
        self._lock = threading.RLock()

    def ensure(self, export: Export) -> Portal:
        """See Exporter."""
        check_id(export.id)
        check_account(export.chap)
        check_initiators(export.initiators)
        self._tried(lambda: self._ensure(export))
        return Portal(host=self._host, port=self._port, iqn=target_iqn(self._tag, export.id), lun=LUN)

    def absent(self, export_id: str) -> None:
        """See Exporter. The last one ends the daemon too."""
        check_id(export_id)
        self._tried(lambda: self._absent(export_id))

    def list(self) -> tuple[ObservedExport, ...]:
        """See Exporter."""
        targets = self._tried(lambda: self._control.targets() if self._daemon.is_running else ())
        found = ((export_id(self._tag, target.iqn), target) for target in targets)
        return tuple(
            ObservedExport(id=name, sessions=tuple(sorted(one.initiator for one in target.sessions)))
            for name, target in sorted(found, key=lambda row: row[0] or "")
            if name is not None
        )

    def watch(self, listener: GoneListener) -> None:
        """See Exporter."""
        self._daemon.watch(listener)

    def close(self) -> None:
        """See Exporter."""
        self._daemon.close()

    def _tried(self, act: Callable[[], T]) -> T:
        """`act` alone, and once more if the daemon died under it."""
        with self._lock:
            try:
                return act()
            except Busy:
                if not self._daemon.is_dying():
                    raise
                return act()

    def _ensure(self, export: Export) -> None:
        self._daemon.ensure(self._control)
        known = self._find(export.id)
        if known is not None and not _is_as_asked(known, export):
            self._remove(known)
            known = None
        if known is None:
            known = self._make(export)
        self._allow(known, export.initiators)

    def _absent(self, name: str) -> None:
        if not self._daemon.is_running:
            return
        known = self._find(name)
        if known is not None:
            self._remove(known)
        if not self._control.targets():
            self._daemon.forget()

    def _find(self, name: str) -> Target | None:
        iqn = target_iqn(self._tag, name)
        return next((target for target in self._control.targets() if target.iqn == iqn), None)

    def _make(self, export: Export) -> Target:
        ask = self._control.ask
        tid = 1 + max((target.tid for target in self._control.targets()), default=0)
        ask(Mode.TARGET, Op.NEW, f"targetname={target_iqn(self._tag, export.id)}", tid=tid)
        try:
            self._forget_account(export.chap.user)  # An earlier target's, perhaps with another secret.
            ask(Mode.ACCOUNT, Op.NEW, f"user={export.chap.user},password={export.chap.secret}")
            ask(Mode.ACCOUNT, Op.BIND, f"user={export.chap.user}", tid=tid)
            _give(export.path, self._uid)
            # A size that is no multiple of a sector would be cut off; volumes are whole GiB.
            ask(Mode.DEVICE, Op.NEW, f"path={export.path},bstype=rdwr", tid=tid, lun=LUN)
            told = f"scsi_id={_signature(export)},scsi_sn={export.volume_id[:36]},thin_provisioning=1"
            read_only = ",readonly=1" if export.is_read_only else ""
            ask(Mode.DEVICE, Op.UPDATE, told + read_only, tid=tid, lun=LUN)
        except BaseException:
            with contextlib.suppress(Refused, Busy):
                ask(Mode.TARGET, Op.DELETE, tid=tid, force=True)
            raise
        made = self._find(export.id)
        if made is None or made.accounts != (export.chap.user,):
            raise Failed(f"tgtd did not make the target of attachment {export.id}")
        return made

    def _allow(self, target: Target, initiators: tuple[str, ...]) -> None:
        """Its list is these, and nobody else is logged in."""
        for name in target.initiators:
            if name not in initiators:
                self._control.ask(Mode.TARGET, Op.UNBIND, f"initiator-name={name}", tid=target.tid)
        self._throw_out(tuple(one for one in target.sessions if one.initiator not in initiators), target.tid)
        for name in initiators:
            if name not in target.initiators:
                self._control.ask(Mode.TARGET, Op.BIND, f"initiator-name={name}", tid=target.tid)

    def _remove(self, target: Target) -> None:
        """No new sessions, no sessions, no commands, no target, no account."""
        for name in target.initiators:
            self._control.ask(Mode.TARGET, Op.UNBIND, f"initiator-name={name}", tid=target.tid)
        self._throw_out(target.sessions, target.tid)
        deadline = time.monotonic() + DRAIN_S
        while True:
            try:
                self._control.ask(Mode.TARGET, Op.DELETE, tid=target.tid, force=True)
                break
            except Refused as error:
                if error.no == Code.NO_TARGET:
                    break
                if error.no not in (Code.LUN_ACTIVE, Code.TARGET_ACTIVE) or time.monotonic() > deadline:
                    raise
            time.sleep(_LOOK_AGAIN_S)
        for user in target.accounts:
            self._forget_account(user)

    def _throw_out(self, sessions: tuple[Session, ...], tid: int) -> None:
        for session in sessions:
            for connection in session.connections:
                try:
                    self._control.ask(Mode.CONNECTION, Op.DELETE, tid=tid, session=session.id, connection=connection)
                except Refused as error:
                    if error.no != Code.NO_CONNECTION:
                        raise

    def _forget_account(self, user: str) -> None:
        try:
            self._control.ask(Mode.ACCOUNT, Op.DELETE, f"user={user}")
        except Refused as error:
            if error.no != Code.NO_USER:
                raise


class Tgtd:
    """The daemon: started when the first export needs it, ended after the last one, watched in between."""

    def __init__(self, folder: Path, host: str, port: int, uid: int) -> None:
        self._folder, self._uid = folder, uid
        self.ipc = folder / "ipc"
        address = f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
        pid_file, portal = f"--pid-file={folder}/pid", f"portal={address}:{port}"
        self.argv = (PROGRAM, "-f", "-C", "0", "-t", str(THREADS), pid_file, "--iscsi", portal)
        self._child: command.Child | None = None
        self._listener: GoneListener | None = None
        self._watched = 0
        self._is_closed = False

    @property
    def is_running(self) -> bool:
        """Ours, started as it would be now."""
        return self._pid() is not None

    def is_dying(self) -> bool:
        """It has ended, or does so within a moment: one that was killed closes its sockets before it is gone."""
        pid = self._pid()
        if pid is None:
            return True
        with _pidfd(pid) as handle:
            return handle is None or bool(select.select([handle], [], [], DYING_S)[0])

    def ensure(self, control: Control) -> None:
        """It runs and answers. Raises Unfit without the program, Failed with the end of its log."""
        pid = self._pid()
        if pid is None:
            self.stop()
            pid = self._start(control)
        if pid != self._watched and self._listener is not None:
            self._watched = pid
            threading.Thread(target=self._watch, args=(pid, self._listener), name="tgtd-watch", daemon=True).start()

    def stop(self) -> None:
        """It is gone; nothing if it does not run. It has nothing that would have to be written."""
        self._watched = 0
        pid = _recorded(self._folder / "pid")
        if pid is not None and f"--pid-file={self._folder}/pid" in _command_line(pid):
            _kill(pid)
        if self._child is not None:
            self._child.stop(0)
            self._child = None
        for name in ("pid", "ipc/socket.0", "ipc/socket.0.lock"):
            (self._folder / name).unlink(missing_ok=True)

    def forget(self) -> None:
        """It is gone, and so are its log and folder: it ended as it should."""
        self.stop()
        for name in ("log", "log.1", "pid.new"):
            (self._folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.ipc.rmdir()
            self._folder.rmdir()

    def watch(self, listener: GoneListener) -> None:
        """`listener` hears when it dies without having been told to."""
        self._listener = listener
        pid = self._pid()
        if pid is not None:
            self._watched = pid
            threading.Thread(target=self._watch, args=(pid, listener), name="tgtd-watch", daemon=True).start()

    def close(self) -> None:
        """Nobody listens any more."""
        self._is_closed = True
        self._listener = None

    def _start(self, control: Control) -> int:
        if not os.access(PROGRAM, os.X_OK):
            raise Unfit(f"this host exports no volumes: there is no {PROGRAM} (Debian: the package tgt)")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o711)
        self.ipc.mkdir(mode=0o700, exist_ok=True)
        os.chown(self.ipc, self._uid, self._uid, follow_symlinks=False)
        log = self._folder / "log"
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(self._folder / "log.1")
        log.touch(mode=0o600)
        begin = log.stat().st_size
        words = (*_without_rights(self._uid), *self.argv)
        child = self._child = command.spawn(words, log=log, env={"TGT_IPC_SOCKET": f"{self.ipc}/socket"})
        with contextlib.suppress(OSError):  # It would do so itself, were it root, and not mind if it could not.
            Path(f"/proc/{child.pid}/oom_score_adj").write_text("-1000")
        (self._folder / "pid.new").write_text(str(child.pid))
        (self._folder / "pid.new").replace(self._folder / "pid")
        deadline = time.monotonic() + START_S
        while child.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(Busy):
                if "Portal: " in control.ask(Mode.PORTAL, Op.SHOW):
                    return child.pid
            time.sleep(_LOOK_AGAIN_S)
        self.stop()
        said = log.read_bytes()[begin:][-600:].decode("utf-8", "replace").strip()
        raise Failed(f"tgtd did not start on {self.argv[-1]}: {said}")

    def _pid(self) -> int | None:
        if self._child is not None:
            self._child.poll()  # Else it would stay a zombie, with its command line gone.
        pid = _recorded(self._folder / "pid")
        return pid if pid is not None and _command_line(pid) == self.argv and _owner(pid) == self._uid else None

    def _watch(self, pid: int, listener: GoneListener) -> None:
        """In a thread of its own."""
        with _pidfd(pid) as handle:
            if handle is not None:
                select.select([handle], [], [])
        if self._watched == pid and not self._is_closed:
            listener()


def _is_as_asked(target: Target, export: Export) -> bool:
    """All but the list of initiators, which is changed in place."""
    return target.signature == _signature(export) and target.accounts == (export.chap.user,)


def _signature(export: Export) -> str:
    """Of what cannot be changed in place. Its secret has 80 bits at least, so a digest gives nothing away."""
    parts = (export.path, str(export.size_bytes), export.chap.user, export.chap.secret, str(export.is_read_only))
    return hashlib.sha256("\0".join((export.volume_id, *parts)).encode()).hexdigest()[:32]


def _without_rights(uid: int) -> tuple[str, ...]:
    """In front of a program: who it is, for good, and as many open files as it may have (it asks for more in vain)."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    give_up = ("--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all")
    return ("prlimit", f"--nofile={files}", "--", "setpriv", f"--reuid={uid}", f"--regid={uid}", *give_up, "--")


def _give(path: str, uid: int) -> None:
    """Raises Failed."""
    try:
        os.chown(path, uid, uid, follow_symlinks=False)
    except OSError as error:
        raise Failed(f"{path} cannot be exported: {error.strerror}") from error


def _recorded(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _command_line(pid: int) -> tuple[str, ...]:
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(data.decode("utf-8", "replace").split("\0")[:-1])


def _owner(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _kill(pid: int) -> None:
    """With targets it does not hear SIGTERM."""
    with _pidfd(pid) as handle, contextlib.suppress(ProcessLookupError):
        if handle is not None:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], STOP_S)


_: type[Exporter] = TgtExporter
