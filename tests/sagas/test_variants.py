"""The generic tests over sagas that lead another life with other params."""

from collections.abc import Callable

import pytest

from tests.sagas import compute_life, compute_sizes
from tests.sagas.harness import GENERIC, Case, Stage

VARIANTS: dict[str, Callable[[], Case]] = {
    "unshelve-in-place": compute_life.server_unshelve_in_place,
    "migrate": compute_sizes.server_migrate,
    "rescue-of-an-error": compute_life.server_rescue_of_an_error,
    "resize-elsewhere": compute_sizes.server_resize_elsewhere,
    "confirm-elsewhere": compute_sizes.server_confirm_resize_elsewhere,
    "revert-elsewhere": compute_sizes.server_revert_resize_elsewhere,
    "delete-resized-elsewhere": compute_sizes.server_delete_resized_elsewhere,
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("claim", GENERIC, ids=lambda claim: claim.__name__)
@pytest.mark.parametrize("name", VARIANTS)
def test_variant_survives(name: str, claim: Callable[[Stage], None]) -> None:
    stage = Stage(VARIANTS[name]())
    try:
        claim(stage)
    finally:
        stage.close()
