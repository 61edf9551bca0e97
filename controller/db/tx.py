"""Transactions: what the rest of the controller knows of the database.

A transaction is a plain function `fn(tx, …)`, so no await can hide inside one. It may be run again from the
start (PostgreSQL's serialization failures), so it has no effect outside `tx` and draws no ids, time or
randomness: those are arguments.
"""

from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar

import sqlalchemy as sa

from controller.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

Tx: TypeAlias = sa.Connection
"""First argument of every function in a `store.py`. Only `execute` and friends; never commit or rollback."""


class DatabaseDown(Unavailable):
    """The database could not be reached, or could not commit. It may or may not have happened; nothing half."""


class Database(Protocol):
    """Where intent is kept."""

    dialect: str  # sqlite | postgresql

    async def read(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn` in a read-only transaction on a consistent snapshot."""
        ...

    async def write(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn` in a serializable transaction; returns after it is durable. `fn` may run more than once."""
        ...

    async def read_aside(
        self, timeout_s: float, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Like `read`, for what may be slow (filters without an index): off the loop; Unavailable past its time."""
        ...

    def shortage(self) -> str:
        """Why nothing new should be written now (the disk is nearly full); empty while there is room."""
        ...

    async def close(self) -> None:
        """Finish what was queued and let go."""
        ...
