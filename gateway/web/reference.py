"""Assets, pairs, accounts and keys as the log defines them: the gateway's dictionary between text and numbers.

The history process keeps them in the store as JSON rows; a worker builds its Reference from those rows.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from gateway.web.decimals import to_text
from ringbuf.wire import messages as wire

# How a market state is called in exchangeInfo.
STATUS = {
    wire.MarketState.PRE_OPEN: "BREAK",
    wire.MarketState.AUCTION: "BREAK",
    wire.MarketState.CONTINUOUS: "TRADING",
    wire.MarketState.CANCEL_ONLY: "CANCEL_ONLY",
    wire.MarketState.HALTED: "HALT",
    wire.MarketState.CLOSED: "END_OF_DAY",
}


@functools.cache
def _symbol(native: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", native.upper())


@dataclass(slots=True)
class Asset:
    id: int
    symbol: str
    exponent: int

    def text(self, units: int) -> str:
        """Return an amount of internal units as decimal text."""
        return to_text(units, self.exponent)


@dataclass(slots=True)
class Limits:
    """InstrumentLimits and InstrumentRules; 0 = off, prices in ticks, quantities in lots, notional in quote units."""

    min_qty: int = 1
    max_qty: int = (1 << 53) - 1
    min_notional: int = 0
    max_notional: int = 0
    min_px: int = 1
    max_px: int = (1 << 53) - 1
    band_up_bps: int = 0
    band_down_bps: int = 0
    reference_px: int | None = None
    market_min_qty: int = 0
    market_max_qty: int = 0
    position_max: int = 0
    open_orders_max: int = 0
    algo_orders_max: int = 0
    iceberg_orders_max: int = 0
    order_lists_max: int = 0
    amends_max: int = 0
    iceberg_parts_max: int = 0
    trailing_above_min: int = 0
    trailing_above_max: int = 0
    trailing_below_min: int = 0
    trailing_below_max: int = 0
    bid_down_bps: int = 0
    ask_up_bps: int = 0
    stp_modes: int = 0
    notional_flags: int = 3


@dataclass(slots=True)
class Instrument:
    id: int
    native: str  # the exchange's own symbol, BTC-USDT
    base_asset: int
    quote_asset: int
    partition: int
    tick_size: int
    price_exponent: int
    lot_size: int
    qty_exponent: int
    quote_per_tick_lot: int
    base_per_lot: int
    state: int = int(wire.MarketState.CONTINUOUS)
    limits: Limits = field(default_factory=Limits)

    @property
    def symbol(self) -> str:
        """The name clients use: letters and digits only, BTCUSDT."""
        return _symbol(self.native)

    @property
    def status(self) -> str:
        return STATUS.get(wire.MarketState(self.state), "BREAK")

    def price_text(self, ticks: int | None) -> str:
        return to_text(0 if ticks is None else ticks * self.tick_size, self.price_exponent)

    def qty_text(self, lots: int) -> str:
        return to_text(lots * self.lot_size, self.qty_exponent)


@dataclass(slots=True)
class Account:
    id: int
    fee_tier: int = 0
    stp_group: int = 0
    open_orders_max: int = 0
    orders_per_10s: int = 0
    orders_per_day: int = 0
    created_ns: int = 0


@dataclass(slots=True)
class Key:
    id: str
    account: int
    permissions: int
    credential: int
    material: str  # 64 hex digits: public key, salt, or digest of an RSA public key

    def may(self, permission: wire.Permissions) -> bool:
        return bool(self.permissions & permission)


@dataclass(slots=True)
class FeeRates:
    tier: int
    instrument: int  # 0 = all pairs
    maker: int  # millionths
    taker: int


def to_row(thing: Asset | Instrument | Account | Key | FeeRates) -> tuple[str, str, dict[str, Any]]:
    """Return (kind, id, body) of a row of the store."""
    name = f"{thing.tier}/{thing.instrument}" if isinstance(thing, FeeRates) else str(thing.id)
    return type(thing).__name__, name, asdict(thing)


class Reference:
    """Everything by id and by name."""

    def __init__(self) -> None:
        self.assets: dict[int, Asset] = {}
        self.instruments: dict[int, Instrument] = {}
        self.accounts: dict[int, Account] = {}
        self.keys: dict[str, Key] = {}
        self.fees: dict[tuple[int, int], FeeRates] = {}
        self.by_symbol: dict[str, Instrument] = {}
        self.by_asset: dict[str, Asset] = {}

    @classmethod
    def of_rows(cls, rows: Iterable[tuple[str, dict[str, Any]]]) -> Reference:
        """Build it from (kind, body) rows."""
        made = cls()
        kinds: dict[str, type] = {kind.__name__: kind for kind in (Asset, Account, Key, FeeRates)}
        for kind, body in rows:
            if kind == Instrument.__name__:
                made.put(Instrument(**{**body, "limits": Limits(**body["limits"])}))
            else:
                made.put(kinds[kind](**body))
        return made

    def put(self, thing: Asset | Instrument | Account | Key | FeeRates) -> None:
        match thing:
            case Asset():
                self.assets[thing.id] = self.by_asset[thing.symbol] = thing
            case Instrument():
                self.instruments[thing.id] = thing
                self.by_symbol.setdefault(thing.symbol, thing)
                if self.by_symbol[thing.symbol].id == thing.id:
                    self.by_symbol[thing.symbol] = thing
            case Account():
                self.accounts[thing.id] = thing
            case Key():
                self.keys[thing.id] = thing
            case FeeRates():
                self.fees[(thing.tier, thing.instrument)] = thing

    def rates(self, account: int, instrument: int) -> tuple[int, int]:
        """Return (maker, taker) in millionths for an account on a pair."""
        tier = self.accounts[account].fee_tier if account in self.accounts else 0
        own = self.fees.get((tier, instrument)) or self.fees.get((tier, 0))
        return (own.maker, own.taker) if own is not None else (0, 0)

    def quote_text(self, instrument: Instrument, units: int) -> str:
        return self.assets[instrument.quote_asset].text(units)
