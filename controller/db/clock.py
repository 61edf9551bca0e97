"""The database's own clock, in SQL. Leases and deadlines are written and judged with it, so that no decision
compares the clocks of two controllers.

PostgreSQL has one. For SQLite there is one machine and one controller: the connection gets a function
`database_now` that asks the process's clock (the simulation's has its own).
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

SQLITE_FUNCTION = "database_now"


class database_now(GenericFunction[float]):  # noqa: N801  SQL functions are written in lower case.
    """Seconds since the epoch, as the database sees them; one value during a transaction on PostgreSQL."""

    type = sa.Float()
    inherit_cache = True
    name = "database_now"


@compiles(database_now, "postgresql")
def _on_postgresql(element: database_now, compiler: SQLCompiler, **options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM now()) AS DOUBLE PRECISION)"
