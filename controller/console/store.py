"""SQL of console tokens."""

import msgspec
import sqlalchemy as sa

from controller.db.tables.console import console_token
from controller.db.tx import Tx


class ConsoleToken(msgspec.Struct, frozen=True, kw_only=True):
    """One permission; the token itself is not kept."""

    token_sha256: str
    server_id: str
    generation: int
    kind: str
    user_id: str
    request_id: str
    expires_at: float


def insert(tx: Tx, new: ConsoleToken, now: float) -> None:
    """Keep a token, and no longer those that have ended."""
    tx.execute(sa.delete(console_token).where(console_token.c.expires_at < now))
    tx.execute(sa.insert(console_token).values(msgspec.structs.asdict(new)))


def count(tx: Tx, server_id: str, now: float) -> int:
    """How many of a server's are open."""
    here = (console_token.c.server_id == server_id, console_token.c.expires_at >= now)
    query = sa.select(sa.func.count()).where(*here, console_token.c.used_at.is_(None))
    return tx.execute(query).scalar_one()


def is_open(tx: Tx, token_sha256: str, now: float) -> bool:
    """Whether the permission could be spent now."""
    return tx.execute(sa.select(console_token.c.kind).where(*_open(token_sha256, now))).first() is not None


def spend(tx: Tx, token_sha256: str, now: float) -> ConsoleToken | None:
    """The permission, if it was not used yet and has not ended; it is used from now on."""
    if tx.execute(sa.update(console_token).where(*_open(token_sha256, now)).values(used_at=now)).rowcount != 1:
        return None
    row = tx.execute(sa.select(console_token).where(console_token.c.token_sha256 == token_sha256)).mappings().one()
    values = {field: row[field] for field in ConsoleToken.__struct_fields__}
    return msgspec.convert(values, ConsoleToken)


def _open(token_sha256: str, now: float) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        console_token.c.token_sha256 == token_sha256,
        console_token.c.used_at.is_(None),
        console_token.c.expires_at >= now,
    )
