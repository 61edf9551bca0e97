"""Tokens: what they hold, how they are checked, and how they end.

A token is a Fernet message: who, in which scope, by which methods, until when, and the auth generations of user,
project and domains when it was issued. It is checked in this process: decrypt, compare the generations with today's,
look the token up in the list of revoked ones, and take the roles from today's assignments.

Theory of operation. What a token stands for is remembered (decrypting and reading takes some 200 µs, remembering 2)
until `identity_change.counter` moves. The counter rises in the transaction of every change that could matter and is
read at most REFRESH_S apart, so a change made anywhere counts everywhere REFRESH_S later; one made here counts at
once. When the counter cannot be read for LAPSE_S no token is accepted: better nobody than somebody locked out.

Roles are not part of a token, so taking one away needs no new generation: what is left counts from then on, and a token
without any role left in its scope is refused. Password changes, disabling and deleting end tokens for good.
"""

import asyncio
import base64
import enum
from collections.abc import Callable
from typing import Final

import msgspec
from cryptography.fernet import InvalidToken

from agent.wire.world import World
from controller.context import Context
from controller.db.tx import Database, Tx
from controller.errors import CloudError, Unauthorized, Unavailable
from controller.identity import standing as standings
from controller.identity import store
from controller.identity.keys import Keyring
from controller.identity.model import SYSTEM, Standing, Target, TargetKind

REFRESH_S: Final = 0.5
"""How old the known counter may be. Larger: revocation misses its second; smaller: more reads that find nothing."""

LAPSE_S: Final = 1.0
"""Without the counter for this long, tokens are refused."""

SKEW_S: Final = 60.0
"""How far in another controller's future a token may have been issued."""

KNOWN_MAX: Final = 4_000
"""Tokens remembered, up to 4 KiB each with their rendered body. Beyond it all are forgotten: a read each."""

_LAYOUT: Final = 1


class Methods(enum.IntFlag):
    """How the user proved who it is; a token from a token keeps its ancestors' methods."""

    PASSWORD = 1
    TOKEN = 2


class Scope(enum.IntEnum):
    """As encoded."""

    UNSCOPED = 0
    PROJECT = 1
    DOMAIN = 2
    SYSTEM = 3


_KINDS: Final = {
    TargetKind.PROJECT: Scope.PROJECT,
    TargetKind.DOMAIN: Scope.DOMAIN,
    TargetKind.SYSTEM: Scope.SYSTEM,
}


class Payload(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is encrypted. Ids of 32 hex digits travel as 16 bytes: the token must stay below 255 characters."""

    layout: int
    user: bytes
    scope: int
    target: bytes
    methods: int
    issued_at: float
    expires_at: float
    audit_ids: tuple[str, ...]
    generations: tuple[int, int, int, int]

    @property
    def user_id(self) -> str:
        """The user."""
        return _unpacked(self.user)

    @property
    def where(self) -> Target | None:
        """The scope."""
        if self.scope == Scope.UNSCOPED:
            return None
        if self.scope == Scope.SYSTEM:
            return SYSTEM
        kind = TargetKind.PROJECT if self.scope == Scope.PROJECT else TargetKind.DOMAIN
        return Target(kind, _unpacked(self.target))


class Known(msgspec.Struct, kw_only=True):
    """A token that holds as of the known counter. `rendered` keeps what the API made of it."""

    text: str
    payload: Payload
    standing: Standing
    ctx: Context
    rendered: dict[str, bytes] = {}


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Payload).decode

_INVALID: Final = "The token is not valid."


class Tokens:
    """Issues and checks. Implements `http.auth.Identities`."""

    def __init__(self, db: Database, world: World, keys: Keyring, lifetime_s: float) -> None:
        self._db = db
        self._world = world
        self._keys = keys
        self._lifetime_s = lifetime_s
        self._known: dict[str, Known] = {}
        self._counter = -1
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._on_change: Callable[[], None] | None = None

    async def authenticate(self, token: str, request_id: str, global_request_id: str) -> Context:
        """See Identities."""
        known = await self.check(token)
        return msgspec.structs.replace(known.ctx, request_id=request_id, global_request_id=global_request_id)

    async def check(self, token: str) -> Known:
        """What a token stands for now. Raises Unauthorized; Unavailable when revocations cannot be read."""
        if asyncio.get_running_loop().time() - self._read_at > REFRESH_S:
            await self._refresh()
        known = self._known.get(token)
        if known is None:
            known = await self._learn(token)
        if known.payload.expires_at <= self._world.clock.now():
            raise Unauthorized(_INVALID)
        return known

    async def issue(self, user_id: str, target: Target | None, methods: Methods, parent: Payload | None) -> Known:
        """A new token. From a token (`parent`) it lives no longer than that. Raises Unauthorized."""
        now = self._world.clock.now()
        audit_id = self._world.entropy.secret(16)
        if parent is not None and parent.expires_at <= now:
            raise Unauthorized(_INVALID)
        found = await self._db.read(standings.standing, user_id, target)
        if found is None:
            raise Unauthorized("The request you have made requires authentication.")
        payload = Payload(
            layout=_LAYOUT,
            user=_packed(user_id),
            scope=Scope.UNSCOPED if target is None else _KINDS[target.kind],
            target=b"" if target is None or target.kind is TargetKind.SYSTEM else _packed(target.id),
            methods=methods if parent is None else methods | parent.methods,
            issued_at=now,
            expires_at=now + self._lifetime_s if parent is None else parent.expires_at,
            audit_ids=(audit_id,) if parent is None else (audit_id, parent.audit_ids[-1]),
            generations=found.generations,
        )
        text = self._keys.fernet.encrypt(_encode(payload)).rstrip(b"=").decode()
        return Known(text=text, payload=payload, standing=found, ctx=_context(payload, found))

    async def revoke(self, known: Known) -> None:
        """End this token; those made from it live on, as in Keystone."""
        payload = known.payload
        now = self._world.clock.now()
        await self._db.write(store.revoke_token, payload.audit_ids[0], payload.expires_at, now)
        self.changed()

    def changed(self) -> None:
        """This controller wrote something that may end tokens: nobody uses one before the counter is read again."""
        self.doubt()
        if self._on_change is not None:
            self._on_change()

    def doubt(self) -> None:
        """Another controller did."""
        self._read_at = float("-inf")

    def on_change(self, tell: Callable[[], None]) -> None:
        """Have the other controllers told, so that they do not wait for REFRESH_S. May be lost; may be slow."""
        self._on_change = tell

    def reload_keys(self) -> None:
        """The key files changed."""
        self._keys.reload()
        self._known.clear()

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._reading:
            if loop.time() - self._read_at <= REFRESH_S:
                return
            asked_at = loop.time()
            try:
                counter = await asyncio.wait_for(self._db.read(standings.changes), LAPSE_S)
            except (CloudError, TimeoutError) as error:
                if loop.time() - self._read_at > LAPSE_S:
                    raise Unavailable("Tokens cannot be checked at the moment; try again.") from error
                return
            self._seen(counter)
            self._read_at = asked_at

    def _seen(self, counter: int) -> None:
        if counter != self._counter:
            self._known.clear()
            self._counter = counter

    async def _learn(self, token: str) -> Known:
        payload = self._opened(token)
        counter, found = await self._db.read(_authorise, payload)
        self._seen(counter)
        if found is None:
            raise Unauthorized(_INVALID)
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        known = self._known[token] = Known(
            text=token, payload=payload, standing=found, ctx=_context(payload, found), rendered={}
        )
        return known

    def _opened(self, token: str) -> Payload:
        """Decrypted. Only the very text we issued passes: base64 has several spellings of the same bytes."""
        try:
            sealed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            if base64.urlsafe_b64encode(sealed).rstrip(b"=") != token.encode("ascii"):
                raise Unauthorized(_INVALID)
            payload = _decode(self._keys.fernet.decrypt(base64.urlsafe_b64encode(sealed)))
        except (ValueError, InvalidToken, msgspec.MsgspecError) as error:
            raise Unauthorized(_INVALID) from error
        if payload.layout != _LAYOUT or payload.issued_at > self._world.clock.now() + SKEW_S:
            raise Unauthorized(_INVALID)
        return payload


def _authorise(tx: Tx, payload: Payload) -> tuple[int, Standing | None]:
    """The counter, and the holder's standing if the token still holds; both of one snapshot."""
    counter = standings.changes(tx)
    if standings.is_revoked(tx, payload.audit_ids[0]):
        return counter, None
    found = standings.standing(tx, payload.user_id, payload.where)
    if found is None or found.generations != payload.generations:
        return counter, None
    return counter, found


def _context(payload: Payload, found: Standing) -> Context:
    where, project = payload.where, found.project
    return Context(
        request_id="",
        user_id=found.user.id,
        user_name=found.user.name,
        user_domain_id=found.user.domain_id,
        project_id=None if project is None else project.id,
        project_name="" if project is None else project.name,
        project_domain_id="" if project is None else project.domain_id,
        domain_id=None if found.domain is None else found.domain.id,
        is_system=where is not None and where.kind is TargetKind.SYSTEM,
        roles=frozenset(name for _, name in found.roles),
        audit_id=payload.audit_ids[0],
    )


def _packed(id: str) -> bytes:
    """One byte says which form follows."""
    try:
        digits = bytes.fromhex(id)
    except ValueError:
        digits = b""
    return b"h" + digits if len(digits) == 16 and digits.hex() == id else b"t" + id.encode()


def _unpacked(packed: bytes) -> str:
    return packed[1:].hex() if packed[:1] == b"h" else packed[1:].decode()
