"""What Alembic's own commands run. Controllers do the same without reading this file: `migrations.upgrade`."""

from alembic import context

from controller.db.migrations import run

run(context)
