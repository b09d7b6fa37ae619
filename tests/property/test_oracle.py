"""What must hold in the model itself, whatever it is compared with."""

from __future__ import annotations

from collections import Counter

import pytest

from ringbuf.wire.messages import CancelReason, RejectCode
from tests.oracle.adapter import ModelTarget
from tests.oracle.audit import Audit
from tests.oracle.compare import numbered, run_random
from tests.oracle.exchange import Exchange
from tests.oracle.generator import Generator
from tests.oracle.world import World, setup

SEEDS = range(4)
COMMANDS = 3_000
BURSTS = 150


def make_exchange(world: World) -> Exchange:
    exchange = Exchange(partitions=world.partitions, orders_max=world.orders_max)
    for command in setup(world):
        if command.bind:
            exchange.bind(command.bind)
            continue
        for report in exchange.submit(command.session, command.message).reports:
            assert report.fields.get("code", RejectCode.NONE) == RejectCode.NONE, report
    return exchange


@pytest.mark.parametrize("seed", SEEDS)
def test_money_books_and_order_lives_stay_sound(seed: int) -> None:
    """Exchange.submit checks conservation and holds after every command."""
    world = World(partitions=2, orders_max=64)
    exchange = make_exchange(world)
    generator = Generator(seed, world, exchange)
    audit = Audit()
    audit.numbers[1, 0] = exchange.sequencer.numbers[1]

    for _ in range(COMMANDS):
        command = generator.next()
        seq_num = exchange.next_seq(command.session) + command.seq_shift
        outcome = exchange.submit(command.session, command.message, seq_num=seq_num)
        audit.follow(outcome.reports)
        exchange.check()

    live = {key for key, life in audit.orders.items() if not life.is_done}
    assert live == exchange.sequencer.lines.keys()


@pytest.mark.parametrize("seed", SEEDS)
def test_bursts_in_flight_never_overspend(seed: int) -> None:
    """Many commands are admitted before the first is matched: holds must cover every version in flight."""
    world = World(partitions=2, orders_max=64)
    exchange = make_exchange(world)
    generator = Generator(seed, world, exchange)
    audit = Audit()
    audit.numbers[1, 0] = exchange.sequencer.numbers[1]
    codes: Counter[int] = Counter()

    for _ in range(BURSTS):
        outcome = exchange.burst(numbered(exchange, generator.burst()))
        audit.follow(outcome.reports)
        exchange.check()
        codes.update(report.fields["reject_code"] for report in outcome.reports if "reject_code" in report.fields)

    assert codes[RejectCode.TOO_LATE_TO_CANCEL] > 0
    assert codes[RejectCode.PENDING_REQUEST] > 0


def test_replay_of_a_seed_gives_the_same_run() -> None:
    world = World(partitions=2, orders_max=64)

    first, second = (run_random(9, 800, world, lambda world: ModelTarget(world)).steps for _ in range(2))

    assert first == second


def test_partition_count_changes_no_trade() -> None:
    """Books do not know each other: money and books end the same in one partition and in two."""
    # Order ids differ between the worlds, so only what does not depend on them is submitted: the first orders.
    books = []
    for partitions in (1, 2):
        world = World(partitions=partitions, orders_max=1024)
        exchange = make_exchange(world)
        generator = Generator(3, world, make_exchange(World(partitions=1, orders_max=1024)))
        for _ in range(300):
            command = generator.limit_order()
            exchange.submit(command.session, command.message)
        entries = [exchange.book(instrument_id) for instrument_id in world.instruments]
        books.append([[(price, leaves) for _, price, leaves in side] for book in entries for side in book])

    assert books[0] == books[1]


def test_generator_reaches_the_rare_cases() -> None:
    """A comparison is worth what its commands reach."""
    wanted_codes = {
        "UNKNOWN_INSTRUMENT", "INVALID_SIDE", "INVALID_ORD_TYPE", "INVALID_TIME_IN_FORCE", "INVALID_PRICE",
        "INVALID_QTY", "MIN_QTY", "MAX_QTY", "MIN_NOTIONAL", "MAX_NOTIONAL", "INVALID_STOP_PX",
        "INVALID_DISPLAY_QTY", "INVALID_EXPIRE", "INVALID_COMBINATION", "INVALID_STP", "INVALID_ACCOUNT",
        "INVALID_TRAILING_DELTA", "INVALID_LIST", "INSUFFICIENT_BALANCE", "OPEN_ORDER_LIMIT", "PRICE_BAND",
        "ORDER_CAPACITY", "NO_REFERENCE_PRICE", "MARKET_HALTED", "MARKET_CLOSED", "CANCEL_ONLY",
        "DUPLICATE_CL_ORD_ID", "UNKNOWN_ORDER", "WOULD_TAKE_LIQUIDITY", "REPLACE_NO_CHANGE", "QTY_BELOW_FILLED",
        "PERMISSION_DENIED",
    }  # fmt: skip
    wanted_reasons = {"CLIENT", "MASS_CANCEL", "SELF_TRADE", "IOC_REMAINDER", "NO_LIQUIDITY", "FOK_NOT_FILLABLE"}
    seen: Counter[str] = Counter()

    for orders_max in (16, 256):
        world = World(partitions=2, orders_max=orders_max)
        exchange = make_exchange(world)
        generator = Generator(1, world, exchange)
        for _ in range(12_000):
            command = generator.next()
            seq_num = exchange.next_seq(command.session) + command.seq_shift
            outcome = exchange.submit(command.session, command.message, seq_num=seq_num)
            for report in outcome.reports:
                seen[report.name] += 1
                if "reject_code" in report.fields:
                    seen[RejectCode(report.fields["reject_code"]).name] += 1
                if "cancel_reason" in report.fields:
                    seen[CancelReason(report.fields["cancel_reason"]).name] += 1
            seen.update(name for _, name, _ in outcome.replies)

    assert {name for name in wanted_codes | wanted_reasons if not seen[name]} == set()
    for name in ("OrderExecuted", "OrderPrevented", "OrderReplaced", "MassCancelReport", "NotApplied"):
        assert seen[name] > 20, name
