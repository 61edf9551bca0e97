"""The schema's history: append-only revisions in `versions/`, run by Alembic over a connection of ours.

A new revision is written by `python -m controller.db.migrations "why"`, which compares the tables in
`controller.db.tables` with what the revisions so far build in an empty SQLite database. Read and edit what it
wrote: it cannot know of renames or of rows that must be moved. Until the first release there is one revision, made
anew when a table changes: remove `versions/0001_*.py`, then run the line above and `ruff format`.
"""

import importlib
import pkgutil
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

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


def upgrade(connection: sa.Connection) -> None:
    """Bring the schema to the newest revision, in the caller's transaction."""
    command.upgrade(config(connection), "head")
