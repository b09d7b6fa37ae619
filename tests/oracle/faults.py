"""Faults planted in the model to prove that the comparison finds such things in an engine."""

from __future__ import annotations

from dataclasses import replace as with_fields
from typing import Any

from ringbuf.wire.messages import OrderReplaceRequest, StpMode
from tests.oracle import accounts, admission, admission_changes, filters, matching
from tests.oracle.accounts import Ledger, ceil_div, floor_div
from tests.oracle.adapter import Fault
from tests.oracle.book import Book, is_better
from tests.oracle.choices import MONEY_LIMIT, RATE_SCALE
from tests.oracle.faults_rules import RULE_FAULTS, on
from tests.oracle.filters import Instrument, Refusal
from tests.oracle.lines import OrderLine, PairHold, Version
from tests.oracle.matcher import Matcher
from tests.oracle.orders import LiveOrder, Market
from tests.oracle.records import OrderTerms, Record
from tests.oracle.reports import MatcherReports
from tests.oracle.sequencer import Frames, Sequencer


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    return None


def _never(*_args: Any, **_kwargs: Any) -> bool:
    return False


def _place_in_front(self: Book, orders: list[LiveOrder], order: LiveOrder) -> int:
    for index, resting in enumerate(orders):
        if not is_better(order.side, resting.price, order.price):
            return index
    return len(orders)


def _keep_improvement_held(self: Ledger, account_id: int, asset_id: int, *, released: int, paid: int) -> None:
    self.held[account_id, asset_id] -= paid


def _lose_improvement(self: Ledger, account_id: int, asset_id: int, *, released: int, paid: int) -> None:
    self.held[account_id, asset_id] -= released


def _fillable_with_own(self: Matcher, market: Market, order: LiveOrder, quantity: int) -> bool:
    return sum(maker.leaves for maker in market.book.within(order.side, order.price)) >= quantity


def _fillable_past_own(self: Matcher, market: Market, order: LiveOrder, quantity: int) -> bool:
    makers = [maker for maker in market.book.within(order.side, order.price) if not self.is_self_trade(order, maker)]
    return sum(maker.leaves for maker in makers) >= quantity


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


def _accept_any_number(self: Sequencer, session_id: int, frames: Frames, stamp_ns: int, age_us: int = 0) -> None:
    following = self.sessions[session_id].last_seq + 1
    renumbered = [(following + index, message) for index, (_, message) in enumerate(frames)]
    _sound_admit(self, session_id, renumbered, stamp_ns, age_us)


def _accept_gaps(self: Sequencer, session_id: int, frames: Frames, stamp_ns: int, age_us: int = 0) -> None:
    session = self.sessions[session_id]
    session.last_seq = max(session.last_seq, frames[0][0] - 1)
    _sound_admit(self, session_id, frames, stamp_ns, age_us)


def _taker_reports_first(self: Matcher, market: Market, taker: LiveOrder, maker: LiveOrder) -> None:
    first = len(self.reports)
    _sound_trade(self, market, taker, maker)
    self.reports[first : first + 2] = reversed(self.reports[first : first + 2])
    self.reports[first].joined, self.reports[first + 1].joined = True, False


def _with_mode(self: Matcher, market: Market, taker: LiveOrder, maker: LiveOrder, mode: int) -> None:
    own, taker.terms.stp_mode = taker.terms.stp_mode, mode
    _sound_prevent(self, market, taker, maker)
    taker.terms.stp_mode = own


def _cancel_both_spares_taker(self: Matcher, market: Market, taker: LiveOrder, maker: LiveOrder) -> None:
    mode = taker.terms.stp_mode
    _with_mode(self, market, taker, maker, StpMode.CANCEL_MAKER if mode == StpMode.CANCEL_BOTH else mode)


def _maker_decides(self: Matcher, market: Market, taker: LiveOrder, maker: LiveOrder) -> None:
    _with_mode(self, market, taker, maker, maker.terms.stp_mode or taker.terms.stp_mode)


def _number_everything(self: Matcher, session: int, name: str, **options: Any) -> None:
    _sound_report(self, session, name, **(options | {"numbered": True}))


def _hold_first_terms(self: Sequencer, owner: OrderLine | PairHold) -> int:
    if isinstance(owner, PairHold) or owner.amount is not None:
        return owner.need()
    return owner.instrument.hold_for(owner.side, owner.price_max, owner.total_max - owner.cum)


def _hold_newest_terms(self: Sequencer, owner: OrderLine | PairHold) -> int:
    if isinstance(owner, PairHold) or owner.amount is not None:
        return owner.need()
    newest = owner.pending[-1] if owner.pending else owner
    return owner.instrument.hold_for(owner.side, newest.price, max(owner.total, newest.total) - owner.cum)


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


def _cover_leaves_one(self: Sequencer, account_id: int, asset_id: int, need: int, other_cover: int = 0) -> None:
    if need >= self.ledger.available[account_id, asset_id] + other_cover:
        raise Refusal(200, self.ledger.available[account_id, asset_id])


def _band_excludes_bound(instrument: Instrument, side: int, price: int, base: int | None) -> None:
    low, high = filters.band_edges(instrument, side, base)
    if high is not None and price >= high:
        raise Refusal(203, high)
    if low is not None and price <= low:
        raise Refusal(203, low)


def _swapped(names: tuple[str, ...], one: str, other: str) -> tuple[str, ...]:
    return tuple(other if name == one else one if name == other else name for name in names)


_sound_notional = filters.check_notional


def _notional_without_bound(instrument: Instrument, units: int, lots: int, *, is_market: bool) -> None:
    if 0 < units < MONEY_LIMIT:
        _sound_notional(instrument, units, 0, is_market=is_market)


def _notional_wraps(instrument: Instrument, units: int, lots: int, *, is_market: bool) -> None:
    """Compute the product in 64 bits, as careless C would."""
    _sound_notional(instrument, units % (1 << 64), 0, is_market=is_market)


def _base_units_unbounded(instrument: Instrument, units: int, lots: int, *, is_market: bool) -> None:
    _sound_notional(instrument, units, 0, is_market=is_market)


_sound_scope = Matcher.is_in_scope


def _scope_without_side(self: Matcher, record: Record, message: Any, order: LiveOrder) -> bool:
    return _sound_scope(self, record, with_fields(message, side=0), order)


def _scope_of_account(self: Matcher, record: Record, message: Any, order: LiveOrder) -> bool:
    return _sound_scope(self, record, with_fields(message, scope=max(1, message.scope)), order)


FAULTS: tuple[Fault, ...] = (
    Fault("last in first out", on(Book, "place", _place_in_front)),
    Fault("trade at the taker's price", on(Matcher, "trade_price", lambda self, taker, maker: taker.price)),
    Fault("fee rounded down", on(accounts, "fee_of", lambda received, rate: floor_div(received * rate, RATE_SCALE))),
    Fault(
        "rebate rounded up",
        on(accounts, "rebate_of", lambda units, rate, taker_rate: ceil_div(units * -rate, RATE_SCALE)),
    ),
    Fault("maker pays the taker's rate", on(Matcher, "rates_of", lambda self, order: (777, 777))),
    Fault(
        "instrument's own fee rate ignored",
        on(Matcher, "rates_of", lambda self, order: self.rates.get((order.terms.tier, 0), (0, 0))),
    ),
    Fault("price improvement stays held", on(Ledger, "pay_from_hold", _keep_improvement_held)),
    Fault("price improvement lost", on(Ledger, "pay_from_hold", _lose_improvement)),
    Fault(
        "more quantity keeps priority",
        on(Matcher, "keeps_priority", lambda self, order, price, total: price == order.price),
    ),
    Fault(
        "price change keeps priority",
        on(Matcher, "keeps_priority", lambda self, order, price, total: total <= order.total),
    ),
    Fault("less quantity loses priority", on(Matcher, "keeps_priority", _never)),
    Fault("replace takes the total as open quantity", on(Matcher, "replace", _replace_total_is_open_quantity)),
    Fault("replace forgets the new client id", on(Matcher, "replace", _replace_forgets_client_id)),
    Fault("surplus of a replace stays held", on(Sequencer, "required_hold", _hold_first_terms)),
    Fault("self-trade prevention ignored", on(Matcher, "is_self_trade", _never)),
    Fault(
        "self-trade group ignored",
        on(LiveOrder, "stp_key", property(lambda self: ("account", self.terms.account_id))),
    ),
    Fault(
        "groups and accounts in one number space",
        on(LiveOrder, "stp_key", property(lambda self: ("any", self.terms.stp_group_id or self.terms.account_id))),
    ),
    Fault("maker's mode decides", on(Matcher, "prevent", _maker_decides)),
    Fault("cancel both spares the taker", on(Matcher, "prevent", _cancel_both_spares_taker)),
    Fault("fill-or-kill counts own orders", on(Matcher, "is_fillable", _fillable_with_own)),
    Fault("fill-or-kill counts past own orders", on(Matcher, "is_fillable", _fillable_past_own)),
    Fault("post-only may cross", on(Matcher, "would_cross", _never)),
    Fault("unfilled market order is an IOC remainder", on(matching, "MARKET_UNFILLED_IS_NO_LIQUIDITY", False)),
    Fault("market state ignored", on(matching, "STATE_CODES", dict.fromkeys(matching.STATE_CODES, 0))),
    Fault("taker reported before maker", on(Matcher, "trade", _taker_reports_first)),
    Fault("state reports numbered", on(Matcher, "report", _number_everything)),
    Fault("mass cancel ignores the side", on(Matcher, "is_in_scope", _scope_without_side)),
    Fault("mass cancel of a session takes the account", on(Matcher, "is_in_scope", _scope_of_account)),
    Fault("duplicate client id accepted", on(Sequencer, "check_client_id", _nothing)),
    Fault("client id not freed", on(Sequencer, "drop_client_id", _nothing)),
    Fault("duplicate numbers accepted", on(Sequencer, "admit", _accept_any_number)),
    Fault("gaps accepted", on(Sequencer, "admit", _accept_gaps)),
    Fault("order ids ignore occupied slots", on(Sequencer, "next_order_id", _ids_without_slots)),
    Fault("lowest free slot reused at once", on(Sequencer, "next_order_id", _lowest_free_slot)),
    Fault("last trade is no reference", on(Sequencer, "settle_fill", _forget_trades)),
    Fault("cover must exceed the need", on(Sequencer, "check_cover", _cover_leaves_one)),
    Fault("band excludes its bound", on(filters, "check_band", _band_excludes_bound)),
    Fault("upper band rounded up", on(filters, "floor_div", ceil_div)),
    Fault("lower band rounded down", on(filters, "ceil_div", floor_div)),
    Fault(
        "notional checked before quantity",
        on(filters, "FILTERS", _swapped(filters.FILTERS, "check_order_qty", "check_order_notional")),
    ),
    Fault("notional without a bound", on(filters, "check_notional", _notional_without_bound)),
    Fault("notional wraps at 64 bits", on(filters, "check_notional", _notional_wraps)),
    Fault("base units without a bound", on(filters, "check_notional", _base_units_unbounded)),
    Fault("enums unchecked", on(admission, "check_known", _nothing)),
    Fault("combinations unchecked", on(filters, "check_combination", _nothing)),
    Fault("price range unchecked", on(filters, "check_price", lambda instrument, price: price or 0)),
    Fault("no replace may be in flight", on(admission_changes, "REPLACES_IN_FLIGHT_MAX", 0)),
    *RULE_FAULTS,
)

# Only commands in flight together show these.
BURST_FAULTS: tuple[Fault, ...] = (
    Fault("cover of the newest terms only", on(Sequencer, "cover_with", _cover_newest_terms)),
    Fault("five replaces in flight", on(admission_changes, "REPLACES_IN_FLIGHT_MAX", 5)),
    Fault("three replaces in flight", on(admission_changes, "REPLACES_IN_FLIGHT_MAX", 3)),
)


_sound_terms_of = Sequencer.terms_of
_sound_matcher_report = MatcherReports.report


def _dearest_live_leg(self: PairHold) -> int:
    return max((leg.need() for leg in self.legs if not leg.is_done), default=0)


def _extra_as_wished(self: Sequencer, line: OrderLine, *, extra: int = 0) -> OrderTerms:
    terms = _sound_terms_of(self, line, extra=extra)
    terms.extra = terms.need
    return terms


def _only_trades_joined(self: Matcher, session: int, name: str, *, joined: bool = False, **options: Any) -> None:
    _sound_matcher_report(self, session, name, joined=joined and name == "OrderExecuted", **options)


# Rules that some order of admission, matching and marks shows to overspend, or to leave an order without its cover.
HAZARDS: tuple[Fault, ...] = (
    Fault("a pair holds what its dearest live leg needs", on(PairHold, "need", _dearest_live_leg)),
    Fault("marks may part a cancel from its successor", on(MatcherReports, "report", _only_trades_joined)),
    Fault("a successor's cover is taken for granted", on(Sequencer, "terms_of", _extra_as_wished)),
    Fault("hold of the newest terms", on(Sequencer, "required_hold", _hold_newest_terms)),
    Fault("cover of the newest terms", on(Sequencer, "cover_with", _cover_newest_terms)),
)
