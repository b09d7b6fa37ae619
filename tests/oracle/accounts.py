"""Balances with holds, and the fee arithmetic."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from ringbuf.wire.messages import Side
from tests.oracle.choices import HOUSE_ACCOUNT, RATE_SCALE
from tests.oracle.records import ModelError


@dataclass(slots=True)
class Account:
    account_id: int
    stp_group_id: int = 0
    firm_id: int = 0
    fee_tier: int = 0
    open_orders_max: int = 1 << 31


@dataclass(frozen=True, slots=True)
class TradeFees:
    """Fees of one trade; a negative maker fee is a rebate in the asset the taker receives."""

    taker_fee: int
    taker_asset: int
    maker_fee: int
    maker_asset: int


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

    def charge(self, account_id: int, asset_id: int, fee: int) -> None:
        self.available[account_id, asset_id] -= fee
        self.available[HOUSE_ACCOUNT, asset_id] += fee

    def check(self) -> None:
        """Raise if money was made or lost, or an entry is negative."""
        sums: dict[int, int] = defaultdict(int)
        for entries in (self.available, self.held):
            for (account_id, asset_id), units in entries.items():
                if units < 0:
                    raise ModelError(f"account {account_id} asset {asset_id}: {units} units")
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


def rebate_of(received: int, rate: int, taker_fee: int) -> int:
    """Round a rebate down, and never pay more than the taker's fee of the same trade."""
    return min(floor_div(received * -rate, RATE_SCALE), taker_fee)


def trade_fees(
    *, taker_side: int, base_units: int, quote_units: int, assets: tuple[int, int], maker_rate: int, taker_rate: int
) -> TradeFees:
    """Return both fees; `assets` is (base, quote). Each pays from the asset it receives."""
    buyer = (base_units, assets[0])
    seller = (quote_units, assets[1])
    taker_received, taker_asset = buyer if taker_side == Side.BUY else seller
    maker_received, maker_asset = seller if taker_side == Side.BUY else buyer
    taker_fee = fee_of(taker_received, taker_rate)
    if maker_rate < 0:
        return TradeFees(taker_fee, taker_asset, -rebate_of(taker_received, maker_rate, taker_fee), taker_asset)
    return TradeFees(taker_fee, taker_asset, fee_of(maker_received, maker_rate), maker_asset)
