"""Password hashes: argon2id with OWASP's parameters, one at a time in a worker thread.

One at a time because each takes 19 MiB and tens of milliseconds of a core: in parallel a burst of logins would slow
every other request. A check for an unknown user costs the same as a wrong password, so time tells nobody who exists.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from agent.wire.world import World
from controller.errors import Invalid, Unavailable

T = TypeVar("T")

LENGTH_MAX: Final = 1024
"""Characters. Longer ones are no secret any more, only work for us."""

WAITING_MAX: Final = 200
"""Checks that may wait for the thread: some seconds' worth. More would be answered after their callers had gone."""

TIMEOUT_S: Final = 30.0

_hasher: Final = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)

_NOBODYS: Final = "$argon2id$v=19$m=19456,t=2,p=1$Jq9wPIr8MYszLB0/Jpooqg$7WTNYbLbHYMo43WYzL7uFT/uE199xQFcDJPLAEbtSbs"
"""A hash with the same parameters, for users that do not exist; what it is of does not matter, the answer is no."""


class Passwords:
    """Hashes and checks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """What to store. Raises Invalid for a password out of bounds."""
        if not 0 < len(password) <= LENGTH_MAX:
            raise Invalid(f"A password has 1 to {LENGTH_MAX} characters.")
        return await self._run(hash_now, password)

    async def is_right(self, stored: str | None, password: str) -> bool:
        """Whether the password belongs to the hash. None: there is no such user, or it has no password."""
        given = password if len(password) <= LENGTH_MAX else ""
        return await self._run(_verify, stored or _NOBODYS, given) and stored is not None and bool(given)

    async def _run(self, fn: Callable[..., T], *args: str) -> T:
        if self._waiting >= WAITING_MAX:
            raise Unavailable("Too many logins at once; try again in a moment.")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._world.threads.run(fn, *args, timeout_s=TIMEOUT_S)
        finally:
            self._waiting -= 1


def hash_now(password: str) -> str:
    """In this thread, for bootstraps and tests: some tens of milliseconds."""
    return _hasher.hash(password)


def _verify(stored: str, password: str) -> bool:
    try:
        return _hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False
