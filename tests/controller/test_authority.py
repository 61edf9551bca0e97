"""Certificates: for whom, for how long, and when they are made anew."""

import stat
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.verification import PolicyBuilder, Store

from controller.authority import HOST_LIFE_S, SERVER_LIFE_S, Authority
from controller.errors import Invalid

NOW = time.time()


def request(key=None, *, names: tuple[str, ...] = ()) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def test_it_is_the_same_authority_after_a_restart_and_its_keys_are_private(tmp_path: Path) -> None:
    first = Authority(tmp_path / "ca", NOW)
    first.ensure_server("channel", ["198.18.0.1"], NOW)
    assert Authority(tmp_path / "ca", NOW + 5).fingerprint == first.fingerprint
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "ca").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700


def test_a_founding_that_was_cut_short_begins_anew(tmp_path: Path) -> None:
    Authority(tmp_path, NOW)
    (tmp_path / "ca.key").unlink()
    again = Authority(tmp_path, NOW)
    certificate, _ = again.ensure_server("nats", ["127.0.0.1"], NOW)
    trusted = PolicyBuilder().store(Store([x509.load_pem_x509_certificate(again.ca_pem.encode())]))
    import ipaddress

    verifier = trusted.build_server_verifier(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    verifier.verify(x509.load_pem_x509_certificate(certificate.read_bytes()), [])


def test_a_listeners_certificate_is_kept_until_it_is_old_or_its_address_changes(tmp_path: Path) -> None:
    authority = Authority(tmp_path, NOW)

    def made(address: str, now: float) -> bytes:
        return authority.ensure_server("channel", [address], now)[0].read_bytes()

    first = made("198.18.0.1", NOW)
    assert made("198.18.0.1", NOW + SERVER_LIFE_S * 0.6) == first
    later = made("198.18.0.1", NOW + SERVER_LIFE_S * 0.7)
    assert later != first
    assert made("198.18.0.2", NOW + SERVER_LIFE_S * 0.7) != later


def test_a_host_is_certified_as_itself_whatever_its_request_says(tmp_path: Path) -> None:
    authority = Authority(tmp_path, NOW)
    made = authority.sign_host(request(names=("198.18.0.1", "controller")), "host-1", NOW)
    certificate = x509.load_pem_x509_certificate(made.pem.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == ["urn:hostler:host:host-1", "host-1.host.internal"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert made.serial == f"{certificate.serial_number:x}"
    assert abs(made.until - (NOW + HOST_LIFE_S)) < 2


@pytest.mark.parametrize(
    "csr",
    [
        "",
        "nonsense",
        "ä",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "x" * 20_000,
        request(ec.generate_private_key(ec.SECP384R1())),
        request(rsa.generate_private_key(65537, 2048)),
    ],
    ids=["empty", "text", "unicode", "broken", "huge", "other curve", "rsa"],
)
def test_other_requests_are_refused(tmp_path: Path, csr: str) -> None:
    with pytest.raises(Invalid):
        Authority(tmp_path, NOW).sign_host(csr, "host-1", NOW)


def test_a_request_that_its_key_did_not_sign_is_refused(tmp_path: Path) -> None:
    """Else a host could have another one's public key certified as itself."""
    der = bytearray(x509.load_pem_x509_csr(request().encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    import base64

    text = base64.encodebytes(bytes(der)).decode()
    with pytest.raises(Invalid):
        Authority(tmp_path, NOW).sign_host(
            f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n", "host-1", NOW
        )
