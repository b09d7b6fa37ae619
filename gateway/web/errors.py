"""Errors of the API: code, HTTP status and text as clients know them, and `details` that say what was wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringbuf.wire import messages as wire

OK = 200
BAD_REQUEST = 400
UNAUTHORIZED = 401
CONFLICT = 409
BANNED = 418
LIMITED = 429
INTERNAL = 500
UNAVAILABLE = 503
TIMEOUT = 504

TIME_OUTSIDE = "Timestamp for this request is outside of the recvWindow."
TIME_AHEAD = "Timestamp for this request was 1000ms ahead of the server's time."
INSUFFICIENT = "Account has insufficient balance for requested action."
UNKNOWN_ORDER = "Unknown order sent."
ACTION_DISABLED = "This action is disabled on this account."
MARKET_CLOSED = "Market is closed."


class ApiError(Exception):
    """What a client is answered. `extra` is put beside code and msg (cancelReplace: data)."""

    def __init__(
        self,
        code: int,
        msg: str,
        *,
        status: int = BAD_REQUEST,
        details: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(f"{code}: {msg}")
        self.code = code
        self.msg = msg
        self.status = status
        self.details = details
        self.extra = extra
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """Return the JSON of a REST answer."""
        body: dict[str, Any] = {"code": self.code, "msg": self.msg}
        if self.details:
            body["details"] = dict(self.details)
        if self.extra:
            body |= self.extra
        return body


def filter_failure(name: str, **details: Any) -> ApiError:
    """Return -1013 of a filter; give field, value, limit, nearest valid where they are known."""
    return ApiError(-1013, f"Filter failure: {name}", details={"filter": name, **details})


def missing(name: str) -> ApiError:
    text = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
    return ApiError(-1102, text, details={"field": name})


def illegal(name: str, legal: str) -> ApiError:
    text = f"Illegal characters found in parameter '{name}'; legal range is '{legal}'."
    return ApiError(-1100, text, details={"field": name, "legal": legal})


def not_wanted(name: str) -> ApiError:
    return ApiError(-1106, f"Parameter '{name}' sent when not required.", details={"field": name})


def bad_value(name: str, why: str = "") -> ApiError:
    text = f"Data sent for parameter '{name}' is not valid." + (f" {why}" if why else "")
    return ApiError(-1130, text, details={"field": name})


def empty(name: str) -> ApiError:
    return ApiError(-1105, f"Parameter '{name}' was empty.", details={"field": name})


def combination() -> ApiError:
    return ApiError(-1128, "Combination of optional parameters invalid.")


def bad_symbol() -> ApiError:
    return ApiError(-1121, "Invalid symbol.", details={"field": "symbol"})


def too_precise(name: str, decimals: int) -> ApiError:
    text = "Precision is over the maximum defined for this asset."
    return ApiError(-1111, text, details={"field": name, "decimals": decimals})


def no_order() -> ApiError:
    return ApiError(-2013, "Order does not exist.")


def unavailable() -> ApiError:
    """Nothing was done; the same request may be sent again."""
    text = "Server is currently overloaded with other requests. Please try again in a few minutes."
    return ApiError(-1008, text, status=UNAVAILABLE, retry_after_s=1)


def outcome_unknown() -> ApiError:
    text = "Timeout waiting for response from backend server. Send status unknown; execution status unknown."
    return ApiError(-1007, text, status=TIMEOUT)


def stale(server_time_ms: int) -> ApiError:
    """The sequencer refused: the deadline had passed. The order certainly was not and will not be placed."""
    return ApiError(-1021, TIME_OUTSIDE, details={"serverTime": server_time_ms, "appliedBy": "sequencer"})


Code = wire.RejectCode
_FILTERS: dict[int, str] = {
    Code.INVALID_PRICE: "PRICE_FILTER",
    Code.PRICE_TICK: "PRICE_FILTER",
    Code.INVALID_STOP_PX: "PRICE_FILTER",
    Code.INVALID_QTY: "LOT_SIZE",
    Code.LOT_SIZE: "LOT_SIZE",
    Code.MIN_QTY: "LOT_SIZE",
    Code.MAX_QTY: "LOT_SIZE",
    Code.MIN_NOTIONAL: "NOTIONAL",
    Code.MAX_NOTIONAL: "NOTIONAL",
    Code.ICEBERG_PARTS: "ICEBERG_PARTS",
    Code.INVALID_TRAILING_DELTA: "TRAILING_DELTA",
    Code.POSITION_LIMIT: "MAX_POSITION",
    Code.OPEN_ORDER_LIMIT: "MAX_NUM_ORDERS",
    Code.ALGO_ORDER_LIMIT: "MAX_NUM_ALGO_ORDERS",
    Code.ICEBERG_ORDER_LIMIT: "MAX_NUM_ICEBERG_ORDERS",
    Code.ORDER_LIST_LIMIT: "MAX_NUM_ORDER_LISTS",
    Code.PRICE_BAND: "PERCENT_PRICE_BY_SIDE",
}
_CLOSED = {
    Code.MARKET_HALTED, Code.MARKET_CLOSED, Code.CANCEL_ONLY, Code.POST_ONLY_ONLY, Code.AUCTION_ONLY, Code.PAIR_PAUSED,
}  # fmt: skip
_BUSY = {
    Code.SYSTEM_BUSY, Code.NOT_READY, Code.ORDER_CAPACITY, Code.BALANCE_CAPACITY, Code.RISK_UNAVAILABLE,
    Code.LIST_CAPACITY, Code.QUOTE_CAPACITY, Code.ALGO_CAPACITY,
}  # fmt: skip
_TEXTS: dict[int, tuple[int, str]] = {
    Code.INSUFFICIENT_BALANCE: (-2010, INSUFFICIENT),
    Code.WOULD_TAKE_LIQUIDITY: (-2010, "Order would immediately match and take."),
    Code.WOULD_TRIGGER_IMMEDIATELY: (-2010, "Order would trigger immediately."),
    Code.DUPLICATE_CL_ORD_ID: (-2010, "Duplicate order sent."),
    Code.ACCOUNT_LOCKED: (-2010, ACTION_DISABLED),
    Code.KILL_SWITCH: (-2010, ACTION_DISABLED),
    Code.PERMISSION_DENIED: (-2010, ACTION_DISABLED),
    Code.INVALID_ACCOUNT: (-2010, "This symbol is not permitted for this account."),
    Code.NO_REFERENCE_PRICE: (-2010, "No reference price for a market order yet."),
    Code.INVALID_DISPLAY_QTY: (-2010, "IcebergQty exceeds QTY."),
    Code.LIST_PRICE_RELATION: (-2010, "The relationship of the prices for the orders is not correct."),
    Code.INVALID_ORDER_LIST: (-1013, "Unsupported order combination"),
    Code.INVALID_LIST: (-2010, "Order is part of an order list."),
    Code.INVALID_COMBINATION: (-1013, "Unsupported order combination"),
    Code.INVALID_STP: (-1013, "This symbol does not allow the self-trade prevention mode."),
    Code.INVALID_TIME_IN_FORCE: (-1115, "Invalid timeInForce."),
    Code.INVALID_ORD_TYPE: (-1116, "Invalid orderType."),
    Code.INVALID_EXPIRE: (-1130, "Data sent for parameter 'goodTillDate' is not valid."),
    Code.UNKNOWN_INSTRUMENT: (-1121, "Invalid symbol."),
    Code.CANCEL_FAILED: (-2011, UNKNOWN_ORDER),
    Code.INVALID_GROUP: (-2010, "Another order of the list was refused."),
    Code.PENDING_REQUEST: (-2010, "Too many changes of this order under way."),
    Code.QTY_BELOW_FILLED: (-2038, "Order amend (quantity increase) is not supported."),
    Code.QTY_NOT_REDUCED: (-2038, "Order amend (quantity increase) is not supported."),
    Code.AMEND_LIMIT: (-2038, "Filter failure: MAX_NUM_ORDER_AMENDS"),
}


def reason(code: int) -> str:
    try:
        return wire.RejectCode(code).name
    except ValueError:
        return str(code)


def of_reject(code: int, limit: int = 0, *, server_time_ms: int = 0, limit_text: str | None = None) -> ApiError:
    """Return the error of an order that the exchange refused. `limit_text`: the bound that was passed, as text."""
    details: dict[str, Any] = {"reason": reason(code)}
    if limit_text is not None:
        details["limit"] = limit_text
    elif limit:
        details["limit"] = limit
    if code == Code.STALE_REQUEST:
        return stale(server_time_ms)
    if code in _BUSY:
        return unavailable()
    if code == Code.RATE_LIMIT or code == Code.THROTTLE_EXCEEDED:
        text = f"Too many new orders; current limit is {limit} orders per window."
        return ApiError(-1015, text, status=LIMITED, details=details, retry_after_s=1)
    if code in _FILTERS:
        return filter_failure(_FILTERS[code], **details)
    if code in _CLOSED:
        return ApiError(-1013, MARKET_CLOSED, details=details)
    number, text = _TEXTS.get(code, (-2010, f"Order was refused: {reason(code)}."))
    return ApiError(number, text, details=details)


def of_cancel_reject(code: int) -> ApiError:
    """Return the error of a cancel that the exchange refused."""
    if code == Code.CANCEL_RESTRICTED:
        return ApiError(-2011, "Order was not canceled due to cancel restrictions.", details={"reason": reason(code)})
    if code in _BUSY:
        return unavailable()
    if code == Code.RATE_LIMIT:
        return of_reject(code)
    return ApiError(-2011, UNKNOWN_ORDER, details={"reason": reason(code)})
