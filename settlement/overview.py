"""The books at a glance, as plain values: amounts as decimal text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from settlement.chart import Book
from settlement.decimals import decimal_text
from settlement.reader import Reader

RECONCILIATIONS_SHOWN = 10


def overview(reader: Reader, status: Mapping[str, Any]) -> dict[str, Any]:
    """Return status, trial balance, last reconciliations, last closed day, and how much is in transit.

    `balanced` says that every asset sums to zero over all books.
    """
    assets = {asset.asset: asset for asset in reader.assets()}
    rows, sums = [], dict.fromkeys(assets, 0)
    for row in reader.trial_balance():
        asset = assets[row.asset]
        sums[row.asset] += row.available + row.held
        rows.append(
            {
                "asset": asset.symbol,
                "book": Book(row.book).name.lower(),
                "available": decimal_text(row.available, asset.exponent),
                "held": decimal_text(row.held, asset.exponent),
                "accounts": row.accounts,
            }
        )
    transit = [
        {
            "book": Book(row.book).name.lower(),
            "reference": row.reference,
            "asset": assets[row.asset].symbol,
            "amount": decimal_text(abs(row.units), assets[row.asset].exponent),
            "since_ns": row.first_ns,
        }
        for row in reader.in_transit()
    ]
    days = reader.days()
    return {
        "status": dict(status),
        "position": reader.position,
        "trial_balance": rows,
        "sums": {assets[number].symbol: decimal_text(units, assets[number].exponent) for number, units in sums.items()},
        "balanced": not any(sums.values()),
        "reconciliations": [asdict(entry) for entry in reader.reconciliations(RECONCILIATIONS_SHOWN)],
        "last_closed_day": asdict(days[-1]) if days else None,
        "in_transit": transit,
    }
