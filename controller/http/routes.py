"""The tables of all services as text, for `python -m controller routes`."""

from collections.abc import Iterable, Iterator

from controller.http.op import Op, Service, Version


def lines(services: Iterable[Service]) -> Iterator[str]:
    """One line a row: method, path, action, versions, status, policy."""
    for service in services:
        for op in (*service.documents, *service.ops):
            path = op.path if op in service.documents else service.prefix + op.path
            action = f" [{op.action}]" if op.action else ""
            yield f"{op.method:7}{path}{action}  {_window(op)}  {op.status}  {op.policy}"


def _window(op: Op) -> str:
    return f"{_text(op.since)}..{_text(op.until)}" if op.since or op.until else "all"


def _text(version: Version | None) -> str:
    return "" if version is None else f"{version[0]}.{version[1]}"
