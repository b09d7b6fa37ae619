"""Exactly once through the real parts: cuts behind any byte, stale and dead gateways, restarts from the journal.

BULLRING_RESUME_SEEDS sets how many runs (default 20), BULLRING_RESUME_FIRST the first of their seeds (0). What they
went through stands in the summary of the test run. That a cut is harmless behind each single byte shows
test_cut_at_every_byte.py.
"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ringbuf.wire import messages as wire
from tests.kit.resume_judge import SETTLE_S, judge, settle, until_settled
from tests.kit.resume_world import GATEWAY_REJECT_SIDE, GATEWAYS, Desk, Rules, World, copy_of, prepared

SEEDS = int(os.environ.get("BULLRING_RESUME_SEEDS", "20"))
FIRST_SEED = int(os.environ.get("BULLRING_RESUME_FIRST", "0"))
REQUESTS = 48
TURNS = 500
HURRY_ROUNDS = 100
WRONG_SEEDS = 200  # the last of them is found by seed 19
WRONG_SETTLE_S = 3.0  # what is lost never comes


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("prepared") / "journal")


ACTIONS = ("place", "write", "read", "gateway", "carry", "engine", "journal", "cut", "kill", "restart", "nothing")
CALM = (16, 20, 14, 16, 8, 12, 8, 3, 1, 0.6, 1.4)
# Where much is under way and little is journaled when a fault comes: what wrong rules need to be found soon.
HOSTILE = (24, 30, 14, 28, 12, 14, 1, 3, 0.5, 2.5, 2)
MUST_COME = (
    "logons",
    "requests sent again",
    "reports asked for again",
    "cuts",
    "cuts the gateway does not hear of",
    "cuts within a frame sent",
    "cuts within a frame heard",
    "gateways killed",
    "restarts, requests on the way kept",
    "restarts, requests on the way lost",
    "log records lost by restarts",
)


def turn(world: World, desk: Desk, rng: random.Random, weights: Sequence[float], counts: Counter[str]) -> None:
    """Do one thing, or have one fault."""
    source = rng.choice(GATEWAYS)
    match rng.choices(ACTIONS, weights)[0]:
        case "place" if desk.own.next_seq <= REQUESTS:
            desk.place(GATEWAY_REJECT_SIDE if rng.random() < 0.1 else wire.Side.BUY)
        case "write":
            desk.write(rng.choice((1, 7, 40, 112, 4096)))
        case "read":
            desk.read(rng.choice((1, 7, 40, 112, 4096, 65536)))
        case "gateway":
            world.gateway(source)
        case "carry":
            world.carry(source)
        case "engine":
            world.engine()
        case "journal":
            world.journal()
        case "cut" if desk.connected:
            unheard = rng.random() < 0.6
            counts["cuts the gateway does not hear of" if unheard else "cuts"] += 1
            counts["cuts within a frame sent"] += desk.part_sent > 0
            counts["cuts within a frame heard"] += desk.part_heard > 0
            desk.cut(abandon=unheard)
        case "kill":
            counts["gateways killed"] += 1
            world.kill_gateway(source)
        case "restart":
            drain = rng.random() < 0.7
            counts["restarts, requests on the way kept" if drain else "restarts, requests on the way lost"] += 1
            counts["log records lost by restarts"] += world.restart(drain=drain)
            desk.cut(abandon=False)
    if not desk.connected and rng.random() < 0.3:
        desk.connect(source)
        if rng.random() < 0.8:
            # Left to chance, faults would come before most logons are through, and little else would be tried.
            hurry(world, desk, source)
            counts["logons"] += desk.established


def hurry(world: World, desk: Desk, source: int) -> None:
    """Log on without a fault on the way, if that can be. What is in the other gateway stays there."""
    for _ in range(HURRY_ROUNDS):
        if desk.established or not desk.connected:
            return
        desk.write(4096)
        world.gateway(source)
        world.carry(source)
        world.engine()
        world.journal()
        desk.read()


def run(template: Path, folder: Path, seed: int, counts: Counter[str], rules: Rules = Rules.RIGHT) -> str:
    """Return "" or what is wrong with one run; add what it went through to the counts."""
    rng = random.Random(seed)
    world = World(copy_of(template, folder / f"{seed}"), rules)
    desk = Desk(world)
    desk.connect(GATEWAYS[0])
    weights = HOSTILE if seed % 2 else CALM
    try:
        for _ in range(TURNS):
            turn(world, desk, rng, weights, counts)
            if desk.failed:
                return desk.failed
        if not settle(world, desk, REQUESTS, SETTLE_S if rules is Rules.RIGHT else WRONG_SETTLE_S):
            return desk.failed or judge(world, desk, REQUESTS) or "it did not come to an end"
        counts["requests sent again"] += desk.requests_resent
        counts["reports asked for again"] += desk.reports_asked
        counts["requests judged"] += REQUESTS
        counts["reports judged"] += sum(map(len, desk.received.values()))
        return judge(world, desk, REQUESTS)
    finally:
        desk.close()
        world.close()


@pytest.mark.slow
def test_every_request_is_applied_once_and_every_report_heard_once(
    template: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    counts: Counter[str] = Counter()
    wrong = {}
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        if fault := run(template, tmp_path, seed, counts):
            wrong[seed] = fault
        shutil.rmtree(tmp_path)  # thousands would fill a disk
        tmp_path.mkdir()
    record_property("counts", {"seeds": SEEDS, **counts})

    assert wrong == {}
    assert all(counts[what] > 0 for what in MUST_COME), counts


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [rules for rules in Rules if rules is not Rules.RIGHT])
def test_random_runs_find_what_each_wrong_rule_set_does(template: Path, tmp_path: Path, wrong: Rules) -> None:
    assert any(run(template, tmp_path, seed, Counter(), wrong) for seed in range(1, WRONG_SEEDS, 2))


# --- what the wrong rules do wrong, each in the shortest course that shows it ----------------------------------------


def log_on(world: World, desk: Desk, source: int) -> None:
    desk.connect(source)
    for _ in until_settled():
        if desk.established:
            return
        desk.write(4096)
        world.gateway(source)
        world.carry(source)
        world.engine()
        world.journal()
        desk.read()
    raise AssertionError(f"no logon: {desk.failed}")


def to_the_ring(world: World, desk: Desk, source: int, count: int, side: int = wire.Side.BUY) -> None:
    """Place requests and let the gateway take them, until all are in its ring."""
    ring = world.outer[source]
    wanted = ring.published + count
    for _ in range(count):
        desk.place(side)
    for _ in until_settled():
        desk.write(4096)
        world.gateway(source)
        if ring.published >= wanted:
            return
    raise AssertionError("the gateway did not take the requests")


def a_lost_record_is_overtaken(world: World, desk: Desk) -> None:
    log_on(world, desk, 2)
    to_the_ring(world, desk, 2, 1)
    world.carry(2)
    world.engine()  # request 1 is in the log, and in no file
    to_the_ring(world, desk, 2, 2)
    world.restart(drain=True)
    desk.cut(abandon=False)
    log_on(world, desk, 3)
    world.carry(2)  # 2 and 3 come before the client can send 1 again
    world.engine()


def a_stale_gateway_drains(world: World, desk: Desk) -> None:
    log_on(world, desk, 2)
    to_the_ring(world, desk, 2, 2)
    desk.cut(abandon=True)
    log_on(world, desk, 3)
    desk.write(4096)
    for _ in range(50):
        world.gateway(3)
        world.carry(3)
    world.engine()
    world.carry(2)
    world.engine()


def a_report_is_heard_and_its_cause_lost(world: World, desk: Desk) -> None:
    log_on(world, desk, 2)
    to_the_ring(world, desk, 2, 1)
    world.carry(2)
    world.engine()
    for _ in range(50):
        world.gateway(2)
        desk.read()
    world.restart(drain=False)
    desk.cut(abandon=False)


def a_refusal_is_lost_with_its_connection(world: World, desk: Desk) -> None:
    log_on(world, desk, 2)
    to_the_ring(world, desk, 2, 1, GATEWAY_REJECT_SIDE)
    world.carry(2)
    world.engine()
    desk.cut(abandon=False)


COURSES = {
    Rules.ANY_LATER_NUMBER: (a_lost_record_is_overtaken, "never came into the log"),
    Rules.DEDUPE_IN_GATEWAY: (a_stale_gateway_drains, "more than once"),
    Rules.REPORTS_BEFORE_JOURNAL: (a_report_is_heard_and_its_cause_lost, "before what we have heard"),
    Rules.UNNUMBERED_REJECTS: (a_refusal_is_lost_with_its_connection, "never came into the log"),
}


@pytest.mark.parametrize("wrong", COURSES)
def test_a_wrong_rule_set_fails_where_the_right_one_does_not(template: Path, tmp_path: Path, wrong: Rules) -> None:
    course, fault = COURSES[wrong]
    found = {}
    for rules in (wrong, Rules.RIGHT):
        world = World(copy_of(template, tmp_path / rules.name), rules)
        desk = Desk(world)
        course(world, desk)
        ended = settle(world, desk, REQUESTS, SETTLE_S if rules is Rules.RIGHT else WRONG_SETTLE_S)
        found[rules] = desk.failed or judge(world, desk, REQUESTS) or ("" if ended else "it did not come to an end")
        desk.close()
        world.close()

    assert fault in found[wrong]
    assert found[Rules.RIGHT] == ""
