"""Exactly once through the real parts: cuts behind any byte, stale and dead gateways, restarts from the journal.

BULLRING_RESUME_SEEDS sets how many runs (default 20); each is named by its seed.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ringbuf.wire import messages as wire
from tests.kit.resume_world import (
    GATEWAY_REJECT_SIDE,
    GATEWAYS,
    SESSION,
    Desk,
    Rules,
    World,
    copy_of,
    history,
    prepared,
)

SEEDS = int(os.environ.get("BULLRING_RESUME_SEEDS", "20"))
REQUESTS = 24
TURNS = 500
SETTLE_S = 30.0
WRONG_SETTLE_S = 3.0  # what is lost never comes


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("prepared") / "journal")


def until_settled(limit_s: float = SETTLE_S) -> Iterator[None]:
    """Yield until there has been more than enough time, also on a busy machine."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        yield


ACTIONS = ("place", "write", "read", "gateway", "carry", "engine", "journal", "cut", "kill", "restart", "nothing")
CALM = (16, 20, 14, 16, 8, 12, 8, 3, 1, 0.6, 1.4)
# Where much is under way and little is journaled when a fault comes: what wrong rules need to be found soon.
HOSTILE = (24, 24, 10, 16, 4, 10, 2.5, 4, 1, 2.5, 2)


def turn(world: World, desk: Desk, rng: random.Random, weights: Sequence[float]) -> None:
    """Do one thing, or have one fault."""
    source = rng.choice(GATEWAYS)
    match rng.choices(ACTIONS, weights)[0]:
        case "place" if desk.own.next_seq <= REQUESTS:
            desk.place(GATEWAY_REJECT_SIDE if rng.random() < 0.1 else wire.Side.BUY)
        case "write":
            desk.write(rng.choice((1, 7, 40, 112, 4096)))
        case "read":
            desk.read()
        case "gateway":
            world.gateway(source)
        case "carry":
            world.carry(source)
        case "engine":
            world.engine()
        case "journal":
            world.journal()
        case "cut":
            desk.cut(abandon=rng.random() < 0.6)
        case "kill":
            world.kill_gateway(source)
        case "restart":
            world.restart(drain=rng.random() < 0.7)
            desk.cut(abandon=False)
    if not desk.connected and rng.random() < 0.3:
        desk.connect(rng.choice(GATEWAYS))


def settle(world: World, desk: Desk, limit_s: float = SETTLE_S) -> bool:
    """No more faults: whether everything comes to its end."""
    for _ in until_settled(limit_s):
        if desk.own.next_seq <= REQUESTS and desk.established:
            desk.place(wire.Side.BUY)
        if not desk.connected:
            desk.connect(GATEWAYS[0])
        desk.write(4096)
        world.everything()
        desk.read()
        complete = all(
            flow.missing == 0 and len(desk.received[partition]) == len(history(world, partition))
            for partition, flow in desk.flows.items()
        )
        if desk.failed:
            return False
        answered = desk.answered.keys() | desk.refused_directly
        if complete and desk.own.next_seq > REQUESTS and answered >= set(range(1, REQUESTS + 1)):
            return True
    return False


def judge(world: World, desk: Desk) -> str:
    """Return what went wrong, "" if nothing did."""
    applied: Counter[int] = Counter()
    for fields in world.records():
        if fields[0] == SESSION and fields[1] and fields[2] == wire.NewOrderSingle.TEMPLATE_ID:
            applied[wire.NewOrderSingle.unpack(fields[9]).cl_ord_id] += 1
    twice = [number for number, count in applied.items() if count > 1]
    lost = [number for number in range(1, REQUESTS + 1) if number not in applied]
    if twice:
        return f"requests {twice} are in the log more than once"
    if lost:
        return f"requests {lost} never came into the log"
    if list(applied) != sorted(applied):
        return f"requests are in the log in the order {list(applied)}"
    if any(count != 1 for count in desk.answered.values()):
        return f"answers: {desk.answered}"
    for partition in (0, 1):
        heard = [message.pack().ljust(96, b"\0") for message in desk.received[partition]]
        if heard != history(world, partition):
            return f"what was heard of partition {partition} is not what the exchange has"
    return ""


def run(template: Path, folder: Path, seed: int, rules: Rules) -> str:
    """Return "" or what is wrong with one run."""
    rng = random.Random(seed)
    world = World(copy_of(template, folder / f"{rules.name}-{seed}"), rules)
    desk = Desk(world)
    desk.connect(GATEWAYS[0])
    weights = HOSTILE if seed % 2 else CALM
    try:
        for _ in range(TURNS):
            turn(world, desk, rng, weights)
            if desk.failed:
                return desk.failed
        if not settle(world, desk):
            return desk.failed or judge(world, desk) or "it did not come to an end"
        return judge(world, desk)
    finally:
        desk.close()
        world.close()


@pytest.mark.slow
def test_every_request_is_applied_once_and_every_report_heard_once(template: Path, tmp_path: Path) -> None:
    wrong = {seed: fault for seed in range(SEEDS) if (fault := run(template, tmp_path, seed, Rules.RIGHT))}

    assert wrong == {}


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
        ended = settle(world, desk, SETTLE_S if rules is Rules.RIGHT else WRONG_SETTLE_S)
        found[rules] = desk.failed or judge(world, desk) or ("" if ended else "it did not come to an end")
        desk.close()
        world.close()

    assert fault in found[wrong]
    assert found[Rules.RIGHT] == ""
