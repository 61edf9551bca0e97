"""What a real controller is given: its state directory, the database, the bus, the image store, the first passwords.

<state>/controller.db       SQLite, unless another database is set; then several controllers share the next three,
                            sealed by <state>/sealing-key (see `shared`)
<state>/fernet/             keys of tokens
<state>/volume-key          what secrets of exports are made of; the same for every controller of a cloud
<state>/passwords/          admin and demo, drawn when the cloud is founded; for the operator, to move or delete
<state>/bus/                keys of the bus        <state>/authority/   our certificates
<state>/images/             bytes of images, unless another folder is set, which several controllers share
<state>/../nats/            the bus's server
"""

import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from agent.wire.bus import NatsBus, file_credentials
from agent.wire.settings import BadSettings
from agent.wire.world import World
from controller import founding
from controller.authority import Authority
from controller.bus_identity import CONTROLLER, BusIdentity, Listen
from controller.composition import Surroundings
from controller.compute import founding as compute
from controller.config import Settings
from controller.db.engine import PostgresDatabase, SqliteDatabase, open_database
from controller.db.sqlite import Locked
from controller.db.tx import Database, Tx
from controller.identity import bootstrap, store
from controller.identity.keys import Keyring
from controller.identity.model import User
from controller.identity.passwords import hash_now
from controller.image.inspectors import Inspectors
from controller.image.stores import Files
from controller.private_file import write_private
from controller.services import services
from controller.shared import Shared
from controller.volume import types as volume_types
from controller.volume.fencing import volume_key

PASSWORD_BYTES: Final = 18
"""Of randomness in a drawn password: 24 characters."""


@contextlib.asynccontextmanager
async def real(settings: Settings, world: World, inspectors: Inspectors) -> AsyncIterator[Surroundings]:
    """Open what there is, found what is missing, let go in the end. Raises BadSettings, `Locked`, `Damaged`."""
    state = _state(settings)
    with _held(state):
        db = await open_database(settings.controller.database, state, world)
        try:
            async with _opened(settings, world, inspectors, state, db) as given:
                yield given
        finally:
            await db.close()


@contextlib.asynccontextmanager
async def _opened(
    settings: Settings, world: World, inspectors: Inspectors, state: Path, db: SqliteDatabase | PostgresDatabase
) -> AsyncIterator[Surroundings]:
    now = world.clock.now()
    authority, identity = await _keys(world, state, db)
    listen = _bus_server(settings, authority, now)
    credentials = file_credentials(*identity.credentials(CONTROLLER), authority.ca_path)
    bus = NatsBus([settings.controller.nats], CONTROLLER, credentials, world.entropy)
    try:
        given = Surroundings(
            settings=settings,
            world=world,
            db=db,
            bus=bus,
            images=Files(image_folder(settings), world.threads),
            inspectors=inspectors,
            founded=await _found(settings, world, db, state),
            authority=authority,
            identity=identity,
            listen=listen,
            fernet=state / "fernet",
            owner_id=_owner_id(state, world),
            volume_key=volume_key(state / "volume-key", world),
        )
        await bus.start()
        yield given
    finally:
        await bus.close()


async def _keys(world: World, state: Path, db: SqliteDatabase | PostgresDatabase) -> tuple[Authority, BusIdentity]:
    """What the controller proves itself with: its own, or the cloud's where the database may have several."""
    now = world.clock.now()
    shared = Shared(db, state, now) if db.dialect == "postgresql" else None
    while True:
        if shared is not None:
            await shared.take()
        authority, identity = Authority(state / "authority", now), BusIdentity(state / "bus")
        identity.ensure_own_users(now)
        Keyring(state / "fernet")
        volume_key(state / "volume-key", world)
        if shared is None or await shared.offer():
            return authority, identity


def _state(settings: Settings) -> Path:
    state = Path(settings.controller.state)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    return state


def bus_folder(settings: Settings) -> Path:
    """Where the bus's server has its configuration, which we write, and its pid file."""
    own = settings.controller.nats_folder
    return Path(own) if own else Path(settings.controller.state).parent / "nats"


def image_folder(settings: Settings) -> Path:
    """Where images' bytes are."""
    own = settings.controller.images
    return Path(own) if own else Path(settings.controller.state) / "images"


@contextlib.contextmanager
def _held(state: Path) -> Iterator[None]:
    """This folder is ours: two controllers with one owner id would take each other's sagas for their own."""
    descriptor = os.open(state / "controller.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Locked(f"another controller works in {state}") from None
    finally:
        os.close(descriptor)


def _bus_server(settings: Settings, authority: Authority, now: float) -> Listen:
    """Where the bus's server is; its configuration is the controller's to write."""
    url = urlsplit(settings.controller.nats)
    if not url.hostname or not url.port:
        raise BadSettings(f"controller.nats is tls://address:port, not {settings.controller.nats!r}")
    certificate, key = authority.ensure_server("nats", [url.hostname], now)
    return Listen(
        address=url.hostname,
        port=url.port,
        certificate=certificate,
        key=key,
        folder=bus_folder(settings),
        ca=authority.ca_path,
    )


async def _found(
    settings: Settings, world: World, db: SqliteDatabase | PostgresDatabase, state: Path
) -> founding.Founded:
    tag = settings.controller.tag or world.entropy.hex(4)
    now = world.clock.now()
    founded = await db.write(_found_cloud, settings.controller.cloud, tag, world.entropy.uuid(), now)
    await found_identity(settings, world, db, state / "passwords")
    return founded


def _found_cloud(tx: Tx, name: str, tag: str, type_id: str, now: float) -> founding.Founded:
    """The cloud and what a new one has, in one transaction: an operator may delete the flavors afterwards."""
    founded = founding.found(tx, name=name, tag=tag, now=now)
    if founded.is_new:
        compute.found(tx, now)
    volume_types.found(tx, type_id, now)
    return founded


async def found_identity(settings: Settings, world: World, db: Database, passwords: Path) -> bootstrap.Founded:
    """Roles, projects, users and catalog. A user that is missing gets the password of its file, else a drawn one."""
    hashes: dict[str, str] = {}
    drawn = [name for name in ("admin", "demo") if not (passwords / name).exists()]
    for name in ("admin", "demo"):
        if await db.read(store.find_named, User, name, bootstrap.DEFAULT_DOMAIN_ID) is None:
            hashes[name] = hash_now(first_password(passwords / name, world))
    given = {f"{name}_password_hash": text for name, text in hashes.items()}
    plan = bootstrap.plan(world.entropy, settings.controller.region, world.clock.now(), **given)
    founded = await db.write(bootstrap.found, plan, services())
    for name in drawn:
        if name in hashes and await db.read(_password_of, name) != hashes[name]:
            (passwords / name).unlink()  # Another controller founded this cloud in the same moment: that one has it.
    return founded


def _password_of(tx: Tx, name: str) -> str | None:
    user = store.find_named(tx, User, name, bootstrap.DEFAULT_DOMAIN_ID)
    return None if user is None else store.password_of(tx, user.id)


def first_password(path: Path, world: World) -> str:
    """The password in a file; drawn and written (0600) before anything depends on it."""
    if not path.exists():
        write_private(path, world.entropy.secret(PASSWORD_BYTES).encode())
    return path.read_text().strip()


def _owner_id(state: Path, world: World) -> str:
    path = state / "controller-id"
    if not path.exists():
        write_private(path, world.entropy.uuid().encode())
    return path.read_text().strip()
