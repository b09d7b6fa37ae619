"""`bullring demo`, which is what ./scripts/run starts: pairs, funded accounts and a lively market."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ringbuf.wire import messages as wire
from scripts.admin.account import create_account, credit
from scripts.admin.asset import add_asset
from scripts.admin.instrument import Pair, add_pair
from scripts.admin.key import create_ed25519_key
from scripts.admin.link import AdminLink
from scripts.admin.session import create_session
from scripts.amounts import to_units
from scripts.arguments import command_parser, config_of, duration_s
from scripts.config import CHECKOUT, Config, default_base
from scripts.exit_codes import CommandError, ExitCode
from scripts.feed_process import feed_addresses
from scripts.node import Node
from scripts.run_node import serve
from scripts.supervisor import Supervisor

ASSETS = {"BTC": 8, "ETH": 8, "SOL": 8, "USDT": 8}
PAIRS = (
    Pair("BTC-USDT", "BTC", "USDT", tick="0.01", lot="0.00001", partition=1, reference="100000", band_bps=1000),
    Pair("ETH-USDT", "ETH", "USDT", tick="0.01", lot="0.0001", partition=2, reference="4000", band_bps=1000),
    Pair("SOL-USDT", "SOL", "USDT", tick="0.01", lot="0.001", partition=2, reference="200", band_bps=1000),
    Pair("ETH-BTC", "ETH", "BTC", tick="0.00001", lot="0.001", partition=1, reference="0.04", band_bps=1000),
)
FUNDS = {"BTC": "1000", "ETH": "20000", "SOL": "200000", "USDT": "100000000"}
ACCOUNTS = ("maker-1", "maker-2", "taker-1", "taker-2", "you")
TRADERS = ACCOUNTS[:-1]
DEMO_FILE = "demo.json"
DEFAULT_ADDRESS = "127.0.0.1:9100"  # what `bullring client` takes when not told otherwise
MARKET_RESTART_S = 2.0
MARKET_STOP_S = 5.0


@dataclass(frozen=True)
class DemoAccount:
    """What a client needs to log on as one of the demo's accounts."""

    name: str
    account: int
    session: int
    key_id: str
    key_file: str


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("demo", "Run the exchange with pairs, funded accounts and a demo market.")
    parser.add_argument("--seconds", type=duration_s, metavar="N", help="end by itself after this time")
    parser.add_argument("--quiet-market", action="store_true", help="no demo traders: pairs and accounts only")
    parser.add_argument("--listen", metavar="HOST:PORT", help="address of order entry: gateway.binary.listen")
    options = parser.parse_args(arguments)
    if options.listen:
        options.set.append(f"gateway.binary.listen={options.listen}")
    config = config_of(options)

    def on_ready(supervisor: Supervisor) -> Callable[[bool], None] | None:
        node = supervisor.node
        assert node is not None
        accounts = prepare(config, node.engine.partitions)
        _announce(node, accounts, as_json=options.json)
        return None if options.quiet_market else MarketProcess(config)

    return serve(config, seconds=options.seconds, as_json=options.json, on_ready=on_ready)


# --- what the demo market trades with ---------------------------------------------------------------------------------


def prepare(config: Config, partitions: int) -> dict[str, DemoAccount]:
    """Create what is missing of assets, pairs and accounts; a reopened exchange keeps what it has."""
    with AdminLink.open(config) as link:
        known = link.assets()
        for symbol, decimals in ASSETS.items():
            if symbol not in known:
                add_asset(link, symbol, -decimals)
        instruments = link.instruments()
        for pair in PAIRS:
            if pair.symbol not in instruments:
                add_pair(link, _within(pair, partitions), partitions)
        return _prepare_accounts(link, config)


def _within(pair: Pair, partitions: int) -> Pair:
    return Pair(**{**asdict(pair), "partition": (pair.partition - 1) % partitions + 1})


def _prepare_accounts(link: AdminLink, config: Config) -> dict[str, DemoAccount]:
    accounts = load_accounts(config)
    existing = {reply.account_id for reply in link.accounts()}
    assets = link.assets()
    for name in ACCOUNTS:
        known = accounts.get(name)
        if known is not None and known.account in existing and Path(known.key_file).is_file():
            continue
        account = create_account(link)
        for symbol, amount in FUNDS.items():
            units = to_units(amount, assets[symbol].exponent, symbol)
            credit(link, account=account, asset=assets[symbol], units=units)
        key_id, key_file = create_ed25519_key(link, config, account, wire.Permissions.READ | wire.Permissions.TRADE)
        session = create_session(link, account)
        accounts[name] = DemoAccount(name, account, session, key_id, str(key_file))
        # After each: an interrupted first start leaves at most one account nobody uses.
        _save_accounts(config, accounts)
    return accounts


def load_accounts(config: Config) -> dict[str, DemoAccount]:
    path = config.data_dir / DEMO_FILE
    if not path.is_file():
        return {}
    try:
        return {name: DemoAccount(**facts) for name, facts in json.loads(path.read_text()).items()}
    except (ValueError, TypeError) as error:
        raise CommandError(
            f"{path} is damaged: {error}; remove it to have new demo accounts", ExitCode.BAD_INPUT
        ) from error


def _save_accounts(config: Config, accounts: dict[str, DemoAccount]) -> None:
    path = config.data_dir / DEMO_FILE
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({name: asdict(account) for name, account in accounts.items()}, indent=1))
    temporary.rename(path)


def _announce(node: Node, accounts: dict[str, DemoAccount], *, as_json: bool) -> None:
    config, you = node.config, accounts["you"]
    if as_json:
        facts = {
            "event": "ready",
            "binary_gateway": node.binary_address,
            "feed": feed_addresses(config, node.feed_ports),
            "admin_socket": str(config.admin_socket),
            "data": str(config.data_dir),
            "mode": config.node.mode,
            "epoch": node.epoch,
            "pairs": [pair.symbol for pair in PAIRS],
            "accounts": {name: asdict(account) for name, account in accounts.items()},
            "web": node.web_urls(),
        }
        print(json.dumps(facts), flush=True)
        return
    print(_welcome(node, you), flush=True)


def _welcome(node: Node, you: DemoAccount) -> str:
    config = node.config
    data = "" if config.data_dir == default_base() / ".bullring" else f" --data {config.data_dir}"
    address = "" if node.binary_address == DEFAULT_ADDRESS else f" --address {node.binary_address}"
    urls = node.web_urls()
    web = f"""  pages                 {urls["page"]} and {urls["page"]}operator
  REST                  {urls["rest"]}
  WebSocket API         {urls["ws_api"]}
""" if urls else ""  # fmt: skip
    watch = f"\n  see the book     bullring feed watch BTC-USDT{data}" if node.feed_ports else ""
    return f"""
The exchange is ready.
{web}  order entry (binary)  {node.binary_address}
{_feed_lines(node)}  admin socket          {config.admin_socket}
  data folder           {config.data_dir} (mode {config.node.mode}, epoch {node.epoch})
  pairs                 {", ".join(pair.symbol for pair in PAIRS)}

Try in another terminal (the command is .venv/bin/bullring):
  look             bullring stat --watch{data}{watch}
  place an order   bullring client{address} --session {you.session} --key-file {you.key_file} \\
                       place BTC-USDT buy 0.01 99000
  new account      bullring account create --fund BTC=10 --fund USDT=500000{data}
  key for it       bullring key create --account N --kind hmac{data}
Ctrl-C stops it; the state stays and the next start goes on with it.
"""


def _feed_lines(node: Node) -> str:
    feed = feed_addresses(node.config, node.feed_ports)
    text = ", ".join(f"{name} {address}" for name, address in feed.items())
    return f"  market feed           {text}\n" if feed else ""


class MarketProcess:
    """The demo traders, in a process of their own; started again when they lose the exchange."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._log = config.data_dir / "logs" / "demo_market.log"
        self._started = 0.0
        self._process = self._spawn()

    def __call__(self, stopping: bool) -> None:
        if stopping:
            self._stop()
        elif self._process.poll() is not None and time.monotonic() > self._started + MARKET_RESTART_S:
            self._process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._started = time.monotonic()
        command = [sys.executable, "-m", "scripts.demo_market", str(self._config.run_dir), str(os.getpid())]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=CHECKOUT
            )

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(MARKET_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
