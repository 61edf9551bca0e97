"""The schema's history: append-only revisions in `versions/`, run by Alembic over a connection of ours.

A new revision is written by `python -m controller.db.migrations "why"`, which compares the tables in
`controller.db.tables` with what the revisions so far build in an empty SQLite database. Read and edit what it
wrote: it cannot know of renames or of rows that must be moved. Until the first release there is one revision, made
anew when a table changes: remove `versions/0001_*.py`, then run the line above and `ruff format`.
"""

import functools
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from controller.db import tables
from controller.db.tables.metadata import metadata

HERE = Path(__file__).parent


def complete_metadata() -> sa.MetaData:
    """The metadata with every slice's tables in it: all modules of `controller.db.tables`."""
    for module in pkgutil.iter_modules(tables.__path__):
        importlib.import_module(f"{tables.__name__}.{module.name}")
    return metadata


def config(connection: sa.Connection) -> Config:
    """Alembic's settings for a run over this connection."""
    settings = Config()
    settings.set_main_option("script_location", str(HERE))
    settings.attributes["connection"] = connection
    return settings


@functools.cache
def history() -> ScriptDirectory:
    """The revisions, loaded: a controller that has given up root may not be able to read them any more."""
    found = ScriptDirectory(str(HERE))
    assert list(found.walk_revisions()), "there is a first revision"
    complete_metadata()
    return found


def run(environment: EnvironmentContext | Any) -> None:
    """What every command of Alembic does: over the connection it was given, in the caller's transaction."""
    environment.configure(
        connection=environment.config.attributes["connection"],
        target_metadata=complete_metadata(),
        render_as_batch=True,
        compare_type=True,
        transactional_ddl=False,  # The caller has begun, and will commit.
    )
    environment.run_migrations()


def upgrade(connection: sa.Connection) -> None:
    """Bring the schema to the newest revision, in the caller's transaction."""
    script = history()

    def missing(revision: Any, _: Any) -> Any:
        return script._upgrade_revs("head", revision)

    with EnvironmentContext(config(connection), script, fn=missing, destination_rev="head") as environment:
        run(environment)
