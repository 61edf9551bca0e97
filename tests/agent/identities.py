"""Hosts that have joined, as far as their files tell: certificates of a real authority."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.join import IdentityFiles
from controller.authority import Authority


def a_host(authority: Authority, folder: Path, host_id: str, now: float) -> IdentityFiles:
    """What a join leaves of the host channel's part."""
    folder.mkdir(parents=True)
    files, key = IdentityFiles(folder), ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    signed = authority.sign_host(request.public_bytes(serialization.Encoding.PEM).decode(), host_id, now)
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    files.certificate.write_text(signed.pem)
    files.ca.write_text(authority.ca_pem)
    return files
