"""What several controllers of one cloud have in common: the authority, the keys of tokens, of the bus and of volumes.

Each controller keeps them as files of its own state folder, as one that is alone does. With a shared database they are
also there, sealed by a key that is in no database (`sealing-key` in the state folder, the same file at every
controller, brought there by the operator): a stolen database opens nothing.

Theory of operation. A controller takes what the database has, makes what is missing, and offers what it has made. An
offer is one transaction, and the first one stands: whoever lost throws its own away, takes, and builds anew. So it does
not matter how many start at once on an empty database. Nothing is replaced there afterwards.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa
from cryptography.fernet import Fernet, InvalidToken

from agent.wire.settings import BadSettings
from controller.db.tables.secret import secret
from controller.db.tx import Database, Tx
from controller.private_file import write_private

BUNDLES: Final[Mapping[str, tuple[str, ...]]] = {
    "authority": ("authority/ca.pem", "authority/ca.key"),
    "bus": ("bus/operator.seed", "bus/operator.jwt", "bus/account.seed", "bus/system-account.seed"),
    "tokens": ("fernet/[0-9]*",),
    "volumes": ("volume-key",),
}
"""Name → files of the state folder (globs). Those of a bundle belong together."""

DERIVED: Final[Mapping[str, str]] = {"authority": "authority/*", "bus": "bus/*.jwt"}
"""What was made with a bundle's files, and is worth nothing when they are replaced."""

KEY_FILE: Final = "sealing-key"

Files = dict[str, bytes]
"""Path below the state folder → content."""


class Shared:
    """One controller's end. Raises BadSettings where the database's secrets are sealed by another key than ours."""

    def __init__(self, db: Database, state: Path, now: float) -> None:
        self._db = db
        self._state = state
        self._now = now

    async def take(self) -> None:
        """Make our files those of the database, as far as it has any."""
        for name, sealed in (await self._db.read(_all)).items():
            if name in BUNDLES:
                self._replace(name, self._opened(sealed))

    async def offer(self) -> bool:
        """Give the database what it lacks; False if another controller was quicker, and ours is void."""
        key = self._key()
        ours = {name: key.encrypt(msgspec.json.encode(self._files(name))).decode() for name in BUNDLES}
        stored = await self._db.write(_offer, ours, self._now)
        return all(self._opened(stored[name]) == self._files(name) for name in BUNDLES)

    def _files(self, name: str) -> Files:
        paths = (path for pattern in BUNDLES[name] for path in self._state.glob(pattern))
        return {str(path.relative_to(self._state)): path.read_bytes() for path in sorted(paths)}

    def _replace(self, name: str, wanted: Files) -> None:
        have = self._files(name)
        if have == wanted:
            return
        for pattern in (*BUNDLES[name], *((DERIVED[name],) if name in DERIVED else ())):
            for path in self._state.glob(pattern):
                path.unlink()
        for file, content in wanted.items():
            write_private(self._state / file, content)

    def _opened(self, sealed: str) -> Files:
        if not self._key_path.exists():
            raise BadSettings(
                f"This database belongs to a cloud whose secrets are sealed: copy {KEY_FILE} from the state folder of "
                f"one of its controllers to {self._key_path} (0600)."
            )
        try:
            return msgspec.json.decode(self._key().decrypt(sealed), type=Files)
        except InvalidToken as error:
            raise BadSettings(
                f"{self._key_path} does not open the secrets in this database: they are another cloud's, or two of its "
                f"controllers were founded at once. Copy {KEY_FILE} from the state folder of one that works."
            ) from error

    def _key(self) -> Fernet:
        if not self._key_path.exists():
            write_private(self._key_path, Fernet.generate_key())
        return Fernet(self._key_path.read_bytes().strip())

    @property
    def _key_path(self) -> Path:
        return self._state / KEY_FILE


def _all(tx: Tx) -> dict[str, str]:
    return {row.name: row.sealed for row in tx.execute(sa.select(secret))}


def _offer(tx: Tx, sealed: Mapping[str, str], now: float) -> dict[str, str]:
    """All that there is afterwards."""
    known = _all(tx)
    missing = [{"name": name, "sealed": text, "created_at": now} for name, text in sealed.items() if name not in known]
    if missing:
        tx.execute(sa.insert(secret), missing)
    return {**sealed, **known}
