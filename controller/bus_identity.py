"""Who is who on the bus: keys and JWTs of operator, accounts and users, and the server's configuration.

NATS knows an *operator* (whose key is in the server's configuration), *accounts* that it signed, and *users* that an
account signed. We have one account for the cloud and one for the server's own affairs. A user's JWT holds its
permissions, so the server enforces them without asking anybody. Users' JWTs do not end (a dead controller must not
lock its fleet out); they are revoked by their public key in the account's JWT, which lives in the configuration:
it is written anew and the server told to read it (SIGHUP), and by that it closes the sessions of the revoked.

Revocations only ever grow, also across a restored database: they are kept in a file beside the keys.

The server has one listener for clients, on the underlay address that it is given, always with TLS from our own
authority. It never listens on every address of a machine.

Files of its folder, all 0600: operator.{seed,jwt}, account.seed, system-account.seed, revoked.json, and the pair
<name>.jwt, <name>.seed for each of our own users (controller, collector, system). The server's own folder has
nats.conf and nats.pid.
"""

import base64
import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import nkeys

from agent.wire import subjects
from agent.wire.specs import MESSAGE_BYTES_MAX
from agent.wire.subjects import Permissions
from controller.errors import Invalid
from controller.private_file import write_private

PAYLOAD_MAX: Final = MESSAGE_BYTES_MAX + 16 * 1024
"""What the server lets pass: a message and its headers. The bound of a message itself is held by `NatsBus`."""

ANSWER_WITHIN_S: Final = 60
"""How long after a request its answer may be sent. The longest call waits 10 s, five times that on slow hosts."""

SUBSCRIPTIONS_MAX: Final = 64
"""Of one host's connection; it needs about as many as there are nouns."""

CONTROLLER: Final = "controller"
COLLECTOR: Final = "collector"
SYSTEM: Final = "system"

_EVERYTHING: Final = Permissions(publish=(), subscribe=(), responses=False)
"""Of the system account's user: that account holds the server's own subjects only."""


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """Where the server listens, with what certificate, and where its own files are."""

    address: str  # An underlay address, or loopback; never 0.0.0.0.
    port: int
    certificate: Path
    key: Path
    folder: Path  # Of the server: nats.conf, nats.pid.
    ca: Path

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.folder / "nats.conf"

    @property
    def pid_file(self) -> Path:
        """Where the running server writes its process id."""
        return self.folder / "nats.pid"

    @property
    def url(self) -> str:
        """What clients connect to."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"tls://{host}:{self.port}"


class BusIdentity:
    """The keys of one cloud's bus. Made at first use, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._operator = _key_pair(folder / "operator.seed", nkeys.PREFIX_BYTE_OPERATOR)
        self._account = _key_pair(folder / "account.seed", nkeys.PREFIX_BYTE_ACCOUNT)
        self._system = _key_pair(folder / "system-account.seed", nkeys.PREFIX_BYTE_ACCOUNT)

    def user_jwt(self, name: str, nkey: str, permissions: Permissions, now: float) -> str:
        """A JWT that makes the holder of `nkey` a user with exactly these permissions. Raises Invalid for a bad key."""
        if not is_user_key(nkey):
            raise Invalid("That is not the public key of a user of the bus.")
        assert permissions.publish and permissions.subscribe, "an empty list of permissions would allow everything"
        return self._user(self._account, name, nkey, permissions, now)

    def host_jwt(self, host_id: str, nkey: str, now: float) -> str:
        """A host's JWT: it speaks for itself only."""
        return self.user_jwt(host_id, nkey, subjects.agent_permissions(host_id), now)

    def ensure_own_users(self, now: float) -> None:
        """Keys and JWTs of the controller, the collector and the server's operator; new JWTs at every call."""
        for name, permissions in (
            (CONTROLLER, subjects.controller_permissions(CONTROLLER)),
            (COLLECTOR, subjects.collector_permissions(COLLECTOR)),
        ):
            nkey = _public(_key_pair(self._folder / f"{name}.seed", nkeys.PREFIX_BYTE_USER))
            write_private(self._folder / f"{name}.jwt", self.user_jwt(name, nkey, permissions, now).encode())
        nkey = _public(_key_pair(self._folder / f"{SYSTEM}.seed", nkeys.PREFIX_BYTE_USER))
        jwt = self._user(self._system, SYSTEM, nkey, _EVERYTHING, now)
        self._operator_jwt(now)
        write_private(self._folder / f"{SYSTEM}.jwt", jwt.encode())

    def credentials(self, name: str) -> tuple[Path, Path]:
        """(JWT, seed) files of one of our own users."""
        return self._folder / f"{name}.jwt", self._folder / f"{name}.seed"

    def revoke(self, keys: Iterable[str], now: float) -> bool:
        """Add keys to those that the bus refuses for ever; False if all were known. Takes effect by `write_config`."""
        known = self.revoked()
        new = {nkey: int(now) + 1 for nkey in keys if nkey not in known}
        if new:
            write_private(self._folder / "revoked.json", msgspec.json.encode({**known, **new}))
        return bool(new)

    def revoked(self) -> Mapping[str, int]:
        """Every revoked key, and when."""
        path = self._folder / "revoked.json"
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int]) if path.exists() else {}

    def write_config(self, listen: Listen, now: float) -> None:
        """What the server should read. A running one reads it at `reload`."""
        assert listen.address not in ("", "0.0.0.0", "::"), "the bus listens on one address"
        accounts = {
            _public(self._account): self._account_jwt(self._account, "cloud", self.revoked(), now),
            _public(self._system): self._account_jwt(self._system, "system", {}, now),
        }
        config = {
            "server_name": "hostler",
            "host": listen.address,
            "port": listen.port,
            "pid_file": str(listen.pid_file),
            "max_payload": PAYLOAD_MAX,
            "ping_interval": "10s",
            "ping_max": 2,
            "write_deadline": "5s",
            "tls": {"cert_file": str(listen.certificate), "key_file": str(listen.key), "timeout": 5},
            "operator": self._operator_jwt(now),
            "system_account": _public(self._system),
            "resolver": "MEMORY",
            "resolver_preload": accounts,
        }
        write_private(listen.config, b"# Written by hostler; changes are lost.\n" + _rendered(config))

    def _operator_jwt(self, now: float) -> str:
        """Made once and kept: a running server refuses a configuration in which it has changed."""
        path = self._folder / "operator.jwt"
        if not path.exists():
            body = {"type": "operator", "version": 2, "system_account": _public(self._system)}
            write_private(path, _signed(self._operator, _public(self._operator), "hostler", body, now).encode())
        return path.read_text()

    def _account_jwt(self, account: Any, name: str, revoked: Mapping[str, int], now: float) -> str:
        unlimited = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
        body = {
            "limits": {**dict.fromkeys(unlimited, -1), "wildcards": True},
            "revocations": dict(revoked),
            "type": "account",
            "version": 2,
        }
        return _signed(self._operator, _public(account), name, body, now)

    def _user(self, account: Any, name: str, nkey: str, permissions: Permissions, now: float) -> str:
        body: dict[str, Any] = {
            "pub": {"allow": list(permissions.publish)},
            "sub": {"allow": list(permissions.subscribe)},
            "subs": SUBSCRIPTIONS_MAX if account is self._account else -1,
            "data": -1,
            "payload": PAYLOAD_MAX,
            "type": "user",
            "version": 2,
        }
        if permissions.responses:
            body["resp"] = {"max": 1, "ttl": ANSWER_WITHIN_S * 1_000_000_000}
        return _signed(account, nkey, name, body, now)


def reload(pid_file: Path) -> bool:
    """Tell the running server to read its configuration; False if none runs. Revoked sessions end by this."""
    try:
        pid = int(pid_file.read_text())
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError):
        return False
    if name != "nats-server":  # The pid was given to another process.
        return False
    os.kill(pid, signal.SIGHUP)
    return True


def server_binary(version_of: Callable[[Path], str]) -> Path:
    """The nats-server to run: the one on PATH if it is recent enough, else the one that came with our environment.

    `version_of` runs `nats-server --version`: "nats-server: v2.10.24".
    """
    found = shutil.which("nats-server")
    if found is not None and is_recent(version_of(Path(found))):
        return Path(found)
    bundled = Path(sys.executable).parent / "nats-server"
    if bundled.exists():
        return bundled
    raise FileNotFoundError("nats-server 2.10 or newer is neither on PATH nor in the Python environment")


def is_recent(version: str) -> bool:
    """Whether a server of this version will do; Debian's package may be older than 2.10."""
    digits = version.strip().rpartition("v")[2].split(".")
    return len(digits) >= 2 and all(part.isdigit() for part in digits[:2]) and tuple(map(int, digits[:2])) >= (2, 10)


def is_user_key(nkey: str) -> bool:
    """Whether this is a well-formed public user key (`U…`, base32 with a checksum)."""
    try:
        raw = base64.b32decode(nkey + "=" * (-len(nkey) % 8))
    except ValueError:
        return False
    if len(raw) != 35 or raw[0] != nkeys.PREFIX_BYTE_USER:
        return False
    return bool(int.from_bytes(raw[33:], "little") == nkeys.crc16(bytearray(raw[:33])))


def _signed(issuer: Any, subject: str, name: str, body: Mapping[str, Any], now: float) -> str:
    """A version 2 JWT as NATS reads it: `alg` ed25519-nkey, `jti` a hash of the claims without it."""
    claims = {"iat": int(now), "iss": _public(issuer), "name": name, "sub": subject, "nats": body}
    digest = hashlib.sha256(msgspec.json.encode({**claims, "jti": ""})).digest()
    claims["jti"] = base64.b32encode(digest).rstrip(b"=").decode()
    header = _base64(msgspec.json.encode({"typ": "JWT", "alg": "ed25519-nkey"}))
    text = header + b"." + _base64(msgspec.json.encode(claims))
    return (text + b"." + _base64(issuer.sign(text))).decode()


def _key_pair(path: Path, prefix: int) -> Any:
    if not path.exists():
        write_private(path, nkeys.encode_seed(os.urandom(32), prefix))
    return nkeys.from_seed(bytearray(path.read_bytes()))


def _public(pair: Any) -> str:
    return bytes(pair.public_key).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _rendered(config: Mapping[str, Any]) -> bytes:
    """The server's format takes JSON."""
    return msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n"
