"""Where a trial's controller, NATS and collector sit: under uids of their own, which need no way through the checkout.

The checkout may be in a folder that only root passes (a home of root's). So there is one more mount namespace, pinned
by a file like a host's (see `space`), in which their state and the nats-server to run are found below the cloud's run
folder, where everybody passes. Controller and collector are started in it as root and give that up themselves when
their code is loaded; NATS is put under its uid before it starts. Controller and NATS have one uid: the controller
writes NATS's configuration and signals it. The collector has another, which reaches nothing of theirs, as they reach
nothing of it.

The state belongs to those uids, so root reads there with care and writes nothing: `acting` does what must be done
before they run in a child that has become one of them.
"""

import ctypes
import os
import shlex
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.wire import rights
from controller.cli.space import make_private, mount_points, unpin
from controller.cli.trial import Trial
from controller.config import Controller
from drivers.command import run

UID: Final = Controller().uid

COLLECTOR_UID: Final = 65530
"""As `collector.uid` is by default."""

_QUICK_S: Final = 15.0
_CLONE_NEWNS: Final = 0x00020000


class Seat:
    """The mount namespace of one trial's controller, NATS and collector."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.pin = trial.run_folder / "ns" / "seat"
        self.folder = trial.run_folder / "seat"  # Empty outside.
        self.controller_folder = self.folder / "controller"
        self.nats_folder = self.folder / "nats"
        self.collector_folder = self.folder / "collector"
        self.nats_server = self.folder / "nats-server"

    def enter(self, *argv: str) -> tuple[str, ...]:
        """The command line that runs `argv` inside, as root."""
        return ("nsenter", f"--mount={self.pin}", "--", *argv)

    def enter_without_rights(self, *argv: str) -> tuple[str, ...]:
        """The same, as the uid from the start and for good."""
        give_up = ("--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all")
        return self.enter("setpriv", f"--reuid={UID}", f"--regid={UID}", *give_up, "--", *argv)

    def make(self, server: Path) -> None:
        """Make it if it is not there, with `server` as the nats-server. What is root's in the state is handed over."""
        trial = self.trial
        owners = {trial.controller_folder: UID, trial.nats_folder: UID, trial.collector_folder: COLLECTOR_UID}
        for folder, uid in owners.items():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            rights.hand_over(folder, uid)
        if str(self.pin) in mount_points():
            return
        make_private(trial.run_folder / "ns")
        self.pin.touch()
        for folder in (self.folder, self.controller_folder, self.nats_folder, self.collector_folder):
            folder.mkdir(mode=0o711, exist_ok=True)
        self.nats_server.touch()
        places = {
            trial.controller_folder: self.controller_folder,
            trial.nats_folder: self.nats_folder,
            trial.collector_folder: self.collector_folder,
            server: self.nats_server,
        }
        binds = (f"mount --bind {shlex.quote(str(at))} {shlex.quote(str(to))}" for at, to in places.items())
        run(["unshare", f"--mount={self.pin}", "sh", "-euc", "; ".join(binds)], timeout_s=_QUICK_S)

    def remove(self) -> None:
        """Take the pin away; nothing runs inside any more. Harmless if there is nothing."""
        unpin(self.pin)

    def acting(self, do: Callable[[], bytes], uid: int = UID) -> bytes:
        """Do something inside, as `uid`, in a child of this process. Raises RuntimeError with what went wrong."""
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._act(do, uid, theirs)
        os.close(theirs)
        with os.fdopen(ours, "rb") as said:
            answer = said.read()
        _, status = os.waitpid(pid, 0)
        if status != 0:
            raise RuntimeError(f"as uid {uid}: {answer.decode(errors='replace').strip() or 'the child died'}")
        return answer

    def _act(self, do: Callable[[], bytes], uid: int, theirs: int) -> None:
        """Never returns."""
        code = 1
        try:
            with self.pin.open() as pin:
                if ctypes.CDLL(None, use_errno=True).setns(pin.fileno(), _CLONE_NEWNS) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            rights.become(uid)
            answer = do()
            with os.fdopen(theirs, "wb") as sink:
                sink.write(answer)
            code = 0
        except Exception as error:  # The border of the process.
            os.write(theirs, traceback.format_exception_only(error)[-1].encode()[:1000])
        finally:
            os._exit(code)
