"""Keyset pages: over any order, ties and nulls included, each row comes exactly once."""

from types import SimpleNamespace
from typing import Any, cast

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import given, settings

from controller import config, errors
from controller.http.op import Call, Query
from controller.http.paging import Page, UnknownMarker, UnknownMarkerNotFound, keyset, next_query, page_of

METADATA = sa.MetaData()
THING = sa.Table(
    "thing",
    METADATA,
    sa.Column("id", sa.String(8), primary_key=True),
    sa.Column("name", sa.String(8), nullable=True),
    sa.Column("size", sa.Integer, nullable=True),
    sa.Column("at", sa.Float, nullable=False),
)
SORTABLE = {"name": "name", "size": "size", "created_at": "at", "id": "id"}

ROWS = st.lists(
    st.tuples(st.sampled_from([None, "", "a", "b"]), st.sampled_from([None, 0, 1]), st.sampled_from([0.1, 0.2])),
    max_size=12,
)
SORTS = st.lists(st.tuples(st.sampled_from(["name", "size", "at", "id"]), st.booleans()), max_size=3).map(
    lambda pairs: tuple(dict(pairs).items())
)


def a_call(query: str = "", page_max: int = 100) -> Call:
    from urllib.parse import parse_qsl

    limits = config.Limits(page=page_max)
    cloud = SimpleNamespace(settings=config.Settings(limits=limits))
    return cast("Call", SimpleNamespace(query=Query(parse_qsl(query, keep_blank_values=True)), cloud=cloud))


@settings(max_examples=150, deadline=None)
@given(ROWS, SORTS, st.integers(1, 4))
def test_pages_are_the_whole_list_in_order(rows: list[Any], sort: tuple[tuple[str, bool], ...], limit: int) -> None:
    engine = sa.create_engine("sqlite://")
    METADATA.create_all(engine)
    with engine.begin() as tx:
        for number, (name, size, at) in enumerate(rows):
            tx.execute(sa.insert(THING).values(id=f"i{number:02}", name=name, size=size, at=at))
        whole = [row.id for row in keyset(tx, sa.select(THING), Page(1000, None, sort), THING)]
        assert sorted(whole) == [f"i{number:02}" for number in range(len(rows))]
        seen: list[str] = []
        marker = None
        while page := keyset(tx, sa.select(THING), Page(limit, marker, sort), THING):
            seen += [row.id for row in page]
            marker = seen[-1]
        assert seen == whole
    engine.dispose()


def test_a_marker_must_be_a_row_that_the_caller_may_see() -> None:
    engine = sa.create_engine("sqlite://")
    METADATA.create_all(engine)
    with engine.begin() as tx:
        tx.execute(sa.insert(THING).values(id="a", name="theirs", size=1, at=0.0))
        with pytest.raises(UnknownMarker) as refused:
            keyset(tx, sa.select(THING), Page(1, "b"), THING)
        assert refused.value.status == 400
        with pytest.raises(UnknownMarkerNotFound) as absent:
            keyset(tx, sa.select(THING), Page(1, "b", unknown_marker=UnknownMarkerNotFound), THING)
        assert absent.value.status == 404
        with pytest.raises(UnknownMarker):
            keyset(tx, sa.select(THING), Page(1, "a"), THING, visible=(THING.c.name == "ours",))
    engine.dispose()


def test_limits_are_clamped_and_zero_means_what_the_service_says() -> None:
    assert page_of(a_call(), SORTABLE, ()).limit == 100
    assert page_of(a_call("limit=7"), SORTABLE, ()).limit == 7
    assert page_of(a_call("limit=1000000"), SORTABLE, ()).limit == 100
    assert page_of(a_call("limit=0"), SORTABLE, ()).limit == 0
    assert page_of(a_call("limit=0"), SORTABLE, (), is_zero_all=True).limit == 100
    for text in ("-1", "x", "1.5", "", "1e3", "9" * 30):
        with pytest.raises(errors.Invalid):
            page_of(a_call(f"limit={text}"), SORTABLE, ())


def test_sort_keys_and_directions_pair_up() -> None:
    def sort(query: str) -> tuple[tuple[str, bool], ...]:
        return page_of(a_call(query), SORTABLE, (("at", True),)).sort

    assert sort("") == (("at", True),)
    assert sort("sort_key=name") == (("name", False),)
    assert sort("sort_key=name&sort_key=created_at&sort_dir=desc&sort_dir=asc") == (("name", True), ("at", False))
    assert sort("sort_key=name&sort_key=size&sort_dir=desc") == (("name", True), ("size", False))
    assert sort("sort=name:desc,size") == (("name", True), ("size", False))
    for wrong in ("sort_key=password", "sort_key=name&sort_dir=up", "sort_key=name&sort_dir=asc&sort_dir=asc"):
        with pytest.raises(errors.Invalid):
            sort(wrong)


def test_the_next_page_keeps_the_query() -> None:
    assert next_query(a_call("a=1&marker=x&a=2&b=%26 %F0%9F%A6%9C"), "y") == "a=1&a=2&b=%26%20%F0%9F%A6%9C&marker=y"
