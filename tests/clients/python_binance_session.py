"""A scripted session of an unmodified python-binance against a running exchange; as ccxt_session.py."""

import asyncio
import json
import sys

import binance
from binance.async_client import AsyncClient
from binance.client import Client
from binance.exceptions import BinanceAPIException
from binance.ws.depthcache import DepthCacheManager
from binance.ws.streams import BinanceSocketManager
from market_maker import MarketMaker

SYMBOL = "SOLUSDT"
BID, ASK = "179.00000000", "180.00000000"
WAIT_S = 60


def point_at(facts: dict) -> None:
    base = facts["rest"].removesuffix("/api/v3")
    for kind in (Client, AsyncClient):
        kind.API_URL = f"{base}/api"
        kind.MARGIN_API_URL = f"{base}/sapi"
        kind.FUTURES_URL = f"{base}/fapi"
        kind.WS_API_URL = facts["ws_api"]
    BinanceSocketManager.STREAM_URL = facts["streams"].removesuffix("ws")


def refused(code: int, act: object, **arguments: object) -> str:
    try:
        act(**arguments)
    except BinanceAPIException as error:
        assert error.code == code, (error.code, error.message)
        return error.message
    raise AssertionError(f"{arguments} was not refused")


def rest_session(facts: dict) -> dict:
    client = Client(facts["api_key"], facts["api_secret"])
    assert client.get_server_time()["serverTime"] > 0
    info = client.get_symbol_info(SYMBOL)
    assert info["filters"][0]["filterType"] == "PRICE_FILTER"
    order = client.order_limit_buy(symbol=SYMBOL, quantity="1", price="150", newClientOrderId="pb.1")
    assert order["status"] == "NEW" and order["clientOrderId"] == "pb.1"
    assert client.get_order(symbol=SYMBOL, origClientOrderId="pb.1")["orderId"] == order["orderId"]
    message = refused(-2010, client.order_limit_buy, symbol=SYMBOL, quantity="1", price="150", newClientOrderId="pb.1")
    assert message == "Duplicate order sent."
    assert len(client.get_open_orders(symbol=SYMBOL)) == 1
    canceled = client.cancel_order(symbol=SYMBOL, orderId=order["orderId"])
    assert canceled["status"] == "CANCELED"
    assert refused(-2011, client.cancel_order, symbol=SYMBOL, orderId=order["orderId"]) == "Unknown order sent."
    assert refused(-2013, client.get_order, symbol=SYMBOL, orderId=99999999) == "Order does not exist."
    refused(-1013, client.order_limit_buy, symbol=SYMBOL, quantity="0.0001", price="150")
    refused(-1121, client.get_order_book, symbol="NOSUCHPAIR")
    other = Client(facts["other_key"], facts["other_secret"])
    ask = client.order_limit_sell(symbol=SYMBOL, quantity="2", price="180")
    taken = other.order_market_buy(symbol=SYMBOL, quantity="0.5")
    assert taken["status"] == "FILLED" and taken["fills"][0]["price"] == "180.00000000"
    assert client.get_my_trades(symbol=SYMBOL)[-1]["isMaker"] is True
    client.cancel_order(symbol=SYMBOL, orderId=ask["orderId"])
    oco = client.create_oco_order(
        symbol=SYMBOL, side="SELL", quantity="1", aboveType="LIMIT_MAKER", abovePrice="210",
        belowType="STOP_LOSS_LIMIT", belowStopPrice="160", belowPrice="159", belowTimeInForce="GTC",
    )  # fmt: skip
    assert oco["contingencyType"] == "OCO" and len(oco["orderReports"]) == 2
    ended = client.cancel_order(symbol=SYMBOL, orderId=oco["orders"][0]["orderId"])
    assert ended["listOrderStatus"] == "ALL_DONE", ended
    assert client.get_account()["canTrade"]
    assert client.get_trade_fee(symbol=SYMBOL)[0]["symbol"] == SYMBOL
    candles = client.get_historical_klines(SYMBOL, Client.KLINE_INTERVAL_1MINUTE, limit=10)
    assert candles[-1][4] == "180.00000000"
    assert client.get_ticker(symbol=SYMBOL)["lastPrice"] == "180.00000000"
    return {"headers": sorted(name for name in client.response.headers if name.lower().startswith("x-mbx"))}


async def socket_session(facts: dict) -> dict:
    client = await AsyncClient.create(facts["api_key"], facts["api_secret"])
    try:
        manager = BinanceSocketManager(client)
        events = []
        async with manager.user_socket() as socket:
            placed = await client.ws_create_order(
                symbol=SYMBOL, side="BUY", type="LIMIT", timeInForce="GTC", quantity="1", price="140"
            )
            while not any(event.get("X") == "NEW" for event in events):
                event = await asyncio.wait_for(socket.recv(), 60)
                events.append(event.get("event", event))
            canceled = await client.ws_cancel_order(symbol=SYMBOL, orderId=placed["orderId"])
            assert canceled["status"] == "CANCELED"
            while not any(event.get("X") == "CANCELED" for event in events):
                event = await asyncio.wait_for(socket.recv(), 60)
                events.append(event.get("event", event))
        numbers = [event["accountSeq"] for event in events if "accountSeq" in event]
        assert numbers == sorted(set(numbers))
        return {"events": [event["e"] for event in events]}
    finally:
        await client.close_connection()


async def first(socket: object) -> dict:
    """Return the first message of a stream."""
    async with socket as stream:
        return await asyncio.wait_for(stream.recv(), WAIT_S)


async def stream_session(facts: dict) -> dict:
    """Public streams: trades, candles, best prices, all pairs at once, and the book that the library keeps itself."""
    client = await AsyncClient.create(facts["api_key"], facts["api_secret"])
    try:
        manager = BinanceSocketManager(client)
        with MarketMaker(facts, SYMBOL, bid=BID, ask=ASK, quantity="50", trade="0.5"):
            sockets = {
                "trade": manager.trade_socket(SYMBOL),
                "aggTrade": manager.aggtrade_socket(SYMBOL),
                "kline": manager.kline_socket(SYMBOL, interval="1m"),
                "depthUpdate": manager.depth_socket(SYMBOL, interval=100),
                "24hrTicker": manager.symbol_ticker_socket(SYMBOL),
            }
            told = dict(zip(sockets, await asyncio.gather(*map(first, sockets.values())), strict=True))
            assert {name: message["e"] for name, message in told.items()} == {name: name for name in sockets}, told
            assert told["trade"]["p"] in (BID, ASK) and told["kline"]["k"]["c"] in (BID, ASK), told
            partial, both = await asyncio.gather(
                first(manager.depth_socket(SYMBOL, depth="5", interval=100)),
                first(manager.multiplex_socket([f"{SYMBOL.lower()}@bookTicker", "!miniTicker@arr"])),
            )
            assert (partial["bids"][0][0], partial["asks"][0][0]) == (BID, ASK), partial
            assert both["stream"] in (f"{SYMBOL.lower()}@bookTicker", "!miniTicker@arr"), both
            async with DepthCacheManager(client, symbol=SYMBOL) as cache:
                for _ in range(3):
                    book = await asyncio.wait_for(cache.recv(), WAIT_S)
                assert book.get_bids()[0][0] == float(BID) and book.get_asks()[0][0] == float(ASK), book.get_bids()
        return {"streams": sorted(told)}
    finally:
        await client.close_connection()


def main() -> None:
    facts = json.loads(sys.argv[1])
    point_at(facts)
    result = rest_session(facts)
    if "sockets" in facts["parts"]:
        result |= asyncio.run(socket_session(facts))
    if "streams" in facts["parts"]:
        result |= asyncio.run(stream_session(facts))
    print(json.dumps({"version": binance.__version__ if hasattr(binance, "__version__") else "", **result}))


if __name__ == "__main__":
    main()
