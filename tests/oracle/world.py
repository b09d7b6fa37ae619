"""The world random runs happen in: assets, instruments with odd scales, rich and poor accounts, several sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ringbuf.wire.messages import (
    AccountCreate,
    AccountLimits,
    AssetAdd,
    BalanceAdjust,
    BalanceKind,
    FeeTierSet,
    InstrumentAdd,
    InstrumentLimits,
    InstrumentRules,
    InstrumentVolatility,
    NotionalFlags,
    SessionCreate,
    SessionKind,
)
from tests.oracle.exchange import Exchange
from tests.oracle.tables import ADMIN_SESSION, UNLIMITED

BTC, USD, ETH = 1, 2, 3
WHALE_UNITS = 1 << 60
STEP_NS = 1_000


@dataclass(frozen=True, slots=True)
class Command:
    """One step of a run: a message or a tuple of linked ones; or a session is bound; or only time passes.

    `seq_shift` 0 = the session's next number, below = a duplicate, above = a gap; `gap_at` leaves one out before that
    frame of a group. `advance_ns` passes before the command, and `tick` asks for a tick then.
    """

    session: int
    message: Any
    seq_shift: int = 0
    bind: int = 0
    gap_at: int = 0
    advance_ns: int = STEP_NS
    age_us: int = 0
    tick: bool = False

    @property
    def messages(self) -> tuple[Any, ...]:
        return self.message if isinstance(self.message, tuple) else (self.message,)

    def frames(self, next_seq: int) -> list[tuple[int, Any]]:
        """Return the command's frames with their numbers, if the session's next number is `next_seq`."""
        first = max(1, next_seq + self.seq_shift)
        return [
            (first + index + (0 < self.gap_at <= index), message) for index, message in enumerate(self.messages)
        ]

    def __str__(self) -> str:
        if self.bind:
            return f"bind session {self.bind}"
        if self.tick:
            return f"tick after {self.advance_ns} ns"
        odd = {"shift": self.seq_shift, "gap at": self.gap_at, "age": self.age_us}
        told = "".join(f" {name} {value}" for name, value in odd.items() if value)
        return f"session {self.session}{told} after {self.advance_ns} ns: {self.message}"


@dataclass(frozen=True, slots=True)
class World:
    """What the setup made; the generator draws from it."""

    partitions: int
    orders_max: int
    # Room for what waits, icebergs, dated orders and legs, by partition; for lists; for quotes.
    entries_max: int = UNLIMITED
    lists_max: int = UNLIMITED
    quotes_max: int = UNLIMITED
    # Accounts that can afford a few orders only.
    is_poor: bool = False
    instruments: tuple[int, ...] = (1, 2, 3, 4)
    accounts: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    assets: tuple[int, ...] = (BTC, USD, ETH)
    # session -> account; two sessions each of accounts 1 and 2
    sessions: dict[int, int] = field(
        default_factory=lambda: {2: 1, 3: 1, 4: 2, 5: 2, 6: 3, 7: 4, 8: 5, 9: 6}
    )
    drop_copy_session: int = 10
    groups: dict[int, int] = field(default_factory=lambda: {2: 7, 3: 7, 5: 1})
    firms: dict[int, int] = field(default_factory=lambda: {1: 1, 2: 1, 3: 2, 4: 2})

    def exchange(self) -> Exchange:
        """Return the model with this world's room."""
        return Exchange(
            partitions=self.partitions,
            orders_max=self.orders_max,
            entries_max=self.entries_max,
            lists_max=self.lists_max,
            quotes_max=self.quotes_max,
        )


def limits_of(instrument_id: int, **changes: Any) -> InstrumentLimits:
    """Return the filters an instrument starts with, with changes."""
    filters: dict[int, dict[str, Any]] = {
        1: {"min_qty": 1, "max_qty": 60, "min_notional": 150, "max_notional": 5_500, "min_px": 80, "max_px": 125,
            "reference_px": 100, "band_up_bps": 1_500, "band_down_bps": 1_250},
        2: {"min_qty": 3, "max_qty": 1_000, "min_notional": 0, "max_notional": 0, "min_px": 0, "max_px": 600,
            "reference_px": 200, "band_up_bps": 2_500, "band_down_bps": 2_500},
        3: {"min_qty": 1, "max_qty": 1 << 60, "min_notional": 0, "max_notional": 0, "min_px": 1, "max_px": 1_000_000,
            "reference_px": None, "band_up_bps": 777, "band_down_bps": 333},
        4: {"min_qty": 1, "max_qty": 1 << 61, "min_notional": 0, "max_notional": 0, "min_px": 1, "max_px": 1 << 40,
            "reference_px": 1_000_003, "band_up_bps": 5_000_000, "band_down_bps": 10_000},
    }
    return InstrumentLimits(instrument_id=instrument_id, **(filters[instrument_id] | changes))


def rules_of(instrument_id: int, **changes: Any) -> InstrumentRules:
    """Return further filters of an instrument: of the first all are off, so that it has the widest orders.

    Where quantities may be huge, the parts of an iceberg are bounded: each part may be a trade.
    """
    filters: dict[int, dict[str, Any]] = {
        1: {},
        2: {"market_max_qty": 40, "iceberg_parts_max": 6, "trailing_above_min": 10, "trailing_above_max": 3_000,
            "trailing_below_min": 20, "trailing_below_max": 2_500, "day_end_second": 80_060, "bid_down_bps": 6_000,
            "ask_up_bps": 7_000},
        3: {"market_min_qty": 2, "notional_flags": NotionalFlags.MARKET_MAX, "amends_max": 2, "day_end_second": 80_600,
            "iceberg_parts_max": 40},
        4: {"notional_flags": NotionalFlags.MARKET_MIN, "iceberg_parts_max": 40},
    }
    return InstrumentRules(instrument_id=instrument_id, **(filters[instrument_id] | changes))


def volatility_of(instrument_id: int, **changes: Any) -> InstrumentVolatility:
    """Return a volatility band that runs leave now and then."""
    band = {"up_bps": 350, "down_bps": 250, "reference_ms": 4_000, "halt_ms": 1_500, "auction_ms": 2_500}
    return InstrumentVolatility(instrument_id=instrument_id, **(band | changes))


def _instrument(instrument_id: int, base: int, quote: int, *, tick: int, lot: int, partition: int) -> InstrumentAdd:
    return InstrumentAdd(
        tick_size=1,
        lot_size=1,
        quote_per_tick_lot=tick,
        base_per_lot=lot,
        base_asset_id=base,
        quote_asset_id=quote,
        assigned_partition=partition,
        symbol=f"PAIR{instrument_id}",
    )


def setup(world: World) -> list[Command]:
    """Return the commands that build the world."""
    second = min(2, world.partitions)
    messages: list[Any] = [AssetAdd(symbol=symbol, exponent=-8) for symbol in ("BTC", "USD", "ETH")]
    messages += [
        _instrument(1, BTC, USD, tick=1, lot=1_000, partition=1),
        _instrument(2, ETH, USD, tick=7, lot=3, partition=second),
        _instrument(3, ETH, BTC, tick=11, lot=97, partition=1),
        _instrument(4, BTC, USD, tick=1, lot=1, partition=second),
    ]
    messages += [limits_of(instrument_id) for instrument_id in world.instruments]
    messages += [rules_of(2), rules_of(3), rules_of(4), volatility_of(2)]
    for account_id in world.accounts:
        messages.append(
            AccountCreate(
                stp_group_id=world.groups.get(account_id, 0),
                firm_id=world.firms.get(account_id, 0),
                fee_tier=account_id % 3,
            )
        )
        open_orders_max = 4 if account_id == 6 else 100_000
        messages.append(
            AccountLimits(account_id=account_id, open_orders_max=open_orders_max, fee_tier=account_id % 3)
        )
    messages += [
        FeeTierSet(tier=0, maker_rate=1_000, taker_rate=2_500),
        FeeTierSet(tier=1, maker_rate=-300, taker_rate=1_777),
        FeeTierSet(tier=2, maker_rate=0, taker_rate=400),
        FeeTierSet(tier=1, instrument_id=2, maker_rate=-400, taker_rate=400),
        FeeTierSet(tier=2, instrument_id=3, maker_rate=33_333, taker_rate=99_999),
    ]
    messages += [SessionCreate(account_id=account_id) for account_id in world.sessions.values()]
    messages.append(SessionCreate(account_id=1, kind=SessionKind.DROP_COPY))
    funds = {1: 200_000, 2: 1_000_000, 3: 100_000, 4: 2_000, 5: WHALE_UNITS, 6: 50_000}
    for account_id in world.accounts:
        for asset_id in world.assets:
            units = funds[account_id] * (1 if asset_id == USD or account_id == 5 else 100)
            if world.is_poor:
                units = {USD: 5_000, BTC: 45_000, ETH: 150}[asset_id]
            messages.append(
                BalanceAdjust(account_id=account_id, asset_id=asset_id, amount=units, kind=BalanceKind.DEPOSIT)
            )
    commands = [Command(ADMIN_SESSION, message) for message in messages]
    commands += [Command(0, None, bind=session) for session in (*world.sessions, world.drop_copy_session)]
    return commands
