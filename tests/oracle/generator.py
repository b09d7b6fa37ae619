"""Seeded random commands, weighted towards rare interactions.

The generator looks at the model (books, open orders, balances) to aim: it is never told what the answer should be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from ringbuf.wire.messages import (
    AccountLimits,
    BalanceAdjust,
    BalanceKind,
    ExecInst,
    FeeTierSet,
    InstrumentState,
    MarketState,
    MassCancelRequest,
    MassCancelScope,
    NewOrderSingle,
    OrderCancelRequest,
    OrderReplaceRequest,
    OrdType,
    Sequence,
    Side,
    StpMode,
    TimeInForce,
)
from tests.oracle.book import opposite
from tests.oracle.exchange import Exchange
from tests.oracle.filters import Instrument, band_edges
from tests.oracle.lines import OrderLine
from tests.oracle.tables import ADMIN_SESSION
from tests.oracle.world import Command, World, limits_of

INT64_MAX = (1 << 63) - 1
STP_MODES = tuple(StpMode)
OPEN_ORDERS_AIM = 110
SWARM_FACTORS = (0, 0.3, 1, 1, 4, 12)


class Generator:
    """Draw commands for a world. Same seed, same model states: same commands."""

    def __init__(self, seed: int, world: World, exchange: Exchange) -> None:
        self.random = Random(seed)
        self.world = world
        self.exchange = exchange
        self.last_cl_ord_id = 0
        self.instrument_weights = (5, 3, 2, 1)
        self.kinds: list[tuple[int, Callable[[], Command]]] = [
            (400, self.limit_order),
            (60, self.market_order),
            (60, self.post_only),
            (60, self.fok_exact),
            (40, self.edge_of_funds),
            (40, self.edge_of_limits),
            (20, self.huge_order),
            (30, self.bad_order),
            (150, self.replace_order),
            (70, self.cancel_order),
            (10, self.unknown_order),
            (7, self.mass_cancel),
            (9, self.odd_sequence),
            (5, self.change_limits),
            (3, self.change_state),
            (3, self.change_fees),
            (8, self.adjust_balance),
            (3, self.change_account),
        ]
        self.weights: list[float] = [weight for weight, _ in self.kinds]
        self.stp_modes: list[StpMode] = list(STP_MODES)
        self.group_chance = 0.2

    def swarm(self) -> None:
        """Weight everything anew, once: some kinds of command not at all, some far more than usual.

        Interactions that the usual mix hardly ever makes are then common in some run: swarm testing, Groce and
        others, ISSTA 2012.
        """
        self.weights = [weight * self.random.choice(SWARM_FACTORS) for weight, _ in self.kinds]
        self.weights[0] = float(self.kinds[0][0])  # limit orders: without them there is nothing to meet
        self.stp_modes = self.random.sample(STP_MODES, self.random.randint(1, len(STP_MODES)))
        self.group_chance = self.random.choice((0.0, 0.2, 0.9))

    def next(self) -> Command:
        """Return one command."""
        if len(self.exchange.sequencer.lines) > OPEN_ORDERS_AIM and self.random.random() < 0.3:
            return self.cancel_order()
        if self.random.random() < 0.02 and self.closed_markets():
            return self.change_state()
        (_, make), = self.random.choices(self.kinds, self.weights)
        return make()

    def burst(self) -> list[Command]:
        """Return commands that are in flight together; replaces and cancels of the same orders pile up.

        No mass cancel: the order in which it finds its orders is free, and what follows depends on it.
        """
        commands = [self.next() for _ in range(self.random.choice((2, 3, 5, 8, 20)))]
        extra = [command for command in commands if self.random.random() < 0.3]
        commands += [replace(command, seq_shift=0) for command in extra]
        lines = list(self.exchange.sequencer.lines.values())
        if lines:
            line = self.random.choice(lines)
            commands += [self.replace_of(line) for _ in range(self.random.choice((1, 2, 3, 6)))]
        self.random.shuffle(commands)
        return [command for command in commands if not isinstance(command.message, MassCancelRequest | Sequence)]

    # -- drawing ---------------------------------------------------------------------------------------------------

    def session(self) -> int:
        return self.random.choice(list(self.world.sessions))

    def instrument(self) -> Instrument:
        instrument_id = self.random.choices(self.world.instruments, self.instrument_weights)[0]
        return self.exchange.sequencer.instruments[instrument_id]

    def side(self) -> int:
        return self.random.choice((Side.BUY, Side.SELL))

    def touch(self, instrument: Instrument, side: int) -> int | None:
        best = self.exchange.book_of(instrument.instrument_id).best(side)
        return best.price if best is not None else None

    def price(self, instrument: Instrument, side: int) -> int:
        """Return a price around the touch or the reference; now and then far off."""
        limits = instrument.limits
        centre = self.touch(instrument, opposite(side)) or self.touch(instrument, side) or instrument.reference()
        if centre is None:
            centre = self.random.randint(limits.min_px, min(limits.max_px, limits.min_px + 40))
        width = max(4, centre // 50)
        step = self.random.randint(-width, width // 3)
        price = centre + step if side == Side.BUY else centre - step
        if self.random.random() < 0.04:
            price = self.random.choice((limits.min_px, limits.max_px, limits.min_px - 1, limits.max_px + 1, 0, -5))
        return price

    def quantity(self, instrument: Instrument) -> int:
        limits = instrument.limits
        top = max(limits.min_qty, min(limits.max_qty, 45))
        if self.random.random() < 0.3:
            top = min(top, limits.min_qty + 4)
        return self.random.randint(limits.min_qty, top)

    def cl_ord_id(self) -> int:
        """Mostly a fresh id, sometimes none, sometimes one that may be open."""
        roll = self.random.random()
        if roll < 0.1:
            return 0
        if roll < 0.17 and self.last_cl_ord_id:
            return self.random.randint(max(1, self.last_cl_ord_id - 40), self.last_cl_ord_id)
        self.last_cl_ord_id += 1
        return self.last_cl_ord_id

    def order(self, session: int, instrument: Instrument, **fields: Any) -> Command:
        account_id = self.world.sessions[session]
        named = self.random.random() < 0.3
        base: dict[str, Any] = {
            "cl_ord_id": self.cl_ord_id(),
            "client_tag": self.random.randint(0, 1 << 40),
            "instrument_id": instrument.instrument_id,
            "account_id": account_id if named else 0,
            "ord_type": OrdType.LIMIT,
            "time_in_force": TimeInForce.GTC,
            "stp_mode": self.random.choice(self.stp_modes),
            "stp_group_id": self.world.groups.get(account_id, 0) if self.random.random() < self.group_chance else 0,
        }
        return Command(session, NewOrderSingle(**(base | fields)))

    # -- orders ----------------------------------------------------------------------------------------------------

    def limit_order(self) -> Command:
        instrument, side = self.instrument(), self.side()
        tif = self.random.choices((TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK), (8, 1, 1))[0]
        return self.order(
            self.session(),
            instrument,
            side=side,
            price=self.price(instrument, side),
            order_qty=self.quantity(instrument),
            time_in_force=tif,
        )

    def market_order(self) -> Command:
        instrument = self.instrument()
        tif = self.random.choices((TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK), (2, 3, 1))[0]
        quantity = self.quantity(instrument) * self.random.choice((1, 1, 3))
        return self.order(
            self.session(), instrument, side=self.side(), ord_type=OrdType.MARKET, order_qty=quantity, time_in_force=tif
        )

    def post_only(self) -> Command:
        """Quote at the touch, one tick inside it, one tick through it."""
        instrument, side = self.instrument(), self.side()
        touch = self.touch(instrument, opposite(side)) or self.price(instrument, side)
        return self.order(
            self.session(),
            instrument,
            side=side,
            price=touch + self.random.choice((-1, 0, 1)),
            order_qty=self.quantity(instrument),
            exec_inst=ExecInst.POST_ONLY,
        )

    def fok_exact(self) -> Command:
        """Ask for exactly what the first makers offer, or one lot more or less."""
        session, instrument, side = self.session(), self.instrument(), self.side()
        makers = self.exchange.book_of(instrument.instrument_id).side(opposite(side))
        if not makers:
            return self.limit_order()
        reached = makers[: self.random.randint(1, min(6, len(makers)))]
        stp_mode = self.random.choice(self.stp_modes)
        own = self.world.sessions[session] if stp_mode == StpMode.CANCEL_MAKER else None
        offered = sum(maker.leaves for maker in reached if maker.terms.account_id != own)
        quantity = offered + self.random.choice((-1, 0, 0, 0, 1))
        return self.order(
            session,
            instrument,
            side=side,
            price=reached[-1].price,
            order_qty=quantity,
            stp_mode=stp_mode,
            time_in_force=self.random.choice((TimeInForce.FOK, TimeInForce.FOK, TimeInForce.IOC)),
        )

    def edge_of_funds(self) -> Command:
        """Spend everything available, or one lot more."""
        session, instrument, side = self.session(), self.instrument(), self.side()
        account_id = self.world.sessions[session]
        available = self.exchange.balance(account_id, instrument.asset_paid(side))[0]
        price = self.price(instrument, side)
        per_lot = max(1, instrument.hold_for(side, price, 1))
        quantity = available // per_lot + self.random.choice((0, 0, 1))
        if quantity > instrument.limits.max_qty and side == Side.BUY:
            quantity = self.random.randint(1, instrument.limits.max_qty)
            price = available // max(1, instrument.hold_for(side, 1, quantity)) + self.random.choice((0, 1))
        price = max(-INT64_MAX, min(INT64_MAX, price))
        return self.order(session, instrument, side=side, price=price, order_qty=max(0, min(INT64_MAX, quantity)))

    def edge_of_limits(self) -> Command:
        """Hit a band edge, a quantity or notional filter, or miss it by one."""
        instrument, side = self.instrument(), self.side()
        limits = instrument.limits
        price, quantity = self.price(instrument, side), self.quantity(instrument)
        off = self.random.choice((-1, 0, 1))
        roll = self.random.randrange(4)
        if roll == 0:
            edges = [edge for edge in band_edges(instrument, side, instrument.reference()) if edge is not None]
            price = (self.random.choice(edges) if edges else price) + off
        elif roll == 1:
            quantity = self.random.choice((limits.min_qty, limits.max_qty)) + off
        else:
            bound = limits.min_notional if roll == 2 else limits.max_notional
            quantity = bound // max(1, instrument.notional(max(1, price), 1)) + off
        return self.order(
            self.session(), instrument, side=side, price=price, order_qty=max(-1, min(INT64_MAX, quantity))
        )

    def huge_order(self) -> Command:
        """Go near 2^62 of notional, or to the ends of int64."""
        instrument = self.exchange.sequencer.instruments[self.random.choice((3, 4, 4))]
        side = self.side()
        price = self.random.choice((1, 1_000_003, 1 << 20, 1 << 31, 1 << 40))
        quantity = (1 << 62) // instrument.notional(price, 1) + self.random.randint(-2, 2)
        if self.random.random() < 0.3:
            # What a sell holds passes 2^62, 2^63 or 2^64 before the notional does.
            per_lot = instrument.definition.base_per_lot
            quantity = (1 << self.random.choice((62, 63, 64))) // per_lot + self.random.choice((-1, 0, 1, 2, 40))
            quantity, price, side = min(INT64_MAX, quantity), self.random.choice((1, 2)), Side.SELL
        if self.random.random() < 0.2:
            quantity = self.random.choice((0, -1, INT64_MAX, 1 << 61, (1 << 61) + 1, -INT64_MAX))
        if self.random.random() < 0.1:
            price = self.random.choice((INT64_MAX, -INT64_MAX))
        return self.order(self.random.choice((8, self.session())), instrument, side=side, price=price,
                          order_qty=quantity)

    def bad_order(self) -> Command:
        """Break a good order in one or two places, so that the order of the checks shows."""
        command = self.limit_order()
        session = command.session
        message = command.message
        for _ in range(self.random.choice((1, 1, 2))):
            message = replace(message, **self.random.choice(self.defects()))
        if self.random.random() < 0.05:
            session = self.world.drop_copy_session
        return Command(session, message)

    def defects(self) -> list[dict[str, Any]]:
        pick = self.random.choice
        return [
            {"side": pick((0, 3, 200))},
            {"ord_type": pick((0, 3, 4, 5, 6, 7, 99))},
            {"time_in_force": pick((0, 2, 5, 6, 7, 255))},
            {"stp_mode": pick((6, 77))},
            {"exec_inst": pick((1 << 5, 1 << 31, 1 << 1, 1 << 2, 1 << 3))},
            {"exec_inst": ExecInst.POST_ONLY, "time_in_force": pick((TimeInForce.IOC, TimeInForce.FOK))},
            {"exec_inst": ExecInst.POST_ONLY, "ord_type": OrdType.MARKET, "price": None},
            {"ord_type": OrdType.MARKET},
            {"list_role": pick((1, 4, 8, 250))},
            {"display_qty": pick((0, 1, 5))},
            {"stop_px": pick((0, 100))},
            {"trailing_delta": pick((1, 65_535))},
            {"expire_time": pick((0, 1_900_000_000))},
            {"stp_group_id": pick((1, 7, 9_999))},
            {"account_id": pick((1, 2, 3, 77, 0xFFFF_FFFF))},
            {"instrument_id": pick((0, 5, 4_000_000_000))},
            {"price": None},
            {"price": pick((0, -1, INT64_MAX, -INT64_MAX))},
            {"order_qty": pick((0, -1, 1, INT64_MAX, -INT64_MAX))},
        ]

    # -- changes of orders -----------------------------------------------------------------------------------------

    def line(self) -> OrderLine | None:
        lines = list(self.exchange.sequencer.lines.values())
        return self.random.choice(lines) if lines else None

    def reference_to(self, line: OrderLine) -> dict[str, Any]:
        """Name the order by id, by client id, or by both."""
        roll = self.random.random()
        by_client = line.cl_ord_id if line.cl_ord_id else None
        if roll < 0.5 or by_client is None:
            return {"order_id": line.order_id, "orig_cl_ord_id": by_client if roll < 0.1 else None}
        return {"orig_cl_ord_id": by_client}

    def owner(self, line: OrderLine) -> int:
        """Mostly the order's session, else another one of the account, rarely a stranger."""
        roll = self.random.random()
        if roll < 0.8:
            return line.session
        if roll < 0.97:
            own = [session for session, account in self.world.sessions.items() if account == line.account_id]
            return self.random.choice(own)
        return self.session()

    def cancel_order(self) -> Command:
        line = self.line()
        if line is None:
            return self.limit_order()
        message = OrderCancelRequest(
            cl_ord_id=self.cl_ord_id(),
            client_tag=self.random.randint(0, 99),
            instrument_id=line.instrument.instrument_id,
            **self.reference_to(line),
        )
        return Command(self.owner(line), message)

    def replace_order(self) -> Command:
        line = self.line()
        return self.replace_of(line) if line is not None else self.limit_order()

    def replace_of(self, line: OrderLine) -> Command:
        """Move an order up, down, across; more, less, below what is filled; or change nothing."""
        pick = self.random.choice
        leaves = line.total - line.cum
        cross = self.touch(line.instrument, opposite(line.side))
        price = pick((None, None, line.price, line.price + 1, line.price - 1, cross, cross,
                      self.price(line.instrument, line.side)))
        total = pick((None, None, line.total, line.total - 1, line.total + 1, line.cum, line.cum + 1, line.cum - 1,
                      line.total + leaves, line.cum + leaves // 2, self.quantity(line.instrument)))
        if self.random.random() < 0.05:
            asset_id = line.instrument.asset_paid(line.side)
            available = self.exchange.balance(line.account_id, asset_id)[0]
            per_lot = max(1, line.instrument.hold_for(line.side, price or line.price, 1))
            total = line.cum + (available + line.hold) // per_lot + pick((0, 1))
        message = OrderReplaceRequest(
            cl_ord_id=pick((0, self.cl_ord_id(), line.cl_ord_id if self.random.random() < 0.1 else 0)),
            price=price,
            order_qty=total,
            client_tag=self.random.randint(0, 99),
            instrument_id=line.instrument.instrument_id,
            **self.reference_to(line),
        )
        return Command(self.owner(line), message)

    def unknown_order(self) -> Command:
        """Name an order that is gone, was never there, belongs to somebody else, or is in another instrument."""
        pick = self.random.choice
        reference: dict[str, Any] = pick(
            ({}, {"order_id": self.random.randint(0, 3_000)}, {"orig_cl_ord_id": 0}, {"order_id": 1 << 60},
             {"orig_cl_ord_id": self.random.randint(1, self.last_cl_ord_id + 1)})
        )
        fields = {"instrument_id": pick((1, 2, 3, 4, 0, 9)), "account_id": pick((0, 0, 0, 1, 50))} | reference
        if pick((True, False)):
            return Command(self.session(), OrderCancelRequest(cl_ord_id=self.cl_ord_id(), **fields))
        message = OrderReplaceRequest(cl_ord_id=self.cl_ord_id(), price=pick((None, 100)), order_qty=5, **fields)
        return Command(self.session(), message)

    def mass_cancel(self) -> Command:
        pick = self.random.choice
        scope = pick((MassCancelScope.SESSION, MassCancelScope.ACCOUNT))
        message = MassCancelRequest(
            cl_ord_id=self.cl_ord_id(),
            instrument_id=pick((0, 1, 2, 3, 4, 4, 99)),
            side=pick((0, 1, 2, 2, 7) if self.random.random() < 0.2 else (0, 1, 2)),
            scope=scope,
            account_id=pick((0, 0, 0, 0, 0, 66)),
        )
        return Command(self.session(), message)

    # -- sessions and administration -------------------------------------------------------------------------------

    def odd_sequence(self) -> Command:
        """Repeat a number, leave a gap, or skip numbers."""
        command = self.limit_order()
        if self.random.random() < 0.3:
            last = self.exchange.next_seq(command.session) - 1
            return Command(command.session, Sequence(next_seq_no=max(1, last + self.random.randint(-2, 6))))
        shift = self.random.choice((-1, -2, 1, 5))
        return replace(command, seq_shift=max(shift, -(self.exchange.next_seq(command.session) - 1)))

    def change_limits(self) -> Command:
        pick = self.random.choice
        instrument_id = pick((*self.world.instruments, *self.world.instruments, 42))
        if instrument_id == 42:
            return Command(ADMIN_SESSION, replace(limits_of(1), instrument_id=42))
        limits = limits_of(instrument_id)
        if self.random.random() < 0.5:
            changes: dict[str, Any] = pick(
                ({"band_up_bps": 0}, {"band_down_bps": 0}, {"band_up_bps": 200, "band_down_bps": 200},
                 {"band_down_bps": 9_999}, {"band_down_bps": 20_000}, {"min_qty": 5},
                 {"reference_px": limits.min_px + 20}, {"min_notional": 700}, {"max_notional": 1_234})
            )
            limits = replace(limits, **changes)
        return Command(ADMIN_SESSION, limits)

    def change_state(self) -> Command:
        """Close a market, or open one that is closed; mostly the latter, so that runs do not die."""
        closed = self.closed_markets()
        if closed and self.random.random() < 0.95:
            message = InstrumentState(instrument_id=self.random.choice(closed), state=MarketState.CONTINUOUS)
        else:
            state = self.random.choice((MarketState.CANCEL_ONLY, MarketState.HALTED, MarketState.CLOSED))
            message = InstrumentState(instrument_id=self.random.choice((1, 2, 3, 4, 77)), state=state)
            if message.instrument_id in closed:
                return self.cancel_order()
        return Command(ADMIN_SESSION, message)

    def closed_markets(self) -> list[int]:
        markets = [market for matcher in self.exchange.matchers.values() for market in matcher.markets.values()]
        return [market.instrument_id for market in markets if market.state != MarketState.CONTINUOUS]

    def change_fees(self) -> Command:
        pick = self.random.choice
        taker = pick((0, 1, 500, 2_500, 33_333, 99_999, 100_000, 100_001))
        maker = pick((0, 1, taker, 1_000, -taker, -(taker // 2), -(taker // 3), -taker - 1))
        message = FeeTierSet(
            tier=pick((0, 1, 2)), instrument_id=pick((0, 0, 1, 2, 3, 4, 99)), maker_rate=maker, taker_rate=taker
        )
        return Command(ADMIN_SESSION, message)

    def adjust_balance(self) -> Command:
        """Pay in small amounts, take out some, everything, or one unit too much."""
        pick = self.random.choice
        account_id, asset_id = pick((*self.world.accounts, 88)), pick((*self.world.assets, 9))
        available = self.exchange.balance(account_id, asset_id)[0] if account_id != 88 and asset_id != 9 else 0
        amount = pick((1, 5_000, 60_000, -(available // 3), -available, -(available + 1)))
        if account_id == 5 or amount == 0:
            amount = 1_000
        message = BalanceAdjust(
            account_id=account_id,
            asset_id=asset_id,
            amount=amount,
            kind=BalanceKind.DEPOSIT if amount > 0 else BalanceKind.WITHDRAWAL,
        )
        session = ADMIN_SESSION if self.random.random() < 0.95 else self.session()
        return Command(session, message)

    def change_account(self) -> Command:
        account_id = self.random.choice((*self.world.accounts, 88))
        open_orders_max = 4 if account_id == 6 else self.random.choice((15, 100_000))
        message = AccountLimits(
            account_id=account_id, open_orders_max=open_orders_max, fee_tier=self.random.randrange(3)
        )
        return Command(ADMIN_SESSION, message)
