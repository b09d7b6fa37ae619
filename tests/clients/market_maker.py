"""Somebody to trade with, for sessions of bots: keeps a book around a price and trades a little in it.

Plain HTTP and HMAC with nothing but the standard library, for whichever Python a bot needs.
"""

import hashlib
import hmac
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

EVERY_S = 2.0
TIMEOUT_S = 30.0


class Account:
    """Signed calls of one account."""

    def __init__(self, base: str, key: str, secret: str) -> None:
        self.base, self._key, self._secret = base, key, secret

    def call(self, method: str, path: str, **params: Any) -> Any:
        """Return the answer's body. Raises AssertionError when it is refused."""
        query = urllib.parse.urlencode({**params, "timestamp": int(time.time() * 1000), "recvWindow": 30_000})
        signature = hmac.new(self._secret.encode(), query.encode(), hashlib.sha256).hexdigest()
        url = f"{self.base}{path}?{query}&signature={signature}"
        request = urllib.request.Request(url, method=method, headers={"X-MBX-APIKEY": self._key})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path} {params}: {error.read().decode()}") from None

    def order(self, symbol: str, side: str, price: str, quantity: str) -> Any:
        terms = {"symbol": symbol, "side": side, "type": "LIMIT", "timeInForce": "GTC"}
        return self.call("POST", "/api/v3/order", **terms, price=price, quantity=quantity)


class MarketMaker:
    """Use as a context manager: a bid and an ask rest, and every two seconds there is a small trade."""

    def __init__(self, facts: dict[str, Any], symbol: str, *, bid: str, ask: str, quantity: str, trade: str) -> None:
        base = facts["rest"].removesuffix("/api/v3")
        self._maker = Account(base, facts["other_key"], facts["other_secret"])
        self._symbol, self._bid, self._ask = symbol, bid, ask
        self._quantity, self._trade = quantity, trade
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.trades = 0

    def __enter__(self) -> "MarketMaker":
        self._maker.order(self._symbol, "BUY", self._bid, self._quantity)
        self._maker.order(self._symbol, "SELL", self._ask, self._quantity)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._maker.call("DELETE", "/api/v3/openOrders", symbol=self._symbol)

    def _run(self) -> None:
        side = "BUY"
        while not self._stop.wait(EVERY_S):
            price = self._ask if side == "BUY" else self._bid
            self._maker.order(self._symbol, side, price, self._trade)
            side = "SELL" if side == "BUY" else "BUY"
            self.trades += 1
