"""A simulation that does not notice a missing rule proves nothing: each mutant has to be noticed."""

import pytest

from tests.sim.mutants import MUTANTS, Mutant, hunt


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_the_simulation_notices(mutant: Mutant) -> None:
    count, noticed = hunt(mutant)
    print(f"{mutant.name}: seed {mutant.first + count - 1}: {noticed.splitlines()[0]}")
