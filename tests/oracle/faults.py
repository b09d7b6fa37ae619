"""Faults planted in the model to prove that the comparison finds such things in an engine."""

from __future__ import annotations

from dataclasses import replace as with_fields
from typing import Any

from ringbuf.wire.messages import OrderReplaceRequest, OrdType, Side, StpMode
from tests.oracle import accounts, admission, matcher, sequencer
from tests.oracle.accounts import Ledger, ceil_div, floor_div
from tests.oracle.adapter import Fault
from tests.oracle.admission import Refusal, band_limit
from tests.oracle.book import Book, BookOrder, is_better
from tests.oracle.choices import MONEY_LIMIT, RATE_SCALE
from tests.oracle.matcher import Market, Matcher
from tests.oracle.records import Record
from tests.oracle.sequencer import OrderLine, Sequencer, Version


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    return None


def _never(*_args: Any, **_kwargs: Any) -> bool:
    return False


def _place_in_front(self: Book, orders: list[BookOrder], order: BookOrder) -> int:
    for index, resting in enumerate(orders):
        if not is_better(order.side, resting.price, order.price):
            return index
    return len(orders)


def _keep_improvement_held(self: Ledger, account_id: int, asset_id: int, *, released: int, paid: int) -> None:
    self.held[account_id, asset_id] -= paid


def _lose_improvement(self: Ledger, account_id: int, asset_id: int, *, released: int, paid: int) -> None:
    self.held[account_id, asset_id] -= released


def _fillable_with_own(self: Matcher, market: Market, order: BookOrder) -> bool:
    return sum(maker.leaves for maker in market.book.within(order.side, order.price)) >= order.total


def _fillable_past_own(self: Matcher, market: Market, order: BookOrder) -> bool:
    makers = [maker for maker in market.book.within(order.side, order.price) if not self.is_self_trade(order, maker)]
    return sum(maker.leaves for maker in makers) >= order.total


_sound_replace = Matcher.replace
_sound_admit = Sequencer.admit
_sound_trade = Matcher.trade
_sound_prevent = Matcher.prevent
_sound_report = Matcher.report
_sound_next_order_id = Sequencer.next_order_id
_sound_settle_fill = Sequencer.settle_fill


def _replace_total_is_open_quantity(self: Matcher, record: Record, message: OrderReplaceRequest) -> None:
    order = self.orders.get(record.order_id)
    if order is not None and message.order_qty is not None:
        message = with_fields(message, order_qty=message.order_qty + order.cum)
    _sound_replace(self, record, message)


def _replace_forgets_client_id(self: Matcher, record: Record, message: OrderReplaceRequest) -> None:
    _sound_replace(self, record, with_fields(message, cl_ord_id=0))


def _accept_any_number(self: Sequencer, session_id: int, seq_num: int, message: Any) -> None:
    _sound_admit(self, session_id, self.sessions[session_id].last_seq + 1, message)


def _accept_gaps(self: Sequencer, session_id: int, seq_num: int, message: Any) -> None:
    session = self.sessions[session_id]
    if seq_num > session.last_seq + 1:
        session.last_seq = seq_num - 1
    _sound_admit(self, session_id, seq_num, message)


def _taker_reports_first(self: Matcher, market: Market, taker: BookOrder, maker: BookOrder) -> None:
    first = len(self.reports)
    _sound_trade(self, market, taker, maker)
    self.reports[first:] = reversed(self.reports[first:])


def _cancel_both_spares_taker(self: Matcher, market: Market, taker: BookOrder, maker: BookOrder) -> None:
    if taker.stp_mode != StpMode.CANCEL_BOTH:
        _sound_prevent(self, market, taker, maker)
        return
    taker.stp_mode = StpMode.CANCEL_MAKER
    _sound_prevent(self, market, taker, maker)


def _maker_decides(self: Matcher, market: Market, taker: BookOrder, maker: BookOrder) -> None:
    mode, taker.stp_mode = taker.stp_mode, maker.stp_mode or taker.stp_mode
    _sound_prevent(self, market, taker, maker)
    taker.stp_mode = mode


def _number_everything(self: Matcher, session: int, name: str, **options: Any) -> None:
    _sound_report(self, session, name, **(options | {"numbered": True}))


def _hold_first_terms(self: Sequencer, line: OrderLine) -> int:
    return line.instrument.hold_for(line.side, line.price_max, line.total_max - line.cum)


def _hold_newest_terms(self: Sequencer, line: OrderLine) -> int:
    newest = line.pending[-1] if line.pending else line
    return line.instrument.hold_for(line.side, newest.price, max(line.total, newest.total) - line.cum)


def _cover_newest_terms(self: Sequencer, line: OrderLine, version: Version) -> tuple[int, int, int]:
    price, total = version.price, version.total
    return price, total, line.instrument.hold_for(line.side, price, max(0, total - line.cum))


def _ids_without_slots(self: Sequencer, partition: int) -> int:
    self.last_order_id[partition] += 1
    return self.last_order_id[partition]


def _lowest_free_slot(self: Sequencer, partition: int) -> int:
    self.last_order_id[partition] = 0
    return _sound_next_order_id(self, partition)


def _forget_trades(self: Sequencer, line: OrderLine, fill: dict[str, int]) -> None:
    before = line.instrument.last_trade_px
    _sound_settle_fill(self, line, fill)
    line.instrument.last_trade_px = before


def _cover_leaves_one(self: Sequencer, account_id: int, asset_id: int, need: int) -> None:
    if need >= self.ledger.available[account_id, asset_id]:
        raise Refusal(200, self.ledger.available[account_id, asset_id])


def _band_excludes_bound(instrument: Any, side: int, price: int) -> None:
    bound = band_limit(instrument, side)
    if bound is not None and ((side == Side.BUY and price >= bound) or (side == Side.SELL and price <= bound)):
        raise Refusal(203, bound)


def _notional_before_quantity(self: Sequencer, instrument: Any, message: Any) -> int:
    if message.ord_type == OrdType.MARKET:
        price = admission.protection_price(instrument, message.side)
    else:
        price = admission.check_price(instrument, message.price)
    admission.check_notional(instrument, price, message.order_qty)
    admission.check_quantity(instrument, message.order_qty)
    if message.ord_type != OrdType.MARKET:
        admission.check_band(instrument, message.side, price)
    return price


def _notional_without_bound(instrument: Any, price: int, quantity: int) -> None:
    if 0 < instrument.limits.max_notional < instrument.notional(price, quantity):
        raise Refusal(117, instrument.limits.max_notional)
    if instrument.notional(price, quantity) < instrument.limits.min_notional:
        raise Refusal(110, instrument.limits.min_notional)


def _notional_wraps(instrument: Any, price: int, quantity: int) -> None:
    """Compute the product in 64 bits, as careless C would."""
    notional = instrument.notional(price, quantity) % (1 << 64)
    if notional >= MONEY_LIMIT or 0 < instrument.limits.max_notional < notional:
        raise Refusal(117, instrument.limits.max_notional)
    if notional < instrument.limits.min_notional:
        raise Refusal(110, instrument.limits.min_notional)


def _base_units_unbounded(instrument: Any, price: int, quantity: int) -> None:
    if instrument.notional(price, quantity) >= MONEY_LIMIT:
        raise Refusal(117, instrument.limits.max_notional or MONEY_LIMIT - 1)
    _notional_without_bound(instrument, price, quantity)


def _scope_without_side(self: Matcher, record: Record, message: Any, order: BookOrder) -> bool:
    same_account = order.account_id == record.account_id
    same_session = message.scope != 0 or order.session == record.session
    return same_account and same_session and message.instrument_id in (0, order.instrument_id)


def _scope_of_account(self: Matcher, record: Record, message: Any, order: BookOrder) -> bool:
    same_account = order.account_id == record.account_id
    return same_account and message.instrument_id in (0, order.instrument_id) and message.side in (0, order.side)


def _on(owner: Any, attribute: str, replacement: Any) -> tuple[tuple[Any, str, Any], ...]:
    return ((owner, attribute, replacement),)


FAULTS: tuple[Fault, ...] = (
    Fault("last in first out", _on(Book, "place", _place_in_front)),
    Fault("trade at the taker's price", _on(Matcher, "trade_price", lambda self, taker, maker: taker.price)),
    Fault("fee rounded down", _on(accounts, "fee_of", lambda received, rate: floor_div(received * rate, RATE_SCALE))),
    Fault(
        "rebate rounded up",
        _on(accounts, "rebate_of", lambda units, rate, fee: min(ceil_div(units * -rate, RATE_SCALE), fee)),
    ),
    Fault("maker pays the taker's rate", _on(Matcher, "rates_of", lambda self, order: (777, 777))),
    Fault(
        "instrument's own fee rate ignored",
        _on(Matcher, "rates_of", lambda self, order: self.rates.get((order.tier, 0), (0, 0))),
    ),
    Fault("price improvement stays held", _on(Ledger, "pay_from_hold", _keep_improvement_held)),
    Fault("price improvement lost", _on(Ledger, "pay_from_hold", _lose_improvement)),
    Fault(
        "more quantity keeps priority",
        _on(Matcher, "keeps_priority", lambda self, order, price, total: price == order.price),
    ),
    Fault(
        "price change keeps priority",
        _on(Matcher, "keeps_priority", lambda self, order, price, total: total <= order.total),
    ),
    Fault("less quantity loses priority", _on(Matcher, "keeps_priority", _never)),
    Fault("replace takes the total as open quantity", _on(Matcher, "replace", _replace_total_is_open_quantity)),
    Fault("replace forgets the new client id", _on(Matcher, "replace", _replace_forgets_client_id)),
    Fault("surplus of a replace stays held", _on(Sequencer, "required_hold", _hold_first_terms)),
    Fault("self-trade prevention ignored", _on(Matcher, "is_self_trade", _never)),
    Fault(
        "self-trade group ignored",
        _on(BookOrder, "stp_key", property(lambda self: ("account", self.account_id))),
    ),
    Fault(
        "groups and accounts in one number space",
        _on(BookOrder, "stp_key", property(lambda self: ("any", self.stp_group_id or self.account_id))),
    ),
    Fault("maker's mode decides", _on(Matcher, "prevent", _maker_decides)),
    Fault("cancel both spares the taker", _on(Matcher, "prevent", _cancel_both_spares_taker)),
    Fault("fill-or-kill counts own orders", _on(Matcher, "is_fillable", _fillable_with_own)),
    Fault("fill-or-kill counts past own orders", _on(Matcher, "is_fillable", _fillable_past_own)),
    Fault("post-only may cross", _on(Matcher, "would_cross", _never)),
    Fault("unfilled market order is an IOC remainder", _on(matcher, "MARKET_UNFILLED_IS_NO_LIQUIDITY", False)),
    Fault("market state ignored", _on(matcher, "STATE_CODES", dict.fromkeys(matcher.STATE_CODES, 0))),
    Fault("taker reported before maker", _on(Matcher, "trade", _taker_reports_first)),
    Fault("state reports numbered", _on(Matcher, "report", _number_everything)),
    Fault("mass cancel ignores the side", _on(Matcher, "is_in_scope", _scope_without_side)),
    Fault("mass cancel of a session takes the account", _on(Matcher, "is_in_scope", _scope_of_account)),
    Fault("duplicate client id accepted", _on(Sequencer, "check_client_id", _nothing)),
    Fault("client id not freed", _on(Sequencer, "drop_client_id", _nothing)),
    Fault("duplicate numbers accepted", _on(Sequencer, "admit", _accept_any_number)),
    Fault("gaps accepted", _on(Sequencer, "admit", _accept_gaps)),
    Fault("order ids ignore occupied slots", _on(Sequencer, "next_order_id", _ids_without_slots)),
    Fault("lowest free slot reused at once", _on(Sequencer, "next_order_id", _lowest_free_slot)),
    Fault("last trade is no reference", _on(Sequencer, "settle_fill", _forget_trades)),
    Fault("cover must exceed the need", _on(Sequencer, "check_cover", _cover_leaves_one)),
    Fault("band excludes its bound", _on(admission, "check_band", _band_excludes_bound)),
    Fault("upper band rounded up", _on(admission, "floor_div", ceil_div)),
    Fault("lower band rounded down", _on(admission, "ceil_div", floor_div)),
    Fault("notional checked before quantity", _on(Sequencer, "checked_price", _notional_before_quantity)),
    Fault("notional without a bound", _on(admission, "check_notional", _notional_without_bound)),
    Fault("notional wraps at 64 bits", _on(admission, "check_notional", _notional_wraps)),
    Fault("base units without a bound", _on(admission, "check_notional", _base_units_unbounded)),
    Fault("enums unchecked", _on(admission, "check_shape", _nothing)),
    Fault("unsupported features accepted", _on(admission, "check_features", _nothing)),
    Fault("price range unchecked", _on(admission, "check_price", lambda instrument, price: price or 0)),
    Fault("no replace may be in flight", _on(sequencer, "REPLACES_IN_FLIGHT_MAX", 0)),
)

# Only commands in flight together show these.
BURST_FAULTS: tuple[Fault, ...] = (
    Fault("hold of the newest terms only", _on(Sequencer, "required_hold", _hold_newest_terms)),
    Fault("cover of the newest terms only", _on(Sequencer, "cover_with", _cover_newest_terms)),
    Fault("five replaces in flight", _on(sequencer, "REPLACES_IN_FLIGHT_MAX", 5)),
    Fault("three replaces in flight", _on(sequencer, "REPLACES_IN_FLIGHT_MAX", 3)),
)
