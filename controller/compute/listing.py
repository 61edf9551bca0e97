"""Lists of servers. A page costs the same however many servers there are, unless a pattern must be searched for.

Patterns (`name=^web\\d`, `ip=10\\.0\\.`) are not for the database: they are matched in a thread, against one chunk of
rows after the other in the order of the list, until the page is full. Between two chunks others are served.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from controller.compute import nets, store
from controller.compute.model import Server
from controller.db.tx import Tx
from controller.http.paging import Page

if TYPE_CHECKING:
    from controller.cloud import Cloud

CHUNK: Final = 500
"""Rows looked at between two turns of the event loop. More: others wait. Fewer: more transactions."""

MATCH_S: Final = 5.0
"""How long a thread may match one chunk. Harmless patterns take milliseconds."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Which servers. `patterns` are (field, pattern): a column's name, `ip` or `ip6`."""

    where: tuple[Any, ...] = ()
    params: dict[str, Any] = {}
    patterns: tuple[tuple[str, re.Pattern[str]], ...] = ()


async def servers(cloud: "Cloud", asked: Asked, page: Page) -> list[Server]:
    """One page of whole rows. Raises the page's error for an unknown marker."""
    if not asked.patterns:
        return await cloud.db.read(store.page, asked.where, page, asked.params)
    found: list[Server] = []
    chunk = _part(page, CHUNK, page.marker)
    while len(found) < page.limit:
        rows, texts = await cloud.db.read(_chunk, asked, chunk)
        hits = await cloud.world.threads.run(_matching, asked.patterns, texts, timeout_s=MATCH_S)
        found += [rows[i] for i in hits]
        if len(rows) < CHUNK:
            break
        chunk = _part(page, CHUNK, rows[-1].id)
    return found[: page.limit]


def _part(page: Page, limit: int, marker: str | None) -> Page:
    """The same list, another part of it."""
    return Page(limit, marker, page.sort, page.is_asked, page.unknown_marker)


def _chunk(tx: Tx, asked: Asked, page: Page) -> tuple[list[Server], list[list[list[str]]]]:
    """Rows, and of each the texts that every pattern is searched in."""
    rows = store.page(tx, asked.where, page, asked.params)
    by_address = any(field in ("ip", "ip6") for field, _ in asked.patterns)
    networks = nets.shown(tx, [row.id for row in rows]) if by_address else {}
    texts = [[_texts(row, field, networks.get(row.id, nets.NOTHING)) for field, _ in asked.patterns] for row in rows]
    return rows, texts


def _texts(row: Server, field: str, shown: nets.Shown) -> list[str]:
    if field in ("ip", "ip6"):
        mark = ":" if field == "ip6" else "."
        return [one.address for port in shown.ports for one in port.addresses if mark in one.address]
    value = getattr(row, field)
    return [] if value is None else [str(value)]


def _matching(patterns: Sequence[tuple[str, re.Pattern[str]]], texts: list[list[list[str]]]) -> list[int]:
    return [
        i
        for i, row in enumerate(texts)
        if all(any(pattern.search(text) for text in found) for (_, pattern), found in zip(patterns, row, strict=True))
    ]


def contains(column: sa.ColumnElement[Any], text: str) -> sa.ColumnElement[bool]:
    """A plain part of the text, upper and lower case alike, as Nova's databases compare."""
    return column.icontains(text, autoescape=True)
