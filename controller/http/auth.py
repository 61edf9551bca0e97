"""From a token to a caller. What a token is, and whether it still holds, is `Identities`' business."""

import re
from typing import Final, Protocol

from controller.context import Context
from controller.errors import Unauthorized

TOKEN_LENGTH_MAX: Final = 1024
"""Ours have some 200 characters. More is not worth decrypting."""

_REQUEST_ID: Final = re.compile(r"req-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Identities(Protocol):
    """Who can say what a token stands for: the controller itself, or a process that asks it."""

    async def authenticate(self, token: str, request_id: str, global_request_id: str) -> Context:
        """The caller as of now. Raises Unauthorized; Unavailable if nobody can say."""
        ...


async def caller(identities: Identities, token: str | None, request_id: str, global_request_id: str) -> Context:
    """The context of an authenticated request. Raises Unauthorized."""
    if not token:
        raise Unauthorized("The request you have made requires authentication.")
    if len(token) > TOKEN_LENGTH_MAX:
        raise Unauthorized("The token is not valid.")
    return await identities.authenticate(token, request_id, global_request_id)


def anonymous(request_id: str, global_request_id: str) -> Context:
    """The context of public rows."""
    return Context(request_id=request_id, global_request_id=global_request_id, user_id="")


def global_id(header: str | None) -> str:
    """The caller's own request id, if it has the form of one; anything else would only dirty the logs."""
    return header if header and _REQUEST_ID.fullmatch(header) else ""
