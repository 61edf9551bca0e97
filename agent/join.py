"""How this machine becomes a host of a cloud, and who it is from then on.

The token names the cloud's authority by its hash. So the first question, for the authority's certificate, needs no
trust: an answer with another hash is refused, and only over a connection that this very authority vouches for is the
secret sent. The keys are made here and never leave. They are kept with the token's id before they are used, so that a
join whose reply was lost can be repeated with the same ones; another token gets new ones.

Files of the identity's folder (`<state>/identity`), all 0600:

    host.json    who we are; written last, so where it exists everything else does
    ca.pem       the cloud's authority
    host.key, host.pem       key and certificate on the host channel (EC P-256)
    nats.seed, nats.jwt      key and permissions on the bus
    pending.json             the token that the keys were made for, until the join is done
"""

import asyncio
import hashlib
import http.client
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import nkeys
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.wire.bus import Credentials, file_credentials
from agent.wire.host import JoinReply, JoinRequest, Refusal, RenewReply, RenewRequest

R = TypeVar("R", bound=msgspec.Struct)

ANSWER_S: Final = 20.0
"""For one question to the controller. Shorter: a busy one loses joins. Longer: an agent starts late."""

ANSWER_BYTES_MAX: Final = 64 * 1024

RENEW_BELOW: Final = 1 / 3
"""Part of a certificate's life left when it is renewed: hundreds of days in which the controller may be away."""

log = structlog.get_logger()


class JoinRefused(Exception):
    """Trying again will not help: the message says what would."""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """Who this host is."""

    host_id: str
    cloud: str
    tag: str  # The cloud's 4 hex digits, in every name of a host object.
    nats_urls: tuple[str, ...]
    controller: str  # Address and port of the host channel where it joined.
    hostname: str
    underlay_address: str


class IdentityFiles:
    """Where what is in the folder. Contents are read at each use, so that renewed ones count."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        self.key = folder / "host.key"
        self.certificate = folder / "host.pem"
        self.seed = folder / "nats.seed"
        self.jwt = folder / "nats.jwt"
        self.joined = folder / "host.json"
        self.pending = folder / "pending.json"

    def find(self) -> Joined | None:
        """Who we are, or None before the join."""
        return msgspec.json.decode(self.joined.read_bytes(), type=Joined) if self.joined.exists() else None

    def bus_credentials(self) -> Callable[[], Credentials]:
        """For `NatsBus`."""
        return file_credentials(self.jwt, self.seed, self.ca)

    def channel_context(self) -> ssl.SSLContext:
        """For connections to host channels, as the host that we are."""
        context = _trusting(self.ca.read_text())
        context.load_cert_chain(self.certificate, self.key)
        return context

    def listening_context(self) -> ssl.SSLContext:
        """For our own host channel: who connects must show a certificate of the cloud's authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cafile=str(self.ca))
        self.load_own(context)
        return context

    def load_own(self, context: ssl.SSLContext) -> None:
        """Show the certificate as it is now, in new connections."""
        context.load_cert_chain(self.certificate, self.key)

    def verify_ticket(self, signature: bytes, claims: bytes) -> bool:
        """Whether the cloud's authority signed that."""
        key = x509.load_pem_x509_certificate(self.ca.read_bytes()).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey), "authorities have keys on P-256"
        try:
            key.verify(signature, claims, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


async def join(token: str, address: str, folder: Path, hostname: str, underlay_address: str) -> Joined:
    """Join the cloud whose host channel is at `address` (host:port). Raises JoinRefused; OSError means: try again."""
    return await asyncio.to_thread(join_now, token, address, folder, hostname, underlay_address)


def join_now(token: str, address: str, folder: Path, hostname: str, underlay_address: str) -> Joined:
    """See `join`; blocks."""
    files = IdentityFiles(folder)
    if (known := files.find()) is not None:
        raise JoinRefused(f"This machine is host {known.host_id} of cloud {known.cloud} already ({files.joined}).")
    fingerprint, token_id = _parsed(token)
    ca_pem = _authority(address, fingerprint)
    key, nkey = _keys(files, token_id)
    request = JoinRequest(
        token=token, hostname=hostname, underlay_address=underlay_address, nkey=nkey, csr_pem=_request(key)
    )
    reply = _ask(address, _trusting(ca_pem), "/join", request, JoinReply)
    joined = Joined(
        host_id=reply.host_id,
        cloud=reply.cloud,
        tag=reply.tag,
        nats_urls=reply.nats_urls,
        controller=address,
        hostname=hostname,
        underlay_address=underlay_address,
    )
    _write(files.ca, ca_pem.encode())
    _write(files.certificate, reply.certificate_pem.encode())
    _write(files.jwt, reply.nats_jwt.encode())
    _write(files.joined, msgspec.json.encode(joined))
    files.pending.unlink()
    log.info("joined", host=joined.host_id, cloud=joined.cloud)
    return joined


async def renew_if_due(folder: Path, now: float | None = None) -> bool:
    """Renew this host's certificate if little of its life is left; whether it was. Raises JoinRefused, OSError."""
    return await asyncio.to_thread(renew_now, folder, time.time() if now is None else now)


def renew_now(folder: Path, now: float) -> bool:
    """See `renew_if_due`; blocks."""
    files = IdentityFiles(folder)
    joined = files.find()
    assert joined is not None, "only a host has a certificate"
    held = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    ends, begins = held.not_valid_after_utc.timestamp(), held.not_valid_before_utc.timestamp()
    if ends - now > (ends - begins) * RENEW_BELOW:
        return False
    request = RenewRequest(csr_pem=_request(_load(files.key)))
    reply = _ask(joined.controller, files.channel_context(), "/renew", request, RenewReply)
    _write(files.certificate, reply.certificate_pem.encode())
    return True


def _parsed(token: str) -> tuple[str, str]:
    """(hash of the authority, id) of a token."""
    parts = token.strip().split(".")
    if len(parts) != 4 or parts[0] != "hst1":
        raise JoinRefused("This is not a join token: one begins with hst1. and has four parts.")
    return parts[1], parts[2]


def _authority(address: str, fingerprint: str) -> str:
    """The certificate of the authority that the token names, from whoever answers: its hash is the proof."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    status, body = _exchange(address, anybody, "GET", "/ca", None)
    try:
        found = [] if status != 200 else x509.load_pem_x509_certificates(body)
    except ValueError:
        found = []
    for certificate in found:
        if hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest() == fingerprint:
            return certificate.public_bytes(serialization.Encoding.PEM).decode()
    raise JoinRefused(f"What answers at {address} is not the cloud that this token is for.")


def _keys(files: IdentityFiles, token_id: str) -> tuple[ec.EllipticCurvePrivateKey, str]:
    """(channel key, public bus key): those that were made for this token already, else new ones."""
    if not files.pending.exists() or files.pending.read_text() != token_id:
        files.pending.unlink(missing_ok=True)
        fresh = ec.generate_private_key(ec.SECP256R1())
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        _write(files.key, fresh.private_bytes(*form))
        _write(files.seed, bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)))
        _write(files.pending, token_id.encode())
    pair = nkeys.from_seed(bytearray(files.seed.read_bytes()))
    return _load(files.key), bytes(pair.public_key).decode()


def _load(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey), f"{path} holds a key that we did not make"
    return key


def _request(key: ec.EllipticCurvePrivateKey) -> str:
    """A signing request that says nothing but the key: who we are is the controller's to say."""
    signed = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def _trusting(ca_pem: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca_pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _ask(address: str, context: ssl.SSLContext, path: str, request: msgspec.Struct, kind: type[R]) -> R:
    status, body = _exchange(address, context, "POST", path, msgspec.json.encode(request))
    try:
        if status == 200:
            return msgspec.json.decode(body, type=kind)
        why = msgspec.json.decode(body, type=Refusal).error.message
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise OSError(f"the controller's answer cannot be read: {error}") from error
    if status < 500:
        raise JoinRefused(why)
    raise OSError(f"the controller failed: {why}")


def _exchange(address: str, context: ssl.SSLContext, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
    """(status, body). Raises OSError for everything that goes wrong on the way."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPSConnection(host.strip("[]"), int(port), timeout=ANSWER_S, context=context)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read(ANSWER_BYTES_MAX)
    except http.client.HTTPException as error:
        raise OSError(f"{address}: {type(error).__name__}: {error}") from error
    finally:
        connection.close()


def _write(path: Path, content: bytes) -> None:
    """Mode 0600 from the first byte; the old content or the new, durable on return."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
        sink.write(content)
        sink.flush()
        os.fsync(sink.fileno())
    temporary.replace(path)
