"""Public keys of users: import, and making one for clients that still ask for it.

A private key that we make is in the reply and nowhere else. What is imported must be a key that OpenSSH can
read; the fingerprint is the MD5 one that Nova shows, not a security measure.
"""

import base64
import hashlib
import re
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

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
