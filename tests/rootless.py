"""Whether a process reads code after it gave up root, when it may be unable to.

`watching(run)` is the source of a process that does `run` and says on stderr, a line each, what it read too late.
"""

from typing import Final

LATE: Final = "LATE"
"""How each such line begins."""

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
            print("{LATE}", path, file=sys.stderr, flush=True)
    sys.addaudithook(hook)
rights.become = and_watch
"""


def watching(run: str) -> str:
    """`run` may import anything; what it imports before root is given up is not late."""
    return _WATCH + run
