"""Logs of every process: one JSON object a line on stderr, with ids as fields. No secrets, no query strings."""

import json
import logging
import sys
from typing import Any

import msgspec
import structlog


def configure(level: str, role: str) -> None:
    """Set up at the start of a process, and again when the level changes: a name of `logging` (info, debug)."""
    logger = structlog.WriteLogger(sys.stderr)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(_as_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: logger,
        cache_logger_on_first_use=False,  # Else a logger keeps the level that it was first used with.
    )
    structlog.contextvars.bind_contextvars(role=role)


def _as_json(line: Any, **_: Any) -> str:
    """One line. A host logs some thirty for each server, so it is msgspec's, except for what UTF-8 cannot say."""
    try:
        return msgspec.json.encode(line, enc_hook=repr).decode()
    except UnicodeEncodeError:  # Half of a surrogate pair: a path that is not UTF-8.
        return json.dumps(line, default=repr)
