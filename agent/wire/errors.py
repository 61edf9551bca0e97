"""Failures that cross the bus. Each is a class here, a code on the wire, and the same class again at the far end."""

import enum

import msgspec


class FaultCode(enum.StrEnum):
    """The closed set of reasons a host gives; unknown ones (from newer hosts) decode as FAILED."""

    STALE = "stale"
    CONFLICT = "conflict"
    NOT_FOUND = "not-found"
    INVALID = "invalid"
    UNFIT = "unfit"
    BUSY = "busy"
    READ_ONLY = "read-only"
    FAILED = "failed"

    @classmethod
    def _missing_(cls, value: object) -> "FaultCode":
        return cls.FAILED


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A failure as data: `message` is a sentence an operator can act on, without secrets."""

    code: FaultCode
    message: str


class WireError(Exception):
    """A failure answered by the far end (as opposed to silence, which is `Silent`)."""

    code = FaultCode.FAILED

    def fault(self) -> Fault:
        """This failure as it travels."""
        return Fault(code=self.code, message=str(self))


class Stale(WireError):
    """The host has a newer generation of this object (or its tombstone)."""

    code = FaultCode.STALE


class Conflict(WireError):
    """The same generation came with other content: a bug in whoever sent it."""

    code = FaultCode.CONFLICT


class NotFound(WireError):
    """The host holds no such object."""

    code = FaultCode.NOT_FOUND


class Invalid(WireError):
    """The request could not be understood."""

    code = FaultCode.INVALID


class Unfit(WireError):
    """This host can never do that (no such physical network, format, device)."""

    code = FaultCode.UNFIT


class Busy(WireError):
    """Try again: a limit of concurrency was reached, or a breaker is open."""

    code = FaultCode.BUSY


class ReadOnly(WireError):
    """The host's ledger cannot be written (disk full): it refuses `ensure`, still serves `absent` and `get`."""

    code = FaultCode.READ_ONLY


class Failed(WireError):
    """The host tried and failed."""


class Silent(Exception):
    """No answer came in time, or nobody listens. The far end may or may not have done it."""


class Unheard(Silent):
    """Nobody listens, says the bus itself: it works, and nothing was done."""


_BY_CODE: dict[FaultCode, type[WireError]] = {
    cls.code: cls for cls in (Stale, Conflict, NotFound, Invalid, Unfit, Busy, ReadOnly, Failed)
}


def raised(fault: Fault) -> WireError:
    """The exception for a fault that arrived."""
    return _BY_CODE[fault.code](fault.message)
