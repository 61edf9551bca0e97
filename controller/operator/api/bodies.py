"""Request bodies of the operator's API."""

from controller.http.bodies import Body


class NewToken(Body, frozen=True, kw_only=True):
    """POST /join-tokens. With `host_id`, the token replaces that host; without, it lets a new one join."""

    host_id: str | None = None


class Abandon(Body, frozen=True, kw_only=True):
    """POST /sagas/{id}/abandon."""

    reason: str
