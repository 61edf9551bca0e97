"""Which rows answer a path: one trie for all services, built from their tables when the process starts.

A literal segment wins over a `{param}` at the same place, wherever the rows stand in their table. Parameters
are strings of one decoded segment, nothing more: `..` and encoded slashes have no meaning here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from controller.errors import Invalid
from controller.http.op import PUBLIC, Op, Predicate, Service, Version

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

PARAM_LENGTH_MAX: Final = 255
"""No id or name in any of the APIs is longer; a longer one would only cost a query that finds nothing."""


@dataclass(frozen=True, slots=True)
class Route:
    """One row, ready to serve."""

    op: Op
    service: Service
    names: tuple[str, ...]  # Of the path's parameters, in order.
    allows: Predicate | None  # None: public.
    decode: Callable[[bytes], Any] | None

    def offered_at(self, version: Version) -> bool:
        """Whether the row exists in this microversion."""
        since, until = self.op.since, self.op.until
        return (since is None or version >= since) and (until is None or version <= until)


class Node:
    """One place in the tree of paths."""

    __slots__ = ("literals", "methods", "param")

    def __init__(self) -> None:
        self.literals: dict[str, Node] = {}
        self.param: Node | None = None
        self.methods: dict[str, tuple[Route, ...]] = {}

    def child(self, segment: str) -> "Node":
        """The node below, made if it is not there yet."""
        if not segment.startswith("{"):
            return self.literals.setdefault(segment, Node())
        if self.param is None:
            self.param = Node()
        return self.param


@dataclass(frozen=True, slots=True)
class Found:
    """Where a path leads. `node` is None when no row has it; `service` None outside of every service."""

    service: Service | None
    node: Node | None
    values: tuple[str, ...] = ()
    project_id: str | None = None  # As written into the path, for services that allow it.


class Trie:
    """All rows of all services."""

    def __init__(self, services: tuple[Service, ...]) -> None:
        self._root = Node()
        self._mounts: dict[str, tuple[Service, list[str]]] = {}
        for service in services:
            prefix = segments_of(service.prefix)
            assert prefix[0] not in self._mounts, f"two services are mounted at /{prefix[0]}"
            self._mounts[prefix[0]] = (service, prefix)
            for op in service.ops:
                self._insert(service, op, service.prefix + op.path)
            for op in service.documents:
                self._insert(service, op, op.path)

    def _insert(self, service: Service, op: Op, path: str) -> None:
        node, names = self._root, []
        for segment in segments_of(path):
            node = node.child(segment)
            if segment.startswith("{"):
                names.append(segment[1:-1])
        node.methods[op.method] = (*node.methods.get(op.method, ()), _route(service, op, tuple(names)))

    def find(self, segments: list[str]) -> Found:
        """The rows of a path."""
        service, prefix = self._mounts.get(segments[0] if segments else "", (None, []))
        values: list[str] = []
        node = _walk(self._root, segments, 0, values)
        if node is not None or service is None or not service.project_in_path:
            return Found(service, node, tuple(values))
        depth = len(prefix)
        if len(segments) <= depth + 1 or segments[:depth] != prefix or not _is_param(segments[depth]):
            return Found(service, None)
        node = _walk(self._root, segments[:depth] + segments[depth + 1 :], 0, values)
        return Found(service, node, tuple(values), segments[depth])


def segments_of(path: str) -> list[str]:
    """The parts between slashes; one slash at the end means nothing."""
    parts = path.split("/")[1:]
    if parts and not parts[-1]:
        parts.pop()
    return parts


def decoded_segments(path: str, raw_path: bytes) -> list[str]:
    """The same for a request: split first, percent-decode then, so that %2F is a character and not a border."""
    if b"%" not in raw_path:
        return segments_of(path)
    try:
        return [unquote(part, errors="strict") for part in segments_of(raw_path.decode("ascii"))]
    except UnicodeDecodeError as error:
        raise Invalid("The path is not UTF-8.") from error


def _walk(node: Node, segments: list[str], at: int, values: list[str]) -> Node | None:
    if at == len(segments):
        return node if node.methods else None
    literal = node.literals.get(segments[at])
    if literal is not None and (found := _walk(literal, segments, at + 1, values)) is not None:
        return found
    if node.param is None or not _is_param(segments[at]):
        return None
    values.append(segments[at])
    if (found := _walk(node.param, segments, at + 1, values)) is None:
        values.pop()
    return found


def _is_param(segment: str) -> bool:
    return 0 < len(segment) <= PARAM_LENGTH_MAX and _CONTROL.search(segment) is None


def _route(service: Service, op: Op, names: tuple[str, ...]) -> Route:
    assert op.policy == PUBLIC or op.policy in service.policies, f"{op.method} {op.path}: no rule {op.policy}"
    allows = None if op.policy == PUBLIC else service.policies[op.policy]
    decode = None if op.body is None else msgspec.json.Decoder(op.body).decode
    return Route(op, service, names, allows, decode)
