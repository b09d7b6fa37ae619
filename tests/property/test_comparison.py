"""The comparison can fail: every fault planted in the model is found, and a sound model shows no difference."""

from __future__ import annotations

import pytest

from tests.oracle.adapter import Fault, ModelTarget
from tests.oracle.compare import explain, run_random, run_steps, shrink
from tests.oracle.faults import BURST_FAULTS, FAULTS
from tests.oracle.world import World

# The slowest fault needs a few thousand commands with one seed.
COMMANDS_TO_FIND = 20_000
BURSTS_TO_FIND = 500
WORLD = World(partitions=2, orders_max=64)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_planted_fault_is_found(fault: Fault) -> None:
    result = run_random(5, COMMANDS_TO_FIND, WORLD, lambda world: ModelTarget(world, fault))

    assert result.difference is not None, f"{fault.name} not found in {COMMANDS_TO_FIND} commands"


@pytest.mark.parametrize("fault", BURST_FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_planted_fault_in_flight_is_found(fault: Fault) -> None:
    result = run_random(5, BURSTS_TO_FIND, WORLD, lambda world: ModelTarget(world, fault), bursts=True)

    assert result.difference is not None, f"{fault.name} not found in {BURSTS_TO_FIND} bursts"


def test_sound_model_shows_no_difference_to_itself() -> None:
    alone = run_random(6, 4_000, WORLD, lambda world: ModelTarget(world))
    together = run_random(6, 200, WORLD, lambda world: ModelTarget(world), bursts=True)

    assert alone.difference is None, str(alone.difference)
    assert together.difference is None, str(together.difference)


@pytest.mark.parametrize("name", ["rebate rounded up", "fill-or-kill counts own orders"])
def test_failing_run_shrinks_to_few_commands_that_still_fail(name: str) -> None:
    fault = next(fault for fault in FAULTS if fault.name == name)
    make = lambda world: ModelTarget(world, fault)  # noqa: E731
    result = run_random(5, COMMANDS_TO_FIND, WORLD, make)

    small = shrink(WORLD, result.steps, make)

    assert len(small) <= 12
    assert run_steps(WORLD, small, make) is not None
    assert "expected" in explain(5, WORLD, small, make)
