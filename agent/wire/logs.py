"""Logs of every process: one JSON object a line on stderr, with ids as fields. No secrets, no query strings."""

import logging
import sys

import structlog


def configure(level: str, role: str) -> None:
    """Set up at the start of a process, and again when the level changes: a name of `logging` (info, debug)."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,  # Else a logger keeps the level that it was first used with.
    )
    structlog.contextvars.bind_contextvars(role=role)
