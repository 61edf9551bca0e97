"""Log lines: whatever is logged becomes one JSON object a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.wire import logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    structlog.contextvars.clear_contextvars()
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\nb", "a\nb"),
        ("\udcff", "\udcff"),
        (Path("/x"), "PosixPath('/x')"),
        (ValueError("x"), "ValueError('x')"),
        ({"n": 1.5}, {"n": 1.5}),
    ],
)
def test_anything_is_one_line_of_json(capsys: pytest.CaptureFixture[str], value: object, shown: object) -> None:
    logs.configure("info", "test")
    structlog.get_logger().info("said", value=value)
    (line,) = said(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "said", "value": shown, "role": "test", "level": "info"}


def test_a_level_can_be_changed_while_loggers_are_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.get_logger()
    logs.configure("info", "test")
    log.debug("unheard")
    logs.configure("debug", "test")
    log.debug("heard")
    assert [line["event"] for line in said(capsys)] == ["heard"]
