"""A breaker per host: who does not answer is not asked by everybody at once. Pure: the caller says what time it is.

Closed, calls pass. After SILENCES_MAX silences in a row it opens: callers are refused at once for a pause that
doubles up to PAUSE_MAX_S, then one call may try; its answer closes the breaker, its silence opens it again.
Any heartbeat closes it too. A fault that a host answers is an answer.
"""

from typing import Final

SILENCES_MAX: Final = 3
"""Lower: one lost message blocks a healthy host. Higher: more callers wait out a time-out each."""

PAUSE_MIN_S: Final = 1.0
PAUSE_MAX_S: Final = 10.0
"""Between two trials. Longer than a heartbeat's distance would be of no use."""


class Breaker:
    """One host's."""

    __slots__ = ("_open_until", "_silences")

    def __init__(self) -> None:
        self._silences = 0
        self._open_until: float | None = None

    def admits(self, now: float) -> bool:
        """Whether a call may be made now. The one that tries after a pause holds the others off for another."""
        if self._open_until is None:
            return True
        if now < self._open_until:
            return False
        self._open_until = now + self._pause_s()
        return True

    def silent(self, now: float) -> None:
        """A call was not answered."""
        self._silences += 1
        if self._silences >= SILENCES_MAX:
            self._open_until = now + self._pause_s()

    def answered(self) -> None:
        """The host is there."""
        self._silences = 0
        self._open_until = None

    def _pause_s(self) -> float:
        return min(PAUSE_MAX_S, PAUSE_MIN_S * 2.0 ** min(self._silences - SILENCES_MAX, 8))
