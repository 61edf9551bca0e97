"""However a run ends, it leaves nothing: signals become an exception once, and nothing interrupts the cleaning."""

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class NotAlone(Exception):
    """Another run has the cloud of this name."""


def tidy() -> contextlib.AbstractContextManager[None]:
    """Within, the first of the ending signals is a SystemExit with the shell's code for it; the others do nothing."""
    return _handling(_end)


def uninterrupted() -> contextlib.AbstractContextManager[None]:
    """Within, ending signals do nothing, also to programs that are started here: for cleaning, which ends by itself."""
    return _handling(signal.SIG_IGN)


@contextlib.contextmanager
def _handling(how: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    before = {number: signal.signal(number, how) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Two runs would clean up each other's cloud: the second one raises NotAlone. An abstract socket leaves no file."""
    with socket.socket(socket.AF_UNIX) as mark:
        try:
            mark.bind(f"\0hostler-run-{name}")
        except OSError as error:
            raise NotAlone(f"another run of {name} is going on, on this machine") from error
        yield


def _end(number: int, frame: FrameType | None) -> None:
    """A second Ctrl-C must not leave a cloud behind."""
    for one in _SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    raise SystemExit(128 + number)
