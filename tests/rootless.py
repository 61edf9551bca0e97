"""Whether a process reads code after it gave up root, when it may be unable to.

`watching(run)` is the source of a process that does `run`, and says on stderr when it gave up root and what it read
after that, a line each. `read_late` finds that among the rest.
"""

from typing import Final

WATCHING: Final = "WATCHING"
_LATE: Final = "LATE"

_WATCH: Final = f"""
import os, sys
from agent.wire import rights
become = rights.become
def and_watch(uid):
    become(uid)
    tree = (sys.prefix, sys.base_prefix, os.getcwd())
    def hook(event, arguments):
        path = str(arguments[0]) if event == "open" else ""
        if path.endswith((".py", ".pyc", ".so")) and path.startswith(tree):
            print("{_LATE}", path, file=sys.stderr, flush=True)
    sys.addaudithook(hook)
    print("{WATCHING}", file=sys.stderr, flush=True)
rights.become = and_watch
"""


def watching(run: str) -> str:
    """`run` may import anything; what it imports before root is given up is not late."""
    return _WATCH + run


def read_late(stderr: str) -> list[str]:
    """What a watched process read too late. It must have given up root."""
    lines = stderr.splitlines()
    assert WATCHING in lines, stderr
    return [line for line in lines if line.startswith(_LATE)]
