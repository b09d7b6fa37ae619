"""Placement follows from configuration and cores alone."""

from collections.abc import Sequence

import pytest

from scripts.config import ConfigError, load
from scripts.placement import NOT_PINNED, OBSERVER_KINDS, Kind, ProcessPlan, place, spare_cores


def test_few_cores_fuse_the_order_path_and_park() -> None:
    placement = place(load(), [0, 1])

    kinds = [plan.kind for plan in placement.processes]
    assert kinds == [Kind.JOURNALER, Kind.FUSED, Kind.HISTORY, Kind.WEB, Kind.FEED, Kind.LEDGER]
    assert all(plan.wait == "park" and plan.core == NOT_PINNED for plan in placement.processes)
    assert placement.processes[1].partitions == (1, 2)


def test_many_cores_give_each_stage_its_own_and_spin() -> None:
    placement = place(load(), range(8))

    spinning = [plan for plan in placement.processes if plan.wait == "spin"]
    assert [plan.kind for plan in spinning] == [
        Kind.SEQUENCER, Kind.MATCHER, Kind.MATCHER, Kind.GATEWAY, Kind.FEED
    ]  # fmt: skip
    cores = [plan.core for plan in spinning]
    assert len(set(cores)) == len(cores)
    assert 0 not in cores


def test_nobody_spins_without_a_core_of_its_own() -> None:
    placement = place(load(None, {"placement.layout": "stages"}), [0, 1])

    unpinned = [plan for plan in placement.processes if plan.core == NOT_PINNED]
    assert unpinned
    assert all(plan.wait != "spin" for plan in unpinned)


STAGES = {"placement.layout": "stages"}
ORDER_PATH = {Kind.SEQUENCER, Kind.MATCHER, Kind.GATEWAY}


def order_path(settings: dict[str, object], cores: Sequence[int]) -> list[ProcessPlan]:
    return [plan for plan in place(load(None, STAGES | settings), cores).processes if plan.kind in ORDER_PATH]


@pytest.mark.parametrize(
    ("settings", "cores", "core"),
    [
        ({}, [0], 0),
        ({}, [0, 1], 1),
        ({"placement.core_journaler": 1}, [0, 1], 0),
        ({"placement.core_sequencer": 0}, [0, 1], 0),
        ({"placement.core_sequencer": 3, "placement.core_gateway": 3, "placement.cores_matchers": [3, 3]}, range(8), 3),
    ],
)
def test_stages_on_one_core_go_in_turn(settings: dict[str, object], cores: Sequence[int], core: int) -> None:
    plans = order_path(settings, cores)

    assert len(plans) == 4
    assert all((plan.core, plan.wait, plan.in_turn, plan.priority) == (core, "park", True, 1) for plan in plans)
    others = [plan for plan in place(load(None, STAGES | settings), cores).processes if plan.kind not in ORDER_PATH]
    assert not any(plan.in_turn or plan.priority for plan in others)


def test_stages_on_one_core_may_yield_and_do_without_priority() -> None:
    plans = order_path({"placement.wait_order_path": "yield", "placement.priority_order_path": 0}, [0, 1])

    assert {(plan.wait, plan.priority) for plan in plans} == {("yield", 0)}


def test_a_stage_on_a_core_of_its_own_has_no_turns() -> None:
    apart = order_path({"placement.core_sequencer": 0, "placement.core_gateway": 1}, [0, 1])

    assert [(plan.core, plan.in_turn) for plan in apart] == [(0, True), (0, True), (0, True), (1, False)]
    assert not any(plan.in_turn for plan in order_path({}, range(8)))


def test_turns_are_told_with_their_priority() -> None:
    text = place(load(None, STAGES), [0, 1]).describe()

    assert "gateway: core 1, wait park, in turn at real-time priority 1" in text


def test_partitions_may_share_a_matcher_process() -> None:
    overrides = {"placement.layout": "stages", "placement.partitions": 3, "placement.matcher_processes": [[1, 3], [2]]}

    placement = place(load(None, overrides), range(8))

    hosted = [plan.partitions for plan in placement.processes if plan.kind is Kind.MATCHER]
    assert hosted == [(1, 3), (2,)]


@pytest.mark.parametrize(
    "overrides", [{"core_sequencer": 7}, {"core_gateway": 7}, {"cores_matchers": [0, 7]}, {"core_journaler": 7}]
)
def test_core_that_is_not_there_is_refused_in_every_layout(overrides: dict[str, object]) -> None:
    for layout in ("fused", "stages"):
        keys = {f"placement.{key}": value for key, value in overrides.items()}
        with pytest.raises(ConfigError, match="core 7 is not one of those"):
            place(load(None, keys | {"placement.layout": layout, "placement.partitions": 2}), [0, 1])


def test_web_gateway_has_one_history_and_as_many_workers_as_wished() -> None:
    placement = place(load(None, {"gateway.web.workers": 3}), [0, 1])

    names = [plan.name for plan in placement.processes if plan.kind in (Kind.HISTORY, Kind.WEB)]
    assert names == ["history", "web-0", "web-1", "web-2"]
    none = place(load(None, {"gateway.web.workers": 0}), [0, 1]).processes
    assert not {Kind.HISTORY, Kind.WEB} & {plan.kind for plan in none}


def test_choice_is_told_with_its_reason() -> None:
    text = place(load(), [0, 1]).describe()

    assert "fused (2 cores, stages need 6)" in text
    assert "one fault domain" in text


def test_the_feed_gets_what_is_left_and_parks_where_nothing_is() -> None:
    layout = {"placement.layout": "stages", "ledger.enabled": False}

    five = place(load(None, layout), range(5)).processes[-1]
    six = place(load(None, layout), range(6)).processes[-1]
    chosen = place(load(None, layout | {"placement.core_feed": 1}), range(5)).processes[-1]

    assert (five.kind, five.wait, five.core) == (Kind.FEED, "park", NOT_PINNED)
    assert (six.kind, six.wait, six.core) == (Kind.FEED, "spin", 5)
    assert (chosen.wait, chosen.core) == ("park", 1), "a core that others have is shared, not spun on"


def test_websockets_of_the_feed_have_a_process_of_their_own() -> None:
    web = {"gateway.feed.listen_web": "localhost:0", "ledger.enabled": False}
    *_, feed, last = place(load(None, web), range(8)).processes
    assert (feed.kind, last.kind, last.name) == (Kind.FEED, Kind.FEED_WEB, "feed-web")
    assert (last.wait, last.core) == ("park", NOT_PINNED)
    without = place(load(None, web | {"gateway.feed.enabled": False}), range(8)).processes
    assert not {plan.kind for plan in without} & {Kind.FEED, Kind.FEED_WEB}


def test_without_archive_there_is_no_feed() -> None:
    for key in ("journal.archive", "gateway.feed.enabled"):
        alone = {"ledger.enabled": False, "gateway.web.workers": 0, key: False}
        assert Kind.FEED not in [plan.kind for plan in place(load(None, alone), range(8)).processes]


def test_ledger_is_an_observer_and_can_be_left_out() -> None:
    observers = [plan.kind for plan in place(load(), [0, 1]).processes if plan.kind in OBSERVER_KINDS]
    assert observers == [Kind.HISTORY, Kind.WEB, Kind.FEED, Kind.LEDGER]

    without = place(load(None, {"ledger.enabled": False}), [0, 1])

    assert Kind.LEDGER not in [plan.kind for plan in without.processes]


def test_spare_work_keeps_off_cores_where_somebody_never_sleeps() -> None:
    pinned = {"placement.layout": "fused", "placement.core_sequencer": 1, "placement.core_journaler": 0}
    for wait, spare in (("yield", {0}), ("spin", {0}), ("park", {0, 1})):
        placement = place(load(None, pinned | {"placement.wait_order_path": wait}), [0, 1])
        assert spare_cores(placement.processes, [0, 1]) == spare
    in_turn = place(load(None, {"placement.layout": "stages"}), [0, 1])
    assert spare_cores(in_turn.processes, [0, 1]) == {0}


def test_spare_work_without_a_spare_core_takes_what_there_is() -> None:
    placement = place(load(None, {"placement.core_sequencer": 0, "placement.wait_order_path": "spin"}), [0])

    assert spare_cores(placement.processes, [0]) == {0}
