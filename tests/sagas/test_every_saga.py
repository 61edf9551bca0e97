"""The generic tests over every registered saga, and over the toys that test the tests."""

from collections.abc import Callable

import pytest

from tests.sagas import toys
from tests.sagas.cases import CASES, VARIANTS, registered
from tests.sagas.harness import GENERIC, Case, Stage

TOYS: dict[str, Callable[[], Case]] = {"toy-build/1": lambda: toys.BUILD_CASE, "toy-raze/1": lambda: toys.RAZE_CASE}


def test_every_registered_saga_has_a_case() -> None:
    assert sorted(CASES) == registered(), "see tests/sagas/README.md"


@pytest.mark.timeout(900)  # Every effect of every step, before and after: minutes of CPU for a long saga.
@pytest.mark.parametrize("claim", GENERIC, ids=lambda claim: claim.__name__)
@pytest.mark.parametrize("name", [*TOYS, *sorted(CASES), *VARIANTS])
def test_saga_survives(name: str, claim: Callable[[Stage], None]) -> None:
    stage = Stage({**TOYS, **CASES, **VARIANTS}[name]())
    try:
        claim(stage)
    finally:
        stage.close()
