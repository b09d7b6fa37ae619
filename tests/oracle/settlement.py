"""Settlement: what reports of the matchers change, in the order of the marks."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ringbuf.wire.messages import (
    Liquidity,
    ListOrderStatus,
    ListStatusType,
    OrdStatus,
    ResponseTo,
    RestateReason,
    Side,
)
from tests.oracle.administration import Administration
from tests.oracle.lines import OrderLine, OrderList, PairHold
from tests.oracle.records import ModelError, Report


class Settlement(Administration):
    """Reports only add and give back; none of this can fail."""

    def settle(self, report: Report) -> None:
        """Apply one matcher's report to the order table and the balances."""
        if report.name == "QuoteAck":
            self.settle_quote(report)
            return
        line = self.lines.get((report.partition, report.fields.get("order_id") or 0))
        if line is None:
            return
        if report.name == "OrderExecuted":
            self.settle_fill(line, report.fields)
        elif report.name == "OrderAccepted":
            line.is_unanswered = False
            self.adjust_hold(line)
        elif report.name == "OrderPrevented":
            self.settle_prevented(line, report.fields)
        elif report.name == "OrderTriggered":
            self.choose(line)
            self.adjust_hold(line)
        elif report.name == "OrderReplaced":
            self.settle_replaced(line, report.fields)
        elif report.name == "CancelReplaceReject" and report.fields["response_to"] == ResponseTo.REPLACE:
            self.drop_client_id(line, line.pending.pop(0).cl_ord_id)
            self.adjust_hold(line)
        if report.final:
            self.settle_end(line, report)
        self.free(line)

    def choose(self, line: OrderLine) -> None:
        """Of an OCO pair this is the leg that goes on."""
        if line.pair is not None:
            line.pair.chosen = line

    def settle_prevented(self, line: OrderLine, values: dict[str, Any]) -> None:
        self.choose(line)
        if line.amount is None:
            line.total -= values["prevented_qty"]
            self.adjust_hold(line)

    def settle_replaced(self, line: OrderLine, values: dict[str, Any]) -> None:
        if values["price"] is not None:
            line.price = values["price"]
        line.total = values["order_qty"]
        if values["restate_reason"] == RestateReason.CLIENT:
            version = line.pending.pop(0)
            line.display = version.display
            if version.cl_ord_id != 0:
                self.drop_client_id(line, line.cl_ord_id)
                line.cl_ord_id = version.cl_ord_id
        self.adjust_hold(line)

    def settle_fill(self, line: OrderLine, fill: dict[str, int]) -> None:
        """Pay out of the hold, receive, pay the fee. A transfer is no trade: it moves no reference."""
        instrument = line.instrument
        price, quantity = fill["last_px"], fill["last_qty"]
        if fill["liquidity"] != Liquidity.TRANSFER:
            instrument.last_trade_px = price
        if line.cum == 0 and line.counted_ns is not None:
            line.request.account.orders.give_back()
            line.request.account.orders_of_day.give_back()
        line.cum += quantity
        paid = instrument.hold_for(line.side, price, quantity)
        received = instrument.hold_for(Side.SELL if line.side == Side.BUY else Side.BUY, price, quantity)
        if line.amount is not None:
            line.amount -= instrument.notional(price, quantity)
        self.choose(line)
        owner = self.hold_owner(line)
        before, owner.hold = owner.hold, self.required_hold(owner)
        self.ledger.pay_from_hold(line.account_id, line.asset_paid, released=before - owner.hold, paid=paid)
        self.ledger.receive(line.account_id, instrument.asset_received(line.side), received)
        self.ledger.charge(line.account_id, fill["fee_asset_id"], fill["fee"], fill.get("fee_rounding", 0))

    def settle_quote(self, report: Report) -> None:
        """The quote's sides stand as the matcher says; ids that were not needed are free again."""
        values = report.fields
        quotes = self.quotes[values["account_id"], values["instrument_id"], values["quote_set_id"]]
        quotes.in_flight -= 1
        for name in ("bid", "ask"):
            placed = self.lines.get((report.partition, values[f"{name}_order_id"] or 0))
            if placed is not None:
                placed.is_unanswered = False
                self.adjust_hold(placed)
            unused = self.lines.get((report.partition, values[f"{name}_unused_id"] or 0))
            if unused is not None:
                self.finish(unused)
                self.free(unused)

    # -- holds -----------------------------------------------------------------------------------------------------

    def hold_owner(self, line: OrderLine) -> OrderLine | PairHold:
        """Return what carries the hold: the order, or the pair it is a leg of."""
        return line if line.pair is None else line.pair

    def required_hold(self, owner: OrderLine | PairHold) -> int:
        return owner.need()

    def adjust_hold(self, line: OrderLine) -> None:
        if not line.is_done:
            owner = self.hold_owner(line)
            self.set_hold(owner, self.required_hold(owner))

    # -- ends ------------------------------------------------------------------------------------------------------

    def settle_end(self, line: OrderLine, report: Report) -> None:
        """The order is over: what that means for its list comes after it."""
        order_list = line.order_list
        is_working = order_list is not None and order_list.working is line
        is_refused = report.name == "OrderRejected"
        is_filled = report.name == "OrderExecuted" and report.fields["ord_status"] == OrdStatus.FILLED
        if order_list is not None and is_refused and (is_working or order_list.working is None):
            order_list.was_refused = True
        self.finish(line)
        if order_list is not None and is_working:
            self.working_ended(order_list, is_filled=is_filled)

    def working_ended(self, order_list: OrderList, *, is_filled: bool) -> None:
        """What comes of the list now is due: its pending legs start, or all of it ends."""
        order_list.is_ending = not is_filled
        self.due.append(order_list)

    def finish(self, line: OrderLine) -> None:
        """End a line: its hold goes back, its client ids are free, its list may be over."""
        line.is_done = True
        if line.pair is None:
            self.set_hold(line, 0)
        else:
            self.set_hold(line.pair, self.required_hold(line.pair))
        self.drop_client_id(line, line.cl_ord_id)
        for version in line.pending:
            self.drop_client_id(line, version.cl_ord_id)
        if line.quote is not None:
            line.quote.lines.remove(line)
        if line.is_pending_leg:
            self.free(line)
        order_list = line.order_list
        if order_list is not None and order_list.is_over and not order_list.is_ending:
            order_list.is_ending = True
            self.due.append(order_list)

    def finish_list(self, order_list: OrderList) -> None:
        last = ListOrderStatus.REJECT if order_list.was_refused else ListOrderStatus.ALL_DONE
        self.list_status(order_list, ListStatusType.ALL_DONE, last)
        del self.lists[order_list.list_id]

    def free(self, line: OrderLine) -> None:
        """Give the order's place back when it is over and no answer about it is missing."""
        if line.is_done and not line.pending and (line.partition, line.order_id) in self.lines:
            del self.lines[line.partition, line.order_id]
            self.slots[line.partition].discard(line.order_id % self.orders_max)

    # -- soundness -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise unless money is conserved and every hold is backed by exactly its open orders."""
        self.ledger.check()
        holds: dict[tuple[int, int], int] = defaultdict(int)
        owners = {id(owner): (line, owner) for line in self.lines.values() for owner in [self.hold_owner(line)]}
        for line, owner in owners.values():
            holds[line.account_id, line.asset_paid] += owner.hold
            self.check_hold(line, owner)
        for key, units in self.ledger.held.items():
            if holds[key] != units:
                raise ModelError(f"account {key[0]} asset {key[1]}: {units} held, orders hold {holds[key]}")

    def check_hold(self, line: OrderLine, owner: OrderLine | PairHold) -> None:
        """Raise unless an order that nothing is on its way for holds exactly what it needs."""
        if isinstance(owner, PairHold):
            exact = owner.need()
        elif line.pending or line.is_done or line.is_unanswered:
            return
        else:
            exact = line.need()
        if owner.hold != exact:
            raise ModelError(f"order {line.order_id} holds {owner.hold}, needs {exact}")
