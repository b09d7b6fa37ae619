"""The account: balances, trades, commissions, prevented matches, amendments, counts, filters, private events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.web.api import (
    END_TIME,
    FROM_ID,
    LIMIT_1000,
    ORDER_ID,
    START_TIME,
    SYMBOL_OPTIONAL,
    SYMBOL_REQUIRED,
    Call,
    Endpoint,
    Kind,
    Param,
    Security,
)
from gateway.web.auth import to_us
from gateway.web.decimals import to_text
from gateway.web.errors import ApiError, bad_value, combination, missing
from gateway.web.orders import STP_MODES
from gateway.web.private_events import VECTOR_FORM, is_vector
from gateway.web.reference import Instrument, Reference
from gateway.web.store import StoreReader
from ringbuf.wire import messages as wire

DAY_US = 86_400_000_000
RATE_EXPONENT = -6  # fee rates are millionths


def day_range(call: Call) -> tuple[int | None, int | None]:
    """Return the call's time range. Raises ApiError -1127 above a day; without a symbol (an extension) it is free."""
    found, start, end = call.time_range(), call.get("startTime"), call.get("endTime")
    if "symbol" in call.values and start is not None and end is not None and to_us(end) - to_us(start) > DAY_US:
        raise ApiError(-1127, "More than 24 hours between startTime and endTime.")
    return found


async def balances(call: Call) -> list[tuple[str, str, str]]:
    """Return (asset, free, locked) of every asset there is."""
    gateway = call.gateway
    replies = await gateway.query(
        wire.BalanceReply, wire.BalanceQuery(request_id=gateway.request_id(), account_id=call.account)
    )
    held = {reply.asset_id: reply for reply in replies}
    rows = []
    for asset in sorted(gateway.reference.assets.values(), key=lambda asset: asset.symbol):
        reply = held.get(asset.id)
        free, locked = (0, 0) if reply is None else (reply.available, reply.held)
        rows.append((asset.symbol, asset.text(free), asset.text(locked)))
    return rows


def is_zero(text: str) -> bool:
    return not text.strip("0.")


async def account(call: Call) -> dict[str, Any]:
    gateway = call.gateway
    await gateway.caught_up()
    rows = await balances(call)
    if call.get("omitZeroBalances"):
        rows = [row for row in rows if not (is_zero(row[1]) and is_zero(row[2]))]
    maker, taker = gateway.reference.rates(call.account, 0)
    key = call.key
    assert key is not None  # a signed endpoint
    return {
        "makerCommission": maker // 100,  # 0.1 % is 10
        "takerCommission": taker // 100,
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": {
            "maker": to_text(maker, RATE_EXPONENT),
            "taker": to_text(taker, RATE_EXPONENT),
            "buyer": to_text(0, 0),
            "seller": to_text(0, 0),
        },
        "canTrade": key.may(wire.Permissions.TRADE),
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": call.time(gateway.now_us() * 1000),
        "accountType": "SPOT",
        "balances": [{"asset": asset, "free": free, "locked": locked} for asset, free, locked in rows],
        "permissions": ["SPOT"],
        "uid": call.account,
    }


def commission_rates(call: Call, instrument: Instrument) -> dict[str, str]:
    maker, taker = call.gateway.reference.rates(call.account, instrument.id)
    return {
        "maker": to_text(maker, RATE_EXPONENT),
        "taker": to_text(taker, RATE_EXPONENT),
        "buyer": to_text(0, 0),
        "seller": to_text(0, 0),
    }


async def commission(call: Call) -> dict[str, Any]:
    instrument = call.instrument()
    none = {name: to_text(0, 0) for name in ("maker", "taker", "buyer", "seller")}
    return {
        "symbol": instrument.symbol,
        "standardCommission": commission_rates(call, instrument),
        "specialCommission": none,
        "taxCommission": none,
        "discount": {
            "enabledForAccount": False, "enabledForSymbol": False, "discountAsset": "", "discount": to_text(0, 0),
        },
    }  # fmt: skip


async def my_trades(call: Call) -> list[dict[str, Any]]:
    """Fills of a pair, or of the whole account; oldest first."""
    gateway = call.gateway
    start_ns, end_ns = day_range(call)
    conditions, values = ["account = ?"], [call.account]
    if "symbol" in call.values:
        conditions.append("instrument = ?")
        values.append(call.instrument().id)
    elif "fromId" in call.values or "orderId" in call.values:
        raise missing("symbol")
    if "fromId" in call.values and (start_ns is not None or end_ns is not None):
        raise combination()
    bounds = (
        ("order_id = ?", call.get("orderId")),
        ("trade_id >= ?", call.get("fromId")),
        ("ts_ns >= ?", start_ns),
        ("ts_ns < ?", end_ns),
    )
    for condition, value in bounds:
        if value is not None:
            conditions.append(condition)
            values.append(value)
    await gateway.caught_up()
    newest = start_ns is None and "fromId" not in call.values
    turn = "DESC" if newest else "ASC"
    query = (
        "SELECT instrument, trade_id, order_id, list_id, price, qty, quote, fee, fee_asset, side, maker, ts_ns"
        f" FROM fills WHERE {' AND '.join(conditions)} ORDER BY {'' if 'symbol' in call.values else f'ts_ns {turn},'}"
        f" trade_id {turn} LIMIT {call.get('limit', 500):d}"
    )
    reference = gateway.reference
    rows = await gateway.read(lambda store: [_trade(call, reference, row) for row in store.rows(query, values)])
    return rows[::-1] if newest else rows


def _trade(call: Call, reference: Reference, row: tuple[Any, ...]) -> dict[str, Any]:
    instrument_id, trade_id, order_id, list_id, price, qty, quote, fee, fee_asset, side, maker, ts_ns = row
    instrument = reference.instruments[instrument_id]
    return {
        "symbol": instrument.symbol,
        "id": trade_id,
        "orderId": order_id,
        "orderListId": list_id,
        "price": instrument.price_text(price),
        "qty": instrument.qty_text(qty),
        "quoteQty": reference.quote_text(instrument, quote),
        "commission": reference.assets[fee_asset].text(fee),
        "commissionAsset": reference.assets[fee_asset].symbol,
        "time": call.time(ts_ns),
        "isBuyer": side == wire.Side.BUY,
        "isMaker": bool(maker),
        "isBestMatch": True,
    }


async def prevented_matches(call: Call) -> list[dict[str, Any]]:
    gateway = call.gateway
    instrument = call.instrument()
    conditions, values = ["account = ?", "instrument = ?"], [call.account, instrument.id]
    if "preventedMatchId" not in call.values and "orderId" not in call.values:
        raise missing("preventedMatchId")
    bounds = (
        ("match_id = ?", "preventedMatchId"), ("order_id = ?", "orderId"), ("match_id >= ?", "fromPreventedMatchId"),
    )  # fmt: skip
    for condition, name in bounds:
        if name in call.values:
            conditions.append(condition)
            values.append(call.get(name))
    await gateway.caught_up()
    sql = (
        "SELECT match_id, order_id, counter_order_id, price, qty, stp_mode, ts_ns FROM prevented WHERE "
        f"{' AND '.join(conditions)} ORDER BY match_id LIMIT {call.get('limit', 500):d}"
    )
    rows = await gateway.read(lambda store: store.rows(sql, values))
    return [
        {
            "symbol": instrument.symbol,
            "preventedMatchId": match_id,
            "takerOrderId": max(order_id, counter),
            "makerSymbol": instrument.symbol,
            "makerOrderId": min(order_id, counter),
            "tradeGroupId": call.account,
            "selfTradePreventionMode": STP_MODES[wire.StpMode(mode)],
            "price": instrument.price_text(price),
            "makerPreventedQuantity": instrument.qty_text(qty),
            "transactTime": call.time(ts_ns),
        }
        for match_id, order_id, counter, price, qty, mode, ts_ns in rows
    ]


async def amendments(call: Call) -> list[dict[str, Any]]:
    gateway = call.gateway
    instrument = call.instrument()
    await gateway.caught_up()
    sql = (
        "SELECT order_id, execution_id, orig_client_id, new_client_id, orig_qty, new_qty, ts_ns FROM amendments"
        " WHERE account = ? AND instrument = ? AND order_id = ? AND execution_id >= ? ORDER BY execution_id"
        f" LIMIT {call.get('limit', 500):d}"
    )
    values = (call.account, instrument.id, call.get("orderId"), call.get("fromExecutionId", 0))
    rows = await gateway.read(lambda store: store.rows(sql, values))
    return [
        {
            "symbol": instrument.symbol,
            "orderId": order_id,
            "executionId": execution,
            "origClientOrderId": old_id,
            "newClientOrderId": new_id,
            "origQty": instrument.qty_text(old),
            "newQty": instrument.qty_text(new),
            "time": call.time(ts_ns),
        }
        for order_id, execution, old_id, new_id, old, new, ts_ns in rows
    ]


async def order_counts(call: Call) -> list[dict[str, Any]]:
    used = call.gateway.limits.orders(call.account, 0)
    limits = call.gateway.config.limits
    return [
        {
            "rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10,
            "limit": limits.orders_per_10_seconds, "count": used.ten_seconds,
        },
        {
            "rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1,
            "limit": limits.orders_per_day, "count": used.day,
        },
    ]  # fmt: skip


async def limits(call: Call) -> list[dict[str, Any]]:
    """What this key may use, what is left, and when it begins anew."""
    gateway = call.gateway
    config = gateway.config.limits
    now_s = gateway.now_us() // 1_000_000
    orders = gateway.limits.orders(call.account, 0)
    used = int(call.headers.get("X-MBX-USED-WEIGHT-1M", 0))
    rows = (
        ("REQUEST_WEIGHT", "key", 60, config.weight_per_minute, used),
        ("ORDERS", "account", 10, config.orders_per_10_seconds, orders.ten_seconds),
        ("ORDERS", "account", 86_400, config.orders_per_day, orders.day),
    )
    return [
        {
            "limitType": kind, "scope": scope, "windowSeconds": window, "limit": limit, "used": count,
            "remaining": max(0, limit - count), "resetsAt": call.time((now_s // window + 1) * window * 1_000_000_000),
        }
        for kind, scope, window, limit, count in rows
        if limit
    ]  # fmt: skip


async def allocations(call: Call) -> list[dict[str, Any]]:
    """No order here is ever routed over several books, so there are none."""
    call.instrument()
    return []


async def events(call: Call) -> dict[str, Any]:
    """Private events after a vector {"partition": accountSeq}, and the vector to ask with next time."""
    gateway = call.gateway
    after = call.get("after", {})
    if not is_vector(after):
        raise bad_value("after", VECTOR_FORM)
    await gateway.caught_up()
    account, limit = call.account, call.get("limit", 500)
    return await gateway.read(lambda store: _events(store, account, after, limit))


def _events(store: StoreReader, account: int, after: Mapping[str, int], limit: int) -> dict[str, Any]:
    found, reached, lost = [], {}, {}
    with store.snapshot():
        vector = {str(partition): seq for partition, seq in store.vector(account).items()}
        for partition in sorted(vector, key=int):
            seen = after.get(partition, 0)
            kept = store.events_of(account, int(partition), seen, limit)
            first = kept[0].seq if kept else vector[partition] + 1
            if first > seen + 1:
                lost[partition] = [seen + 1, first - 1]
            reached[partition] = max(seen, first - 1)
            found += kept
    found = sorted(found, key=lambda event: event.id)[:limit]
    for event in found:
        reached[str(event.partition)] = event.seq
    return {
        "events": [orjson.loads(event.body) for event in found],
        "vector": reached,
        "newest": vector,
        "lost": lost,  # numbers that are no longer kept
    }


ENDPOINTS = (
    Endpoint(
        "GET", "/api/v3/account", "Balances and permissions", account, (Param("omitZeroBalances", Kind.BOOLEAN),),
        socket="account.status", security=Security.USER_DATA, weight=20,
    ),
    Endpoint(
        "GET", "/api/v3/account/commission", "Commission rates of a pair", commission, (SYMBOL_REQUIRED,),
        socket="account.commission", security=Security.USER_DATA, weight=20,
    ),
    Endpoint(
        "GET", "/api/v3/myTrades", "Fills of a pair, or of the whole account", my_trades,
        (SYMBOL_OPTIONAL, ORDER_ID, START_TIME, END_TIME, FROM_ID, LIMIT_1000), socket="myTrades",
        security=Security.USER_DATA, weight=lambda params: 5 if params.get("orderId") else 20, answer="array",
    ),
    Endpoint(
        "GET", "/api/v3/myPreventedMatches", "Matches that self-trade prevention prevented", prevented_matches,
        (
            SYMBOL_REQUIRED, Param("preventedMatchId", Kind.INTEGER, low=0), ORDER_ID,
            Param("fromPreventedMatchId", Kind.INTEGER, low=0), LIMIT_1000,
        ),
        socket="myPreventedMatches", security=Security.USER_DATA,
        weight=lambda params: 2 if params.get("preventedMatchId") else 20, answer="array",
    ),
    Endpoint(
        "GET", "/api/v3/myAllocations", "Allocations of routed orders", allocations,
        (SYMBOL_REQUIRED, START_TIME, END_TIME, LIMIT_1000), socket="myAllocations", security=Security.USER_DATA,
        weight=20, answer="array",
    ),
    Endpoint(
        "GET", "/api/v3/order/amendments", "Amendments of an order", amendments,
        (
            SYMBOL_REQUIRED, Param("orderId", Kind.INTEGER, required=True, low=0),
            Param("fromExecutionId", Kind.INTEGER, low=0), LIMIT_1000,
        ),
        socket="order.amendments", security=Security.USER_DATA, weight=4, answer="array",
    ),
    Endpoint(
        "GET", "/api/v3/rateLimit/order", "Unfilled orders counted", order_counts,
        socket="account.rateLimits.orders", security=Security.USER_DATA, weight=40, answer="array",
    ),
    Endpoint(
        "GET", "/api/v3/limits", "Limits of this key: used, remaining, reset", limits, socket="limits",
        security=Security.USER_DATA, weight=1, answer="array",
    ),
    Endpoint(
        "GET", "/api/v3/account/events", "Private events after a vector, for resuming", events,
        (Param("after", Kind.JSON, doc='what was seen: {"partition": accountSeq}'), LIMIT_1000),
        socket="account.events", security=Security.USER_DATA, weight=5,
    ),
)  # fmt: skip
