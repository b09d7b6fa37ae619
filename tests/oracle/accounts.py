"""Accounts, balances with holds, rates of requests, and the fee arithmetic."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from ringbuf.wire.messages import Side
from tests.oracle.choices import DAY_NS, DUST_ACCOUNT, HOUSE_ACCOUNT, RATE_SCALE, RATE_WINDOW_NS
from tests.oracle.records import ModelError


@dataclass(slots=True)
class Window:
    """How many requests were counted in the current window of a clock-aligned length."""

    length_ns: int
    number: int = 0
    count: int = 0

    def counted(self, stamp_ns: int) -> int:
        """Return the count of the window that `stamp_ns` lies in."""
        return self.count if self.number == stamp_ns // self.length_ns else 0

    def add(self, stamp_ns: int) -> None:
        number = stamp_ns // self.length_ns
        if self.number != number:
            self.number, self.count = number, 0
        self.count += 1

    def give_back(self) -> None:
        """Take back one of what the newest window counted."""
        self.count = max(0, self.count - 1)


@dataclass(slots=True)
class Account:
    account_id: int
    stp_group_id: int = 0
    firm_id: int = 0
    fee_tier: int = 0
    open_orders_max: int = 1 << 31
    orders_per_10s: int = 0
    orders_per_day: int = 0
    cancels_per_10s: int = 0
    is_locked: bool = False
    orders: Window = field(default_factory=lambda: Window(RATE_WINDOW_NS))
    orders_of_day: Window = field(default_factory=lambda: Window(DAY_NS))
    cancels: Window = field(default_factory=lambda: Window(RATE_WINDOW_NS))


@dataclass(frozen=True, slots=True)
class Fee:
    """A fee in units of the asset; negative: a rebate. `rounding` of its units were made by rounding alone."""

    units: int
    asset_id: int
    rounding: int = 0


class Ledger:
    """Available and held money per (account, asset), in internal units."""

    def __init__(self) -> None:
        self.available: dict[tuple[int, int], int] = defaultdict(int)
        self.held: dict[tuple[int, int], int] = defaultdict(int)
        self.deposits: dict[int, int] = defaultdict(int)

    def deposit(self, account_id: int, asset_id: int, units: int) -> None:
        """Money enters (or leaves, when negative) the exchange."""
        self.available[account_id, asset_id] += units
        self.deposits[asset_id] += units

    def hold(self, account_id: int, asset_id: int, units: int) -> None:
        self.available[account_id, asset_id] -= units
        self.held[account_id, asset_id] += units

    def release(self, account_id: int, asset_id: int, units: int) -> None:
        self.hold(account_id, asset_id, -units)

    def pay_from_hold(self, account_id: int, asset_id: int, *, released: int, paid: int) -> None:
        """End `released` units of hold: `paid` leave the account, the rest (price improvement) becomes available."""
        self.held[account_id, asset_id] -= released
        self.available[account_id, asset_id] += released - paid

    def receive(self, account_id: int, asset_id: int, units: int) -> None:
        self.available[account_id, asset_id] += units

    def charge(self, account_id: int, asset_id: int, fee: int, rounding: int) -> None:
        """The account pays the fee; the venue gets it but for the units that rounding made."""
        self.available[account_id, asset_id] -= fee
        self.available[HOUSE_ACCOUNT, asset_id] += fee - rounding
        self.available[DUST_ACCOUNT, asset_id] += rounding

    def check_signs(self) -> None:
        """Raise if an entry is negative."""
        for entries in (self.available, self.held):
            for (account_id, asset_id), units in entries.items():
                if units < 0:
                    raise ModelError(f"account {account_id} asset {asset_id}: {units} units")

    def check(self) -> None:
        """Raise if money was made or lost, or an entry is negative."""
        self.check_signs()
        sums: dict[int, int] = defaultdict(int)
        for entries in (self.available, self.held):
            for (_, asset_id), units in entries.items():
                sums[asset_id] += units
        for asset_id in sums.keys() | self.deposits.keys():
            if sums[asset_id] != self.deposits[asset_id]:
                raise ModelError(f"asset {asset_id}: {sums[asset_id]} units, deposited {self.deposits[asset_id]}")


def floor_div(numerator: int, denominator: int) -> int:
    return numerator // denominator


def ceil_div(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def fee_of(received: int, rate: int) -> int:
    """Round a fee up: the venue never gets less than its rate."""
    return ceil_div(received * rate, RATE_SCALE)


def rounding_of(received: int, rate: int) -> int:
    """Return the unit of a fee that only rounding made, if there is one."""
    return int(received * rate % RATE_SCALE != 0)


def rebate_of(received: int, rate: int, taker_rate: int) -> int:
    """Round a rebate down, and never pay more than the taker's fee of the same trade without its rounding."""
    return min(floor_div(received * -rate, RATE_SCALE), floor_div(received * taker_rate, RATE_SCALE))


def charged_fee(received: int, asset_id: int, rate: int) -> Fee:
    """Return the fee of one side that receives this much at a rate of 0 or more."""
    return Fee(fee_of(received, rate), asset_id, rounding_of(received, rate))


def trade_fees(
    *, taker_side: int, base_units: int, quote_units: int, assets: tuple[int, int], maker_rate: int, taker_rate: int
) -> tuple[Fee, Fee]:
    """Return (maker's, taker's) fee; `assets` is (base, quote). Each pays from the asset it receives."""
    buyer = (base_units, assets[0])
    seller = (quote_units, assets[1])
    taker_received, taker_asset = buyer if taker_side == Side.BUY else seller
    maker_received, maker_asset = seller if taker_side == Side.BUY else buyer
    taker_fee = charged_fee(taker_received, taker_asset, taker_rate)
    if maker_rate < 0:
        return Fee(-rebate_of(taker_received, maker_rate, taker_rate), taker_asset), taker_fee
    return charged_fee(maker_received, maker_asset, maker_rate), taker_fee
