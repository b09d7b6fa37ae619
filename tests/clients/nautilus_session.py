"""A session of an unmodified nautilus_trader: a live node with a strategy of its own, by its Binance adapter.

Usage: python nautilus_session.py FACTS_JSON. The strategy waits for book, quotes, trades and a bar; buys at the market,
rests a limit and a stop order and cancels them, is refused once, and sells again. What the node believes at its end
must be what the exchange says.
"""

import asyncio
import json
import sys
from decimal import Decimal
from typing import Any

import nautilus_trader
from market_maker import Account, MarketMaker
from nautilus_trader.adapters.binance import (
    BinanceAccountType,
    BinanceDataClientConfig,
    BinanceExecClientConfig,
    BinanceInstrumentProviderConfig,
    BinanceLiveDataClientFactory,
    BinanceLiveExecClientFactory,
)
from nautilus_trader.config import LiveExecEngineConfig, LoggingConfig, StrategyConfig, TradingNodeConfig
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model import BarType, InstrumentId
from nautilus_trader.model.enums import BookType, OrderSide, OrderStatus
from nautilus_trader.trading.strategy import Strategy

SYMBOL = "ETHUSDT"
INSTRUMENT = InstrumentId.from_str(f"{SYMBOL}.BINANCE")
BARS = BarType.from_str(f"{INSTRUMENT}-1-MINUTE-LAST-EXTERNAL")
DEADLINE_S = 150.0
BID, ASK = "3999", "4000"
STEPS = ["bought", "rests", "canceled", "waits", "stop canceled", "refused", "sold"]
AWAITED = ("book", "quote", "trade", "bar")


class SessionConfig(StrategyConfig, frozen=True):
    """Nothing to choose."""


class Session(Strategy):
    """Goes on with each event; `done` is set at the end."""

    def __init__(self, config: SessionConfig) -> None:
        super().__init__(config)
        self.seen: set[str] = set()
        self.steps: list[str] = []
        self.done = asyncio.Event()
        self.resting: Any = None
        self.stop_order: Any = None
        self.bought: Any = None
        self.refused: Any = None
        self.sold: Any = None

    def on_start(self) -> None:
        self.instrument = self.cache.instrument(INSTRUMENT)
        self.subscribe_order_book_deltas(INSTRUMENT, book_type=BookType.L2_MBP)
        self.subscribe_quote_ticks(INSTRUMENT)
        self.subscribe_trade_ticks(INSTRUMENT)
        self.subscribe_bars(BARS)

    def on_order_book_deltas(self, deltas: Any) -> None:
        self._saw("book")

    def on_quote_tick(self, tick: Any) -> None:
        self._saw("quote")

    def on_trade_tick(self, tick: Any) -> None:
        self._saw("trade")

    def on_bar(self, bar: Any) -> None:
        self._saw("bar")

    def _saw(self, what: str) -> None:
        self.seen.add(what)
        if self.bought is None and self.seen >= set(AWAITED):
            self.bought = self.order_factory.market(INSTRUMENT, OrderSide.BUY, self.quantity("0.5"))
            self.submit_order(self.bought)

    def quantity(self, text: str) -> Any:
        return self.instrument.make_qty(Decimal(text))

    def price(self, text: str) -> Any:
        return self.instrument.make_price(Decimal(text))

    def on_event(self, event: Any) -> None:
        name = type(event).__name__
        if not name.startswith("Order"):
            return
        if event.client_order_id == getattr(self.bought, "client_order_id", None) and name == "OrderFilled":
            self.step("bought")
            self.resting = self.order_factory.limit(INSTRUMENT, OrderSide.BUY, self.quantity("0.3"), self.price("3900"))
            self.submit_order(self.resting)
        elif event.client_order_id == getattr(self.resting, "client_order_id", None):
            self._rests(name)
        elif event.client_order_id == getattr(self.stop_order, "client_order_id", None):
            self._waits(name)
        elif event.client_order_id == getattr(self.refused, "client_order_id", None) and name == "OrderRejected":
            self.step("refused")  # once: not by the answer and by an event again
            self.sold = self.order_factory.market(INSTRUMENT, OrderSide.SELL, self.quantity("0.5"))
            self.submit_order(self.sold)
        elif event.client_order_id == getattr(self.sold, "client_order_id", None) and name == "OrderFilled":
            self.step("sold")
            self.done.set()

    def _rests(self, name: str) -> None:
        if name == "OrderAccepted":
            self.step("rests")
            self.cancel_order(self.resting)
        elif name == "OrderCanceled":
            self.step("canceled")
            self.stop_order = self.order_factory.stop_limit(
                INSTRUMENT, OrderSide.SELL, self.quantity("0.2"), self.price("3890"), self.price("3900")
            )
            self.submit_order(self.stop_order)

    def _waits(self, name: str) -> None:
        if name == "OrderAccepted":
            self.step("waits")
            self.cancel_order(self.stop_order)
        elif name == "OrderCanceled":
            self.step("stop canceled")
            price, quantity = self.price("9000"), self.quantity("0.3")  # above the band
            self.refused = self.order_factory.limit(INSTRUMENT, OrderSide.BUY, quantity, price)
            self.submit_order(self.refused)

    def step(self, name: str) -> None:
        self.steps.append(name)


def make_node(facts: dict, loop: asyncio.AbstractEventLoop) -> TradingNode:
    rest = facts["rest"].removesuffix("/api/v3")
    common = {
        "api_key": facts["api_key"], "api_secret": facts["api_secret"], "account_type": BinanceAccountType.SPOT,
        "base_url_http": rest,
        "instrument_provider": BinanceInstrumentProviderConfig(load_ids=frozenset([INSTRUMENT])),
    }  # fmt: skip
    streams = facts["streams"].removesuffix("/ws")
    node = TradingNode(
        TradingNodeConfig(
            trader_id="SESSION-001",
            logging=LoggingConfig(log_level="INFO", log_colors=False),
            exec_engine=LiveExecEngineConfig(reconciliation=True),
            data_clients={"BINANCE": BinanceDataClientConfig(base_url_ws=streams, **common)},
            exec_clients={"BINANCE": BinanceExecClientConfig(base_url_ws=facts["ws_api"], **common)},
        ),
        loop=loop,
    )
    node.add_data_client_factory("BINANCE", BinanceLiveDataClientFactory)
    node.add_exec_client_factory("BINANCE", BinanceLiveExecClientFactory)
    return node


def check(facts: dict, strategy: Session) -> None:
    """What the node believes is what the exchange says."""
    account = Account(facts["rest"].removesuffix("/api/v3"), facts["api_key"], facts["api_secret"])
    wanted = {
        strategy.bought: ("FILLED", OrderStatus.FILLED), strategy.sold: ("FILLED", OrderStatus.FILLED),
        strategy.resting: ("CANCELED", OrderStatus.CANCELED),
        strategy.stop_order: ("CANCELED", OrderStatus.CANCELED),
    }  # fmt: skip
    for order, (status, believed) in wanted.items():
        seen = account.call("GET", "/api/v3/order", symbol=SYMBOL, orderId=str(order.venue_order_id))
        assert (seen["status"], order.status) == (status, believed), (seen, order)
        assert Decimal(seen["executedQty"]) == order.filled_qty.as_decimal(), (seen, order)
    book = strategy.cache.order_book(INSTRUMENT)
    assert (book.best_bid_price().as_decimal(), book.best_ask_price().as_decimal()) == (Decimal(BID), Decimal(ASK))
    assert strategy.refused.status == OrderStatus.REJECTED
    assert account.call("GET", "/api/v3/openOrders", symbol=SYMBOL) == []
    balances = {row["asset"]: row for row in account.call("GET", "/api/v3/account")["balances"]}
    believed = strategy.portfolio.account(INSTRUMENT.venue).balances()
    for currency, balance in believed.items():
        if str(currency) in ("ETH", "USDT"):
            assert balance.free.as_decimal() == Decimal(balances[str(currency)]["free"]), (balance, balances)


async def session(node: TradingNode, strategy: Session, facts: dict) -> dict:
    running = asyncio.create_task(node.run_async())
    waiting = asyncio.create_task(strategy.done.wait())
    try:
        await asyncio.wait({running, waiting}, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        assert strategy.done.is_set(), (sorted(strategy.seen), strategy.steps)
        await asyncio.sleep(1)  # the account's last state may come after the fill
        await asyncio.to_thread(check, facts, strategy)
    finally:
        waiting.cancel()
        await node.stop_async()
        await asyncio.wait({running}, timeout=30)
    assert strategy.steps == STEPS, strategy.steps
    return {"seen": sorted(strategy.seen), "steps": strategy.steps}


def main() -> None:
    facts = json.loads(sys.argv[1])
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    node, strategy = make_node(facts, loop), Session(SessionConfig())
    node.trader.add_strategy(strategy)
    node.build()
    try:
        with MarketMaker(facts, SYMBOL, bid=BID, ask=ASK, quantity="20", trade="0.01"):
            result = loop.run_until_complete(session(node, strategy, facts))
    finally:
        node.dispose()
    print(json.dumps({"version": nautilus_trader.__version__, **result}))


if __name__ == "__main__":
    main()
