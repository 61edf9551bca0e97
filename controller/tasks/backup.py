"""Reconciler: a copy of the embedded database every hour. PostgreSQL has tools of its own.

The copies lie beside the database, whose disk they so do not outlive: they are for what people and programs break.
Whoever wants them elsewhere copies the newest file; each is a whole database by itself.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from agent.wire.world import World
from controller.db.sqlite import SqliteDatabase
from controller.tasks.driver import Task

log = structlog.get_logger()

PERIOD_S: Final = 3600.0
KEPT: Final = 24
"""A day. More: a large database fills the disk with its own past."""

TIMEOUT_S: Final = 240.0
"""For one copy: a GiB takes seconds."""

NAME: Final = "controller-%Y%m%dT%H%M%SZ.db"


def task(database: SqliteDatabase, folder: Path, world: World) -> Task:
    """The reconciler, for the copies in `folder`."""

    async def run() -> Mapping[str, Any]:
        kept = _kept(folder)
        now = world.clock.now()
        if kept and now - kept[-1].stat().st_mtime < PERIOD_S / 2:
            return {"kept": len(kept)}  # The controller was started again.
        if why := database.shortage():
            log.warning("no backup is written", why=why)
            return {"kept": len(kept), "skipped": why}
        await world.threads.run(_write, database, folder, now, timeout_s=TIMEOUT_S)
        return {"kept": len(_kept(folder))}

    return Task("backup", PERIOD_S, run)


def _write(database: SqliteDatabase, folder: Path, now: float) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    part = folder / "part"
    part.unlink(missing_ok=True)
    database.back_up(part)
    os.utime(part, (now, now))
    part.rename(folder / time.strftime(NAME, time.gmtime(now)))
    for old in _kept(folder)[:-KEPT]:
        old.unlink()


def _kept(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(folder.glob("controller-*.db"))
