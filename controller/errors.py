"""Expected failures: one family, a sentence for the user, a cause for us. `http/faults.py` renders them.

Each carries an optional machine-readable `why`: per-host reasons for scheduling, the rule for policy, the
numbers for quota. Whoever raises one writes the sentence for a person who cannot see our code.
"""

from typing import Any


class CloudError(Exception):
    """An expected failure. `status` is the HTTP status unless the service's envelope says otherwise."""

    status = 500
    title = "Internal Server Error"

    def __init__(self, message: str, *, why: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.why = why


class Invalid(CloudError):
    """The request makes no sense as it is."""

    status, title = 400, "Bad Request"


class Unauthorized(CloudError):
    """No token, or one that is not valid any more."""

    status, title = 401, "Unauthorized"


class Forbidden(CloudError):
    """Visible, but not allowed."""

    status, title = 403, "Forbidden"


class NotFound(CloudError):
    """Not there, or not visible to this caller: both look the same."""

    status, title = 404, "Not Found"


class MethodNotAllowed(CloudError):
    """The path exists, the method does not."""

    status, title = 405, "Method Not Allowed"


class NotAcceptable(CloudError):
    """A microversion that is not offered."""

    status, title = 406, "Not Acceptable"


class Conflict(CloudError):
    """The object's present state forbids it."""

    status, title = 409, "Conflict"


class Gone(CloudError):
    """Offered once, not any more (or not in this microversion)."""

    status, title = 410, "Gone"


class PreconditionFailed(CloudError):
    """If-Match did not match."""

    status, title = 412, "Precondition Failed"


class TooLarge(CloudError):
    """More bytes than allowed."""

    status, title = 413, "Request Entity Too Large"


class UnsupportedMedia(CloudError):
    """A Content-Type that the route does not take."""

    status, title = 415, "Unsupported Media Type"


class OverQuota(CloudError):
    """A quota would be passed; `why` has resource, limit, used, requested. Each service has its own status."""

    status, title = 403, "Forbidden"


class NoValidHost(CloudError):
    """No host can take it; `why` has the reason of each host."""

    status, title = 409, "Conflict"


class Unavailable(CloudError):
    """Try later: something that must answer does not, or the disk is nearly full."""

    status, title = 503, "Service Unavailable"
