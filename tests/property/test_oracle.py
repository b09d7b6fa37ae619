"""What must hold in the model itself, whatever it is compared with."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from unittest.mock import patch

import pytest

from ringbuf.wire.messages import CancelReason, RejectCode, Side
from tests.oracle.adapter import Fault, ModelTarget
from tests.oracle.auction import clearing
from tests.oracle.audit import Audit
from tests.oracle.book import Book
from tests.oracle.compare import Replica, numbered, run_random
from tests.oracle.exchange import Exchange, Numbered
from tests.oracle.faults import HAZARDS
from tests.oracle.generator_market import make_generator
from tests.oracle.orders import LiveOrder
from tests.oracle.records import LogEntry, ModelError, OrderTerms, Outcome
from tests.oracle.sequencer import Frames
from tests.oracle.world import Command, World, setup

SEEDS = range(4)
COMMANDS = 3_000
BURSTS = 150
INTERLEAVED = 4_000
ABOUT_MONEY = """limit_order sweep fok_exact edge_of_funds stop_order iceberg quote_amount replace_order amend_order
    cancel_order cancel_replace order_list cancel_of_list quote change_state""".split()
# Codes, reasons and reports that long runs must show.
CODES = """UNKNOWN_INSTRUMENT INVALID_SIDE INVALID_ORD_TYPE INVALID_TIME_IN_FORCE INVALID_PRICE INVALID_QTY
    MIN_QTY MAX_QTY MIN_NOTIONAL MAX_NOTIONAL INVALID_STOP_PX INVALID_DISPLAY_QTY INVALID_EXPIRE INVALID_COMBINATION
    INVALID_STP INVALID_ACCOUNT INVALID_TRAILING_DELTA INVALID_LIST INSUFFICIENT_BALANCE OPEN_ORDER_LIMIT PRICE_BAND
    ORDER_CAPACITY NO_REFERENCE_PRICE MARKET_HALTED MARKET_CLOSED CANCEL_ONLY DUPLICATE_CL_ORD_ID UNKNOWN_ORDER
    WOULD_TAKE_LIQUIDITY REPLACE_NO_CHANGE QTY_BELOW_FILLED PERMISSION_DENIED
    INVALID_GROUP STALE_REQUEST INVALID_CL_ORD_ID ICEBERG_PARTS INVALID_MIN_QTY INVALID_QUOTE
    QTY_NOT_REDUCED POSITION_LIMIT ACCOUNT_LOCKED KILL_SWITCH ALGO_ORDER_LIMIT RATE_LIMIT ICEBERG_ORDER_LIMIT
    ORDER_LIST_LIMIT AMEND_LIMIT LIST_CAPACITY QUOTE_CAPACITY ALGO_CAPACITY AUCTION_ONLY WOULD_TRIGGER_IMMEDIATELY
    LIST_PRICE_RELATION CANCEL_FAILED CANCEL_RESTRICTED INVALID_ORDER_LIST SECOND_OPERATOR_REQUIRED
    NOT_PRIVILEGED""".split()
REASONS = """CLIENT MASS_CANCEL IOC_REMAINDER NO_LIQUIDITY FOK_NOT_FILLABLE EXPIRED KILL_SWITCH INSTRUMENT_HALT
    QUOTE_REPLACED LIST_PEER_EXECUTED LIST_CANCELED MIN_QTY_NOT_FILLABLE AUCTION_END AMOUNT_SPENT""".split()
REPORTS = """OrderExecuted OrderPrevented OrderReplaced OrderTriggered MassCancelReport NotApplied QuoteAck
    ListStatus AuctionInfo InstrumentStateReport BusinessReject""".split()


def make_exchange(world: World) -> Exchange:
    exchange = world.exchange()
    for command in setup(world):
        if command.bind:
            exchange.bind(command.bind)
            continue
        for report in exchange.submit(command.session, command.message).reports:
            assert report.fields.get("code", RejectCode.NONE) == RejectCode.NONE, report
    return exchange


def run(exchange: Exchange, commands: list[Command], audit: Audit | None = None) -> Outcome:
    """Run commands that are in flight together, or let time pass."""
    exchange.now_ns += max(command.advance_ns for command in commands)
    frames = numbered(exchange, [command for command in commands if not command.tick])
    if audit is not None:
        for session, linked in taken(exchange, frames):
            audit.note(session, linked)
    now_ns = exchange.now_ns
    is_tick = any(command.tick for command in commands)
    return exchange.burst(frames, [LogEntry(now_ns, now_ns=now_ns)] if is_tick else [])


def taken(exchange: Exchange, commands: list[Numbered]) -> Iterator[tuple[int, Frames]]:
    """Yield (session, frames) of what the log will take: the session's next numbers, no duplicates, no gaps."""
    following: dict[int, int] = {}
    for session, frames, _ in commands:
        kept = []
        for number, message in frames:
            if number == following.setdefault(session, exchange.next_seq(session)):
                following[session] += 1
                kept.append((number, message))
        yield session, kept


def make_audit(exchange: Exchange) -> Audit:
    instruments = exchange.sequencer.instruments
    audit = Audit({number: row.definition.quote_per_tick_lot for number, row in instruments.items()})
    audit.numbers[1, 0] = exchange.sequencer.numbers[1]
    return audit


@pytest.mark.parametrize("seed", SEEDS)
def test_money_books_and_order_lives_stay_sound(seed: int) -> None:
    """Exchange.burst checks conservation and holds after every command."""
    world = World(partitions=2, orders_max=64)
    exchange = make_exchange(world)
    generator = make_generator(seed, world, exchange)
    audit = make_audit(exchange)

    for _ in range(COMMANDS):
        outcome = run(exchange, [generator.next()], audit)
        audit.follow(outcome.reports)
        exchange.check()

    lines = exchange.sequencer.lines.values()
    live = {key for key, life in audit.orders.items() if not life.is_done}
    assert live == {(line.instrument.instrument_id, line.order_id) for line in lines}


@pytest.mark.parametrize("seed", SEEDS)
def test_book_rebuilt_from_market_data_is_the_book(seed: int) -> None:
    """Update ids are contiguous, each input ends once, and nothing but events is needed to follow the book."""
    world = World(partitions=2, orders_max=64)
    exchange = make_exchange(world)
    generator = make_generator(seed + 100, world, exchange)
    replicas: dict[int, Replica] = defaultdict(Replica)

    for _ in range(COMMANDS):
        outcome = run(exchange, [generator.next()])
        for event in outcome.market_events:
            replicas[event.instrument_id].apply(event)
        assert not outcome.market_events or outcome.market_events[-1].last
        for instrument_id in {event.instrument_id for event in outcome.market_events}:
            assert replicas[instrument_id].book() == exchange.book(instrument_id)


@pytest.mark.parametrize("seed", SEEDS)
def test_bursts_in_flight_never_overspend(seed: int) -> None:
    """Many commands are admitted before the first is matched: holds must cover every version in flight."""
    world = World(partitions=2, orders_max=64)
    exchange = make_exchange(world)
    generator = make_generator(seed, world, exchange)
    audit = make_audit(exchange)
    codes: Counter[int] = Counter()

    for _ in range(BURSTS):
        outcome = run(exchange, generator.burst() or [generator.limit_order()], audit)
        audit.follow(outcome.reports)
        exchange.check()
        codes.update(report.fields["reject_code"] for report in outcome.reports if "reject_code" in report.fields)

    assert codes[RejectCode.TOO_LATE_TO_CANCEL] > 0
    assert codes[RejectCode.PENDING_REQUEST] > 0


def interleave(seed: int, count: int) -> None:
    """Let commands, matchers and marks take turns at random; raise if money is made, lost or overspent."""
    world = World(partitions=2, orders_max=64, is_poor=True)
    exchange = make_exchange(world)
    generator = make_generator(seed, world, exchange)
    generator.weights = [weight * (1 if make.__name__ in ABOUT_MONEY else 0) for weight, make in generator.kinds]
    random = Random(seed)
    pieces = ("admit",)

    for _ in range(count):
        if random.random() < 0.15:
            pieces = random.choice((("admit",), ("match",), ("settle",), ("admit", "match", "settle", "settle")))
        piece = random.choice(pieces)
        waiting = [partition for partition, inputs in exchange.inputs.items() if inputs]
        unsettled = [partition for partition, reports in exchange.unsettled.items() if reports]
        if piece == "admit":
            exchange.admit_due()
            commands = [command for command in (generator.next(),) if not command.tick]
            for session, frames, age_us in numbered(exchange, commands):
                exchange.admit(session, frames, age_us)
        elif piece == "match" and waiting:
            exchange.step(random.choice(waiting))
        elif piece == "settle" and unsettled:
            exchange.mark(random.choice(unsettled))
        if random.random() < 0.01:
            exchange.now_ns += random.choice((1_000, 200_000_000, 3_000_000_000))
            exchange.tick(exchange.now_ns)
        exchange.sequencer.check()
    exchange.settle_all()
    exchange.check()


@pytest.mark.parametrize("seed", range(6))
def test_no_interleaving_of_admission_matching_and_marks_overspends(seed: int) -> None:
    interleave(seed, INTERLEAVED)


@pytest.mark.parametrize("hazard", HAZARDS, ids=lambda hazard: hazard.name.replace(" ", "-"))
def test_interleaving_shows_rules_that_overspend(hazard: Fault) -> None:
    """The rules that look right and are not: some order of events makes a balance negative, or leaves a hold short."""
    with ExitStack() as stack:
        for owner, attribute, replacement in hazard.patches:
            stack.enter_context(patch.object(owner, attribute, replacement))
        with pytest.raises(ModelError):
            for seed in range(40):
                interleave(seed, INTERLEAVED)


def random_book(random: Random) -> Book:
    """Return a small book, mostly crossed, with icebergs."""
    book = Book()
    for order_id in range(random.randint(2, 9)):
        terms = OrderTerms(
            order_id=order_id, instrument_id=1, account_id=1, firm_id=0, session=1, seq_num=1, cl_ord_id=0,
            client_tag=0, side=random.choice((Side.BUY, Side.SELL)), ord_type=2, time_in_force=1,
            price=random.randint(1, 25), quantity=random.randint(1, 6),
        )  # fmt: skip
        order = LiveOrder.of(terms)
        order.visible = random.randint(1, terms.quantity)
        book.add(order)
    return book


def best_of_all_ticks(book: Book, reference: int | None) -> int:
    """Look at every price from 0 to 30, as docs/MATCHING.md section 13 says it."""
    demand = {p: sum(bid.leaves for bid in book.bids if bid.price >= p) for p in range(31)}
    supply = {p: sum(ask.leaves for ask in book.asks if ask.price <= p) for p in range(31)}
    most = max(min(demand[p], supply[p]) for p in demand)
    left = [p for p in demand if min(demand[p], supply[p]) == most]
    least = min(abs(demand[p] - supply[p]) for p in left)
    left = [p for p in left if abs(demand[p] - supply[p]) == least]
    if all(demand[p] > supply[p] for p in left):
        return left[-1]
    if all(demand[p] < supply[p] for p in left):
        return left[0]
    wanted = (left[0] + left[-1]) // 2 if reference is None else reference
    return min(left, key=lambda p: abs(p - wanted))


def test_clearing_price_is_the_best_of_all_ticks() -> None:
    random = Random(5)
    crossed = 0

    for _ in range(3_000):
        book, reference = random_book(random), random.choice((None, random.randint(0, 30)))
        found = clearing(book, reference)
        assert (found is not None) == book.is_crossed()
        if found is not None:
            crossed += 1
            assert found.price == best_of_all_ticks(book, reference), (book.bids, book.asks, reference)

    assert crossed > 1_000


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
        generator = make_generator(3, world, make_exchange(World(partitions=1, orders_max=1024)))
        for _ in range(300):
            command = generator.limit_order()
            exchange.submit(command.session, command.message)
        entries = [exchange.book(instrument_id) for instrument_id in world.instruments]
        books.append([[(price, leaves) for _, price, leaves in side] for book in entries for side in book])

    assert books[0] == books[1]


def tally(seen: Counter[str], outcome: Outcome) -> None:
    for report in outcome.reports:
        seen[report.name] += 1
        for name in ("reject_code", "code", "bid_reject_code"):
            if name in report.fields:
                seen[RejectCode(report.fields[name]).name] += 1
        if "cancel_reason" in report.fields:
            seen[CancelReason(report.fields["cancel_reason"]).name] += 1
    seen.update(name for _, name, _ in outcome.replies)


def test_generator_reaches_the_rare_cases() -> None:
    """A comparison is worth what its commands reach."""
    seen: Counter[str] = Counter()

    for orders_max, room in ((16, {"entries_max": 6}), (64, {"lists_max": 2, "quotes_max": 4}), (256, {})):
        world = World(partitions=2, orders_max=orders_max, **room)
        exchange = make_exchange(world)
        generator = make_generator(1, world, exchange)
        for _ in range(9_000):
            tally(seen, run(exchange, [generator.next()]))

    wanted = CODES + REASONS
    assert [name for name in wanted if not seen[name]] == []
    assert [name for name in REPORTS if seen[name] <= 20] == []
