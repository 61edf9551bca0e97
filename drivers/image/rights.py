"""How a short-lived child gives up every right, from inside, before it looks at the bytes of a stranger.

From inside, because then the child has opened its one file and loaded its code as root: neither has to be readable
for nobody, and nothing is left to open afterwards. Its limits of memory, time and file size come from
drivers.command.Confinement; here go its identity, its network, and the way back.
"""

import resource
from typing import Final

from agent.wire import rights

_FILES_MAX: Final = 16
"""Open files: the three standard ones, the image, and what Python needs for a late import."""


def give_up(uid: int) -> None:
    """Become `uid` without groups, capabilities, network or the means to gain any. Without root, what is possible.

    Raises OSError when root could not give up something: the child must not go on then.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES_MAX, _FILES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    was_root = rights.is_root()
    rights.leave_networks()
    rights.become(uid)
    if was_root:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
