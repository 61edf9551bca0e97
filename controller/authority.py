"""Our own certificate authority: who the controller's listeners are, and who a host is on the host channel.

EC P-256 throughout. A listener of ours is known by its addresses, which this authority decides. A host is known by
its id (common name, a URI and a name below `host.internal`); no address goes into a host's certificate, so that a host
cannot be given one that speaks for the controller's. A controller that connects to a host is known by a URI of its own.
Of a host's signing request only the public key is used.

The authority's key also signs tickets (agent.wire.ticket), which hosts check with the certificate that they pinned.

A certificate begins a day before it is made, because machines that have just been set up have wrong clocks. Those of
our own listeners are made anew when less than a third of their life is left (looked at whenever a controller starts,
and by its daily task). A host renews its own over the host channel; an old one stays valid until its end or until
the host is removed.
"""

import datetime
import hashlib
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cryptography.hazmat.backends.openssl.backend  # noqa: F401 - else when it first signs: too late without root
import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.wire.ticket import CONTEXT, CONTROLLER
from controller.errors import Invalid
from controller.private_file import write_private

CA_LIFE_S: Final = 20 * 365 * 86400
"""The authority's. Hosts pin it when they join."""

SERVER_LIFE_S: Final = 397 * 86400
"""Of our listeners' certificates. Longer: a stolen key is of use for longer. Shorter: nothing, renewal is automatic."""

HOST_LIFE_S: Final = 825 * 86400
"""Of a host's. It must outlive any holiday in which nobody looks after the controller."""

BACKDATED_S: Final = 86400

_CSR_BYTES_MAX: Final = 16 * 1024


class HostCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate for a host, and what the database keeps of it."""

    pem: str
    serial: str
    until: float


class Authority:
    """The authority of one cloud, kept in a folder: `ca.pem`, `ca.key`, and a pair for each listener of ours."""

    def __init__(self, folder: Path, now: float) -> None:
        self._folder = folder
        if not (folder / "ca.key").exists():
            _found(folder, now)
        self._key = _load_key(folder / "ca.key")
        self._ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())

    @property
    def ca_path(self) -> Path:
        """The certificate that everybody verifies with."""
        return self._folder / "ca.pem"

    @property
    def ca_pem(self) -> str:
        """That certificate."""
        return self._ca.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of that certificate (DER), hex: what a join token pins."""
        return hashlib.sha256(self._ca.public_bytes(serialization.Encoding.DER)).hexdigest()

    def ensure_server(self, role: str, addresses: Sequence[str], now: float) -> tuple[Path, Path]:
        """(certificate, key) files of one of our listeners, made or renewed if need be. Names or IP addresses."""
        certificate, key = self._folder / f"{role}.pem", self._folder / f"{role}.key"
        if not _is_fresh(certificate, key, addresses, now):
            private = ec.generate_private_key(ec.SECP256R1())
            names = x509.SubjectAlternativeName([_alternative(address) for address in addresses])
            usage = (ExtendedKeyUsageOID.SERVER_AUTH,)
            signed = self._sign(
                private.public_key(), f"hostler {role}", names=names, usage=usage, now=now, life_s=SERVER_LIFE_S
            )
            write_private(key, _pem(private))
            write_private(certificate, signed.public_bytes(serialization.Encoding.PEM))
        return certificate, key

    def ensure_client(self, role: str, now: float) -> tuple[Path, Path]:
        """(certificate, key) files with which a controller connects to hosts, made or renewed if need be."""
        certificate, key = self._folder / f"{role}-client.pem", self._folder / f"{role}-client.key"
        uri = f"urn:hostler:{role}"
        if not _is_fresh(certificate, key, [uri], now):
            private = ec.generate_private_key(ec.SECP256R1())
            names = x509.SubjectAlternativeName([_alternative(uri)])
            usage = (ExtendedKeyUsageOID.CLIENT_AUTH,)
            signed = self._sign(
                private.public_key(), f"hostler {role}", names=names, usage=usage, now=now, life_s=SERVER_LIFE_S
            )
            write_private(key, _pem(private))
            write_private(certificate, signed.public_bytes(serialization.Encoding.PEM))
        return certificate, key

    def client_context(self, now: float) -> ssl.SSLContext:
        """For a controller's connections to hosts' channels: each is known by the name in its certificate."""
        context = ssl.create_default_context(cafile=str(self.ca_path))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(*self.ensure_client(CONTROLLER, now))
        return context

    def sign_ticket(self, claims: bytes) -> bytes:
        """The signature of a ticket's claims; they begin with ticket.CONTEXT, as nothing else does that we sign."""
        assert claims.startswith(CONTEXT), "only tickets are signed here"
        return self._key.sign(claims, ec.ECDSA(hashes.SHA256()))

    def verify_ticket(self, signature: bytes, claims: bytes) -> bool:
        """Whether that is our signature."""
        try:
            self._key.public_key().verify(signature, claims, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True

    def sign_host(self, csr_pem: str, host_id: str, now: float) -> HostCertificate:
        """A certificate for the key in a signing request. Raises Invalid."""
        names = x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier(f"urn:hostler:host:{host_id}"), x509.DNSName(f"{host_id}.host.internal")]
        )
        usage = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
        signed = self._sign(_requested_key(csr_pem), host_id, names=names, usage=usage, now=now, life_s=HOST_LIFE_S)
        return HostCertificate(
            pem=signed.public_bytes(serialization.Encoding.PEM).decode(),
            serial=f"{signed.serial_number:x}",
            until=signed.not_valid_after_utc.timestamp(),
        )

    def _sign(
        self,
        key: ec.EllipticCurvePublicKey,
        common_name: str,
        *,
        names: x509.SubjectAlternativeName,
        usage: Sequence[x509.ObjectIdentifier],
        now: float,
        life_s: int,
    ) -> x509.Certificate:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            _begun(common_name, self._ca.subject, key, now, life_s)
            .add_extension(names, critical=False)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _found(folder: Path, now: float) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("hostler authority")
    certificate = (
        _begun("hostler authority", name, key.public_key(), now, CA_LIFE_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))
    write_private(folder / "ca.key", _pem(key))  # Last: without it the next start begins anew.


def _begun(
    common_name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: float, life_s: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_date(now - BACKDATED_S))
        .not_valid_after(_date(now + life_s))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _requested_key(csr_pem: str) -> ec.EllipticCurvePublicKey:
    """The key of a signing request that its sender holds: the request is signed by it."""
    if len(csr_pem) > _CSR_BYTES_MAX:
        raise Invalid("The certificate signing request is too large.")
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key = request.public_key()
        is_signed = request.is_signature_valid
    except (ValueError, TypeError, InvalidSignature) as error:
        raise Invalid("The certificate signing request cannot be read.") from error
    if not is_signed or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Invalid("The certificate signing request must be signed by the EC P-256 key that it is for.")
    return key


def _is_fresh(certificate: Path, key: Path, addresses: Sequence[str], now: float) -> bool:
    if not (certificate.exists() and key.exists()):
        return False
    kept = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = kept.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    matches = kept.public_key() == _load_key(key).public_key()  # A crash between the two writes leaves one of each.
    enough = kept.not_valid_after_utc.timestamp() - now > SERVER_LIFE_S / 3
    return matches and enough and list(names) == [_alternative(address) for address in addresses]


def _alternative(address: str) -> x509.GeneralName:
    if address.startswith("urn:"):
        return x509.UniformResourceIdentifier(address)
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _date(at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(at), datetime.UTC)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey), f"{path} holds a key that we did not make"
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())
