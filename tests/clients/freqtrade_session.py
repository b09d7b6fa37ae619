"""A session of an unmodified freqtrade: its own command with a configuration and a strategy, first dry, then for real.

Usage: python freqtrade_session.py FACTS_JSON, in an empty folder and in freqtrade's environment. The bot buys, sets a
stop on the exchange, sells when it has held for a while; what it wrote into its own database must be what the exchange
says.
"""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from market_maker import Account, MarketMaker

PAIR, SYMBOL = "BTC/USDT", "BTCUSDT"
DEADLINE_S = 300.0
DATABASE = "trades.sqlite"
STRATEGY = """
from datetime import timedelta
from freqtrade.strategy import IStrategy

class Always(IStrategy):
    INTERFACE_VERSION = 3
    timeframe = "1m"
    startup_candle_count = 0
    minimal_roi = {"0": 100}
    stoploss = -0.05
    order_types = {"entry": "limit", "exit": "limit", "stoploss": "limit", "stoploss_on_exchange": True}

    def populate_indicators(self, dataframe, metadata):
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        dataframe["enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        return dataframe

    def custom_exit(self, pair, trade, current_time, current_rate, current_profit, **kwargs):
        return "held" if current_time - trade.date_last_filled_utc > timedelta(seconds=10) else None
"""


def configuration(facts: dict, *, dry_run: bool) -> dict:
    rest, sockets = facts["rest"], facts["streams"].replace("//", "//stream@")
    base = rest.removesuffix("/api/v3")
    api = {"public": rest, "private": rest, "v1": f"{base}/api/v1", "dapiPublic": f"{base}/dapi/v1"}
    api |= {f"sapi{version}": f"{base}/sapi/v{number}" for version, number in (("", 1), ("V2", 2), ("V3", 3))}
    for kind in ("Public", "Private"):
        api |= {f"fapi{kind}{version}": f"{base}/fapi/v{n}" for version, n in (("", 1), ("V2", 2), ("V3", 3))}
    api["ws"] = {"spot": sockets, "ws-api": {"spot": facts["ws_api"]}}
    ccxt_config = {"options": {"fetchMarkets": {"types": ["spot"]}}, "urls": {"api": api}}
    pricing = {"price_side": "other", "use_order_book": True, "order_book_top": 1}
    return {
        "dry_run": dry_run, "dry_run_wallet": 10_000, "max_open_trades": 1, "stake_currency": "USDT",
        "stake_amount": 500, "strategy": "Always", "strategy_path": ".", "bot_name": "session",
        "entry_pricing": pricing, "exit_pricing": pricing, "initial_state": "running",
        "exchange": {
            "name": "binance", "key": facts["api_key"], "secret": facts["api_secret"], "enable_ws": True,
            "pair_whitelist": [PAIR], "ccxt_config": ccxt_config,
        },
        "pairlists": [{"method": "StaticPairList"}], "internals": {"process_throttle_secs": 2},
        "unfilledtimeout": {"entry": 5, "exit": 5, "unit": "minutes"},
    }  # fmt: skip


def rows(database: Path, query: str) -> list[dict]:
    """Return what the bot has written; nothing while it has not made its tables."""
    if not database.is_file():
        return []
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(query)]
        except sqlite3.OperationalError:
            return []


def run_bot(facts: dict, *, dry_run: bool) -> tuple[dict, list[dict]]:
    """Run the command until a trade has been opened and closed; return the trade and its orders."""
    name = "dry" if dry_run else "live"
    folder = Path(name)
    folder.mkdir()
    (folder / "Always.py").write_text(STRATEGY)
    (folder / "config.json").write_text(json.dumps(configuration(facts, dry_run=dry_run)))
    database, program = folder / DATABASE, Path(sys.executable).with_name("freqtrade")
    command = [str(program), "trade", "--config", "config.json", "--userdir", ".", "--db-url", f"sqlite:///{DATABASE}"]
    with (folder / "log").open("w") as log:
        bot = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + DEADLINE_S
        while not (closed := rows(database, "SELECT * FROM trades WHERE is_open = 0")):
            assert bot.poll() is None and time.monotonic() < end, (folder / "log").read_text()[-6000:]
            time.sleep(0.5)
    finally:
        bot.send_signal(signal.SIGINT)
        try:
            bot.wait(60)
        except subprocess.TimeoutExpired:
            bot.kill()
            bot.wait()
    trade = closed[0]
    return trade, rows(database, f"SELECT * FROM orders WHERE ft_trade_id = {trade['id']}")


def check_live(facts: dict, trade: dict, orders: list[dict]) -> None:
    """What the bot wrote down is what the exchange says."""
    account = Account(facts["rest"].removesuffix("/api/v3"), facts["api_key"], facts["api_secret"])
    sides = {order["ft_order_side"] for order in orders}
    assert {"buy", "sell", "stoploss"} <= sides, sides
    for order in orders:
        seen = account.call("GET", "/api/v3/order", symbol=SYMBOL, orderId=order["order_id"])
        ended = {"closed": "FILLED", "canceled": "CANCELED"}[order["status"]]
        assert seen["status"] == ended, (order, seen)
        assert float(seen["executedQty"]) == (order["filled"] or 0.0), (order, seen)
        assert (seen["type"] == "STOP_LOSS_LIMIT") == (order["ft_order_side"] == "stoploss"), seen
    bought = account.call("GET", "/api/v3/myTrades", symbol=SYMBOL)
    assert {str(each["orderId"]) for each in bought} == {each["order_id"] for each in orders if each["filled"]}
    assert account.call("GET", "/api/v3/openOrders", symbol=SYMBOL) == []
    assert trade["exit_reason"] == "held", trade


def main() -> None:
    facts = json.loads(sys.argv[1])
    account = Account(facts["rest"].removesuffix("/api/v3"), facts["api_key"], facts["api_secret"])
    with MarketMaker(facts, SYMBOL, bid="99990", ask="100000", quantity="1", trade="0.001"):
        dry, _ = run_bot(facts, dry_run=True)
        assert dry["exit_reason"] == "held", dry
        assert account.call("GET", "/api/v3/allOrders", symbol=SYMBOL) == [], "a dry run has placed an order"
        live, orders = run_bot(facts, dry_run=False)
        check_live(facts, live, orders)
    from freqtrade import __version__

    print(json.dumps({"version": __version__, "orders": [each["ft_order_side"] for each in orders]}))


if __name__ == "__main__":
    main()
