"""`python -m controller.db.migrations "why"` writes the next revision; see the package's description."""

import asyncio
import re
import sys
from pathlib import Path

from alembic import command

from controller.db import migrations
from controller.db.sqlite import SqliteDatabase


async def main(message: str) -> None:
    """Build what the revisions so far give, compare, write."""
    number = 1 + sum(1 for _ in (migrations.HERE / "versions").glob("[0-9]*.py"))
    database = SqliteDatabase(None, threaded=False)
    try:
        await database.write(migrations.upgrade)
        await database.write(
            lambda tx: command.revision(
                migrations.config(tx), message, autogenerate=True, rev_id=f"{number:04d}", head="head"
            )
        )
    finally:
        await database.close()
    for path in (migrations.HERE / "versions").glob(f"{number:04d}_*.py"):
        path.write_text(tidied(path.read_text()))


def tidied(source: str) -> str:
    """Without Alembic's remarks; and with conditions of partial indexes that are a bare column as SQL, not a string."""
    source = re.sub(r"\n *# ### .*", "", source)
    return re.sub(r"_where='(\w+)'", r"_where=sa.text('\1')", source)


if __name__ == "__main__":
    assert len(sys.argv) == 2, f"usage: python -m {Path(__file__).parent} WHY"
    asyncio.run(main(sys.argv[1]))
