"""How a machine becomes a host and ceases to be one: join tokens, the join itself, renewal, removal.

A token `hst1.<sha256 of the CA>.<id>.<secret>` is one permission: it works once, for an hour, and only its hash is
kept. A machine that joins makes its keys itself; we sign what speaks for a *new* id, or, with a token issued to
replace a host, for that host, whose older credentials are revoked in the same transaction. Nothing else takes over an
id. Whoever lost our reply may ask again with the same token and the same keys while the token lasts: the answer opens
nothing to anybody who does not hold those keys.

A removal commits first (from then on the channel knows the host no more and its objects count as fenced), then the
bus is told, which closes its sessions. A crash between the two is made good by the next start and by the daily
reconciler, which also renews the certificates of our own listeners.
"""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from agent.wire.host import JoinReply, JoinRequest, RenewReply, RenewRequest
from agent.wire.world import World
from controller.authority import Authority, HostCertificate
from controller.bus_identity import BusIdentity, Listen, is_user_key, reload
from controller.db.tx import Database, Tx
from controller.errors import Forbidden, Invalid
from controller.fleet import store
from controller.fleet.model import BadToken, Credential, JoinToken, Place
from controller.founding import Founded
from controller.hosts import Hosts
from controller.network import ends

TOKEN_LIFE_S: Final = 3600.0
"""From issue to use. Longer: a token left in a terminal's history is open for longer."""

TOKEN_KEPT_S: Final = 7 * 86400.0
"""How long an ended token's row is kept, to tell what became of it."""

_HOSTNAME: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
_FILES_S: Final = 30.0

log = structlog.get_logger()


class Enrollment:
    """One cloud's. `listen` is the bus's server; its configuration is ours to write."""

    def __init__(
        self,
        db: Database,
        world: World,
        hosts: Hosts,
        *,
        founded: Founded,
        authority: Authority,
        identity: BusIdentity,
        listen: Listen,
    ) -> None:
        self._db = db
        self._world = world
        self._hosts = hosts
        self._founded = founded
        self._authority = authority
        self._identity = identity
        self._listen = listen
        self._on_removed: list[Callable[[str], None]] = []

    def on_removed(self, callback: Callable[[str], None]) -> None:
        """Call back when a host's credentials were revoked: end what it has open."""
        self._on_removed.append(callback)

    async def issue_token(self, host_id: str | None = None) -> str:
        """A join token, shown once: for a new host, or to replace one. Raises NoSuchHost."""
        now, secret = self._world.clock.now(), self._world.entropy.secret(32)
        token = JoinToken(
            id=self._world.entropy.hex(16),
            secret_sha256=_sha256(secret),
            host_id=host_id,
            created_at=now,
            expires_at=now + TOKEN_LIFE_S,
        )
        await self._db.write(store.insert_token, token)
        return f"hst1.{self._authority.fingerprint}.{token.id}.{secret}"

    async def join(self, request: JoinRequest) -> JoinReply:
        """Make the bearer of a token a host. Raises BadToken, Invalid, HostnameTaken."""
        now = self._world.clock.now()
        place = _place(request)
        token = await self._valid_token(request.token, now)
        repeats = token.used_at is not None
        if repeats and token.used_nkey != request.nkey:
            raise BadToken
        host_id = token.used_host_id or token.host_id or self._world.entropy.uuid()
        certificate = self._authority.sign_host(request.csr_pem, host_id, now)
        if repeats:
            await self._repeat(request.nkey, certificate)
        else:
            await self._enroll(token, place, _credential(request.nkey, host_id, certificate), now)
        if token.host_id is not None:
            self._hosts.forget(host_id)  # What was known of the machine before this one.
        self._hosts.adopt(host_id)
        log.info("host joined", host=host_id, hostname=place.hostname, again=repeats, replaces=token.host_id)
        return JoinReply(
            host_id=host_id,
            cloud=self._founded.name,
            tag=self._founded.tag,
            nats_urls=(self._listen.url,),
            nats_jwt=self._identity.host_jwt(host_id, request.nkey, now),
            certificate_pem=certificate.pem,
            ca_pem=self._authority.ca_pem,
        )

    async def holder(self, certificate_serial: str) -> str | None:
        """The enrolled host that a certificate speaks for now."""
        return await self._db.read(store.holder_of, certificate_serial)

    async def renew(self, host_id: str, presented_serial: str, request: RenewRequest) -> RenewReply:
        """Another certificate for the host that presents one. Raises Forbidden, Invalid."""
        made = self._authority.sign_host(request.csr_pem, host_id, self._world.clock.now())
        if not await self._db.write(store.renew_certificate, presented_serial, made.serial, made.until):
            raise Forbidden("This certificate is not valid any more.")
        return RenewReply(certificate_pem=made.pem, ca_pem=self._authority.ca_pem)

    async def remove(self, host_id: str) -> None:
        """An operator's word that a host is gone, dead and fenced. Raises NoSuchHost."""
        await self._db.write(store.remove_host, host_id, self._world.clock.now())
        self._hosts.forget(host_id)
        log.info("host removed", host=host_id)
        await self._revoked(host_id)

    async def run(self) -> Mapping[str, Any]:
        """The reconciler `enrollment`: bus and certificates as they should be, old tokens forgotten."""
        changed = await self._world.threads.run(self._renew_server, timeout_s=_FILES_S)
        revoked = await self._apply()
        ended = self._world.clock.now() - TOKEN_KEPT_S
        return {"renewed": changed, "revoked": revoked, "purged": await self._db.write(store.purge_tokens, ended)}

    async def _valid_token(self, text: str, now: float) -> JoinToken:
        parts = text.split(".")
        if len(parts) != 4 or parts[0] != "hst1" or parts[1] != self._authority.fingerprint:
            raise BadToken
        token = await self._db.read(store.find_token, parts[2])
        known = token.secret_sha256 if token is not None else _sha256("")
        if not hmac.compare_digest(known, _sha256(parts[3])) or token is None or token.expires_at <= now:
            raise BadToken
        return token

    async def _enroll(self, token: JoinToken, place: Place, credential: Credential, now: float) -> None:
        revoked = await self._db.write(_enrolled, token.id, place, credential, now)
        if revoked:
            await self._revoked(credential.host_id)

    async def _repeat(self, nkey: str, certificate: HostCertificate) -> None:
        if not await self._db.write(store.reissue_certificate, nkey, certificate.serial, certificate.until):
            raise BadToken

    async def _revoked(self, host_id: str) -> None:
        for callback in self._on_removed:
            callback(host_id)
        await self._apply()

    async def _apply(self) -> int:
        """Tell the bus of every key that it must refuse; how many were new to it."""
        nkeys = await self._db.read(store.revoked_nkeys)
        return await self._world.threads.run(self._refuse, nkeys, timeout_s=_FILES_S)

    def _refuse(self, nkeys: list[str]) -> int:
        known = len(self._identity.revoked())
        if self._identity.revoke(nkeys, self._world.clock.now()):
            self._reload()
        return len(self._identity.revoked()) - known

    def _renew_server(self) -> bool:
        before = self._listen.certificate.read_bytes()
        self._authority.ensure_server("nats", [self._listen.address], self._world.clock.now())
        if before == self._listen.certificate.read_bytes():
            return False
        self._reload()
        return True

    def _reload(self) -> None:
        self._identity.write_config(self._listen, self._world.clock.now())
        if not reload(self._listen.pid_file):
            log.warning("the bus's server does not run here; it will read its configuration when it starts")


def _enrolled(tx: Tx, token_id: str, place: Place, credential: Credential, now: float) -> list[str]:
    """See fleet.store.enroll. A host that is replaced may have another address, to which tunnels lead from now on."""
    before = store.find_host(tx, credential.host_id)
    revoked = store.enroll(tx, token_id, place, credential, now)
    if before is not None and before.underlay_address != place.underlay_address:
        ends.host_moved(tx, credential.host_id)
    return revoked


def _place(request: JoinRequest) -> Place:
    hostname = request.hostname.lower()
    if not _HOSTNAME.fullmatch(hostname):
        raise Invalid(f"A host cannot be named {request.hostname[:80]!r}: a DNS name is needed.")
    try:
        address = ipaddress.ip_address(request.underlay_address)
    except ValueError as error:
        raise Invalid(f"{request.underlay_address[:80]!r} is not an IP address.") from error
    if not is_user_key(request.nkey):
        raise Invalid("The key for the bus is not a public user key.")
    return Place(hostname=hostname, underlay_address=str(address))


def _credential(nkey: str, host_id: str, made: HostCertificate) -> Credential:
    return Credential(nkey=nkey, host_id=host_id, certificate_serial=made.serial, certificate_until=made.until)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
