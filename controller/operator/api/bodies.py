"""Request bodies of the operator's API."""

from typing import Annotated

import msgspec

from controller.http.bodies import Body


class NewToken(Body, frozen=True, kw_only=True):
    """POST /join-tokens. With `host_id`, the token replaces that host; without, it lets a new one join."""

    host_id: str | None = None


class Abandon(Body, frozen=True, kw_only=True):
    """POST /sagas/{id}/abandon."""

    reason: str


class Evict(Body, frozen=True, kw_only=True):
    """POST /hosts/{id}/image-cache/evict. `image` is a name, or the beginning of a hash."""

    image: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    force: bool = False
