"""Placement follows from configuration and cores alone."""

import pytest

from scripts.config import ConfigError, load
from scripts.placement import NOT_PINNED, Kind, place


def test_few_cores_fuse_the_order_path_and_park() -> None:
    placement = place(load(), [0, 1])

    kinds = [plan.kind for plan in placement.processes]
    assert kinds == [Kind.JOURNALER, Kind.FUSED, Kind.HISTORY, Kind.WEB]
    assert all(plan.wait == "park" and plan.core == NOT_PINNED for plan in placement.processes)
    assert placement.processes[1].partitions == (1, 2)


def test_many_cores_give_each_stage_its_own_and_spin() -> None:
    placement = place(load(), range(8))

    spinning = [plan for plan in placement.processes if plan.wait == "spin"]
    assert [plan.kind for plan in spinning] == [Kind.SEQUENCER, Kind.MATCHER, Kind.MATCHER, Kind.GATEWAY]
    cores = [plan.core for plan in spinning]
    assert len(set(cores)) == len(cores)
    assert 0 not in cores


def test_nobody_spins_without_a_core_of_its_own() -> None:
    placement = place(load(None, {"placement.layout": "stages"}), [0, 1])

    unpinned = [plan for plan in placement.processes if plan.core == NOT_PINNED]
    assert unpinned
    assert all(plan.wait != "spin" for plan in unpinned)


def test_partitions_may_share_a_matcher_process() -> None:
    overrides = {"placement.layout": "stages", "placement.partitions": 3, "placement.matcher_processes": [[1, 3], [2]]}

    placement = place(load(None, overrides), range(8))

    hosted = [plan.partitions for plan in placement.processes if plan.kind is Kind.MATCHER]
    assert hosted == [(1, 3), (2,)]


def test_core_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="core 7 is not one of those"):
        place(load(None, {"placement.core_sequencer": 7}), [0, 1])


def test_web_gateway_has_one_history_and_as_many_workers_as_wished() -> None:
    placement = place(load(None, {"gateway.web.workers": 3}), [0, 1])

    names = [plan.name for plan in placement.processes if plan.kind in (Kind.HISTORY, Kind.WEB)]
    assert names == ["history", "web-0", "web-1", "web-2"]
    assert place(load(None, {"gateway.web.workers": 0}), [0, 1]).processes[-1].kind is Kind.FUSED


def test_choice_is_told_with_its_reason() -> None:
    text = place(load(), [0, 1]).describe()

    assert "fused (2 cores, stages need 6)" in text
    assert "one fault domain" in text
