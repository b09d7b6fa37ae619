"""A plain client of any target: one operator, named accounts with a session each, one market; orders by own numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ringbuf.wire.messages import (
    AccountCreate,
    AssetAdd,
    BalanceAdjust,
    BalanceKind,
    InstrumentAdd,
    InstrumentLimits,
    InstrumentState,
    NewOrderSingle,
    OrderAmendRequest,
    OrderCancelRequest,
    OrderReplaceRequest,
    OrdType,
    RejectCode,
    SessionCreate,
    Side,
    TimeInForce,
)
from tests.oracle.adapter import Levels, Target
from tests.oracle.records import Outcome, Report
from tests.oracle.tables import ADMIN_SESSION
from tests.oracle.world import World

MakeTarget = Callable[[World], Target]
BASE, QUOTE = 1, 2
# Enough for whatever an order may ask for, and dozens of accounts together stay below 2^62.
FUNDS_UNITS = 1 << 56
QUANTITY_MAX = 1 << 46


@dataclass(slots=True)
class Trade:
    """A trade, or a transfer, by the client's own numbers of both orders."""

    taker: int
    maker: int
    price: int
    quantity: int
    is_transfer: bool = False


@dataclass(slots=True)
class Followed:
    """What a client knows of an order of its own number."""

    number: int
    owner: str
    side: int
    order_id: int | None = None
    instrument_id: int = 1
    price: int = 0
    total: int = 0
    filled: int = 0
    cost: int = 0
    prevented: int = 0
    is_open: bool = False


@dataclass(slots=True)
class Events:
    """What one request did."""

    trades: list[Trade] = field(default_factory=list)
    prevented: list[tuple[int, int]] = field(default_factory=list)
    triggered: list[int] = field(default_factory=list)
    canceled: list[tuple[int, int, int]] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    others: list[Report] = field(default_factory=list)


class Driver:
    """Orders are named by numbers of the caller's; they travel as client order ids."""

    def __init__(self, target: Target, *, base_per_lot: int = 1, quote_per_tick_lot: int = 1) -> None:
        self.target = target
        self.scales = (base_per_lot, quote_per_tick_lot)
        self.sessions: dict[str, int] = {}
        self.accounts: dict[str, int] = {}
        self.sent: dict[int, int] = defaultdict(int)
        self.orders: dict[int, Followed] = {}
        self.by_id: dict[tuple[int, int], Followed] = {}
        for asset in ("BASE", "QUOTE"):
            self.admin(AssetAdd(symbol=asset, exponent=0))
        self.instruments = 0

    # -- the operator ----------------------------------------------------------------------------------------------

    def admin(self, message: Any) -> int:
        """Do an operator's command; return the id that was made."""
        for report in self.send(ADMIN_SESSION, message).reports:
            if report.name == "AdminAck":
                if report.fields["code"] != RejectCode.NONE:
                    raise AssertionError(f"{message} refused: {report}")
                return int(report.fields["result_id"])
        raise AssertionError(f"no answer to {message}")

    def add_market(self, *, price_max: int, reference_px: int | None) -> int:
        """Add a market without bounds but the largest price; return its instrument id."""
        base_per_lot, quote_per_tick_lot = self.scales
        instrument_id = self.admin(
            InstrumentAdd(
                tick_size=1,
                lot_size=1,
                quote_per_tick_lot=quote_per_tick_lot,
                base_per_lot=base_per_lot,
                base_asset_id=BASE,
                quote_asset_id=QUOTE,
                assigned_partition=1,
                symbol=f"MARKET{self.instruments + 1}",
            )
        )
        self.instruments = max(self.instruments, instrument_id)
        # Market orders may go anywhere: the band is as wide as the prices.
        limits = InstrumentLimits(
            instrument_id=instrument_id,
            min_qty=1,
            max_qty=QUANTITY_MAX,
            min_px=1,
            max_px=price_max,
            reference_px=reference_px,
            band_up_bps=10_000 * 100,
            band_down_bps=9_999,
        )
        self.admin(limits)
        return instrument_id

    def open_account(self, owner: str, *, group: int = 0, funds: tuple[int, int] = (FUNDS_UNITS, FUNDS_UNITS)) -> int:
        """Return the owner's session; made and funded (base, quote) when asked for first."""
        if owner not in self.sessions:
            account_id = self.admin(AccountCreate(stp_group_id=group))
            session = self.admin(SessionCreate(account_id=account_id))
            self.target.bind(session)
            self.sessions[owner], self.accounts[owner] = session, account_id
            for asset_id, units in zip((BASE, QUOTE), funds, strict=True):
                self.credit(owner, asset_id, units)
        return self.sessions[owner]

    def credit(self, owner: str, asset_id: int, units: int) -> None:
        if units:
            self.admin(
                BalanceAdjust(
                    account_id=self.accounts[owner], asset_id=asset_id, amount=units, kind=BalanceKind.DEPOSIT
                )
            )

    def set_state(self, state: int, instrument_id: int = 1) -> Events:
        return self.events(self.send(ADMIN_SESSION, InstrumentState(instrument_id=instrument_id, state=state)))

    def tick(self, ns: int) -> Events:
        """Let time pass, to a tick."""
        self.target.advance(ns)
        return self.events(self.target.run([], tick=True))

    # -- clients ---------------------------------------------------------------------------------------------------

    def send(self, session: int, *messages: Any) -> Outcome:
        self.target.advance(1_000)
        frames = []
        for message in messages:
            self.sent[session] += 1
            frames.append((self.sent[session], message))
        return self.target.run([(session, frames, 0)])

    def order(
        self, number: int, owner: str, side: int, quantity: int, price: int | None = None, **terms: Any
    ) -> Events:
        """Send an order; limit or market unless said otherwise, GTC, without self-trade prevention."""
        details = terms.pop("details", None)
        fields = {"instrument_id": 1, "time_in_force": TimeInForce.GTC} | terms
        fields.setdefault("ord_type", OrdType.MARKET if price is None else OrdType.LIMIT)
        message = NewOrderSingle(cl_ord_id=number, side=side, order_qty=quantity, price=price, **fields)
        session = self.open_account(owner)
        is_known = number in self.orders and self.orders[number].is_open
        if not is_known:
            followed = Followed(number, owner, side, instrument_id=message.instrument_id, price=price or 0)
            followed.total = quantity
            self.orders[number] = followed
        return self.events(self.send(session, *([] if details is None else [details]), message))

    def cancel(self, number: int) -> Events:
        followed = self.orders.get(number)
        if followed is None:
            return Events(rejected=[number])
        message = OrderCancelRequest(instrument_id=followed.instrument_id, order_id=followed.order_id)
        return self.events(self.send(self.sessions[followed.owner], message))

    def amend(self, number: int, total: int) -> Events:
        """Make an order smaller in its place; `total` includes what is filled and what was prevented."""
        followed = self.orders[number]
        message = OrderAmendRequest(
            instrument_id=followed.instrument_id, order_id=followed.order_id, new_qty=total - followed.prevented
        )
        return self.events(self.send(self.sessions[followed.owner], message))

    def cancel_replace(self, number: int, successor: int, quantity: int, price: int, **terms: Any) -> Events:
        """Cancel an order and enter another one of its owner and side in its stead, in one group."""
        old = self.orders[number]
        cancel = OrderCancelRequest(instrument_id=old.instrument_id, order_id=old.order_id)
        order = NewOrderSingle(
            cl_ord_id=successor,
            side=old.side,
            order_qty=quantity,
            price=price,
            instrument_id=old.instrument_id,
            ord_type=OrdType.LIMIT,
            time_in_force=TimeInForce.GTC,
            **terms,
        )
        self.orders[successor] = Followed(
            successor, old.owner, old.side, instrument_id=old.instrument_id, price=price, total=quantity
        )
        return self.events(self.send(self.sessions[old.owner], cancel, order))

    def replace(self, number: int, **terms: Any) -> Events:
        """Change an order; `order_qty` is its total including what is filled."""
        followed = self.orders[number]
        message = OrderReplaceRequest(instrument_id=followed.instrument_id, order_id=followed.order_id, **terms)
        return self.events(self.send(self.sessions[followed.owner], message))

    # -- what came of it -------------------------------------------------------------------------------------------

    def events(self, outcome: Outcome) -> Events:
        """Follow the orders through the reports."""
        events = Events()
        executed: list[tuple[Followed, Report]] = []
        for report in outcome.reports:
            followed = self.followed(report)
            if followed is None or not self.follow(followed, report, events):
                events.others.append(report)
                continue
            if report.name == "OrderExecuted":
                executed.append((followed, report))
        for (maker, first), (taker, _) in zip(executed[::2], executed[1::2], strict=True):
            trade = Trade(taker.number, maker.number, first.fields["last_px"], first.fields["last_qty"])
            trade.is_transfer = first.fields["trade_id"] == 0
            events.trades.append(trade)
        return events

    def followed(self, report: Report) -> Followed | None:
        values = report.fields
        if report.name in ("OrderAccepted", "OrderRejected"):
            return self.orders.get(values["cl_ord_id"])
        return self.by_id.get((values.get("instrument_id", 0), values.get("order_id") or 0))

    def follow(self, followed: Followed, report: Report, events: Events) -> bool:
        """Take one report of an order; return False for one that says nothing about its life."""
        values = report.fields
        if report.name == "OrderAccepted":
            followed.order_id, followed.is_open = values["order_id"], True
            self.by_id[values["instrument_id"], values["order_id"]] = followed
        elif report.name == "OrderRejected":
            events.rejected.append(followed.number)
        elif report.name == "OrderExecuted":
            followed.filled += values["last_qty"]
            followed.cost += values["last_qty"] * values["last_px"]
            followed.is_open = values["leaves_qty"] > 0
        elif report.name == "OrderCanceled":
            followed.is_open = False
            events.canceled.append((followed.number, values["canceled_qty"], values["cancel_reason"]))
        elif report.name == "OrderPrevented":
            followed.prevented += values["prevented_qty"]
            followed.is_open = values["leaves_qty"] > 0
            events.prevented.append((followed.number, values["prevented_qty"]))
        elif report.name == "OrderTriggered":
            events.triggered.append(followed.number)
        elif report.name == "OrderReplaced":
            followed.price, followed.total = values["price"] or 0, values["order_qty"] + followed.prevented
        else:
            return False
        return True

    def leaves(self, number: int) -> int:
        """Return what is open of an order."""
        followed = self.orders[number]
        return followed.total - followed.filled - followed.prevented if followed.is_open else 0

    def queue(self, side: int, instrument_id: int = 1) -> Levels:
        """Return one side of the book as (number, price, visible quantity), best first."""
        bids, asks = self.target.book(instrument_id)
        return [
            (self.by_id[instrument_id, order_id].number, price, quantity)
            for order_id, price, quantity in (bids if side == Side.BUY else asks)
        ]

    def levels(self, side: int, instrument_id: int = 1) -> list[tuple[int, int, int]]:
        """Return one side of the book as (price, orders, visible quantity), best first."""
        levels: dict[int, list[int]] = {}
        for _, price, quantity in self.queue(side, instrument_id):
            level = levels.setdefault(price, [0, 0])
            level[0] += 1
            level[1] += quantity
        return [(price, count, quantity) for price, (count, quantity) in levels.items()]
