"""Public keys of users: import, and making one for clients that still ask for it.

A private key that we make is in the reply and nowhere else. What is imported must be a key that OpenSSH can
read; the fingerprint is the MD5 one that Nova shows, not a security measure.
"""

import base64
import datetime
import hashlib
import re
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controller import quota
from controller.compute import flavor_store as store
from controller.compute import texts
from controller.compute.model import Keypair
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Invalid, OverQuota

_NAME: Final = re.compile(r"[_\- a-zA-Z0-9]+")
PUBLIC_KEY_MAX: Final = 16384
"""Bytes. An RSA key of 16384 bits has 2.8 kB."""

MAKING_S: Final = 30.0
"""A key of 2048 bits takes a tenth of a second; it may have to queue."""

_PRINCIPAL_NAME: Final = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
_UTF8: Final = 0x0C
"""ASN.1's tag of a UTF-8 text."""


def checked_name(name: str) -> str:
    """A keypair's name. Raises Invalid."""
    texts.name(name)
    if not _NAME.fullmatch(name):
        raise Invalid(
            "Keypair data is invalid: Keypair name contains unsafe characters: "
            "only letters, digits, spaces, '-' and '_' are allowed."
        )
    return name


def made() -> tuple[str, str]:
    """A new ed25519 key: (private in OpenSSH's format, public)."""
    private = Ed25519PrivateKey.generate()
    text = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return text.decode(), f"{public.decode()} Generated-by-Hostler"


def made_x509(user_id: str, now: float) -> tuple[str, str]:
    """A new RSA key and a certificate for logging in to Windows with it: (private, certificate), both PEM.

    Slow (tens of milliseconds): call it in a thread. As Nova's: self-signed, ten years, the user's principal name.
    """
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user_id[:64])])
    begins = datetime.datetime.fromtimestamp(now, datetime.UTC)
    principal = f"{user_id}@localhost".encode()
    assert len(principal) < 128, "one byte of length"
    other_name = x509.OtherName(_PRINCIPAL_NAME, bytes((_UTF8, len(principal))) + principal)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=3650))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([other_name]), critical=False)
        .sign(private, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    text = private.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return text.decode(), certificate.public_bytes(encoding).decode()


def fingerprint(public_key: str, kind: str) -> str:
    """The fingerprint of a key that can be read. Raises Invalid for one that cannot."""
    if len(public_key) > PUBLIC_KEY_MAX:
        raise Invalid("Keypair data is invalid: the public key is too long.")
    return _x509_fingerprint(public_key) if kind == "x509" else _ssh_fingerprint(public_key)


def _ssh_fingerprint(public_key: str) -> str:
    text = public_key.strip()
    if "\n" in text or "\r" in text:
        raise Invalid("Keypair data is invalid: the public key has more than one line.")
    try:
        serialization.load_ssh_public_key(text.encode())
        blob = base64.b64decode(text.split()[1])
    except (ValueError, IndexError, UnsupportedAlgorithm) as error:
        raise Invalid("Keypair data is invalid: failed to generate fingerprint") from error
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def _x509_fingerprint(public_key: str) -> str:
    try:
        certificate = x509.load_pem_x509_certificate(public_key.encode())
    except ValueError as error:
        raise Invalid("Keypair data is invalid: failed to generate X509 fingerprint.") from error
    digest = certificate.fingerprint(hashes.SHA1()).hex()  # noqa: S303 - what Nova shows
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def insert(tx: Tx, ctx: Context, values: dict[str, Any]) -> Keypair:
    """Charge the user's quota and add the keypair."""
    user_id = values["user_id"]
    try:
        quota.charge(
            tx, ctx.project_id or "", "compute", {"key_pairs": 1}, lambda tx, _: store.keypairs_used(tx, user_id)
        )
    except OverQuota as error:
        raise OverQuota("Quota exceeded, too many key pairs.", why=error.why) from error
    return store.insert_keypair(tx, values)
