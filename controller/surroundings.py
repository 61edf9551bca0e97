"""What a real controller is given: its state directory, the database, the bus, the image store, the first passwords.

<state>/controller.db       SQLite, unless another database is set
<state>/fernet/             keys of tokens
<state>/passwords/          admin and demo, drawn when the cloud is founded; for the operator, to move or delete
<state>/bus/                keys of the bus        <state>/authority/   our certificates
<state>/images/             bytes of images
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.wire.bus import NatsBus, file_credentials
from agent.wire.world import World
from controller import founding
from controller.authority import Authority
from controller.bus_identity import CONTROLLER, BusIdentity
from controller.config import Settings
from controller.db.engine import PostgresDatabase, SqliteDatabase, open_database
from controller.db.tx import Database
from controller.identity import bootstrap, store
from controller.identity.model import User
from controller.identity.passwords import hash_now
from controller.image.stores import Files
from controller.private_file import write_private
from controller.services import services

PASSWORD_BYTES: Final = 18
"""Of randomness in a drawn password: 24 characters."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """See the module."""

    state: Path
    db: SqliteDatabase | PostgresDatabase
    bus: NatsBus
    images: Files
    epoch: int
    owner_id: str


@contextlib.asynccontextmanager
async def real(settings: Settings, world: World) -> AsyncIterator[Surroundings]:
    """Open what there is, found what is missing, let go in the end. Files are small: nobody is served yet."""
    state = _state(settings)
    now = world.clock.now()
    db = await open_database(settings.controller.database, state, world)
    try:
        tag = settings.controller.tag or world.entropy.hex(4)
        founded = await db.write(founding.found, name=settings.controller.cloud, tag=tag, now=now)
        await found_identity(settings, world, db, state / "passwords")
        bus = _bus(settings, world, state)
        await bus.start()
        try:
            yield Surroundings(
                state=state,
                db=db,
                bus=bus,
                images=Files(state / "images", world.threads),
                epoch=founded.epoch,
                owner_id=_owner_id(state, world),
            )
        finally:
            await bus.close()
    finally:
        await db.close()


def _state(settings: Settings) -> Path:
    state = Path(settings.controller.state)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    return state


async def found_identity(settings: Settings, world: World, db: Database, passwords: Path) -> bootstrap.Founded:
    """Roles, projects, users and catalog. A user that is missing gets the password of its file, else a drawn one."""
    hashes: dict[str, str] = {}
    for name in ("admin", "demo"):
        if await db.read(store.find_named, User, name, bootstrap.DEFAULT_DOMAIN_ID) is None:
            hashes[f"{name}_password_hash"] = hash_now(first_password(passwords / name, world))
    plan = bootstrap.plan(world.entropy, settings.controller.region, world.clock.now(), **hashes)
    return await db.write(bootstrap.found, plan, services())


def first_password(path: Path, world: World) -> str:
    """The password in a file; drawn and written (0600) before anything depends on it."""
    if not path.exists():
        write_private(path, world.entropy.secret(PASSWORD_BYTES).encode())
    return path.read_text().strip()


def _bus(settings: Settings, world: World, state: Path) -> NatsBus:
    now = world.clock.now()
    identity = BusIdentity(state / "bus")
    identity.ensure_own_users(now)
    authority = Authority(state / "authority", now)
    credentials = file_credentials(*identity.credentials(CONTROLLER), authority.ca_path)
    return NatsBus([settings.controller.nats], CONTROLLER, credentials, world.entropy)


def _owner_id(state: Path, world: World) -> str:
    """Who drives sagas: stable over restarts of this controller, unlike any other's."""
    path = state / "controller-id"
    if not path.exists():
        write_private(path, world.entropy.uuid().encode())
    return path.read_text().strip()
