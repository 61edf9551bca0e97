"""Whole clouds, one for each seed: operations and faults at random, rest, and the invariants.

make sim             all seeds
make sim SEED=17     one seed, with its whole trace in a file
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import pytest

from tests.sim.simulation import Plan, Simulation, play

SEEDS: Final = 200
CHUNK: Final = 10

REPEATED: Final = 7
"""A seed with two controllers and much trouble, played again and again to compare the traces."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Chunks of seeds, or the one that was asked for."""
    if "seeds" in metafunc.fixturenames:
        asked = metafunc.config.getoption("seed")
        chunks = [range(first, first + CHUNK) for first in range(1, SEEDS + 1, CHUNK)]
        metafunc.parametrize(
            "seeds", [[asked]] if asked is not None else chunks, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}"
        )


@pytest.mark.timeout(900)
def test_every_seed_comes_to_a_clean_rest(seeds: "range | list[int]") -> None:
    is_replay = len(seeds) == 1
    for seed in seeds:
        kept: list[Simulation] = []
        played = play(seed, Plan(), keep=is_replay, prepare=kept.append)
        if is_replay:
            path = Path(tempfile.gettempdir()) / f"simulation-{seed}.trace"
            kept[0].trace.write(path)
            print(f"the whole trace of seed {seed} is in {path}")
        assert not played.broken, played.story()


def test_without_faults_nothing_fails() -> None:
    for seed in range(1, 6):
        played = play(seed, Plan(operations=60, faults=False))
        assert not played.broken, played.story()


def test_the_same_seed_gives_the_same_trace_twice() -> None:
    plan = Plan(operations=150)
    first, again = play(REPEATED, plan), play(REPEATED, plan)
    assert first.digest == again.digest


def test_another_process_with_other_hashes_gives_the_same_trace() -> None:
    code = f"from tests.sim.simulation import Plan, play\nprint(play({REPEATED}, Plan(operations=80)).digest)"
    digests = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100, check=True
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1
