"""A scripted session of an unmodified ccxt (and ccxt.pro) against a running exchange: run in an environment of its own.

Usage: python ccxt_session.py FACTS_JSON; prints one JSON object of what it saw, or fails with what was wrong.
"""

import asyncio
import json
import sys

import ccxt
import ccxt.pro
from market_maker import MarketMaker

PAIR, SYMBOL = "ETH/USDT", "ETHUSDT"
BID, ASK = 3630.0, 3650.0
WAIT_S = 60


def options(facts: dict) -> dict:
    rest, sockets = facts["rest"], facts["streams"].replace("//", "//stream@")
    base = rest.removesuffix("/api/v3")
    return {
        "apiKey": facts["api_key"],
        "secret": facts["api_secret"],
        "options": {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False},
        "urls": {
            "api": {
                "public": rest,
                "private": rest,
                "v1": f"{base}/api/v1",
                "sapi": f"{base}/sapi/v1",
                "sapiV2": f"{base}/sapi/v2",
                "sapiV3": f"{base}/sapi/v3",
                "fapiPublic": f"{base}/fapi/v1",
                "fapiPublicV2": f"{base}/fapi/v2",
                "fapiPublicV3": f"{base}/fapi/v3",
                "fapiPrivate": f"{base}/fapi/v1",
                "fapiPrivateV2": f"{base}/fapi/v2",
                "fapiPrivateV3": f"{base}/fapi/v3",
                "dapiPublic": f"{base}/dapi/v1",
                "ws": {
                    "spot": sockets,
                    "linear": sockets,
                    "ws-api": {"spot": facts["ws_api"], "linear": facts["ws_api"]},
                },
            }
        },
    }


def refused(exchange: ccxt.binance, kind: type, *arguments: object, **params: object) -> str:
    """Return the text of the refusal, which must be of that kind."""
    try:
        exchange.create_order(*arguments, params)
    except kind as error:
        return str(error)
    raise AssertionError(f"{arguments} was not refused")


def rest_session(exchange: ccxt.binance) -> dict:
    markets = exchange.load_markets()
    market = markets[PAIR]
    assert market["spot"] and market["active"]
    assert exchange.fetch_status()["status"] == "ok"
    assert exchange.fetch_time() > 0
    before = exchange.fetch_balance()
    price = float(exchange.price_to_precision(PAIR, 3700))
    order = exchange.create_order(PAIR, "limit", "buy", 0.5, price)
    assert order["status"] == "open" and order["filled"] == 0
    held = exchange.fetch_balance()
    assert abs(held["USDT"]["used"] - before["USDT"]["used"] - 0.5 * price) < 1e-6
    assert order["id"] in [each["id"] for each in exchange.fetch_open_orders(PAIR)]
    seen = exchange.fetch_order(order["id"], PAIR)
    assert seen["clientOrderId"] == order["clientOrderId"]
    edited = exchange.edit_order(order["id"], PAIR, "limit", "buy", 0.4, price - 10)
    assert exchange.fetch_order(order["id"], PAIR)["status"] == "canceled"
    canceled = exchange.cancel_order(edited["id"], PAIR)
    assert canceled["status"] == "canceled"
    for amount in (0.1, 0.2):
        exchange.create_order(PAIR, "limit", "buy", amount, price, {"postOnly": True})
    assert len(exchange.cancel_all_orders(PAIR)) == 2
    stop = exchange.create_order(PAIR, "limit", "sell", 0.1, 3650, {"stopLossPrice": 3700})
    assert exchange.fetch_order(stop["id"], PAIR)["stopPrice"] == 3700
    exchange.cancel_order(stop["id"], PAIR)
    errors = [
        refused(exchange, ccxt.InsufficientFunds, PAIR, "limit", "buy", 1_000_000, price),
        refused(exchange, ccxt.InvalidOrder, PAIR, "limit", "buy", 0.5, 9000),
    ]
    try:
        exchange.fetch_order("999999999", PAIR)
        raise AssertionError("an unknown order was found")
    except ccxt.OrderNotFound:
        pass
    return {"markets": len(markets), "errors": errors}


def trade(exchange: ccxt.binance, other: ccxt.binance) -> dict:
    """Two accounts trade with one another at a price of their own."""
    resting = other.create_order(PAIR, "limit", "sell", 0.3, 3650)
    refused(exchange, ccxt.OrderImmediatelyFillable, PAIR, "limit", "buy", 0.3, 3650, postOnly=True)
    bought = exchange.create_order(PAIR, "limit", "buy", 0.3, 3650)
    assert bought["status"] == "closed" and bought["filled"] == 0.3, bought
    assert len(bought["trades"]) == 1
    mine = exchange.fetch_my_trades(PAIR)
    assert mine[-1]["order"] == bought["id"] and mine[-1]["takerOrMaker"] == "taker"
    assert other.fetch_order(resting["id"], PAIR)["status"] == "closed"
    assert exchange.fetch_trades(PAIR)[-1]["price"] == 3650
    assert exchange.fetch_ohlcv(PAIR, "1m")[-1][4] == 3650
    ticker = exchange.fetch_ticker(PAIR)
    assert ticker["last"] == 3650
    book = exchange.fetch_order_book(PAIR, 20)
    assert book["nonce"] is not None
    by_amount = other.create_order(PAIR, "limit", "buy", 1, 3640)
    sold = exchange.create_order(PAIR, "market", "sell", None, None, {"cost": 364})
    assert abs(sold["cost"] - 364) < 1e-6, sold
    other.cancel_order(by_amount["id"], PAIR)
    return {"trades": len(mine)}


async def socket_session(facts: dict, other: ccxt.binance) -> dict:
    """Private events and order entry over the WebSocket API."""
    exchange = ccxt.pro.binance(options(facts))
    try:
        await exchange.load_markets()
        orders = asyncio.create_task(exchange.watch_orders(PAIR))
        balance = asyncio.create_task(exchange.watch_balance())
        placed = []  # ccxt does not say when its subscription is answered: place until it has told of one
        while not (orders.done() and balance.done()) and len(placed) < 30:
            placed.append(await exchange.create_order_ws(PAIR, "limit", "buy", 0.2, 3600))
            await asyncio.wait({orders, balance}, timeout=2, return_when=asyncio.ALL_COMPLETED)
        seen = await asyncio.wait_for(orders, 60)
        assert seen[-1]["id"] in [order["id"] for order in placed], seen
        held = await asyncio.wait_for(balance, 60)
        assert held["USDT"]["used"] > 0
        for order in placed:
            fetched = await exchange.fetch_order_ws(order["id"], PAIR)
            assert fetched["status"] == "open"
            canceled = await exchange.cancel_order_ws(order["id"], PAIR)
            assert canceled["status"] == "canceled"
        await exchange.fetch_balance_ws()
        return {"socketOrders": len(placed)}
    finally:
        await exchange.close()


async def stream_session(facts: dict) -> dict:
    """Public streams: the books, trades, candles and prices that the library keeps are what REST says."""
    exchange = ccxt.pro.binance(options(facts))
    told = {}
    try:
        await exchange.load_markets()
        with MarketMaker(facts, SYMBOL, bid=str(BID), ask=str(ASK), quantity="5", trade="0.01"):
            trades = await asyncio.wait_for(exchange.watch_trades(PAIR), WAIT_S)
            assert {trade["price"] for trade in trades} <= {BID, ASK}, trades
            candles = await asyncio.wait_for(exchange.watch_ohlcv(PAIR, "1m"), WAIT_S)
            assert candles[-1][4] in (BID, ASK), candles
            ticker = await asyncio.wait_for(exchange.watch_ticker(PAIR), WAIT_S)
            assert ticker["last"] in (BID, ASK), ticker
            best = await asyncio.wait_for(exchange.watch_bids_asks([PAIR]), WAIT_S)
            assert (best[PAIR]["bid"], best[PAIR]["ask"]) == (BID, ASK), best
            for _ in range(5):
                book = await asyncio.wait_for(exchange.watch_order_book(PAIR), WAIT_S)
                assert book["bids"][0][0] <= BID < ASK <= book["asks"][0][0], book
            told = {"nonce": book["nonce"], "trades": len(trades)}
        async with asyncio.timeout(WAIT_S):  # nobody trades any more: both must come to rest at the same book
            while True:
                book = await exchange.watch_order_book(PAIR)
                rest = await exchange.fetch_order_book(PAIR, 100)
                if book["nonce"] == rest["nonce"]:
                    break
        assert [list(level) for level in book["bids"]] == rest["bids"], (book, rest)
        assert [list(level) for level in book["asks"]] == rest["asks"], (book, rest)
        return told
    finally:
        await exchange.close()


def main() -> None:
    facts = json.loads(sys.argv[1])
    exchange = ccxt.binance(options(facts))
    other = ccxt.binance(options(facts | {"api_key": facts["other_key"], "api_secret": facts["other_secret"]}))
    other.load_markets()
    result = rest_session(exchange) | trade(exchange, other)
    if "sockets" in facts["parts"]:
        result |= asyncio.run(socket_session(facts, other))
    if "streams" in facts["parts"]:
        result |= asyncio.run(stream_session(facts))
    print(json.dumps({"version": ccxt.__version__, **result}))


if __name__ == "__main__":
    main()
