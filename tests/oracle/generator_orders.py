"""Random orders of every type: stops, trailing orders, icebergs, minimum quantities, amounts, dated orders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ringbuf.wire.messages import (
    CancelFlags,
    ExecInst,
    OrderAmendRequest,
    OrderDetails,
    OrderReplaceRequest,
    OrdType,
    Side,
    StpMode,
    TimeInForce,
)
from tests.oracle.book import opposite
from tests.oracle.choices import DAY_SECONDS, SECOND_NS
from tests.oracle.filters import Instrument
from tests.oracle.generator import INT64_MAX, Generator
from tests.oracle.lines import OrderLine
from tests.oracle.orders import MARKET_TYPES, Market, goes_up
from tests.oracle.world import Command

TRANSFER_GROUP = 7
LIMIT_STOPS = (OrdType.STOP_LIMIT, OrdType.TAKE_PROFIT_LIMIT)
WAITING = (OrdType.STOP, OrdType.STOP_LIMIT, OrdType.TAKE_PROFIT, OrdType.TAKE_PROFIT_LIMIT)


class OrderGenerator(Generator):
    """Orders that wait, hide, expire, or spend an amount."""

    def market_of(self, instrument: Instrument) -> Market:
        partition = instrument.definition.assigned_partition
        return self.exchange.matchers[partition].markets[instrument.instrument_id]

    def last_px(self, instrument: Instrument) -> int:
        """Return the last price, or where one may be."""
        last = self.market_of(instrument).last_px
        return last or instrument.reference() or self.random.randint(8, 30)

    def now_s(self) -> int:
        return self.exchange.now_ns // SECOND_NS

    def time_in_force(self) -> dict[str, Any]:
        """Return a TIF that lets an order rest; now and then one that ends soon."""
        roll = self.random.random()
        if roll < 0.7:
            return {"time_in_force": TimeInForce.GTC}
        if roll < 0.8:
            return {"time_in_force": TimeInForce.DAY}
        later = self.random.choice((0, 1, 1, 1, 2, 2, 5, 60, 4_000, DAY_SECONDS))
        return {"time_in_force": TimeInForce.GTD, "expire_time": self.now_s() + later}

    def with_details(self, command: Command, **fields: Any) -> Command:
        """Put an OrderDetails frame before an order."""
        return replace(command, message=(OrderDetails(**fields), command.message))

    def place(self, is_alike: Callable[[OrderLine], bool]) -> tuple[int, Instrument]:
        """Return (session, instrument): often where such an order is open already, so that caps are met."""
        alike = [line for line in self.exchange.sequencer.lines.values() if is_alike(line)]
        if alike and self.random.random() < 0.35:
            line = self.random.choice(alike)
            return line.session, line.instrument
        return self.session(), self.instrument()

    def order(self, session: int, instrument: Instrument, **fields: Any) -> Command:
        """Return an order; accounts of one group like to hand each other what they have."""
        command = super().order(session, instrument, **fields)
        is_grouped = self.world.groups.get(self.world.sessions[session]) == TRANSFER_GROUP
        if is_grouped and "stp_mode" not in fields and self.random.random() < 0.4:
            command = replace(command, message=replace(command.message, stp_mode=StpMode.TRANSFER))
        return command

    # -- orders that wait ------------------------------------------------------------------------------------------

    def stop_order(self) -> Command:
        """Wait a few ticks from the last price, so that runs reach the stop price soon."""
        (session, instrument), side = self.place(lambda line: line.is_algo), self.side()
        return self.order(session, instrument, side=side, order_qty=self.quantity(instrument),
                          **self.stop_terms(instrument, side, self.random.choice(WAITING)))  # fmt: skip

    def stop_terms(self, instrument: Instrument, side: int, ord_type: int) -> dict[str, Any]:
        """Return type, stop price, delta, limit and TIF of an order that waits."""
        pick = self.random.choice
        last = self.last_px(instrument)
        away = self.random.randint(0 if self.random.random() < 0.1 else 1, max(3, last // 25))
        stop_px = last + away if goes_up(ord_type, side) else last - away
        terms: dict[str, Any] = {"ord_type": ord_type, "stop_px": stop_px}
        if self.random.random() < 0.35:
            terms["trailing_delta"] = pick((15, 50, 100, 150, 300, 600, 1_000, 2_800))
            terms["stop_px"] = pick((None, None, stop_px))
        if ord_type in LIMIT_STOPS:
            slack = self.random.randint(-2, max(4, last // 20))
            terms["price"] = stop_px + slack if side == Side.BUY else stop_px - slack
            terms |= self.time_in_force()
            if self.random.random() < 0.2:
                terms["time_in_force"] = pick((TimeInForce.IOC, TimeInForce.FOK))
                terms["expire_time"] = None
        else:
            terms |= self.time_in_force()
        return terms

    def stop_iceberg(self) -> Command:
        """Let an iceberg wait: what rests later rests as a slice."""
        instrument, side = self.instrument(), self.side()
        quantity = self.quantity(instrument) + 6
        terms = self.stop_terms(instrument, side, self.random.choice(LIMIT_STOPS))
        command = self.order(self.session(), instrument, side=side, order_qty=quantity, **terms)
        return self.shown(command, instrument, quantity)

    def sweep(self) -> Command:
        """Take several levels at once: the last price moves far, and much is triggered."""
        instrument, side = self.instrument(), self.side()
        makers = self.exchange.book_of(instrument.instrument_id).side(opposite(side))
        if len(makers) < 2:
            return self.limit_order()
        reached = makers[: self.random.randint(2, min(9, len(makers)))]
        quantity = sum(maker.leaves for maker in reached)
        session = self.random.choice((8, self.session()))
        tif = self.random.choice((TimeInForce.IOC, TimeInForce.GTC, TimeInForce.FOK))
        return self.order(session, instrument, side=side, price=reached[-1].price, order_qty=quantity,
                          time_in_force=tif)  # fmt: skip

    # -- icebergs and minimum quantities ---------------------------------------------------------------------------

    def iceberg(self) -> Command:
        (session, instrument), side = self.place(lambda line: line.is_iceberg), self.side()
        quantity = self.quantity(instrument) + self.random.choice((4, 9, 20))
        exec_inst = ExecInst.POST_ONLY if self.random.random() < 0.15 else 0
        command = self.order(session, instrument, side=side, price=self.price(instrument, side),
                             order_qty=quantity, exec_inst=exec_inst, **self.time_in_force())  # fmt: skip
        return self.shown(command, instrument, quantity)

    def shown(self, command: Command, instrument: Instrument, quantity: int) -> Command:
        """Show a part of an order; sometimes another part first, or a wrong one."""
        pick = self.random.choice
        least = instrument.limits.min_qty
        display = pick((least, least, least + 1, least + 2, 5, quantity // 2, quantity, least - 1, quantity + 1))
        message = replace(command.message, display_qty=display)
        command = replace(command, message=message)
        if self.random.random() < 0.3:
            first = pick((1, 2, 7, display + 1, quantity, quantity + 1, 0))
            return self.with_details(command, initial_display_qty=first)
        return command

    def minimum(self) -> Command:
        """Ask for at least what can trade at once, or one lot more; or for something without sense."""
        pick = self.random.choice
        instrument, side = self.instrument(), self.side()
        makers = self.exchange.book_of(instrument.instrument_id).side(opposite(side))
        reached = makers[: self.random.randint(1, 4)]
        found = sum(maker.leaves for maker in reached)
        price = reached[-1].price if reached else self.price(instrument, side)
        minimum = max(1, found + pick((-2, -1, 0, 0, 1, 1)))
        quantity = minimum + pick((0, 1, 5, 20))
        command = self.order(self.session(), instrument, side=side, price=price, order_qty=quantity,
                             time_in_force=pick((TimeInForce.GTC, TimeInForce.IOC)))  # fmt: skip
        message = command.message
        if pick((True, False, False)):
            message = replace(message, ord_type=OrdType.MARKET, price=None)
        if pick((True, False)):
            message = replace(message, display_qty=minimum, exec_inst=message.exec_inst | ExecInst.DISPLAY_IS_MINIMUM)
            command = replace(command, message=message)
            return self.with_details(command, min_qty=1) if self.random.random() < 0.1 else command
        if self.random.random() < 0.1:
            minimum = pick((0, -1, quantity + 1))
        return self.with_details(replace(command, message=message), min_qty=minimum)

    # -- amounts ---------------------------------------------------------------------------------------------------

    def quote_amount(self) -> Command:
        """Spend (or earn) an amount that ends inside a level, between levels, or one unit beside a lot."""
        pick = self.random.choice
        instrument, side = self.instrument(), self.side()
        makers = self.exchange.book_of(instrument.instrument_id).side(opposite(side))
        price = makers[0].price if makers else self.last_px(instrument)
        amount = instrument.notional(max(1, price), self.quantity(instrument)) + pick((0, 0, -1, 1, price // 2))
        if makers and pick((True, False)):
            count = self.random.randint(1, 5)
            reached, beyond = makers[:count], makers[count : count + 1]
            # With the last one the next level allows no lot, though the level before it did.
            rest = [0, 1, -1, 60, *(instrument.notional(maker.price, 1) - 1 for maker in beyond)]
            amount = sum(instrument.notional(maker.price, maker.leaves) for maker in reached) + pick(rest)
        if self.random.random() < 0.05:
            amount = pick((0, -1, 1, 1 << 61, 1 << 62, (1 << 62) - 1))
        return self.order(
            pick((8, self.session())),
            instrument,
            side=side,
            ord_type=OrdType.MARKET,
            order_qty=max(-INT64_MAX, min(INT64_MAX, amount)),
            time_in_force=pick((TimeInForce.GTC, TimeInForce.IOC)),
            exec_inst=ExecInst.QUOTE_AMOUNT,
        )

    # -- dated orders, and odd ones --------------------------------------------------------------------------------

    def dated_order(self) -> Command:
        instrument, side = self.instrument(), self.side()
        terms = self.time_in_force() | ({"time_in_force": TimeInForce.DAY} if self.random.random() < 0.3 else {})
        if terms["time_in_force"] == TimeInForce.DAY:
            terms["expire_time"] = None
        exec_inst = self.random.choice((0, 0, ExecInst.POST_ONLY, ExecInst.REDUCE_ONLY))
        command = self.order(self.session(), instrument, side=side, price=self.price(instrument, side),
                             order_qty=self.quantity(instrument), exec_inst=exec_inst, **terms)  # fmt: skip
        if self.random.random() < 0.1:
            return self.with_details(command, client_text=self.random.choice(("my order", "A-1", "")))
        return command

    def old_request(self) -> Command:
        """Send an order that was long on its way."""
        command = self.limit_order()
        message = replace(command.message, max_latency_us=500)
        return replace(command, message=message, age_us=self.random.choice((499, 500, 501, 90_000)))

    def odd_order(self) -> Command:
        """Break any kind of order in one or two places, so that the order of the checks shows."""
        kinds = (self.limit_order, self.stop_order, self.iceberg, self.minimum, self.quote_amount, self.dated_order)
        command = self.random.choice(kinds)()
        messages = list(command.messages)
        for _ in range(self.random.choice((1, 1, 2, 3))):
            messages[-1] = replace(messages[-1], **self.random.choice(self.defects()))
        return replace(command, message=tuple(messages) if len(messages) > 1 else messages[0])

    def defects(self) -> list[dict[str, Any]]:
        pick = self.random.choice
        now_s = self.now_s()
        return [
            *super().defects(),
            {"ord_type": pick(WAITING), "stop_px": pick((None, 100)), "price": pick((None, 100))},
            {"trailing_delta": pick((1, 5, 9_999, 10_000, 2_500, 3_001)), "ord_type": pick((*WAITING, OrdType.LIMIT))},
            {"stop_px": pick((None, 0, -1, INT64_MAX)), "ord_type": pick(WAITING)},
            {"time_in_force": TimeInForce.GTD, "expire_time": pick((None, now_s, now_s - 1, now_s + 1))},
            {"time_in_force": pick((TimeInForce.GTD, TimeInForce.DAY)), "ord_type": pick(MARKET_TYPES)},
            {"expire_time": now_s + 9},
            {"display_qty": pick((0, 1, 5, 1_000))},
            {"exec_inst": pick((ExecInst.QUOTE_AMOUNT, ExecInst.DISPLAY_IS_MINIMUM, ExecInst.HIDDEN))},
            {"exec_inst": ExecInst.DISPLAY_IS_MINIMUM | ExecInst.POST_ONLY, "display_qty": 3},
        ]

    # -- changes ---------------------------------------------------------------------------------------------------

    def amend_order(self) -> Command:
        """Make an order smaller, not smaller, or smaller than what is filled."""
        amended = [line for line in self.exchange.sequencer.lines.values() if line.amends]
        line = self.random.choice(amended) if amended and self.random.random() < 0.4 else self.line()
        return self.amend_of(line) if line is not None else self.limit_order()

    def amend_of(self, line: OrderLine) -> Command:
        pick = self.random.choice
        leaves = line.total - line.cum
        total = pick((line.total - 1, line.total - 1, line.cum + leaves // 2, line.cum + 1, line.cum, line.total,
                      line.total + 1, line.instrument.limits.min_qty, 0, -3))  # fmt: skip
        message = OrderAmendRequest(
            cl_ord_id=pick((0, 0, self.cl_ord_id())),
            new_qty=total,
            client_tag=self.random.randint(0, 99),
            instrument_id=line.instrument.instrument_id,
            **self.reference_to(line),
        )
        return Command(self.owner(line), message)

    def replace_of(self, line: OrderLine) -> Command:
        """Replace as the basic generator does; sometimes change what is shown, or set a flag."""
        command = super().replace_of(line)
        pick = self.random.choice
        message: OrderReplaceRequest = command.message
        if line.is_market_type and self.random.random() < 0.8:
            message = replace(message, price=None)
        if line.display is not None or self.random.random() < 0.15:
            leaves = line.total - line.cum
            least = line.instrument.limits.min_qty
            shown = pick((None, None, 1, least, least + 2, leaves - 1, leaves, leaves + 1, line.total, 0))
            message = replace(message, display_qty=shown)
            if self.random.random() < 0.4:
                message = replace(message, price=None, order_qty=pick((None, line.total, line.total - 1)))
        if self.random.random() < 0.01:
            message = replace(message, replace_flags=1)
        return replace(command, message=message)

    def flagged_cancel(self) -> Command:
        """Cancel only what is new, only what is partly filled; or with flags that make no sense."""
        command = self.cancel_order()
        if not hasattr(command.message, "cancel_flags"):
            return command
        flags = self.random.choice(
            (CancelFlags.ONLY_NEW, CancelFlags.ONLY_PARTIALLY_FILLED, CancelFlags.ONLY_NEW,
             CancelFlags.ONLY_PARTIALLY_FILLED, 3, CancelFlags.CONTINUE_ON_FAILURE, 8)
        )  # fmt: skip
        return replace(command, message=replace(command.message, cancel_flags=flags))
