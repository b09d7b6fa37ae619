"""A session of an unmodified cryptofeed, over TLS, which it insists on: books, trades, best prices, candles.

Usage: python cryptofeed_session.py FACTS_JSON, with SSL_CERT_FILE and REQUESTS_CA_BUNDLE naming the exchange's
certificate. The book that the library keeps must be the one REST tells.
"""

import asyncio
import json
import ssl
import sys
import time
import urllib.request
from decimal import Decimal

from cryptofeed import FeedHandler
from cryptofeed.connection import RestEndpoint, WebsocketEndpoint
from cryptofeed.defines import CANDLES, L2_BOOK, TICKER, TRADES
from cryptofeed.exchanges import Binance
from market_maker import Account, MarketMaker

PAIR, SYMBOL = "BTC-USDT", "BTCUSDT"
DEADLINE_S = 150.0


class Seen:
    """What the library has told."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys((L2_BOOK, TICKER, TRADES, CANDLES), 0)
        self.book = None

    async def on_book(self, book, _receipt) -> None:
        self.counts[L2_BOOK] += 1
        self.book = {side: dict(levels.to_dict()) for side, levels in (("b", book.book.bids), ("a", book.book.asks))}

    async def on_ticker(self, ticker, _receipt) -> None:
        assert ticker.bid < ticker.ask, ticker
        self.counts[TICKER] += 1

    async def on_trade(self, trade, _receipt) -> None:
        assert trade.amount > 0, trade
        self.counts[TRADES] += 1

    async def on_candle(self, candle, _receipt) -> None:
        assert candle.high >= candle.low > 0, candle
        self.counts[CANDLES] += 1


def depth(facts: dict) -> dict:
    context = ssl.create_default_context()
    url = f"{facts['rest']}/depth?symbol={SYMBOL}&limit=1000"
    with urllib.request.urlopen(url, timeout=30, context=context) as answer:
        body = json.loads(answer.read())
    sides = (("b", body["bids"]), ("a", body["asks"]))
    return {side: {Decimal(p): Decimal(q) for p, q in levels} for side, levels in sides}


async def session(facts: dict, seen: Seen) -> None:
    """Wait until everything has been told, then until book and REST agree while somebody changes the book."""
    account = Account(facts["rest"].removesuffix("/api/v3"), facts["api_key"], facts["api_secret"])
    end = time.monotonic() + DEADLINE_S
    while not all(seen.counts.values()):
        assert time.monotonic() < end, seen.counts
        await asyncio.sleep(0.2)
    for at in range(20):
        await asyncio.to_thread(account.order, SYMBOL, "BUY", str(99_000 + at), "0.01")
    await asyncio.to_thread(account.call, "DELETE", "/api/v3/openOrders", symbol=SYMBOL)
    await asyncio.to_thread(account.order, SYMBOL, "BUY", "98000", "0.5")
    while (told := await asyncio.to_thread(depth, facts)) != seen.book:
        assert time.monotonic() < end, (told, seen.book)
        await asyncio.sleep(0.2)
    assert told["b"][Decimal(98_000)] == Decimal("0.5")


def main() -> None:
    facts = json.loads(sys.argv[1])
    base = facts["rest"].removesuffix("/api/v3")
    Binance.websocket_endpoints = [WebsocketEndpoint(facts["streams"].removesuffix("/ws"))]
    Binance.rest_endpoints = [RestEndpoint(base, routes=Binance.rest_endpoints[0].routes)]
    seen = Seen()
    callbacks = {L2_BOOK: seen.on_book, TICKER: seen.on_ticker, TRADES: seen.on_trade, CANDLES: seen.on_candle}
    handler = FeedHandler(config={"log": {"filename": "cryptofeed.log", "level": "INFO"}, "uvloop": False})
    handler.add_feed(Binance(symbols=[PAIR], channels=list(callbacks), callbacks=callbacks, candle_closed_only=False))
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    handler.run(start_loop=False, install_signal_handlers=False)
    with MarketMaker(facts, SYMBOL, bid="99990", ask="100000", quantity="1", trade="0.001"):
        loop.run_until_complete(session(facts, seen))
    from importlib.metadata import version

    print(json.dumps({"version": version("cryptofeed"), "seen": seen.counts}))


if __name__ == "__main__":
    main()
