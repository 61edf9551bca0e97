"""What Alembic runs for every command: over the connection it was given, in the caller's transaction."""

from alembic import context

from controller.db.migrations import complete_metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=complete_metadata(),
    render_as_batch=True,
    compare_type=True,
    transactional_ddl=False,  # The caller has begun, and will commit.
)
context.run_migrations()
