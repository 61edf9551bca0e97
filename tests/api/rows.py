"""Rows of the tables as requests: a path without holes, a version that offers them, a body that reaches the decoder."""

import re
from collections.abc import Iterator

from controller.http.op import PUBLIC, Op, Service
from controller.services import services

SOME_ID = "0123456789abcdef0123456789abcdef"


def rows() -> Iterator[tuple[Service, Op, str]]:
    """(service, row, path with ids that nothing has)."""
    for service in services():
        for op in service.ops:
            yield service, op, service.prefix + re.sub(r"\{\w+\}", SOME_ID, op.path)


def private_rows() -> Iterator[tuple[Service, Op, str]]:
    """Those that ask for a token."""
    return (row for row in rows() if row[1].policy != PUBLIC)


def version_headers(service: Service, op: Op) -> dict[str, str]:
    """The oldest version that offers the row."""
    if not service.versions:
        return {}
    version = op.since or service.versions[0]
    return {"OpenStack-API-Version": f"{service.version_header} {version[0]}.{version[1]}"}


def media(op: Op) -> dict[str, str]:
    """A content type that the row takes."""
    return {"Content-Type": op.media[0]}


def wrapped(op: Op, inner: str) -> str:
    """`inner` where the row's body stands: below the action's key, for actions."""
    return inner if op.action is None else f'{{"{op.action}": {inner}}}'


def name(service: Service, op: Op) -> str:
    """For messages."""
    return f"{op.method} {service.prefix}{op.path}" + (f" [{op.action}]" if op.action else "")


def takes_json(op: Op) -> bool:
    """Whether a body is decoded."""
    return op.body is not None and not op.streams
