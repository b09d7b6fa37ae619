"""The checks of an order that need no state of the sequencer but its instrument: checks 6 to 23 of MATCHING.md.

`shape` holds what the enums allow; each function here is one row of the table, in its order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ringbuf.wire.messages import (
    ExecInst,
    InstrumentAdd,
    InstrumentLimits,
    InstrumentRules,
    NewOrderSingle,
    NotionalFlags,
    OrderDetails,
    OrdType,
    RejectCode,
    Side,
    StpModes,
    TimeInForce,
)
from tests.oracle.accounts import Account, ceil_div, floor_div
from tests.oracle.choices import BAND_SCALE, DAY_SECONDS, MONEY_LIMIT, SECOND_NS, TRAILING_DELTA_MAX
from tests.oracle.orders import DATED, IMMEDIATE, MARKET_TYPES, WAITING_TYPES, goes_up

NO_LIMITS = InstrumentLimits(min_qty=1, max_qty=(1 << 63) - 1, min_px=1, max_px=(1 << 63) - 1)
NO_RULES = InstrumentRules(notional_flags=NotionalFlags.MARKET_MIN | NotionalFlags.MARKET_MAX)
ICEBERG_TYPES = (OrdType.LIMIT, OrdType.STOP_LIMIT, OrdType.TAKE_PROFIT_LIMIT)
RESTING_TIFS = (TimeInForce.GTC, *DATED)


class Refusal(Exception):
    """A reject code and the bound that was passed (0 = none)."""

    def __init__(self, code: int, limit: int = 0) -> None:
        super().__init__(code, limit)
        self.code = code
        self.limit = limit


@dataclass(slots=True, eq=False)
class Instrument:
    """One instrument at the sequencer."""

    definition: InstrumentAdd
    orders_max: int = 1
    limits: InstrumentLimits = NO_LIMITS
    rules: InstrumentRules = NO_RULES
    last_trade_px: int | None = None

    @property
    def instrument_id(self) -> int:
        return self.definition.instrument_id

    def reference(self) -> int | None:
        return self.limits.reference_px if self.last_trade_px is None else self.last_trade_px

    def notional(self, price: int, quantity: int) -> int:
        return price * quantity * self.definition.quote_per_tick_lot

    def lots_for(self, amount: int, price: int) -> int:
        return amount // self.notional(price, 1)

    def asset_paid(self, side: int) -> int:
        return self.definition.quote_asset_id if side == Side.BUY else self.definition.base_asset_id

    def asset_received(self, side: int) -> int:
        return self.definition.base_asset_id if side == Side.BUY else self.definition.quote_asset_id

    def hold_for(self, side: int, price: int, quantity: int) -> int:
        """Return what an order must hold for this many lots still to fill."""
        if side == Side.BUY:
            return self.notional(price, quantity)
        return quantity * self.definition.base_per_lot


@dataclass(slots=True, eq=False)
class OrderRequest:
    """An order on its way through admission, with what the checks have found out."""

    message: NewOrderSingle
    seq_num: int
    stamp_ns: int
    session: Any
    details: OrderDetails | None = None
    age_us: int = 0
    # The place it must have in an order list, and the legs before it.
    role: int = 0
    earlier: list[OrderRequest] = field(default_factory=list)
    # An order list's pending leg whose time has come.
    is_due: bool = False
    # Hold of an order that the same group cancels: it may serve this one.
    other_cover: int = 0
    account: Account = field(default_factory=lambda: Account(0))
    instrument: Instrument = field(default_factory=lambda: Instrument(InstrumentAdd()))
    # The limit, or the protection price of a market type.
    price: int = 0
    need: int = 0

    @property
    def side(self) -> int:
        return self.message.side

    @property
    def is_market_type(self) -> bool:
        return self.message.ord_type in MARKET_TYPES

    @property
    def is_waiting_type(self) -> bool:
        return self.message.ord_type in WAITING_TYPES

    @property
    def is_quote_amount(self) -> bool:
        return bool(self.message.exec_inst & ExecInst.QUOTE_AMOUNT)

    @property
    def is_post_only(self) -> bool:
        return bool(self.message.exec_inst & ExecInst.POST_ONLY)

    @property
    def display_is_minimum(self) -> bool:
        return bool(self.message.exec_inst & ExecInst.DISPLAY_IS_MINIMUM)

    @property
    def detail_min_qty(self) -> int | None:
        return None if self.details is None else self.details.min_qty

    @property
    def first_display(self) -> int | None:
        return None if self.details is None else self.details.initial_display_qty

    @property
    def min_qty(self) -> int:
        """Return the minimum quantity, from wherever it was given; 0 = none."""
        return (self.message.display_qty if self.display_is_minimum else self.detail_min_qty) or 0

    @property
    def display(self) -> int | None:
        """Return the display quantity of an iceberg; an order that shows all is none."""
        shown = None if self.display_is_minimum else self.message.display_qty
        return None if shown == self.message.order_qty else shown

    @property
    def lots(self) -> int:
        """Return the lots it may trade at most; of a buy by quote amount none are known."""
        if not self.is_quote_amount:
            return self.message.order_qty
        return 0 if self.side == Side.BUY else self.instrument.lots_for(self.message.order_qty, self.price)

    @property
    def stamp_s(self) -> int:
        return self.stamp_ns // SECOND_NS


def effective_tif(message: NewOrderSingle) -> int:
    """Return the time in force an order has: a market order never rests."""
    if message.ord_type == OrdType.MARKET and message.time_in_force == TimeInForce.GTC:
        return TimeInForce.IOC
    return message.time_in_force


def expiry_of(request: OrderRequest) -> int | None:
    """Return the second at which the order expires: as asked, or the next end of the day after the stamp."""
    if request.message.time_in_force != TimeInForce.DAY:
        return request.message.expire_time
    end = request.instrument.rules.day_end_second
    passed = (request.stamp_s - end) // DAY_SECONDS
    return end + (passed + 1) * DAY_SECONDS


# -- shape: checks 6 to 15 -------------------------------------------------------------------------------------------


def check_role(request: OrderRequest) -> None:
    if request.message.list_role != request.role or (request.details is not None and request.details.list_id):
        raise Refusal(RejectCode.INVALID_LIST)


def check_combination(request: OrderRequest) -> None:
    message = request.message
    is_limit = message.ord_type == OrdType.LIMIT
    if message.exec_inst & ExecInst.HIDDEN:
        raise Refusal(RejectCode.INVALID_COMBINATION)
    if request.is_post_only and not (is_limit and message.time_in_force in RESTING_TIFS):
        raise Refusal(RejectCode.INVALID_COMBINATION)
    if request.is_quote_amount:
        is_plain = message.display_qty is None and request.detail_min_qty is None and request.first_display is None
        is_immediate = message.time_in_force in (TimeInForce.GTC, TimeInForce.IOC)
        if message.ord_type != OrdType.MARKET or not is_immediate or not is_plain or request.display_is_minimum:
            raise Refusal(RejectCode.INVALID_COMBINATION)


def check_trailing_shape(request: OrderRequest) -> None:
    delta = request.message.trailing_delta
    delta_max = TRAILING_DELTA_MAX if request.is_waiting_type else 0
    if delta > delta_max:
        raise Refusal(RejectCode.INVALID_TRAILING_DELTA, delta_max)


def check_stop_shape(request: OrderRequest) -> None:
    message = request.message
    if request.is_waiting_type:
        if message.stop_px is None and message.trailing_delta == 0:
            raise Refusal(RejectCode.INVALID_STOP_PX)
    elif message.stop_px is not None:
        raise Refusal(RejectCode.INVALID_STOP_PX)


def check_no_price(request: OrderRequest) -> None:
    if request.is_market_type and request.message.price is not None:
        raise Refusal(RejectCode.INVALID_PRICE, request.instrument.limits.min_px)


def check_time_in_force(request: OrderRequest) -> None:
    """A market order is immediate; the TIF of a stop without a limit says how long it waits."""
    message = request.message
    unfit: tuple[int, ...] = ()
    if message.ord_type == OrdType.MARKET:
        unfit = DATED
    elif request.is_market_type:
        unfit = IMMEDIATE
    if message.time_in_force in unfit:
        raise Refusal(RejectCode.INVALID_TIME_IN_FORCE)


def check_expire(request: OrderRequest) -> None:
    message = request.message
    is_gtd = message.time_in_force == TimeInForce.GTD
    if is_gtd != (message.expire_time is not None):
        raise Refusal(RejectCode.INVALID_EXPIRE, request.stamp_s)
    if message.expire_time is not None and message.expire_time <= request.stamp_s:
        raise Refusal(RejectCode.INVALID_EXPIRE, request.stamp_s)


def check_min_qty(request: OrderRequest) -> None:
    message = request.message
    by_display = message.display_qty if request.display_is_minimum else None
    if request.detail_min_qty is None and not request.display_is_minimum:
        return
    is_twice = request.detail_min_qty is not None and request.display_is_minimum
    minimum = by_display if request.display_is_minimum else request.detail_min_qty
    is_fitting = (
        message.ord_type in (OrdType.LIMIT, OrdType.MARKET)
        and message.time_in_force != TimeInForce.FOK
        and not request.is_post_only
    )
    if is_twice or minimum is None or not 0 < minimum <= message.order_qty or not is_fitting:
        raise Refusal(RejectCode.INVALID_MIN_QTY, message.order_qty)


def check_iceberg(request: OrderRequest) -> None:
    message = request.message
    shown = None if request.display_is_minimum else message.display_qty
    if shown is None:
        if request.first_display is not None:
            raise Refusal(RejectCode.INVALID_DISPLAY_QTY, message.order_qty)
        return
    is_fitting = message.ord_type in ICEBERG_TYPES and message.time_in_force in RESTING_TIFS
    if not 0 < shown <= message.order_qty or not is_fitting:
        raise Refusal(RejectCode.INVALID_DISPLAY_QTY, message.order_qty)
    if shown < request.instrument.limits.min_qty and shown != message.order_qty:
        raise Refusal(RejectCode.INVALID_DISPLAY_QTY, request.instrument.limits.min_qty)
    if request.first_display is not None and not 0 < request.first_display <= message.order_qty:
        raise Refusal(RejectCode.INVALID_DISPLAY_QTY, message.order_qty)


def check_stp(request: OrderRequest) -> None:
    check_stp_of(request.message, request.account, request.instrument)


def check_stp_of(message: Any, account: Account, instrument: Instrument) -> None:
    """Check group and mode of an order or quote."""
    allowed = instrument.rules.stp_modes
    if message.stp_group_id not in (0, account.stp_group_id):
        raise Refusal(RejectCode.INVALID_STP)
    if allowed and not allowed & StpModes(1 << message.stp_mode):
        raise Refusal(RejectCode.INVALID_STP)


# -- ranges: checks 16 to 20 -----------------------------------------------------------------------------------------


def check_limit_price(request: OrderRequest) -> None:
    if not request.is_market_type:
        request.price = check_price(request.instrument, request.message.price)


def check_price(instrument: Instrument, price: int | None) -> int:
    limits = instrument.limits
    if price is None or price < limits.min_px:
        raise Refusal(RejectCode.INVALID_PRICE, limits.min_px)
    if price > limits.max_px:
        raise Refusal(RejectCode.INVALID_PRICE, limits.max_px)
    return price


def check_stop_range(request: OrderRequest) -> None:
    stop_px, limits = request.message.stop_px, request.instrument.limits
    if stop_px is None:
        return
    if stop_px < limits.min_px:
        raise Refusal(RejectCode.INVALID_STOP_PX, limits.min_px)
    if stop_px > limits.max_px:
        raise Refusal(RejectCode.INVALID_STOP_PX, limits.max_px)
    if stop_px < 0 and request.is_market_type:
        raise Refusal(RejectCode.INVALID_STOP_PX)


def check_trailing_range(request: OrderRequest) -> None:
    delta, rules = request.message.trailing_delta, request.instrument.rules
    if delta == 0:
        return
    if goes_up(request.message.ord_type, request.side):
        least, most = rules.trailing_above_min, rules.trailing_above_max
    else:
        least, most = rules.trailing_below_min, rules.trailing_below_max
    if delta < least:
        raise Refusal(RejectCode.INVALID_TRAILING_DELTA, least)
    if most and delta > most:
        raise Refusal(RejectCode.INVALID_TRAILING_DELTA, most)


def check_order_qty(request: OrderRequest) -> None:
    message = request.message
    if not request.is_quote_amount:
        is_free = not request.is_market_type and request.price == 0
        check_quantity(request.instrument, message.order_qty, ord_type=message.ord_type, is_free=is_free)
    elif message.order_qty <= 0:
        raise Refusal(RejectCode.INVALID_QTY, quantity_bounds(request.instrument, message.ord_type)[0])
    elif message.order_qty >= MONEY_LIMIT:
        raise Refusal(RejectCode.MAX_QTY, MONEY_LIMIT - 1)


def quantity_bounds(instrument: Instrument, ord_type: int) -> tuple[int, int]:
    """Return the smallest and largest quantity; market orders may have bounds of their own."""
    limits, rules = instrument.limits, instrument.rules
    if ord_type != OrdType.MARKET:
        return limits.min_qty, limits.max_qty
    return rules.market_min_qty or limits.min_qty, rules.market_max_qty or limits.max_qty


def check_quantity(instrument: Instrument, quantity: int, *, ord_type: int, is_free: bool = False) -> None:
    """Check the range. At price 0 nothing else bounds what an order adds to its level."""
    least, most = quantity_bounds(instrument, ord_type)
    if quantity <= 0:
        raise Refusal(RejectCode.INVALID_QTY, least)
    if quantity < least:
        raise Refusal(RejectCode.MIN_QTY, least)
    if is_free:
        most = min(most, MONEY_LIMIT // instrument.orders_max)
    if quantity > most:
        raise Refusal(RejectCode.MAX_QTY, most)


def check_parts(request: OrderRequest) -> None:
    if request.display is not None:
        check_iceberg_parts(request.instrument, request.message.order_qty, request.display)


def check_iceberg_parts(instrument: Instrument, total: int, display: int) -> None:
    parts_max = instrument.rules.iceberg_parts_max
    if parts_max and ceil_div(total, display) > parts_max:
        raise Refusal(RejectCode.ICEBERG_PARTS, parts_max)


# -- prices that the market gives: checks 21 to 23 -------------------------------------------------------------------


def upper_edge(base: int, bps: int) -> int:
    return floor_div(base * (BAND_SCALE + bps), BAND_SCALE)


def lower_edge(base: int, bps: int) -> int:
    return ceil_div(base * (BAND_SCALE - bps), BAND_SCALE)


def trigger_base(request: OrderRequest) -> int | None:
    """Return where a waiting order is expected to fire: its stop price or the reference, moved by the delta."""
    message = request.message
    base = request.instrument.reference() if message.stop_px is None else message.stop_px
    if base is None or message.trailing_delta == 0:
        return base
    if request.side == Side.BUY:
        return ceil_div(base * (BAND_SCALE + message.trailing_delta), BAND_SCALE)
    return floor_div(base * (BAND_SCALE - message.trailing_delta), BAND_SCALE)


def check_protection(request: OrderRequest) -> None:
    """Find the price that a market type never trades beyond."""
    if not request.is_market_type:
        return
    base = trigger_base(request) if request.is_waiting_type else request.instrument.reference()
    request.price = protection_price(request, base)
    if request.is_quote_amount and request.price <= 0:
        raise Refusal(RejectCode.NO_REFERENCE_PRICE)


def protection_price(request: OrderRequest, base: int | None) -> int:
    limits = request.instrument.limits
    must_have_base = request.is_waiting_type or request.is_quote_amount or request.side == Side.BUY
    bps = limits.band_up_bps if request.side == Side.BUY else limits.band_down_bps
    must_have_band = request.is_quote_amount or request.side == Side.BUY
    if (base is None and must_have_base) or (bps == 0 and must_have_band):
        raise Refusal(RejectCode.NO_REFERENCE_PRICE)
    if base is None or bps == 0:
        return limits.min_px
    if request.side == Side.BUY:
        return min(limits.max_px, upper_edge(base, bps))
    return max(limits.min_px, lower_edge(base, bps))


def check_order_notional(request: OrderRequest) -> None:
    instrument, message = request.instrument, request.message
    units = message.order_qty if request.is_quote_amount else instrument.notional(request.price, message.order_qty)
    check_notional(instrument, units, request.lots, is_market=request.is_market_type)


def check_notional(instrument: Instrument, units: int, lots: int, *, is_market: bool) -> None:
    """Check notional and base units against 2^62, and the notional against its range where that holds."""
    limits, flags = instrument.limits, instrument.rules.notional_flags
    has_max = limits.max_notional > 0 and (not is_market or flags & NotionalFlags.MARKET_MAX)
    has_min = not is_market or flags & NotionalFlags.MARKET_MIN
    is_huge = units >= MONEY_LIMIT or lots * instrument.definition.base_per_lot >= MONEY_LIMIT
    if is_huge or (has_max and units > limits.max_notional):
        raise Refusal(RejectCode.MAX_NOTIONAL, limits.max_notional if has_max else MONEY_LIMIT - 1)
    if has_min and units < limits.min_notional:
        raise Refusal(RejectCode.MIN_NOTIONAL, limits.min_notional)


def check_order_band(request: OrderRequest) -> None:
    if request.is_market_type:
        return
    base = trigger_base(request) if request.is_waiting_type else request.instrument.reference()
    check_band(request.instrument, request.side, request.price, base)


def check_band(instrument: Instrument, side: int, price: int, base: int | None) -> None:
    """Check a limit against the band around a base; a bound of 0 is off."""
    low, high = band_edges(instrument, side, base)
    if high is not None and price > high:
        raise Refusal(RejectCode.PRICE_BAND, high)
    if low is not None and price < low:
        raise Refusal(RejectCode.PRICE_BAND, low)


def band_edges(instrument: Instrument, side: int, base: int | None) -> tuple[int | None, int | None]:
    """Return the lowest and highest price the band allows, rounded inwards."""
    limits, rules = instrument.limits, instrument.rules
    if base is None:
        return None, None
    if side == Side.BUY:
        down, up = rules.bid_down_bps, limits.band_up_bps
    else:
        down, up = limits.band_down_bps, rules.ask_up_bps
    return (lower_edge(base, down) if down else None, upper_edge(base, up) if up else None)


# Checks 6 to 23, in their order.
FILTERS = (
    "check_role",
    "check_combination",
    "check_trailing_shape",
    "check_stop_shape",
    "check_no_price",
    "check_time_in_force",
    "check_expire",
    "check_min_qty",
    "check_iceberg",
    "check_stp",
    "check_limit_price",
    "check_stop_range",
    "check_trailing_range",
    "check_order_qty",
    "check_parts",
    "check_protection",
    "check_order_notional",
    "check_order_band",
)


def check_filters(request: OrderRequest) -> None:
    """Run the checks 6 to 23 in their order."""
    # By name, so that a planted fault takes effect.
    for name in FILTERS:
        globals()[name](request)
