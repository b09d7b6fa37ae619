"""A connection lost behind each single byte, sent or heard: every request applied once, every report heard once.

Two conversations, each in a fresh exchange for every byte it has in a direction: the first one of a session (Negotiate,
Establish, requests and their reports), and one that repairs (a request sent again, reports asked for again). The
connection is cut behind the byte, once so that the gateway hears of it and once so that it does not; then all must come
to its end.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from ringbuf.wire import messages as wire
from tests.kit.resume_judge import at_rest, judge, settle, until_settled
from tests.kit.resume_world import GATEWAY_REJECT_SIDE, GATEWAYS, Desk, Rules, World, copy_of, history, prepared

FIRST, OTHER = GATEWAYS
UNLIMITED = 1 << 30

pytestmark = pytest.mark.slow


class Direction(Enum):
    SENT = "sent"
    HEARD = "heard"


def run_until(world: World, desk: Desk, done: Callable[[], bool]) -> None:
    for _ in until_settled():
        if done():
            return
        desk.write(4096)
        world.everything()
    raise AssertionError(f"it did not come so far: {desk.failed}")


def nothing_before(world: World, desk: Desk) -> int:
    """Return how many requests have been made: none."""
    return 0


def reports_lost_and_a_request(world: World, desk: Desk) -> int:
    """A connection that ends with two reports on their way and a request that has not left; return how many it made."""
    desk.connect(FIRST)
    for _ in until_settled():
        if desk.established:
            break
        desk.write(4096)
        world.everything()
        desk.read()
    heard = sum(len(history(world, partition)) for partition in (0, 1))
    for _ in range(2):
        desk.place(wire.Side.BUY)
    run_until(world, desk, lambda: sum(len(history(world, partition)) for partition in (0, 1)) >= heard + 2)
    desk.place(wire.Side.BUY)
    desk.cut(abandon=False)
    return 3


BEFORE = {"the first connection of a session": nothing_before, "one that repairs": reports_lost_and_a_request}


def talk(world: World, desk: Desk, requests: int, limits: dict[Direction, int]) -> bool:
    """Talk over one connection until a limit of bytes: whether it was reached before everything had been said."""
    desk.connect(OTHER)
    for _ in until_settled():
        if desk.established and desk.own.next_seq <= requests:
            desk.place(GATEWAY_REJECT_SIDE if desk.own.next_seq == requests else wire.Side.BUY)
        desk.write(limits[Direction.SENT] - desk.sent_bytes)
        if desk.sent_bytes == limits[Direction.SENT]:
            world.gateway(OTHER)  # it has what was sent, also where it will not hear of the end
            return True
        world.everything()
        desk.read(limits[Direction.HEARD] - desk.heard_bytes)
        if desk.heard_bytes == limits[Direction.HEARD]:
            return True
        if at_rest(world, desk, requests):
            return False
    raise AssertionError(f"the conversation did not come to an end: {desk.failed}")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("prepared") / "journal")


@dataclass(frozen=True)
class Cut:
    """Behind which byte of which conversation, and whether the gateway does not hear of it."""

    before: str
    direction: Direction
    position: int
    unheard: bool

    def run(self, template: Path, folder: Path, counts: Counter[str], rules: Rules = Rules.RIGHT) -> tuple[bool, str]:
        """Return whether the conversation came so far, and "" or what is wrong in the end."""
        world = World(copy_of(template, folder), rules)
        desk = Desk(world)
        try:
            requests = BEFORE[self.before](world, desk) + 2
            limits = {each: self.position if each is self.direction else UNLIMITED for each in Direction}
            if reached := talk(world, desk, requests, limits):
                counts["cuts"] += 1
                counts["within a frame"] += (
                    desk.part_sent if self.direction is Direction.SENT else desk.part_heard
                ) > 0
            desk.cut(abandon=self.unheard)
            ended = settle(world, desk, requests)
            counts["requests judged"] += requests
            counts["reports judged"] += sum(map(len, desk.received.values()))
            fault = desk.failed or judge(world, desk, requests) or ("" if ended else "it did not come to an end")
            return reached, fault
        finally:
            desk.close()
            world.close()
            shutil.rmtree(folder)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("before", BEFORE)
def test_a_connection_may_be_cut_behind_every_byte(
    template: Path, tmp_path: Path, before: str, direction: Direction, record_property: Callable[[str, object], None]
) -> None:
    counts: Counter[str] = Counter()
    wrong = {}
    reached, position = True, 0
    while reached:
        position += 1
        for unheard in (False, True):
            cut = Cut(before, direction, position, unheard)
            reached, fault = cut.run(template, tmp_path / "journal", counts)
            if fault:
                wrong[position, unheard] = fault
    record_property("counts", {"bytes": position - 1, **counts})

    assert wrong == {}
    assert counts["cuts"] >= 2 * (position - 1)
    assert counts["cuts"] * 0.9 < counts["within a frame"] < counts["cuts"]


def test_a_cut_behind_the_last_byte_shows_a_wrong_rule(template: Path, tmp_path: Path) -> None:
    before = "the first connection of a session"
    world = World(copy_of(template, tmp_path / "whole"))
    desk = Desk(world)
    assert not talk(world, desk, 2, dict.fromkeys(Direction, UNLIMITED))
    cut = Cut(before, Direction.SENT, desk.sent_bytes, unheard=False)
    desk.close()
    world.close()

    assert cut.run(template, tmp_path / "right", Counter()) == (True, "")
    assert cut.run(template, tmp_path / "wrong", Counter(), Rules.UNNUMBERED_REJECTS) == (
        True,
        "requests [2] never came into the log",
    )
