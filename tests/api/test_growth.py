"""The cost of a request does not grow with what exists: neither with one's own servers nor with other people's."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.bench import growth
from tests.bench.growth import LARGE, REQUESTS, SMALL
from tests.controller.compute.cloud import compute_cloud
from tests.databases import raw_connection

ALLOWED = 1.2


async def test_requests_cost_the_same_among_ten_thousand_servers_as_among_a_hundred() -> None:
    found = await growth.ratios(ALLOWED)
    grown = {name: round(ratio, 2) for name, ratio in found.items() if ratio > ALLOWED}
    assert not grown, f"times as expensive at {LARGE} as at {SMALL}: {grown}"


async def test_no_request_reads_a_whole_table() -> None:
    async with growth.place(SMALL) as place:
        for name, request in REQUESTS.items():
            for whose in place.crowds:
                await growth.ask(place, whose, request)  # What is kept in memory (roles, tokens) is read once.
                with statements(place.api.cloud.db) as said:
                    await growth.ask(place, whose, request)
                assert not whole_tables(place.api.cloud.db, said), f"{name}, as {whose}"


async def test_nothing_in_a_servers_life_reads_a_whole_table(tmp_path: Path) -> None:
    async with compute_cloud(tmp_path) as cloud:
        await cloud.boot()
        with statements(cloud.api.cloud.db) as said:
            server = await cloud.boot()
            await cloud.act(server["id"], "os-stop")
            await cloud.rest()
            await cloud.call("DELETE", f"/servers/{server['id']}")
            await cloud.rest()
        assert not whole_tables(cloud.api.cloud.db, said)


@contextlib.contextmanager
def statements(database: Any) -> Iterator[dict[str, Any]]:
    """What is said to the database, with parameters."""
    said: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, is_many: bool) -> None:
        said[statement] = parameters[0] if is_many else parameters

    sa.event.listen(database._writer.engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        sa.event.remove(database._writer.engine, "before_cursor_execute", note)


_PASSING = re.compile(r"SCAN (anon_|\(?subquery|CONSTANT)")
"""Results of parts of the same statement."""


def whole_tables(database: Any, said: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(step of a plan, statement) wherever a table is read from end to end."""
    return [
        (step, statement)
        for statement, parameters in said.items()
        for *_, step in raw_connection(database).execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        if step.startswith("SCAN ") and " INDEX " not in step and not _PASSING.search(step)
    ]
