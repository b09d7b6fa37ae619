"""Random groups of linked frames: cancel-replace, order lists; quotes; groups that are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ringbuf.wire.messages import (
    CancelFlags,
    ExecInst,
    ListRole,
    ListType,
    NewOrderSingle,
    OrderCancelRequest,
    OrderDetails,
    OrderListRequest,
    OrdType,
    Quote,
    QuoteFlags,
    Side,
    TimeInForce,
)
from tests.oracle.admission_lists import ROLES
from tests.oracle.book import opposite
from tests.oracle.filters import Instrument
from tests.oracle.generator_orders import OrderGenerator
from tests.oracle.world import Command


class GroupGenerator(OrderGenerator):
    """Commands of more than one frame, and quotes."""

    # -- cancel-replace --------------------------------------------------------------------------------------------

    def cancel_replace(self) -> Command:
        """Replace an order by another one; both modes, often with hardly enough money."""
        pick = self.random.choice
        line = self.line()
        if line is None:
            return self.limit_order()
        session = self.owner(line)
        side = pick((line.side, line.side, line.side, opposite(line.side)))
        instrument = line.instrument if self.random.random() < 0.97 else self.instrument()
        price = pick((line.price, line.price + 1, line.price - 1, self.price(line.instrument, side)))
        quantity = pick((line.total - line.cum, line.total, line.total + 3, self.quantity(line.instrument)))
        if self.random.random() < 0.4:
            available = self.exchange.balance(self.world.sessions.get(session, 1), line.instrument.asset_paid(side))[0]
            per_lot = max(1, line.instrument.hold_for(side, price, 1))
            quantity = (available + (line.hold if side == line.side else 0)) // per_lot + pick((-1, 0, 0, 1))
        order = self.order(session, instrument, side=side, price=price, order_qty=max(0, min(quantity, 1 << 62)))
        cancel = OrderCancelRequest(
            cl_ord_id=self.cl_ord_id(),
            client_tag=self.random.randint(0, 99),
            instrument_id=line.instrument.instrument_id,
            cancel_flags=pick(
                (0, 0, CancelFlags.ONLY_NEW, CancelFlags.CONTINUE_ON_FAILURE, CancelFlags.CONTINUE_ON_FAILURE,
                 CancelFlags.ONLY_PARTIALLY_FILLED | CancelFlags.CONTINUE_ON_FAILURE)
            ),
            **self.reference_to(line),
        )
        if self.random.random() < 0.1:
            cancel = replace(cancel, order_id=1 << 50, orig_cl_ord_id=None)
        messages: tuple[Any, ...] = (cancel, replace(order.message, account_id=0))
        if self.random.random() < 0.1:
            messages = (cancel, OrderDetails(initial_display_qty=2), replace(order.message, display_qty=3))
        return Command(session, messages)

    # -- order lists -----------------------------------------------------------------------------------------------

    def order_list(self) -> Command:
        """Send an OCO, OTO or OTOCO list; some with a leg, a relation or a role that does not fit."""
        pick = self.random.choice
        session, instrument = self.place(lambda line: line.order_list is not None)
        if instrument.instrument_id > 2 and self.random.random() < 0.8:
            # Where bands are narrow hardly any list passes.
            instrument = self.exchange.sequencer.instruments[pick((1, 2))]
        capped = [line for line in self.exchange.sequencer.lines.values()
                  if line.order_list is not None and line.instrument.rules.order_lists_max]  # fmt: skip
        if capped and self.random.random() < 0.5:
            line = pick(capped)
            session, instrument = line.session, line.instrument
        list_type = pick((ListType.OCO, ListType.OTO, ListType.OTOCO))
        quantity = self.quantity(instrument)
        if list_type == ListType.OCO:
            legs = self.pair(session, instrument, self.side(), quantity)
        else:
            legs = [self.working_leg(session, instrument, quantity)]
            side = pick((legs[0].side, opposite(legs[0].side), opposite(legs[0].side)))
            if list_type == ListType.OTOCO:
                legs += self.pair(session, instrument, side, quantity)
            else:
                legs.append(self.pending_leg(session, instrument, side, quantity))
        legs = [replace(leg, list_role=role) for leg, role in zip(legs, ROLES[list_type], strict=True)]
        if self.random.random() < 0.15:
            index = self.random.randrange(len(legs))
            legs[index] = replace(legs[index], **pick(self.leg_defects(quantity)))
        request = OrderListRequest(
            cl_ord_id=self.cl_ord_id(),
            list_cl_ord_id=self.random.randint(0, 1 << 30),
            instrument_id=instrument.instrument_id,
            account_id=0,
            list_type=list_type if self.random.random() < 0.98 else pick(tuple(ListType)),
            leg_count=len(legs) if self.random.random() < 0.98 else pick((0, 2, 3)),
        )
        frames: list[Any] = [request]
        for leg in legs:
            if leg.display_qty is not None and self.random.random() < 0.3:
                frames.append(OrderDetails(initial_display_qty=2))
            frames.append(leg)
        return Command(session, tuple(frames))

    def leg_defects(self, quantity: int) -> list[dict[str, Any]]:
        pick = self.random.choice
        return [
            {"list_role": pick(tuple(ListRole))},
            {"order_qty": quantity + 1},
            {"side": pick((Side.BUY, Side.SELL))},
            {"time_in_force": pick((TimeInForce.IOC, TimeInForce.FOK))},
            {"instrument_id": pick((1, 2, 9))},
            {"ord_type": pick(tuple(OrdType))},
            {"exec_inst": pick((0, ExecInst.QUOTE_AMOUNT, ExecInst.POST_ONLY))},
            {"stop_px": pick((None, 1, 100))},
            {"price": pick((None, 1, 100))},
            {"cl_ord_id": 7},
            {"display_qty": pick((1, 2, quantity))},
        ]

    def leg(self, session: int, instrument: Instrument, **fields: Any) -> NewOrderSingle:
        message: NewOrderSingle = self.order(session, instrument, **fields).message
        return replace(message, account_id=0)

    def pair(self, session: int, instrument: Instrument, side: int, quantity: int) -> list[NewOrderSingle]:
        """Return (above, below): a profit leg and a stop leg around the last price."""
        pick = self.random.choice
        last = self.last_px(instrument)
        width = max(2, last // 25)
        above_px, below_px = last + self.random.randint(1, width), last - self.random.randint(1, width)
        if self.random.random() < 0.05:
            above_px, below_px = pick(((below_px, below_px), (below_px, above_px)))
        profit_px, stop_px = (above_px, below_px) if side == Side.SELL else (below_px, above_px)
        profit_type = pick((OrdType.LIMIT, OrdType.LIMIT, OrdType.TAKE_PROFIT, OrdType.TAKE_PROFIT_LIMIT))
        profit: dict[str, Any] = {"ord_type": profit_type, "stop_px": profit_px}
        if profit_type == OrdType.LIMIT:
            profit = {"price": profit_px, "exec_inst": ExecInst.POST_ONLY}
        elif profit_type == OrdType.TAKE_PROFIT_LIMIT:
            profit["price"] = profit_px + pick((-1, 0, 1))
        stop_type = pick((OrdType.STOP, OrdType.STOP_LIMIT))
        stop: dict[str, Any] = {"ord_type": stop_type, "stop_px": stop_px}
        if stop_type == OrdType.STOP_LIMIT:
            stop["price"] = stop_px + pick((-2, -1, 0, 1, 2))
        if self.random.random() < 0.15:
            stop |= {"trailing_delta": pick((50, 200)), "stop_px": pick((None, stop_px))}
        legs = [self.leg(session, instrument, side=side, order_qty=quantity, **(terms | self.time_in_force()))
                for terms in (profit, stop)]  # fmt: skip
        return legs if side == Side.SELL else legs[::-1]

    def working_leg(self, session: int, instrument: Instrument, quantity: int) -> NewOrderSingle:
        """Return a limit order that often trades at once, or soon."""
        side = self.side()
        touch = self.touch(instrument, opposite(side))
        price = touch if touch is not None and self.random.random() < 0.5 else self.price(instrument, side)
        return self.leg(session, instrument, side=side, price=price, order_qty=quantity, **self.time_in_force())

    def pending_leg(self, session: int, instrument: Instrument, side: int, quantity: int) -> NewOrderSingle:
        pick = self.random.choice
        kind = pick(("limit", "limit", "market", "stop"))
        if kind == "market":
            return self.leg(session, instrument, side=side, ord_type=OrdType.MARKET, order_qty=quantity)
        if kind == "stop":
            terms = self.stop_terms(instrument, side, pick((OrdType.STOP, OrdType.STOP_LIMIT, OrdType.TAKE_PROFIT)))
            return self.leg(session, instrument, side=side, order_qty=quantity, **terms)
        tif = pick((TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK))
        return self.leg(session, instrument, side=side, price=self.price(instrument, side), order_qty=quantity,
                        time_in_force=tif)  # fmt: skip

    def cancel_of_list(self) -> Command:
        """Cancel a leg of a list: of a pair, a working leg, or one that is still pending."""
        legs = [line for line in self.exchange.sequencer.lines.values() if line.order_list is not None]
        if not legs:
            return self.order_list()
        line = self.random.choice(legs)
        message = OrderCancelRequest(
            cl_ord_id=self.cl_ord_id(), instrument_id=line.instrument.instrument_id, **self.reference_to(line)
        )
        return Command(self.owner(line), message)

    # -- quotes ----------------------------------------------------------------------------------------------------

    def quote(self) -> Command:
        """Quote around the touch: anew, smaller at the same price, one side pulled, crossing, or wrong."""
        return self.quote_of(self.random.choice((2, 3, 4, 6, 8)), self.instrument())

    def quote_of(self, session: int, instrument: Instrument) -> Command:
        pick = self.random.choice
        last = self.last_px(instrument)
        live = [line for line in self.exchange.sequencer.lines.values()
                if line.quote is not None and line.instrument is instrument and line.session == session]  # fmt: skip
        bid_px, ask_px = last - self.random.randint(-1, 4), last + self.random.randint(0, 5)
        bid_qty, ask_qty = self.quantity(instrument), self.quantity(instrument)
        for line in live:
            if self.random.random() < 0.6:
                quantity = pick((line.total - line.cum, line.total - line.cum - 1, line.total, line.total + 2))
                if line.side == Side.BUY:
                    bid_px, bid_qty = line.price, quantity
                else:
                    ask_px, ask_qty = line.price, quantity
        message = Quote(
            quote_id=self.random.randint(0, 1 << 30),
            bid_px=bid_px,
            bid_qty=bid_qty,
            ask_px=ask_px,
            ask_qty=ask_qty,
            bid_cl_ord_id=self.quote_id(live),
            ask_cl_ord_id=self.quote_id(live),
            client_tag=self.random.randint(0, 99),
            instrument_id=instrument.instrument_id,
            quote_set_id=pick((0, 0, 0, 1)),
            quote_flags=pick((0, 0, QuoteFlags.POST_ONLY)),
            stp_mode=self.random.randrange(6),
        )
        for _ in range(pick((0, 0, 0, 0, 1, 2))):
            message = replace(message, **pick(self.quote_changes()))
        return Command(session, message)

    def quote_id(self, live: list[Any]) -> int:
        """Return a client id for a side: fresh, none, or one the set has already."""
        if live and self.random.random() < 0.2:
            return int(self.random.choice(live).cl_ord_id)
        return self.cl_ord_id()

    def quote_changes(self) -> list[dict[str, Any]]:
        pick = self.random.choice
        return [
            {"bid_qty": 0},
            {"ask_qty": 0},
            {"ask_qty": 0, "ask_px": None},
            {"bid_qty": 0, "ask_qty": 0},
            {"bid_px": None},
            {"bid_qty": pick((-1, 1, 1_000))},
            {"ask_px": pick((0, 1, 100, 124))},
            {"instrument_id": 9},
            {"account_id": pick((1, 66))},
            {"stp_group_id": pick((7, 8))},
            {"stp_mode": 9},
            {"bid_cl_ord_id": 5, "ask_cl_ord_id": 5},
        ]

    # -- groups that are none --------------------------------------------------------------------------------------

    def broken_group(self) -> Command:
        """Link what does not belong together, leave a number out, or link too much."""
        pick = self.random.choice
        order = self.limit_order()
        cancel = self.cancel_order().messages[0]
        listed = self.order_list()
        kind = self.random.randrange(6)
        if kind == 0:
            group = listed if self.random.random() < 0.5 else Command(order.session, (cancel, order.message))
            return replace(group, gap_at=1)
        frames: tuple[Any, ...] = {
            1: (order.message, order.message),
            2: (OrderDetails(), cancel),
            3: (cancel, order.message, order.message),
            4: (OrderDetails(),),
            5: (listed.messages[0], *([order.message] * pick((0, 1, 4, 8)))),
        }[kind]
        return Command(order.session, frames if len(frames) > 1 else frames[0])
