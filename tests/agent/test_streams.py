"""Images over the host channel: both ends prove themselves, and nothing is larger or slower than said."""

import datetime
import http.server
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent import streams
from agent.streams import TICKET_HEADER, ChannelSource
from agent.wire.errors import Failed
from agent.wire.image import ImageSpec
from tests.agent.rig import an_image

BYTES = b"q" * 3_000_000


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/image/spent":
            self.send_response(403)
            self.end_headers()
            return
        assert self.headers[TICKET_HEADER] == "t1"
        body = BYTES[:-1] if self.path == "/image/short" else BYTES
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


class Channel:
    """A host channel with a CA of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca, key = _issue(folder / "ca", "ca", None, None)
        _issue(folder / "server", "server", self.ca, key)
        _issue(folder / "host", "host", self.ca, key)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        context.load_verify_locations(folder / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.server.server_address[1]}{path}"

    def source(self, host: str = "host", ca: str = "ca") -> ChannelSource:
        def context() -> ssl.SSLContext:
            made = ssl.create_default_context(cafile=self.folder / f"{ca}.pem")
            made.load_cert_chain(self.folder / f"{host}.pem", self.folder / f"{host}.key")
            return made

        return ChannelSource(context)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Channel]:
    found = Channel(tmp_path)
    yield found
    found.stop()


def spec(*sources: str, size: int = len(BYTES)) -> ImageSpec:
    return an_image(sources=sources, size_bytes=size, sha256=sha256(BYTES).hexdigest())


def test_the_bytes_arrive_from_the_first_source_that_has_them(channel: Channel, tmp_path: Path) -> None:
    sources = (channel.url("/image/spent"), "http://127.0.0.1:1/image", channel.url("/image/1"))
    channel.source().fetch(spec(*sources))(str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == BYTES


@pytest.mark.parametrize(
    ("path", "size", "why"),
    [
        ("/image/spent", len(BYTES), "answered 403"),
        ("/image/1", len(BYTES) - 1, "sends more than"),
        ("/image/short", len(BYTES), "sent 2999999 of 3000000"),
    ],
)
def test_what_is_not_the_image_is_refused(channel: Channel, tmp_path: Path, path: str, size: int, why: str) -> None:
    with pytest.raises(Failed, match=why):
        channel.source().fetch(spec(channel.url(path), size=size))(str(tmp_path / "out"))


def test_a_source_that_is_too_slow_is_given_up(
    channel: Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "duration_s", lambda size_bytes: -1.0)
    with pytest.raises(Failed, match="too slow"):
        channel.source().fetch(spec(channel.url("/image/1")))(str(tmp_path / "out"))


def test_both_ends_prove_themselves(channel: Channel, tmp_path: Path) -> None:
    _, key = _issue(tmp_path / "other-ca", "other", None, None)
    other = x509.load_pem_x509_certificate((tmp_path / "other-ca.pem").read_bytes())
    _issue(tmp_path / "stranger", "stranger", other, key)
    for source in (channel.source(ca="other-ca"), channel.source(host="stranger")):
        with pytest.raises(Failed):
            source.fetch(spec(channel.url("/image/1")))(str(tmp_path / "out"))


def test_no_source_is_a_failure_that_says_so(channel: Channel, tmp_path: Path) -> None:
    with pytest.raises(Failed, match="no source"):
        channel.source().fetch(spec())(str(tmp_path / "out"))


def _issue(
    path: Path, name: str, issuer: x509.Certificate | None, issuer_key: ec.EllipticCurvePrivateKey | None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    )
    certificate = builder.sign(issuer_key or key, hashes.SHA256())
    path.with_suffix(".pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, key
