"""One process per stage: a stopped matcher harms nobody and catches up; a dead gateway comes back alone."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.clients import BullringClient, Report, load_signer
from ringbuf.wire import messages as wire
from scripts.sandbox import landlock_version
from tests.kit import eventually
from tests.kit.exchange import Exchange

LOG_SLOTS = 4096
BTC_USDT, ETH_USDT = 1, 2  # on partitions 1 and 2
ANSWER_S = 60.0
WINDOW = 500
ASK_AGAIN_S = 0.1


NEVER_STUCK, SOON_STUCK = "supervisor.stuck_ms=600000", "supervisor.stuck_ms=500"


def started(folder: Path, *more: str) -> Exchange:
    settings = ("placement.layout=stages", "placement.wait_order_path=park", f"rings.log_slots={LOG_SLOTS}", *more)
    arguments = [word for setting in settings for word in ("--set", setting)]
    return Exchange(folder / "data", "--quiet-market", *arguments)


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    with started(tmp_path, NEVER_STUCK) as exchange:
        yield exchange


def client_of(exchange: Exchange) -> BullringClient:
    you = exchange.ready["accounts"]["you"]
    return BullringClient([exchange.address], session_id=you["session"], signer=load_signer(Path(you["key_file"])))


async def take(client: BullringClient, kind: type[Any], count: int) -> None:
    async with asyncio.timeout(ANSWER_S):
        async for report in client.reports():
            count -= isinstance(report, Report) and isinstance(report.message, kind)
            if count == 0:
                return


def place(client: BullringClient, instrument: int, price: int, cl_ord_id: int) -> None:
    client.new_order(instrument_id=instrument, side=wire.Side.BUY, quantity=10, price=price, cl_ord_id=cl_ord_id)


async def lap_the_stopped_matcher(exchange: Exchange) -> None:
    async with client_of(exchange) as client:
        for first in range(1, LOG_SLOTS + 2 * WINDOW, WINDOW):
            for cl_ord_id in range(first, first + WINDOW):
                place(client, BTC_USDT, 9_500_000, cl_ord_id)
            await take(client, wire.OrderAccepted, WINDOW)
        place(client, ETH_USDT, 390_000, 1)
        os.kill(exchange.pid("matcher-2"), signal.SIGCONT)
        await take(client, wire.OrderAccepted, 1)


def test_stopped_matcher_stalls_nobody_and_catches_up_from_the_journal(exchange: Exchange) -> None:
    os.kill(exchange.pid("matcher-2"), signal.SIGSTOP)

    asyncio.run(lap_the_stopped_matcher(exchange))

    facts = exchange.command("stat")[0]
    log = next(row for row in facts["rings"] if row["ring"] == "log")
    assert log["published"] > LOG_SLOTS + WINDOW
    assert facts["running"] is True
    assert all(process["restarts"] == 0 for process in facts["processes"])


async def order_until(client: BullringClient, kind: type[Any], numbers: Iterator[int]) -> Any:
    """Place orders of the stopped matcher's pair until one is answered so; return that report's message."""

    async def ask() -> None:
        while True:
            place(client, ETH_USDT, 390_000, next(numbers))
            await asyncio.sleep(ASK_AGAIN_S)

    asking = asyncio.create_task(ask())
    try:
        async with asyncio.timeout(ANSWER_S):
            async for report in client.reports():
                if isinstance(report, Report) and isinstance(report.message, kind):
                    return report.message
    finally:
        asking.cancel()


async def be_refused_while_it_is_stuck(exchange: Exchange) -> None:
    numbers = iter(range(1, 1 << 30))
    async with client_of(exchange) as client:
        os.kill(exchange.pid("matcher-2"), signal.SIGSTOP)
        refused = await order_until(client, wire.OrderRejected, numbers)
        assert refused.reject_code == wire.RejectCode.PAIR_PAUSED
        place(client, BTC_USDT, 9_500_000, next(numbers))
        await take(client, wire.OrderAccepted, 1)
        os.kill(exchange.pid("matcher-2"), signal.SIGCONT)
        await order_until(client, wire.OrderAccepted, numbers)


def test_pairs_of_a_stuck_matcher_are_paused_until_it_goes_on(tmp_path: Path) -> None:
    with started(tmp_path, SOON_STUCK) as exchange:
        asyncio.run(be_refused_while_it_is_stuck(exchange))

        assert all(process["restarts"] == 0 for process in exchange.command("stat")[0]["processes"])


async def trade_over_a_dead_gateway(exchange: Exchange) -> None:
    pid = exchange.pid("gateway")
    async with client_of(exchange) as client:
        place(client, BTC_USDT, 9_500_000, 1)
        await take(client, wire.OrderAccepted, 1)
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(eventually, lambda: exchange.is_back("gateway", pid), deadline_s=ANSWER_S)
        place(client, BTC_USDT, 9_500_000, 2)
        await take(client, wire.OrderAccepted, 1)
        # Its own task counts, perhaps after the answer has been read.
        await asyncio.to_thread(eventually, lambda: client.reconnects == 1, deadline_s=ANSWER_S)


def test_dead_gateway_is_restarted_alone_and_its_client_carries_on(exchange: Exchange) -> None:
    before = {name: exchange.pid(name) for name in ("journaler", "sequencer", "matcher-1", "matcher-2", "admin")}

    asyncio.run(trade_over_a_dead_gateway(exchange))

    assert {name: exchange.pid(name) for name in before} == before
    orders = {row["instrument"]: row["open_orders"] for row in exchange.command("instrument", "list")}
    assert orders["BTC-USDT"] == 2


def test_gateway_has_no_way_to_write_the_log(exchange: Exchange) -> None:
    """What it may not open is tested with the sandbox itself, tests/unit/scripts/test_sandbox.py."""
    gateway, sequencer = exchange.pid("gateway"), exchange.pid("sequencer")

    assert rights_to_the_log(gateway) == {"r--s"}
    assert rights_to_the_log(sequencer) == {"rw-s"}
    if landlock_version() > 0:
        assert "NoNewPrivs:\t1\n" in Path(f"/proc/{gateway}/status").read_text()
        assert "NoNewPrivs:\t0\n" in Path(f"/proc/{sequencer}/status").read_text()


def rights_to_the_log(pid: int) -> set[str]:
    """How a process has mapped the log ring."""
    lines = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    return {rights for _, rights, *rest in lines if rest and rest[-1].endswith(".log") and "/dev/shm/" in rest[-1]}


def test_stages_that_share_a_core_take_turns_and_nobody_else_does(tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    pins = (
        f"placement.core_sequencer={core}",
        f"placement.core_gateway={core}",
        f"placement.cores_matchers={[core] * 2}",
    )
    with started(tmp_path, *pins) as exchange:
        for name in ("gateway", "sequencer", "matcher-1", "matcher-2"):
            assert os.sched_getaffinity(exchange.pid(name)) == {core}
            eventually(lambda name=name: takes_turns(exchange, name), deadline_s=ANSWER_S)
        assert os.sched_getscheduler(exchange.pid("admin")) == os.SCHED_OTHER

        asyncio.run(trade_over_a_dead_gateway(exchange))
        eventually(lambda: takes_turns(exchange, "gateway"), deadline_s=ANSWER_S)


def takes_turns(exchange: Exchange, name: str) -> bool:
    """Whether it runs round robin, or has said that it may not."""
    log = (exchange.data / "logs" / f"{name}.log").read_text()
    policy = os.sched_getscheduler(exchange.pid(name))
    return policy == os.SCHED_RR | os.SCHED_RESET_ON_FORK or "may not run at real-time priority 1" in log
