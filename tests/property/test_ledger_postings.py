"""The ledger derived from the log is the engine's accounts, record by record; its entries balance; its rows add up."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringbuf.wire import messages as wire
from settlement.chart import Book, Code
from settlement.derivation import Block, Columns, Derivation
from tests.kit.composed_exchange import BASE, QUOTE, Exchange, make_exchange
from tests.kit.ledger_run import LedgerRun, exchange_balances, joined
from tests.oracle.adapter import EngineTarget
from tests.oracle.compare import Lockstep
from tests.oracle.generator_market import make_generator
from tests.oracle.world import Command, World, setup

TICK_NS = 20_000_000
ACCOUNTS, ASSETS = range(0, 7), range(1, 4)


class RandomMarket:
    """The oracle's random commands through the engine, the ledger following every step."""

    def __init__(self, seed: int, *, partitions: int, bursts: bool) -> None:
        world = World(partitions=partitions, orders_max=128)
        self.target = EngineTarget(world)
        self.lockstep = Lockstep(world, self.target, deep_every=1 << 60)
        self.run = LedgerRun(self.target.engine)
        self.blocks: list[Block] = []
        for command in setup(world):
            self.lockstep.run(command)
        self.generator = make_generator(seed, world, self.lockstep.model)
        self.bursts = bursts

    def step(self) -> None:
        command: Command | list[Command] = self.generator.burst() if self.bursts else self.generator.next()
        # Whether engine and model agree is not asked here: hashes written in between take market-data numbers.
        self.lockstep.run(command)
        self.run.follow()

    def settle(self) -> None:
        """Let some time pass: the tick brings a mark for all reports, and now and then the engine's hash."""
        self.target.time_ns += TICK_NS
        self.run.tick(self.target.time_ns)

    def take(self) -> None:
        self.blocks.append(self.run.derivation.take())

    def restart(self) -> None:
        """Go on from an image, as a ledger that was stopped between two blocks."""
        derivation = Derivation.from_image(self.run.derivation.image())
        assert derivation is not None
        self.run.derivation = derivation


@pytest.mark.parametrize(("partitions", "bursts"), [(1, False), (2, False), (3, True), (2, True)])
def test_ledger_is_the_engines_accounts_after_every_command(partitions: int, bursts: bool) -> None:
    steps = int(os.environ.get("BULLRING_LEDGER_STEPS", "1200")) // (8 if bursts else 1)
    market = RandomMarket(partitions * 10 + bursts, partitions=partitions, bursts=bursts)

    for step in range(steps):
        market.step()
        if step % 3 == 0:
            market.settle()
            assert market.run.differences(ACCOUNTS, ASSETS) == []
        if step % 100 == 99:
            market.take()
            market.restart()
            assert sums(market.blocks) == nonzero(market.run.derivation)

    counts = market.run.derivation.counts()
    print(counts)
    assert counts.marks_compared >= steps // 200
    assert counts.marks_differing == 0
    assert counts.trades > steps // 20
    market.take()
    check_rows(market.blocks, market.run.derivation)
    for block in market.blocks:
        check_order(block)


def check_rows(blocks: list[Block], derivation: Derivation) -> None:
    """Rows alone give back the books; entries balance; no key comes twice."""
    postings = joined(blocks, "postings")
    check_types(postings)
    keys = list(zip(postings["sequence"].tolist(), postings["idx"].tolist(), strict=True))
    assert len(set(keys)) == len(keys)
    order = np.lexsort((postings["idx"], postings["sequence"]))
    entries: dict[tuple[int, int], int] = defaultdict(int)
    for row in order.tolist():
        change = int(postings["available"][row]) + int(postings["held"][row])
        entries[int(postings["sequence"][row]), int(postings["asset"][row])] += change
    assert set(entries.values()) == {0}
    assert sums(blocks) == nonzero(derivation)


def sums(blocks: list[Block]) -> dict[tuple[int, int, int], tuple[int, int]]:
    """Return what the postings of each account add up to, where that is not nothing."""
    postings = joined(blocks, "postings")
    books: dict[tuple[int, int, int], tuple[int, int]] = {}
    names = ("book", "account", "asset", "available", "held")
    for book, account, asset, available, held in zip(*(postings[name].tolist() for name in names), strict=True):
        before = books.get((book, account, asset), (0, 0))
        books[book, account, asset] = (before[0] + available, before[1] + held)
    return {account: units for account, units in books.items() if units != (0, 0)}


def check_order(block: Block) -> None:
    """The rows of a block come in the order of the store's keys."""
    kinds = (
        (block.postings, ("book", "account", "asset", "sequence", "idx")),
        (block.trades, ("instrument", "trade_id")),
        (block.orders, ("account", "instrument", "order_id")),
    )
    for columns, key in kinds:
        rows = list(zip(*(columns[name].tolist() for name in key), strict=True))
        assert rows == sorted(set(rows))


def check_types(columns: Columns) -> None:
    assert all(np.issubdtype(column.dtype, np.integer) for column in columns.values())


def test_a_whole_run_in_any_batches_gives_the_same_rows() -> None:
    market = RandomMarket(77, partitions=2, bursts=False)
    for _ in range(400):
        market.step()
    recording = market.run.recording

    together, pieces = Derivation(), Derivation()
    recording.feed(together)
    random = np.random.default_rng(5)
    while pieces.position < recording.end:
        recording.feed(pieces, min(recording.end, pieces.position + int(random.integers(1, 60))))

    assert_same(together.take(), pieces.take())
    assert together.balances().as_dict() == pieces.balances().as_dict()


def assert_same(expected: Block, got: Block) -> None:
    for kind in ("postings", "trades", "orders"):
        one, other = getattr(expected, kind), getattr(got, kind)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=f"{kind}.{name}")


# --- small sequences that hypothesis makes itself ---------------------------------------------------------------------


def small_exchange() -> tuple[Exchange, LedgerRun]:
    exchange = make_exchange(maker_rate=-100, taker_rate=700)
    run = LedgerRun(exchange.engine)
    for _ in range(2):
        exchange.account(base=1_000_000, quote=1_000_000_000)
    return exchange, run


adjustments = st.lists(
    st.tuples(
        st.integers(1, 2),
        st.sampled_from([BASE, QUOTE]),
        st.integers(-400_000, 400_000) | st.just(0),
        st.sampled_from(list(wire.BalanceKind)),
        st.sampled_from([0, 7, 8]),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(adjustments, st.lists(st.tuples(st.booleans(), st.integers(90, 110), st.integers(1, 500)), max_size=20))
def test_any_sequence_conserves_every_asset(moves: list[Move], orders: list[tuple[bool, int, int]]) -> None:
    exchange, run = small_exchange()
    accepted = [adjust(exchange, *move).code == wire.RejectCode.NONE for move in moves]
    for buy, price, quantity in orders:
        exchange.order(1 if buy else 2, wire.Side.BUY if buy else wire.Side.SELL, price, quantity)
    run.tick()

    sums: dict[int, int] = defaultdict(int)
    for (_, _, asset), (available, held) in run.derivation.balances().as_dict().items():
        sums[asset] += available + held
    assert set(sums.values()) == {0}
    assert in_transit(run.derivation) == still_pending(moves, accepted)
    assert run.differences(range(0, 3), range(1, 3)) == []
    exchange.engine.close()


Move = tuple[int, int, int, wire.BalanceKind, int]


def in_transit(derivation: Derivation) -> dict[tuple[Book, int], int]:
    return {
        (Book(book), asset): available
        for (book, _, asset), (available, _) in derivation.balances().as_dict().items()
        if book in (Book.DEPOSITS, Book.WITHDRAWALS) and available
    }


def still_pending(moves: list[Move], accepted: list[bool]) -> dict[tuple[Book, int], int]:
    """What was announced under a reference and neither voided nor, by amount 0, said to be final."""
    pending: dict[tuple[Book, int, int, int], int] = defaultdict(int)
    for (account, asset, amount, kind, reference), good in zip(moves, accepted, strict=True):
        if good and reference and kind != wire.BalanceKind.ADJUSTMENT:
            book = Book.DEPOSITS if kind == wire.BalanceKind.DEPOSIT else Book.WITHDRAWALS
            key = (book, asset, account, reference)
            pending[key] = pending[key] - amount if amount else 0
    sums: dict[tuple[Book, int], int] = defaultdict(int)
    for (book, asset, _, _), units in pending.items():
        sums[book, asset] += units
    return {key: units for key, units in sums.items() if units}


def adjust(
    exchange: Exchange, account: int, asset: int, amount: int, kind: wire.BalanceKind, reference: int = 0
) -> wire.AdminAck:
    return exchange.admin(
        wire.BalanceAdjust(amount=amount, account_id=account, asset_id=asset, kind=kind, reference=reference)
    )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 2),
    st.sampled_from([BASE, QUOTE]),
    st.integers(1, 1_000_000),
    st.sampled_from(list(wire.BalanceKind)),
    st.integers(0, 3),
)
def test_posting_and_reversing_restores_the_books(
    account: int, asset: int, amount: int, kind: wire.BalanceKind, reference: int
) -> None:
    exchange, run = small_exchange()
    run.follow()
    before = nonzero(run.derivation)

    adjust(exchange, account, asset, amount, kind, reference)
    run.follow()
    between = nonzero(run.derivation)
    adjust(exchange, account, asset, -amount, kind, reference)
    run.follow()

    assert between != before
    assert nonzero(run.derivation) == before
    exchange.engine.close()


def nonzero(derivation: Derivation) -> dict[tuple[int, int, int], tuple[int, int]]:
    return {account: units for account, units in derivation.balances().as_dict().items() if units != (0, 0)}


# --- what each kind of record is posted as ----------------------------------------------------------------------------


def posted(run: LedgerRun) -> list[tuple[Any, ...]]:
    """Return (book, account, asset, code, available, held, fee) of what came since the last call, in order."""
    run.follow()
    rows = run.derivation.take().postings
    order = np.lexsort((rows["idx"], rows["sequence"])).tolist()
    names = ("book", "account", "asset", "code", "available", "held", "fee")
    return [
        (Book(values[0]), values[1], values[2], Code(values[3]), *values[4:])
        for values in (tuple(int(rows[name][row]) for name in names) for row in order)
    ]


@pytest.mark.parametrize(
    ("kind", "amount", "reference", "contra", "code"),
    [
        (wire.BalanceKind.DEPOSIT, 50, 0, Book.TREASURY, Code.DEPOSIT),
        (wire.BalanceKind.WITHDRAWAL, -50, 0, Book.TREASURY, Code.WITHDRAWAL),
        (wire.BalanceKind.ADJUSTMENT, 50, 0, Book.ADJUSTMENTS, Code.ADJUSTMENT),
        (wire.BalanceKind.ADJUSTMENT, -50, 9, Book.ADJUSTMENTS, Code.ADJUSTMENT),
        (wire.BalanceKind.DEPOSIT, 50, 9, Book.DEPOSITS, Code.DEPOSIT_PENDING),
        (wire.BalanceKind.DEPOSIT, -50, 9, Book.DEPOSITS, Code.DEPOSIT_VOIDED),
        (wire.BalanceKind.WITHDRAWAL, -50, 9, Book.WITHDRAWALS, Code.WITHDRAWAL_PENDING),
        (wire.BalanceKind.WITHDRAWAL, 50, 9, Book.WITHDRAWALS, Code.WITHDRAWAL_VOIDED),
    ],
)
def test_money_in_and_out_has_its_other_side(
    kind: wire.BalanceKind, amount: int, reference: int, contra: Book, code: Code
) -> None:
    exchange, run = small_exchange()
    posted(run)

    adjust(exchange, 1, BASE, amount, kind, reference)

    assert posted(run) == [(Book.CLIENT, 1, BASE, code, amount, 0, 0), (contra, 0, BASE, code, -amount, 0, 0)]


@pytest.mark.parametrize(
    ("kind", "amount", "book", "code"),
    [
        (wire.BalanceKind.WITHDRAWAL, -50, Book.WITHDRAWALS, Code.WITHDRAWAL_POSTED),
        (wire.BalanceKind.DEPOSIT, 50, Book.DEPOSITS, Code.DEPOSIT_POSTED),
    ],
)
def test_pending_transfer_is_posted_once(kind: wire.BalanceKind, amount: int, book: Book, code: Code) -> None:
    exchange, run = small_exchange()
    adjust(exchange, 1, BASE, amount, kind, 9)
    adjust(exchange, 1, BASE, 3 * amount, kind, 10)
    posted(run)

    answers = [adjust(exchange, 1, BASE, 0, kind, reference).code for reference in (9, 9, 11)]

    assert answers == [wire.RejectCode.NONE] * 3
    assert posted(run) == [(book, 0, BASE, code, amount, 0, 0), (Book.TREASURY, 0, BASE, code, -amount, 0, 0)]
    assert run.derivation.balances().as_dict()[book, 0, BASE] == (-3 * amount, 0)
    assert run.differences(range(0, 3), range(1, 3)) == []


@pytest.mark.parametrize(("kind", "reference"), [(wire.BalanceKind.WITHDRAWAL, 0), (wire.BalanceKind.ADJUSTMENT, 9)])
def test_amount_zero_is_refused_where_nothing_can_be_in_transit(kind: wire.BalanceKind, reference: int) -> None:
    exchange, run = small_exchange()
    posted(run)

    assert adjust(exchange, 1, BASE, 0, kind, reference).code == wire.RejectCode.OUT_OF_RANGE
    assert posted(run) == []


def test_refused_adjustment_is_not_posted() -> None:
    exchange, run = small_exchange()
    posted(run)

    ack = adjust(exchange, 1, BASE, -2_000_000, wire.BalanceKind.WITHDRAWAL)

    assert ack.code == wire.RejectCode.INSUFFICIENT_BALANCE
    assert posted(run) == []


def test_trade_is_paid_out_of_holds_and_charged_to_both_sides() -> None:
    exchange, run = small_exchange()
    posted(run)

    exchange.buy(1, 100, 10_000)
    exchange.sell(2, 95, 4_000)
    exchange.cancel(1, 1)
    run.tick()

    client = Book.CLIENT
    assert posted(run) == [
        (client, 1, QUOTE, Code.HOLD, -1_000_000, 1_000_000, 0),
        (client, 2, BASE, Code.HOLD, -4_000, 4_000, 0),
        # The maker's rebate is paid in what the taker receives, which is what the maker pays with.
        (client, 1, QUOTE, Code.FILL_MAKER, 40, -400_000, -40),
        (client, 1, BASE, Code.FILL_MAKER, 4_000, 0, 0),
        (client, 2, BASE, Code.FILL_TAKER, 0, -4_000, 0),
        (client, 2, QUOTE, Code.FILL_TAKER, 400_000 - 280, 0, 280),
        (Book.FEES, 0, QUOTE, Code.FEE, 280, 0, 0),
        (Book.REBATES, 0, QUOTE, Code.REBATE, -40, 0, 0),
        (client, 1, QUOTE, Code.RELEASE, 600_000, -600_000, 0),
    ]


def test_better_price_gives_the_difference_back() -> None:
    exchange, run = small_exchange()
    exchange.sell(2, 95, 100)
    posted(run)

    exchange.buy(1, 100, 100)
    run.tick()

    assert (Book.CLIENT, 1, QUOTE, Code.FILL_TAKER, 500, -9_500 - 500, 0) in posted(run)


def test_insurance_fund_is_a_book_of_its_own() -> None:
    exchange = make_exchange()
    run = LedgerRun(exchange.engine, insurance_account=2)
    for _ in range(2):
        exchange.account(base=100)
    run.tick(1_700_000_009_000_000_000)

    balances = run.derivation.balances().as_dict()
    assert balances[Book.CLIENT, 1, BASE] == (100, 0)
    assert balances[Book.INSURANCE, 2, BASE] == (100, 0)
    assert run.derivation.counts().marks_compared > 0
    assert run.derivation.counts().marks_differing == 0
    assert exchange_balances(run.derivation)[2, BASE] == (100, 0)
