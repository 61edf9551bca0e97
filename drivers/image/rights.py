"""How a short-lived child gives up every right, from inside, before it looks at the bytes of a stranger.

From inside, because then the child has opened its one file and loaded its code as root: neither has to be readable
for nobody, and nothing is left to open afterwards. Its limits of memory, time and file size come from
drivers.command.Confinement; here go its identity, its network, and the way back.
"""

import ctypes
import os
import resource
from typing import Final

_CLONE_NEWNET: Final = 0x40000000
_CLONE_NEWIPC: Final = 0x08000000
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_DUMPABLE: Final = 4

_FILES_MAX: Final = 16
"""Open files: the three standard ones, the image, and what Python needs for a late import."""


def give_up(uid: int) -> None:
    """Become `uid` without groups, capabilities, network or the means to gain any. Without root, what is possible.

    Raises OSError when root could not give up something: the child must not go on then.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES_MAX, _FILES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        _done(libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC), "unshare")
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)  # From root to another uid in all three: the kernel drops every capability.
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    _done(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _done(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def _done(result: int, name: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
