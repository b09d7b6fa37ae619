"""The checks of a request that need no state of their own: shape, features, ranges, price band."""

from __future__ import annotations

from dataclasses import dataclass

from ringbuf.wire.messages import (
    ExecInst,
    InstrumentAdd,
    InstrumentLimits,
    ListRole,
    MassCancelRequest,
    MassCancelScope,
    NewOrderSingle,
    OrdType,
    RejectCode,
    Side,
    SideOrBoth,
    StpMode,
    TimeInForce,
)
from tests.oracle.accounts import ceil_div, floor_div
from tests.oracle.choices import BAND_SCALE, MONEY_LIMIT

EXEC_INST_KNOWN = 0x1F
EXEC_INST_LATER = ExecInst.QUOTE_AMOUNT | ExecInst.REDUCE_ONLY | ExecInst.HIDDEN


class Refusal(Exception):
    """A reject code and the bound that was passed (0 = none)."""

    def __init__(self, code: int, limit: int = 0) -> None:
        super().__init__(code, limit)
        self.code = code
        self.limit = limit


@dataclass(slots=True)
class Instrument:
    """One instrument at the sequencer."""

    definition: InstrumentAdd
    limits: InstrumentLimits
    last_trade_px: int | None = None

    def reference(self) -> int | None:
        return self.limits.reference_px if self.last_trade_px is None else self.last_trade_px

    def notional(self, price: int, quantity: int) -> int:
        return price * quantity * self.definition.quote_per_tick_lot

    def asset_paid(self, side: int) -> int:
        return self.definition.quote_asset_id if side == Side.BUY else self.definition.base_asset_id

    def asset_received(self, side: int) -> int:
        return self.definition.base_asset_id if side == Side.BUY else self.definition.quote_asset_id

    def hold_for(self, side: int, price: int, quantity: int) -> int:
        """Return what an order must hold for this many lots still to fill."""
        if side == Side.BUY:
            return self.notional(price, quantity)
        return quantity * self.definition.base_per_lot


def check_shape(message: object) -> None:
    """Refuse a value outside its enum, in the order of the fields."""
    if isinstance(message, NewOrderSingle):
        if message.list_role not in set(ListRole):
            raise Refusal(RejectCode.INVALID_COMBINATION)
        if message.exec_inst & ~EXEC_INST_KNOWN:
            raise Refusal(RejectCode.INVALID_COMBINATION)
        if message.side not in set(Side):
            raise Refusal(RejectCode.INVALID_SIDE)
        if message.ord_type not in set(OrdType):
            raise Refusal(RejectCode.INVALID_ORD_TYPE)
        if message.time_in_force not in set(TimeInForce):
            raise Refusal(RejectCode.INVALID_TIME_IN_FORCE)
        if message.stp_mode not in set(StpMode):
            raise Refusal(RejectCode.INVALID_STP)
    elif isinstance(message, MassCancelRequest) and (
        message.side not in set(SideOrBoth)
        or message.scope not in set(MassCancelScope)
        or message.mass_flags & ~3
    ):
        raise Refusal(RejectCode.INVALID_COMBINATION)


def check_features(message: NewOrderSingle, stp_group_id: int) -> None:
    """Refuse what the exchange does not do yet and combinations without sense."""
    if message.ord_type not in (OrdType.MARKET, OrdType.LIMIT):
        raise Refusal(RejectCode.INVALID_ORD_TYPE)
    if message.display_qty is not None:
        raise Refusal(RejectCode.INVALID_DISPLAY_QTY)
    if message.stop_px is not None:
        raise Refusal(RejectCode.INVALID_STOP_PX)
    if message.trailing_delta != 0:
        raise Refusal(RejectCode.INVALID_TRAILING_DELTA)
    if message.list_role != ListRole.NONE:
        raise Refusal(RejectCode.INVALID_LIST)
    if message.expire_time is not None:
        raise Refusal(RejectCode.INVALID_EXPIRE)
    if message.exec_inst & EXEC_INST_LATER:
        raise Refusal(RejectCode.INVALID_COMBINATION)
    if message.time_in_force in (TimeInForce.GTD, TimeInForce.DAY):
        raise Refusal(RejectCode.INVALID_TIME_IN_FORCE)
    if message.stp_group_id not in (0, stp_group_id):
        raise Refusal(RejectCode.INVALID_STP)
    is_market = message.ord_type == OrdType.MARKET
    if is_market and message.price is not None:
        raise Refusal(RejectCode.INVALID_PRICE)
    is_immediate = is_market or message.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
    if message.exec_inst & ExecInst.POST_ONLY and is_immediate:
        raise Refusal(RejectCode.INVALID_COMBINATION)


def check_price(instrument: Instrument, price: int | None) -> int:
    limits = instrument.limits
    if price is None or price < limits.min_px:
        raise Refusal(RejectCode.INVALID_PRICE, limits.min_px)
    if price > limits.max_px:
        raise Refusal(RejectCode.INVALID_PRICE, limits.max_px)
    return price


def check_quantity(instrument: Instrument, quantity: int) -> None:
    limits = instrument.limits
    if quantity <= 0:
        raise Refusal(RejectCode.INVALID_QTY, limits.min_qty)
    if quantity < limits.min_qty:
        raise Refusal(RejectCode.MIN_QTY, limits.min_qty)
    if quantity > limits.max_qty:
        raise Refusal(RejectCode.MAX_QTY, limits.max_qty)


def check_notional(instrument: Instrument, price: int, quantity: int) -> None:
    limits = instrument.limits
    notional = instrument.notional(price, quantity)
    base_units = quantity * instrument.definition.base_per_lot
    is_above_maximum = limits.max_notional > 0 and notional > limits.max_notional
    if notional >= MONEY_LIMIT or base_units >= MONEY_LIMIT or is_above_maximum:
        raise Refusal(RejectCode.MAX_NOTIONAL, limits.max_notional or MONEY_LIMIT - 1)
    if notional < limits.min_notional:
        raise Refusal(RejectCode.MIN_NOTIONAL, limits.min_notional)


def band_limit(instrument: Instrument, side: int) -> int | None:
    """Return the worst price the band allows, rounded inwards; None without band or reference."""
    reference = instrument.reference()
    bps = instrument.limits.band_up_bps if side == Side.BUY else instrument.limits.band_down_bps
    if bps == 0 or reference is None:
        return None
    if side == Side.BUY:
        return floor_div(reference * (BAND_SCALE + bps), BAND_SCALE)
    return ceil_div(reference * (BAND_SCALE - bps), BAND_SCALE)


def check_band(instrument: Instrument, side: int, price: int) -> None:
    bound = band_limit(instrument, side)
    if bound is None:
        return
    if (side == Side.BUY and price > bound) or (side == Side.SELL and price < bound):
        raise Refusal(RejectCode.PRICE_BAND, bound)


def protection_price(instrument: Instrument, side: int) -> int:
    """Return the price a market order never trades beyond."""
    bound = band_limit(instrument, side)
    if bound is not None:
        return min(max(bound, instrument.limits.min_px), instrument.limits.max_px)
    if side == Side.BUY:
        raise Refusal(RejectCode.NO_REFERENCE_PRICE)
    return instrument.limits.min_px
