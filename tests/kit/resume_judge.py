"""How a run of tests/kit/resume_world.py ends without further faults, and what was wrong with it."""

import time
from collections import Counter
from collections.abc import Iterator

from ringbuf.wire import messages as wire
from tests.kit.resume_world import GATEWAYS, SESSION, Desk, World, history

SETTLE_S = 30.0


def until_settled(limit_s: float = SETTLE_S) -> Iterator[None]:
    """Yield until there has been more than enough time, also on a busy machine."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        yield


def at_rest(world: World, desk: Desk, requests: int) -> bool:
    """Whether all requests have been answered and all reports been heard."""
    complete = all(
        flow.missing == 0 and len(desk.received[partition]) == len(history(world, partition))
        for partition, flow in desk.flows.items()
    )
    answered = desk.answered.keys() | desk.refused_directly
    return complete and desk.own.next_seq > requests and answered >= set(range(1, requests + 1))


def settle(world: World, desk: Desk, requests: int, limit_s: float = SETTLE_S) -> bool:
    """No more faults: whether everything comes to its end."""
    for _ in until_settled(limit_s):
        if desk.own.next_seq <= requests and desk.established:
            desk.place(wire.Side.BUY)
        if not desk.connected:
            desk.connect(GATEWAYS[0])
        desk.write(4096)
        world.everything()
        desk.read()
        if desk.failed:
            return False
        if at_rest(world, desk, requests):
            return True
    return False


def judge(world: World, desk: Desk, requests: int) -> str:
    """Return what went wrong, "" if nothing did."""
    applied: Counter[int] = Counter()
    for fields in world.records():
        if fields[0] == SESSION and fields[1] and fields[2] == wire.NewOrderSingle.TEMPLATE_ID:
            applied[wire.NewOrderSingle.unpack(fields[9]).cl_ord_id] += 1
    twice = [number for number, count in applied.items() if count > 1]
    lost = [number for number in range(1, requests + 1) if number not in applied]
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
