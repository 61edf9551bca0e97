"""How a process of ours gives up root: what it needs is opened and handed over first, then nothing is left to gain.

Controller, inspector, collector and guard need root for nothing but to begin. Started as root (a trial, or a machine
without service users) each becomes a uid of its own for good, before it reads anything of others. Our code may be
readable by root only, so everything is imported before that, and folders are given to that uid. Started as anybody
else a process stays who it is.
"""

import ctypes
import os
import signal
import stat
from typing import Final

_PR_SET_DUMPABLE: Final = 4
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWIPC: Final = 0x08000000
_CLONE_NEWNET: Final = 0x40000000


def is_root() -> bool:
    """Whether there is anything to give up."""
    return os.geteuid() == 0


def hand_over(folder: str | os.PathLike[str], uid: int) -> None:
    """Give what is root's in a folder, and the folder itself, to `uid`; what is there of others stays theirs.

    The folder may be in that uid's hands already: no symbolic link is followed, and a file that has a second name,
    which might be elsewhere, is left alone.
    """
    for _, folders, files, descriptor in os.fwalk(folder, follow_symlinks=False):
        for name in (".", *folders, *files):
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if found.st_uid == 0 and (found.st_nlink == 1 or stat.S_ISDIR(found.st_mode)):
                os.chown(name, uid, uid, dir_fd=descriptor, follow_symlinks=False)


def become(uid: int) -> None:
    """Be `uid` from now on: no groups, no capabilities, no means to gain any. Only the last if this is not root.

    Call it while there is one thread: what cannot be gained is decided for each of them.
    """
    if is_root():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)  # From root to another uid in all three: the kernel drops every capability.
    libc = ctypes.CDLL(None, use_errno=True)
    _done(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _done(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")  # Nobody of the same uid reads its memory.


def leave_networks() -> None:
    """An own, empty network and an own, empty IPC namespace; nothing if this is not root, who alone may."""
    if is_root():
        _done(ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET | _CLONE_NEWIPC), "unshare")


def end_with_parent() -> None:
    """Be killed when the parent ends, however it does."""
    _done(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def _done(result: int, name: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
