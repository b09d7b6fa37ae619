"""From parameters to an order in ticks and lots: what is needed and not wanted, the static filters with details."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.web.api import CLIENT_ID, Call, Kind, Param
from gateway.web.auth import to_us
from gateway.web.decimals import DECIMALS, TooFine, parse, to_units, units_of
from gateway.web.errors import ApiError, bad_value, filter_failure, illegal, missing, not_wanted, too_precise
from gateway.web.orders import POST_ONLY, QUOTE_AMOUNT, STP_MODES, STRATEGY_ID_MAX, STRATEGY_TYPE_MAX, strategy_tag
from gateway.web.reference import Instrument, Reference
from ringbuf.wire import messages as wire

TYPES: dict[str, wire.OrdType] = {
    "LIMIT": wire.OrdType.LIMIT,
    "MARKET": wire.OrdType.MARKET,
    "LIMIT_MAKER": wire.OrdType.LIMIT,
    "STOP_LOSS": wire.OrdType.STOP,
    "STOP_LOSS_LIMIT": wire.OrdType.STOP_LIMIT,
    "TAKE_PROFIT": wire.OrdType.TAKE_PROFIT,
    "TAKE_PROFIT_LIMIT": wire.OrdType.TAKE_PROFIT_LIMIT,
}
EXPIRY_S_MAX = (1 << 32) - 2  # u32 of the wire; the largest says that there is none
SIDES = {"BUY": wire.Side.BUY, "SELL": wire.Side.SELL}
TIFS = {
    "GTC": wire.TimeInForce.GTC,
    "IOC": wire.TimeInForce.IOC,
    "FOK": wire.TimeInForce.FOK,
    "GTD": wire.TimeInForce.GTD,
    "DAY": wire.TimeInForce.DAY,
}
STP = {text: mode for mode, text in STP_MODES.items()}
PRICED = {"LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"}
TIMED = {"LIMIT", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"}
STOPS = {"STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"}
STRATEGY_TYPE_MIN = 1_000_000
SIDE = Param("side", required=True, choices=tuple(SIDES), bad_code=(-1117, "Invalid side."))
ORDER_TYPE = Param("type", required=True, choices=tuple(TYPES), bad_code=(-1116, "Invalid orderType."))
TIF = Param("timeInForce", choices=tuple(TIFS), bad_code=(-1115, "Invalid timeInForce."))
RESPONSE_TYPE = Param("newOrderRespType", choices=("ACK", "RESULT", "FULL"))
STP_MODE = Param("selfTradePreventionMode", choices=tuple(STP))
IDEMPOTENCY_KEY = Param(
    "idempotencyKey", pattern=CLIENT_ID,
    doc="a repeat with the same key returns the first answer, marked duplicate; kept as long as the order",
)  # fmt: skip
ORDER_PARAMS = (
    SIDE,
    ORDER_TYPE,
    TIF,
    Param("quantity", Kind.DECIMAL),
    Param("quoteOrderQty", Kind.DECIMAL, doc="MARKET only: spend or receive at most this much"),
    Param("price", Kind.DECIMAL),
    Param("newClientOrderId", pattern=CLIENT_ID, doc="unique among the open orders of the pair"),
    Param("strategyId", Kind.INTEGER, low=0, high=STRATEGY_ID_MAX),
    Param("strategyType", Kind.INTEGER, low=0, high=STRATEGY_TYPE_MAX),
    Param("stopPrice", Kind.DECIMAL),
    Param("trailingDelta", Kind.INTEGER, low=1, high=9999, doc="basis points"),
    Param("icebergQty", Kind.DECIMAL),
    RESPONSE_TYPE,
    STP_MODE,
    Param("goodTillDate", Kind.INTEGER, low=0, doc="with timeInForce GTD: ms or us since the epoch"),
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the parameters of one order say, before numbers: names are the API's."""

    type: str
    side: str
    tif: str | None
    quantity: str | None
    amount: str | None
    price: str | None
    stop_price: str | None
    trailing_delta: int | None
    iceberg: str | None
    client_id: str | None
    strategy_id: int | None
    strategy_type: int | None
    good_till: int | None
    stp_mode: str
    names: dict[str, str]  # what these fields are called in the request


@dataclass(slots=True)
class Built:
    """An order ready for the core. `details` goes before it, linked."""

    order: wire.NewOrderSingle
    details: wire.OrderDetails | None
    client_id: str

    @property
    def frames(self) -> tuple[wire.OrderDetails | wire.NewOrderSingle, ...]:
        return (self.order,) if self.details is None else (self.details, self.order)


def single_terms(call: Call) -> Terms:
    """Return the terms of an order whose parameters have their plain names."""
    return Terms(
        type=call.need("type"),
        side=call.need("side"),
        tif=call.get("timeInForce"),
        quantity=call.get("quantity"),
        amount=call.get("quoteOrderQty"),
        price=call.get("price"),
        stop_price=call.get("stopPrice"),
        trailing_delta=call.get("trailingDelta"),
        iceberg=call.get("icebergQty"),
        client_id=call.get("newClientOrderId"),
        strategy_id=call.get("strategyId"),
        strategy_type=call.get("strategyType"),
        good_till=call.get("goodTillDate"),
        stp_mode=call.get("selfTradePreventionMode", "NONE"),
        names={},
    )


def build(
    call: Call, instrument: Instrument, terms: Terms, *, list_role: wire.ListRole = wire.ListRole.NONE,
    idempotency: int = 0,
) -> Built:  # fmt: skip
    """Return the order. Raises ApiError for what cannot be meant or a static filter refuses."""
    _check_presence(terms)
    by_amount = terms.amount is not None
    price = None if terms.price is None else price_ticks(instrument, terms.price, _name(terms, "price"))
    stop = None if terms.stop_price is None else price_ticks(instrument, terms.stop_price, _name(terms, "stopPrice"))
    quantity = _quantity(call, instrument, terms)
    display = None
    if terms.iceberg is not None:
        display = _lots(instrument, terms.iceberg, _name(terms, "icebergQty"))
        if not 0 < display <= quantity:
            raise ApiError(-2010, "IcebergQty exceeds QTY.", details={"field": "icebergQty", "value": terms.iceberg})
    if price is not None and not by_amount:
        check_notional(call.gateway.reference, instrument, price, quantity)
    gateway = call.gateway
    client_id = terms.client_id or gateway.new_client_id()
    number = gateway.number_of(client_id)
    order = wire.NewOrderSingle(
        cl_ord_id=number,
        price=price,
        order_qty=quantity,
        display_qty=display,
        stop_px=stop,
        expire_time=None if terms.good_till is None else to_us(terms.good_till) // 1_000_000,
        trailing_delta=terms.trailing_delta or 0,
        list_role=list_role,
        client_tag=strategy_tag(terms.strategy_id, terms.strategy_type),
        instrument_id=instrument.id,
        account_id=call.account,
        exec_inst=POST_ONLY if terms.type == "LIMIT_MAKER" else QUOTE_AMOUNT if by_amount else 0,
        max_latency_us=gateway.max_latency_us(call),
        side=SIDES[terms.side],
        ord_type=TYPES[terms.type],
        time_in_force=TIFS[terms.tif or "GTC"],
        stp_mode=STP[terms.stp_mode],
    )
    needs_text = str(number) != client_id
    details = None
    if needs_text or idempotency:
        details = wire.OrderDetails(client_text=client_id if needs_text else "", idempotency_key=idempotency)
    return Built(order, details, client_id)


def _name(terms: Terms, field: str) -> str:
    return terms.names.get(field, field)


def _check_presence(terms: Terms) -> None:
    """What each type needs and does not want."""
    if terms.type == "MARKET":
        if (terms.quantity is None) == (terms.amount is None):
            raise missing("quantity") if terms.quantity is None else not_wanted("quoteOrderQty")
    elif terms.quantity is None:
        raise missing(_name(terms, "quantity"))
    unwanted = {
        "price": terms.price is not None and terms.type not in PRICED,
        "timeInForce": terms.tif is not None and terms.type not in TIMED,
        "stopPrice": terms.stop_price is not None and terms.type not in STOPS,
        "trailingDelta": terms.trailing_delta is not None and terms.type not in STOPS,
        "icebergQty": terms.iceberg is not None and terms.type not in PRICED,
        "quoteOrderQty": terms.amount is not None and terms.type != "MARKET",
        "goodTillDate": terms.good_till is not None and terms.tif != "GTD",
    }
    for field, sent in unwanted.items():
        if sent:
            raise not_wanted(_name(terms, field))
    if terms.type in PRICED and terms.price is None:
        raise missing(_name(terms, "price"))
    if terms.type in TIMED and terms.tif is None:
        raise missing(_name(terms, "timeInForce"))
    if terms.tif == "GTD" and terms.good_till is None:
        raise missing("goodTillDate")
    if terms.good_till is not None and to_us(terms.good_till) // 1_000_000 > EXPIRY_S_MAX:
        raise bad_value("goodTillDate", f"It must be at most {EXPIRY_S_MAX}000.")
    if terms.type in STOPS and terms.stop_price is None and terms.trailing_delta is None:
        raise missing(_name(terms, "stopPrice"))
    if terms.iceberg is not None and (terms.tif or "GTC") not in ("GTC", "GTD", "DAY"):
        raise ApiError(-1013, "Unsupported order combination", details={"field": _name(terms, "icebergQty")})
    if terms.strategy_type is not None and terms.strategy_type < STRATEGY_TYPE_MIN:
        raise ApiError(-1134, "strategyType was less than 1000000.", details={"field": "strategyType"})


def price_ticks(instrument: Instrument, text: str, name: str = "price") -> int:
    """Return a price in ticks. Raises ApiError -1111, or -1013 PRICE_FILTER with the nearest valid prices."""
    limits = instrument.limits
    try:
        ticks = _multiple(text, instrument.price_exponent, instrument.tick_size, name)
    except TooFine:
        low = _floor(text, instrument.price_exponent) // instrument.tick_size
        nearest = [instrument.price_text(low), instrument.price_text(low + 1)]
        step = instrument.price_text(1)
        raise filter_failure("PRICE_FILTER", field=name, value=text, tickSize=step, nearest=nearest) from None
    if not limits.min_px <= ticks <= limits.max_px:
        raise filter_failure(
            "PRICE_FILTER", field=name, value=text, minPrice=instrument.price_text(limits.min_px),
            maxPrice=instrument.price_text(limits.max_px),
            nearest=[instrument.price_text(min(max(ticks, limits.min_px), limits.max_px))],
        )  # fmt: skip
    return ticks


def _multiple(text: str, exponent: int, size: int, name: str) -> int:
    """Return how many steps of `size` units a number is. Raises ApiError -1111, TooFine, NotANumber."""
    mantissa, own = parse(text)
    if -own > DECIMALS and own < exponent:
        raise too_precise(name, DECIMALS)
    count, rest = divmod(units_of(mantissa, own, exponent, text), size)
    if rest:
        raise TooFine(text)
    return count


def _floor(text: str, exponent: int) -> int:
    mantissa, own = parse(text)
    return mantissa // int(10 ** (exponent - own)) if own < exponent else mantissa * int(10 ** (own - exponent))


def _lots(instrument: Instrument, text: str, name: str, kind: str = "LOT_SIZE") -> int:
    try:
        return _multiple(text, instrument.qty_exponent, instrument.lot_size, name)
    except TooFine:
        low = _floor(text, instrument.qty_exponent) // instrument.lot_size
        nearest = [instrument.qty_text(low), instrument.qty_text(low + 1)]
        step = instrument.qty_text(1)
        raise filter_failure(kind, field=name, value=text, stepSize=step, nearest=nearest) from None


def quantity_lots(instrument: Instrument, text: str, *, name: str = "quantity", market: bool = False) -> int:
    """Return a quantity in lots. Raises ApiError -1111, or -1013 LOT_SIZE or MARKET_LOT_SIZE."""
    limits = instrument.limits
    lots = _lots(instrument, text, name)
    low, high, kind = limits.min_qty, limits.max_qty, "LOT_SIZE"
    if market and (limits.market_min_qty or limits.market_max_qty):
        low, high, kind = limits.market_min_qty or low, limits.market_max_qty or high, "MARKET_LOT_SIZE"
    if not low <= lots <= high:
        raise filter_failure(
            kind, field=name, value=text, minQty=instrument.qty_text(low), maxQty=instrument.qty_text(high),
            nearest=[instrument.qty_text(min(max(lots, low), high))],
        )  # fmt: skip
    return lots


def _quantity(call: Call, instrument: Instrument, terms: Terms) -> int:
    if terms.amount is None:
        assert terms.quantity is not None  # _check_presence has seen to it
        name = _name(terms, "quantity")
        return quantity_lots(instrument, terms.quantity, name=name, market=terms.type == "MARKET")
    asset = call.gateway.reference.assets[instrument.quote_asset]
    try:
        units = to_units(terms.amount, asset.exponent)
    except TooFine:
        raise too_precise("quoteOrderQty", -asset.exponent) from None
    if units == 0:
        raise illegal("quoteOrderQty", "greater than 0")
    return units


def check_notional(reference: Reference, instrument: Instrument, price: int, quantity: int) -> None:
    """Raise ApiError -1013 NOTIONAL unless price times quantity is within the pair's limits."""
    limits = instrument.limits
    units = price * quantity * instrument.quote_per_tick_lot
    text = reference.quote_text
    if units < limits.min_notional or (limits.max_notional and units > limits.max_notional):
        raise filter_failure(
            "NOTIONAL", field="price * quantity", value=text(instrument, units),
            minNotional=text(instrument, limits.min_notional), maxNotional=text(instrument, limits.max_notional),
        )  # fmt: skip
