"""Giving permission to look at a console, and spending it."""

import hashlib
from typing import Final

import msgspec

from controller.cloud import Cloud
from controller.compute import console_access
from controller.console import store
from controller.console.store import ConsoleToken
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict, Forbidden

LIFE_S: Final = 600.0
"""From the URL to the connection. Longer: a URL in a history is open for longer. Shorter: slow users ask again."""

SECRET_BYTES: Final = 32

OPEN_MAX: Final = 64
"""Unused tokens of one server. More is a loop that asks, and nobody who looks."""

SCREEN: Final = "vnc"
SERIAL: Final = "serial"


class Console(msgspec.Struct, frozen=True, kw_only=True):
    """What a token opened."""

    server_id: str
    host_id: str
    kind: str
    user_id: str


async def permit(cloud: Cloud, ctx: Context, server_id: str, kind: str) -> str:
    """A token for a server's console. Raises NotFound, or Conflict while it has none."""
    secret, now = cloud.world.entropy.secret(SECRET_BYTES), cloud.world.clock.now()
    await cloud.db.write(_permit, ctx, server_id, kind, _sha256(secret), now)
    return secret


async def spend(cloud: Cloud, secret: str) -> Console:
    """The console behind a token. Raises Forbidden, with one sentence for all reasons."""
    token_sha256, now = _sha256(secret), cloud.world.clock.now()
    # Looked at first: whoever guesses, without a token of ours, costs no write.
    is_open = await cloud.db.read(store.is_open, token_sha256, now)
    found = await cloud.db.write(_spend, token_sha256, now) if is_open else None
    if found is None:
        raise Forbidden("This console's URL is not valid any more: each opens one console once, within ten minutes.")
    return found


def _permit(tx: Tx, ctx: Context, server_id: str, kind: str, token_sha256: str, now: float) -> None:
    server = console_access.get(tx, ctx, server_id)
    if store.count(tx, server_id, now) >= OPEN_MAX:
        raise Conflict(f"Instance {server_id} has {OPEN_MAX} console URLs that nobody has used: use one, or wait.")
    permission = ConsoleToken(
        token_sha256=token_sha256,
        server_id=server_id,
        generation=server.generation,
        kind=kind,
        user_id=ctx.user_id,
        request_id=ctx.request_id,
        expires_at=now + LIFE_S,
    )
    store.insert(tx, permission, now)


def _spend(tx: Tx, token_sha256: str, now: float) -> Console | None:
    permission = store.spend(tx, token_sha256, now)
    if permission is None:
        return None
    host_id = console_access.find_host(tx, permission.server_id, permission.generation)
    if host_id is None:
        return None
    return Console(server_id=permission.server_id, host_id=host_id, kind=permission.kind, user_id=permission.user_id)


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
