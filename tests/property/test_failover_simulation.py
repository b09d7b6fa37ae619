"""Thousands of histories of a simulated cluster running the real replication code; every rule, broken, is found out.

BULLRING_FAILOVER_SEEDS=100000 makes the long run of it; `-n 2` shares it among the cores.
"""

import os

import pytest

from tests.kit.cluster import Violation, World
from tests.kit.cluster.planted import PLANTED

CHUNKS = 20
SEEDS = int(os.environ.get("BULLRING_FAILOVER_SEEDS", "500"))
SEEDS_TO_FIND = 400


def play(seed: int, mode: str) -> World:
    world = World(seed, mode=mode)
    try:
        world.run()
    except Violation as violation:
        raise AssertionError(f"World({seed}, mode={mode!r}).run(): {violation}") from violation
    return world


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_history_breaks_a_promise(chunk: int, seed: int) -> None:
    """Crashes, power losses, stops, partitions, slow disks, a lost arbiter, late and repeated frames, switchovers."""
    first = seed % 1_000_000 * 1_000_000
    promotions = acknowledged = 0

    for number in range(chunk, SEEDS, CHUNKS):
        world = play(first + number, "D2m" if number % 4 == 3 else "D2")
        promotions += world.promotions
        acknowledged += len(world.acked)

    # The histories are about something.
    assert promotions > SEEDS // CHUNKS
    assert acknowledged > 100 * SEEDS // CHUNKS


def test_one_seed_is_one_history() -> None:
    assert play(7, "D2").trace == play(7, "D2").trace
    assert play(7, "D2").trace != play(8, "D2").trace


@pytest.mark.slow
@pytest.mark.parametrize("rule", PLANTED)
def test_a_broken_rule_is_found(rule: str) -> None:
    mode, faults, focus = PLANTED[rule]

    for seed in range(SEEDS_TO_FIND):
        try:
            World(seed, mode=mode, faults=faults).run(focus=focus)
        except Violation:
            return

    raise AssertionError(f"{SEEDS_TO_FIND} histories without {rule}, and nothing was found")
