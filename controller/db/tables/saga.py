"""Sagas and their append-only log. Written by `controller.saga` only; read by instance actions and `explain`."""

import sqlalchemy as sa

from controller.db.tables.metadata import metadata

saga = sa.Table(
    "saga",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("steps", sa.JSON, nullable=False),  # Names as expanded at the start; an upgrade never re-plans.
    sa.Column("params", sa.Text, nullable=False),  # JSON of the kind's params struct.
    sa.Column("state", sa.String(16), nullable=False),
    # Running: the first step whose end is not written. Unwinding: the next one to undo; -1 when all are undone.
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("seq", sa.Integer, nullable=False),  # Of the next event.
    sa.Column("forward_only", sa.Boolean, nullable=False),
    sa.Column("target", sa.String(64), nullable=False),
    sa.Column("project_id", sa.String(64)),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("owner", sa.String(64), nullable=False),  # Empty: whoever is kicked first.
    sa.Column("adopt_generation", sa.Integer, nullable=False),  # Fences off former owners.
    sa.Column("lease_until", sa.Float, nullable=False),  # The database's time.
    sa.Column("deadline_at", sa.Float, nullable=False),  # The database's time.
    sa.Column("cancel_at", sa.Float),  # When someone asked for it; looked at on step boundaries.
    sa.Column("overdue_at", sa.Float),  # Forward-only sagas: when `overdue` ran.
    sa.Column("cause", sa.JSON(none_as_null=True)),
    sa.Column("reason", sa.Text),  # Why it is stuck, or was abandoned.
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),
)

sa.Index("ix_saga_state_lease_until", saga.c.state, saga.c.lease_until)
sa.Index("ix_saga_target", saga.c.target)
sa.Index("ix_saga_request_id", saga.c.request_id)
sa.Index("ix_saga_ended_at", saga.c.ended_at)

saga_event = sa.Table(
    "saga_event",
    metadata,
    sa.Column("saga_id", sa.String(36), sa.ForeignKey("saga.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("step", sa.String(64), nullable=False),
    sa.Column("event", sa.String(16), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("output", sa.JSON(none_as_null=True)),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("notes", sa.JSON, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("ms", sa.Float, nullable=False),
)
