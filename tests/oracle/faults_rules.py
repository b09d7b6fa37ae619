"""Faults planted in the rules of docs/MATCHING.md, section by section: one wrong rule each."""

from __future__ import annotations

from typing import Any

from ringbuf.wire.messages import CancelReason, OrdStatus, RejectCode, Side, StpMode
from tests.oracle import accounts, admission, auction, filters, matching, states
from tests.oracle.accounts import Window, ceil_div, floor_div
from tests.oracle.adapter import Fault
from tests.oracle.auction import Stretch
from tests.oracle.book import is_better
from tests.oracle.choices import SECOND_NS
from tests.oracle.filters import Instrument, OrderRequest, Refusal
from tests.oracle.lines import OrderLine, OrderList, PairHold, Session
from tests.oracle.matcher import Matcher
from tests.oracle.orders import LiveOrder, Market, goes_up
from tests.oracle.records import CancelReplace, Record, Report
from tests.oracle.sequencer import Frames, Sequencer


def on(owner: Any, attribute: str, replacement: Any) -> tuple[tuple[Any, str, Any], ...]:
    return ((owner, attribute, replacement),)


def nothing(*_args: Any, **_kwargs: Any) -> None:
    return None


def never(*_args: Any, **_kwargs: Any) -> bool:
    return False


# -- 2 groups --------------------------------------------------------------------------------------------------------


_admit = Sequencer.admit
_orders_in = Sequencer.orders_in


def _close_gaps(self: Sequencer, session_id: int, frames: Frames, stamp_ns: int, age_us: int = 0) -> None:
    first = frames[0][0]
    _admit(self, session_id, [(first + index, message) for index, (_, message) in enumerate(frames)], stamp_ns, age_us)


def _all_legs_fail(
    self: Sequencer,
    session: Session,
    seq_num: int,
    message: Any,
    legs: list[OrderRequest],
    failed: OrderRequest | None,
    refusal: Refusal,
) -> None:
    self.reject_list(session, seq_num, message, refusal.code)
    for leg in legs:
        self.reject_order(session, leg.seq_num, leg.message, refusal.code, refusal.limit)


GROUP_FAULTS = (
    Fault("group with a gap taken", on(Sequencer, "admit", _close_gaps)),
    Fault("all legs of a refused list have one code", on(Sequencer, "refuse_list", _all_legs_fail)),
    Fault("a cancel may be linked with two orders", on(
        Sequencer, "orders_in", lambda self, messages: min(1, _orders_in(self, messages)) or 0)),
)  # fmt: skip

# -- 3 order types ---------------------------------------------------------------------------------------------------


_protection_price = filters.protection_price


def _lots_rounded_up(self: Market, amount: int, price: int) -> int:
    return ceil_div(amount, price * self.definition.quote_per_tick_lot) if price > 0 else 0


def _spent_is_remainder(self: Matcher, taker: LiveOrder) -> None:
    self.canceled(taker, reason=CancelReason.IOC_REMAINDER, status=OrdStatus.EXPIRED)


def _protection_without_band(request: OrderRequest, base: int | None) -> int:
    price = _protection_price(request, base)
    limits = request.instrument.limits
    return limits.max_px if request.side == Side.BUY else min(price, limits.min_px)


TYPE_FAULTS = (
    Fault("lots of an amount rounded up", on(Market, "lots_for", _lots_rounded_up)),
    Fault("spent amount ends as a remainder", on(Matcher, "amount_allows_no_lot", _spent_is_remainder)),
    Fault("protection price without the band", on(filters, "protection_price", _protection_without_band)),
)

# -- 4 time in force -------------------------------------------------------------------------------------------------


_expire = Matcher.expire
_expiry_of = filters.expiry_of
_check_expire = filters.check_expire


def _expire_late(self: Matcher, market: Market) -> None:
    self.now_ns -= SECOND_NS
    _expire(self, market)
    self.now_ns += SECOND_NS


def _expire_youngest_first(self: Matcher, market: Market) -> None:
    orders = self.orders
    self.orders = dict(reversed(orders.items()))
    _expire(self, market)
    self.orders = {order_id: order for order_id, order in orders.items() if order_id in self.orders}


def _day_ends_at_midnight(request: OrderRequest) -> int | None:
    rules, request.instrument.rules = request.instrument.rules, filters.NO_RULES
    second = _expiry_of(request)
    request.instrument.rules = rules
    return second


def _expire_now_is_good(request: OrderRequest) -> None:
    if request.message.expire_time != request.stamp_s:
        _check_expire(request)


TIF_FAULTS = (
    Fault("orders expire a second late", on(Matcher, "expire", _expire_late)),
    Fault("younger orders expire first", on(Matcher, "expire", _expire_youngest_first)),
    Fault("day orders end at midnight", on(admission, "expiry_of", _day_ends_at_midnight)),
    Fault("an order may expire at once", on(filters, "check_expire", _expire_now_is_good)),
)

# -- 5 and 6 matching, icebergs, minimum quantity --------------------------------------------------------------------


_next_slice = Matcher.next_slice
_show = Matcher.show
_is_enough = Matcher.is_enough


def _slice_keeps_its_place(self: Matcher, market: Market, order: LiveOrder) -> None:
    is_next = order.is_resting and order.visible == 0
    _next_slice(self, market, order)
    if is_next:
        orders = market.book.side(order.side)
        orders.remove(order)
        front = next((i for i, other in enumerate(orders) if not is_better(order.side, other.price, order.price)), None)
        orders.insert(len(orders) if front is None else front, order)


def _first_slice_is_any(self: Matcher, order: LiveOrder) -> None:
    order.first_display = None
    _show(self, order)


def _all_is_shown(self: Matcher, order: LiveOrder) -> None:
    order.visible = order.leaves


def _visible_fillable(self: Matcher, market: Market, order: LiveOrder, quantity: int) -> bool:
    hidden = {maker: maker.total for maker in market.book.within(order.side, order.price)}
    for maker in hidden:
        maker.total = maker.cum + maker.visible
    found = _is_fillable(self, market, order, quantity)
    for maker, total in hidden.items():
        maker.total = total
    return found


_is_fillable = Matcher.is_fillable


def _minimum_ignored(self: Matcher, market: Market, order: LiveOrder) -> bool:
    own, order.terms.min_qty = order.terms.min_qty, 0
    is_enough = _is_enough(self, market, order)
    order.terms.min_qty = own
    return is_enough


ICEBERG_FAULTS = (
    Fault("next slice keeps its place", on(Matcher, "next_slice", _slice_keeps_its_place)),
    Fault("first slice as any other", on(Matcher, "show", _first_slice_is_any)),
    Fault("icebergs show all", on(Matcher, "show", _all_is_shown)),
    Fault("fill-or-kill counts visible quantity", on(Matcher, "is_fillable", _visible_fillable)),
    Fault("minimum quantity ignored", on(Matcher, "is_enough", _minimum_ignored)),
    Fault("parts of an iceberg rounded down", on(filters, "ceil_div", floor_div)),
)

# -- 7 self-trade prevention -----------------------------------------------------------------------------------------


_prevent = Matcher.prevent
_rest_of = Matcher.rest_of
_transfer = Matcher.transfer


def _decrement_by_whole_order(self: Matcher, market: Market, taker: LiveOrder, maker: LiveOrder) -> int:
    return min(maker.leaves, self.rest_of(market, taker, maker.price))


def _cancel_maker_spares_hidden(self: Matcher, market: Market, order: LiveOrder, price: int) -> int:
    return order.visible if order.is_resting else _rest_of(self, market, order, price)


def _transfer_is_a_trade(self: Matcher, market: Market, taker: LiveOrder, maker: LiveOrder) -> None:
    _transfer(self, market, taker, maker)
    self.note_trade(market, maker.price)


def _transfer_within_account(self: Matcher, taker: LiveOrder, maker: LiveOrder) -> bool:
    return bool(taker.terms.stp_mode == maker.terms.stp_mode == StpMode.TRANSFER)


def _ids_for_each_report(self: Matcher, market: Market, taker: LiveOrder, maker: LiveOrder) -> None:
    first = len(self.reports)
    _prevent(self, market, taker, maker)
    if sum(report.name == "OrderPrevented" for report in self.reports[first:]) == 2:
        market.last_prevented_id += 1


PREVENTION_FAULTS = (
    Fault("decrement by the whole orders", on(Matcher, "meeting_quantity", _decrement_by_whole_order)),
    Fault("cancel maker counts the slice", on(Matcher, "rest_of", _cancel_maker_spares_hidden)),
    Fault("transfer moves the last price", on(Matcher, "transfer", _transfer_is_a_trade)),
    Fault("transfer within an account", on(Matcher, "is_transfer", _transfer_within_account)),
    Fault("never a transfer", on(Matcher, "is_transfer", never)),
    Fault("a prevention has two ids", on(Matcher, "prevent", _ids_for_each_report)),
)

# -- 8 triggers ------------------------------------------------------------------------------------------------------


_reached = Matcher.reached
_follows = Matcher.follows


def _beyond_the_stop(self: Matcher, order: LiveOrder, price: int) -> bool:
    stop_px = order.terms.stop_px
    if stop_px is None:
        return False
    return price > stop_px if goes_up(order.terms.ord_type, order.side) else price < stop_px


def _in_order_of_acceptance(self: Matcher, market: Market, price: int) -> list[LiveOrder]:
    reached = _reached(self, market, price)
    return [order for order in market.waiting if order in reached]


def _extreme_stays(self: Matcher, order: LiveOrder, price: int) -> bool:
    extreme = order.extreme
    fires = _follows(self, order, price)
    order.extreme = price if extreme is None else extreme
    return fires


def _active_at_once(self: Matcher, market: Market, order: LiveOrder) -> None:
    market.waiting.append(order)
    if order.terms.trailing_delta:
        self.activate(market, order, market.last_px)


def _last_fired_first(self: Matcher, market: Market) -> None:
    market.queue.reverse()
    _work_off_queue(self, market)


_work_off_queue = Matcher.work_off_queue


def _base_is_reference(request: OrderRequest) -> int | None:
    return request.instrument.reference()


TRIGGER_FAULTS = (
    Fault("the stop price itself does not fire", on(Matcher, "condition_holds", _beyond_the_stop)),
    Fault("stops fire in order of acceptance", on(Matcher, "reached", _in_order_of_acceptance)),
    Fault("trailing orders follow nothing", on(Matcher, "follows", _extreme_stays)),
    Fault("trailing orders active at once", on(Matcher, "wait", _active_at_once)),
    Fault("last fired has the first turn", on(Matcher, "work_off_queue", _last_fired_first)),
    Fault("protection of stops from the reference", on(filters, "trigger_base", _base_is_reference)),
)

# -- 9 and 10 changes, cancel-replace --------------------------------------------------------------------------------


_cancel_replace = Matcher.cancel_replace
_admit_successor = Sequencer.admit_successor
_reduce_to = Matcher.reduce_to


def _slice_is_cut_first(self: Matcher, market: Market, order: LiveOrder, total: int) -> None:
    less = order.total - total
    if order.is_resting and 0 < less < order.visible:
        order.total = total
        order.visible -= less
        self.event(market, "OrderReduce", order_id=order.order_id, new_qty=order.visible, side=order.side)
        return
    _reduce_to(self, market, order, total)


def _display_holds_at_once(self: Matcher, market: Market, order: LiveOrder, total: int) -> None:
    _reduce_to(self, market, order, total)
    if order.is_resting and order.display is not None and order.visible > order.display:
        order.visible = order.display
        self.event(market, "OrderReduce", order_id=order.order_id, new_qty=order.visible, side=order.side)


def _without_old_cover(self: Matcher, record: Record, both: CancelReplace) -> None:
    both.is_same_asset = False
    _cancel_replace(self, record, both)


def _no_cancel_alone(
    self: Sequencer, session: Session, seq_num: int, cancel: Any, line: OrderLine, request: OrderRequest
) -> None:
    before = len(self.reports)
    _admit_successor(self, session, seq_num, cancel, line, request)
    if len(self.reports) > before and self.log:
        self.log.pop()


CHANGE_FAULTS = (
    Fault("a reduction cuts the slice first", on(Matcher, "reduce_to", _slice_is_cut_first)),
    Fault("a new display quantity holds at once", on(Matcher, "reduce_to", _display_holds_at_once)),
    Fault("cancel flags ignored", on(Matcher, "is_restricted", never)),
    Fault("amends without a limit", on(Sequencer, "check_amend", nothing)),
    Fault("successor without the old cover", on(Matcher, "cancel_replace", _without_old_cover)),
    Fault("no cancel without its successor", on(Sequencer, "admit_successor", _no_cancel_alone)),
)

# -- 11 quotes -------------------------------------------------------------------------------------------------------


_is_kept = Matcher.is_kept
_settle_quote = Sequencer.settle_quote


def _kept_at_any_quantity(self: Matcher, live: LiveOrder | None, terms: Any) -> bool:
    return live is not None and terms is not None and live.price == terms.price and terms.quantity < live.total


def _unused_ids_stay(self: Sequencer, report: Report) -> None:
    report.fields |= {"bid_unused_id": None, "ask_unused_id": None}
    _settle_quote(self, report)


QUOTE_FAULTS = (
    Fault("no side of a quote is kept", on(Matcher, "is_kept", never)),
    Fault("quantity of a quote includes what is filled", on(Matcher, "is_kept", _kept_at_any_quantity)),
    Fault("unused ids of a quote stay taken", on(Sequencer, "settle_quote", _unused_ids_stay)),
)

# -- 12 order lists --------------------------------------------------------------------------------------------------


_peer_ends = Matcher.peer_ends
_checked_cancel = Sequencer.checked_cancel
_settle_end = Sequencer.settle_end


def _both_holds(self: PairHold) -> int:
    return sum(leg.need() for leg in self.legs if not leg.is_done and self.chosen in (None, leg))


def _peers_live_on(self: Matcher, order: LiveOrder, *, reason: int, status: int) -> None:
    if reason != CancelReason.LIST_PEER_EXECUTED:
        _peer_ends(self, order, reason=reason, status=status)


def _peers_only_execute(self: Matcher, order: LiveOrder, *, reason: int, status: int) -> None:
    _peer_ends(self, order, reason=CancelReason.LIST_PEER_EXECUTED, status=OrdStatus.EXPIRED)


def _pending_legs_cannot_be_canceled(self: Sequencer, session: Session, message: Any, stamp_ns: int, *,
                                     in_group: bool = False) -> OrderLine:  # fmt: skip
    line = self.resolve(self.account_for(session, message.account_id).account_id, message)
    if line.is_pending_leg:
        raise Refusal(RejectCode.INVALID_LIST)
    return _checked_cancel(self, session, message, stamp_ns, in_group=in_group)


_working_ended = Sequencer.working_ended


def _due_however_it_ends(self: Sequencer, order_list: OrderList, *, is_filled: bool) -> None:
    del is_filled
    _working_ended(self, order_list, is_filled=True)


LIST_FAULTS = (
    Fault("a pair holds for both legs", on(PairHold, "need", _both_holds)),
    Fault("the peer of an executed leg lives on", on(Matcher, "peer_ends", _peers_live_on)),
    Fault("a canceled leg's peer ends as executed", on(Matcher, "peer_ends", _peers_only_execute)),
    Fault("pending legs cannot be canceled", on(Sequencer, "checked_cancel", _pending_legs_cannot_be_canceled)),
    Fault("pending legs are due however the working leg ends", on(Sequencer, "working_ended", _due_however_it_ends)),
    Fault("price relations of a pair unchecked", on(Sequencer, "relation_price", nothing)),
)

# -- 13 auctions -----------------------------------------------------------------------------------------------------


_by_age = Matcher.by_age
_print_trade = Matcher.print_trade
_chosen_price = auction.chosen_price
_stretches = auction.stretches


def _least_surplus_last(left: list[Stretch], reference: int | None) -> int:
    return left[0].low if all(stretch.surplus > 0 for stretch in left) else _chosen_price(left, reference)


def _middle_of_the_range(left: list[Stretch], reference: int | None) -> int:
    return (left[0].low + left[-1].high) // 2


def _without_hidden(book: Any) -> list[Stretch]:
    totals = {order: order.total for order in book.bids + book.asks}
    for order in totals:
        order.total = order.cum + order.visible
    found = _stretches(book)
    for order, total in totals.items():
        order.total = total
    return found


def _ask_is_implied(self: Matcher, market: Market, order: LiveOrder, price: int, quantity: int, *,
                    implied: bool = False) -> None:  # fmt: skip
    _print_trade(self, market, order, price, quantity, implied=order.side == Side.SELL)


AUCTION_FAULTS = (
    Fault("auction at the lowest price under buying pressure", on(auction, "chosen_price", _least_surplus_last)),
    Fault("auction at the middle of the range", on(auction, "chosen_price", _middle_of_the_range)),
    Fault("hidden quantity without part in the price", on(auction, "stretches", _without_hidden)),
    Fault("the older order is the auction's taker", on(
        Matcher, "by_age", lambda self, bid, ask: _by_age(self, bid, ask)[::-1])),
    Fault("market orders outlive the auction", on(Matcher, "end_auction_orders", nothing)),
    Fault("indicative price at every tick", on(states, "INDICATIVE_INTERVAL_NS", 0)),
    Fault("auction prints on the ask", on(Matcher, "print_trade", _ask_is_implied)),
)  # fmt: skip

# -- 14 volatility and schedule --------------------------------------------------------------------------------------


_is_outside = matching.is_outside_band
_rest_reason = Matcher.rest_reason


def _edge_is_outside(market: Market, reference: int | None, price: int) -> bool:
    return _is_outside(market, reference, price) or (
        _is_outside(market, reference, price + 1) and _is_outside(market, reference, price - 1)
    ) or any(
        not _is_outside(market, reference, price) and _is_outside(market, reference, price + step)
        for step in (-1, 1)
    )  # fmt: skip


def _taker_ends_at_halt(self: Matcher, market: Market, order: LiveOrder) -> None:
    if market.is_continuous or market.is_collecting:
        _settle_down(self, market, order)
    else:
        self.canceled(order, reason=CancelReason.INSTRUMENT_HALT, status=OrdStatus.EXPIRED)


_settle_down = Matcher.settle_down

VOLATILITY_FAULTS = (
    Fault("volatility band excludes its edge", on(matching, "is_outside_band", _edge_is_outside)),
    Fault("no volatility band", on(matching, "is_outside_band", never)),
    Fault("a halt ends the taker", on(Matcher, "settle_down", _taker_ends_at_halt)),
    Fault("volatility reference never refreshed", on(Matcher, "volatility_reference", nothing)),
    Fault("halts last", on(Matcher, "volatility_step", nothing)),
    Fault("schedule ignored", on(Matcher, "scheduled", lambda self, market, before_ns: [])),
)

# -- 15 mass cancel, lock, kill switch -------------------------------------------------------------------------------


_check_blocked = Sequencer.check_blocked
_is_in_scope = Matcher.is_in_scope
_is_killed = Matcher.is_killed


def _locks_do_not_block(self: Sequencer, account: Any, instrument_id: int) -> None:
    is_locked, account.is_locked = account.is_locked, False
    try:
        _check_blocked(self, account, instrument_id)
    finally:
        account.is_locked = is_locked


def _group_ignored(self: Matcher, record: Record, message: Any, order: LiveOrder) -> bool:
    own, order.terms.stp_group_id = order.terms.stp_group_id, message.stp_group_id
    is_meant = _is_in_scope(self, record, message, order)
    order.terms.stp_group_id = own
    return is_meant


BLOCK_FAULTS = (
    Fault("locked accounts may trade", on(Sequencer, "check_blocked", _locks_do_not_block)),
    Fault("the kill switch spares waiting orders", on(
        Matcher, "is_killed", lambda self, message, order: not order.is_waiting and _is_killed(self, message, order))),
    Fault("the kill switch blocks nobody", on(Sequencer, "check_blocked", nothing)),
    Fault("mass cancel ignores the group", on(Matcher, "is_in_scope", _group_ignored)),
)  # fmt: skip

# -- 16 and 17 filters, rates, fees ----------------------------------------------------------------------------------


_band_edges = filters.band_edges
_add = Window.add


def _inner_bounds_off(instrument: Instrument, side: int, base: int | None) -> tuple[int | None, int | None]:
    low, high = _band_edges(instrument, side, base)
    return (None, high) if side == Side.BUY else (low, None)


def _never_reset(self: Window, stamp_ns: int) -> None:
    self.number = stamp_ns // self.length_ns
    self.count += 1


def _position_without_open_orders(self: Sequencer, request: OrderRequest, lots: int, except_line: Any = None) -> None:
    account_id, definition = request.account.account_id, request.instrument.definition
    key = (account_id, definition.base_asset_id)
    position_max = request.instrument.rules.position_max
    if 0 < position_max < self.ledger.available[key] + self.ledger.held[key] + lots * definition.base_per_lot:
        raise Refusal(RejectCode.POSITION_LIMIT, position_max)


FILTER_FAULTS = (
    Fault("bounds of the near side off", on(filters, "band_edges", _inner_bounds_off)),
    Fault("rate windows never reset", on(Window, "add", _never_reset)),
    Fault("first fills give nothing back", on(Window, "give_back", nothing)),
    Fault("position without open orders", on(Sequencer, "check_position_of", _position_without_open_orders)),
    Fault("caps unchecked", on(Sequencer, "check_caps", nothing)),
    Fault("trailing deltas without bounds", on(filters, "check_trailing_range", nothing)),
    Fault("no unit of a fee is rounding", on(accounts, "rounding_of", lambda received, rate: 0)),
)

RULE_FAULTS: tuple[Fault, ...] = (
    *GROUP_FAULTS,
    *TYPE_FAULTS,
    *TIF_FAULTS,
    *ICEBERG_FAULTS,
    *PREVENTION_FAULTS,
    *TRIGGER_FAULTS,
    *CHANGE_FAULTS,
    *QUOTE_FAULTS,
    *LIST_FAULTS,
    *AUCTION_FAULTS,
    *VOLATILITY_FAULTS,
    *BLOCK_FAULTS,
    *FILTER_FAULTS,
)
